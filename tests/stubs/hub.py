#!/usr/bin/env python3
"""A stub Hugging Face Hub for dataset repositories, for push, version and load tests.

It keeps everything in memory, needs only the standard library, and speaks the
parts of the Hub's HTTP interface that `huggingface_hub` and `datasets` use on
dataset repos over the LFS path, so set HF_HUB_DISABLE_XET=1:

    python hub.py --port 8090 --token secret &
    HF_ENDPOINT=http://127.0.0.1:8090 HF_HUB_DISABLE_XET=1 HF_TOKEN=secret hf repo create ...

create repo, preupload, LFS batch and upload, commit (with parentCommit, so a
lost race answers 412), branches, tags, refs, tree, paths-info, revision info,
resolve (HEAD, GET, ranges), whoami. GET /_stub/state shows repos, commits, tags.

Faults: --fail 0.2 answers that share of API calls with 503 before doing
anything; --cut-uploads N drops the connection in the middle of the first N
uploads; a request without the token gets 401, and to another owner's name 403.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import random
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlparse


def oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Repo:
    def __init__(self, repo_id: str, private: bool) -> None:
        self.id, self.private = repo_id, private
        root = hashlib.sha1(repo_id.encode()).hexdigest()
        self.commits: dict[str, dict] = {
            root: {
                "parent": None,
                "title": "initial commit",
                "files": {},
                "at": time.time(),
            }
        }
        self.branches = {"main": root}
        self.tags: dict[str, str] = {}

    def resolve(self, revision: str) -> str | None:
        for refs in (self.branches, self.tags):
            if revision in refs:
                return refs[revision]
        return next(
            (c for c in self.commits if len(revision) >= 7 and c.startswith(revision)),
            None,
        )


class Hub:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.lock = args, threading.RLock()
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}  # LFS objects by sha256
        self.rng = random.Random(args.seed)
        self.cuts_left = args.cut_uploads
        self.races_left = args.race
        self.calls: dict[str, int] = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_) -> None:
        pass

    # answers
    def send(
        self,
        status: int,
        body: bytes | dict | list = b"",
        headers: dict | None = None,
        kind: str = "application/json",
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for k, v in (headers or {}).items():
            self.send_header(k, v)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def error(
        self,
        status: int,
        message: str,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        headers = {"X-Error-Message": message}
        if retry_after is not None:
            headers["Retry-After"] = str(retry_after)
        if code:
            headers["X-Error-Code"] = code
        self.send(status, {"error": message}, headers)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            out = bytearray()
            while size := int(self.rfile.readline().split(b";")[0], 16):
                out += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return bytes(out)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def authorised(self) -> bool:
        want = self.hub.args.token
        return not want or self.headers.get("Authorization") == f"Bearer {want}"

    # routing
    def handle_any(self) -> None:
        url = urlparse(self.path)
        path, query, hub = unquote(url.path), parse_qs(url.query), self.hub
        if path == "/_stub/calm":
            hub.args.fail = 0.0
            return self.send(200, {})
        if path == "/_stub/state":
            with hub.lock:
                return self.send(
                    200,
                    {
                        "calls": hub.calls,
                        "lfs_objects": {k: len(v) for k, v in hub.blobs.items()},
                        "repos": {
                            r.id: {
                                "private": r.private,
                                "branches": r.branches,
                                "tags": r.tags,
                                "commits": {
                                    c: {
                                        "parent": v["parent"],
                                        "title": v["title"],
                                        "files": {
                                            p: f["size"] for p, f in v["files"].items()
                                        },
                                    }
                                    for c, v in r.commits.items()
                                },
                            }
                            for r in hub.repos.values()
                        },
                    },
                )
        for method, pattern, name in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in method:
                raw = b"" if name == "lfs_upload" else self.body()
                with hub.lock:
                    hub.calls[name] = hub.calls.get(name, 0) + 1
                    unlucky = hub.rng.random() < hub.args.fail
                    refused = name == "commit" and hub.args.refuse_times > 0
                    hub.args.refuse_times -= refused
                if refused:
                    return self.error(
                        hub.args.refuse,
                        hub.args.refuse_with,
                        retry_after=hub.args.retry_after,
                    )
                if unlucky and name != "lfs_upload":
                    return self.error(503, "stub fault: try again")
                return getattr(self, "on_" + name)(
                    query,
                    raw,
                    **{k: v for k, v in found.groupdict().items() if v is not None},
                )
        self.body()
        self.error(404, f"no such path: {path}")
        return None

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = handle_any

    def repo(self, repo: str, write: bool = False) -> Repo | None:
        if write and not self.authorised():
            self.error(401, "Invalid username or password.")
            return None
        if write and self.hub.args.owner and repo.split("/")[0] != self.hub.args.owner:
            self.error(403, "You don't have the rights to write under this namespace.")
            return None
        found = self.hub.repos.get(repo)
        if found is None or (found.private and not self.authorised()):
            self.error(
                401 if not self.authorised() else 404,
                "Repository not found",
                "RepoNotFound",
            )
            return None
        return found

    def commit_of(self, repo: Repo, revision: str) -> str | None:
        sha = repo.resolve(revision)
        if sha is None:
            self.error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha

    # account and repos
    def on_whoami(self, query, raw) -> None:
        if not self.authorised():
            return self.error(401, "Invalid username or password.")
        self.send(
            200,
            {
                "type": "user",
                "name": self.hub.args.owner or "stub",
                "orgs": [],
                "auth": {"accessToken": {"role": "write"}},
            },
        )
        return None

    def on_create(self, query, raw) -> None:
        ask = json.loads(raw or b"{}")
        owner = ask.get("organization") or self.hub.args.owner or "stub"
        name = ask["name"]
        repo_id = name if "/" in name else f"{owner}/{name}"
        if not self.authorised():
            return self.error(401, "Invalid username or password.")
        if self.hub.args.owner and repo_id.split("/")[0] != self.hub.args.owner:
            return self.error(
                403,
                "You don't have the rights to create a dataset under this namespace.",
            )
        with self.hub.lock:
            if repo_id in self.hub.repos:
                return self.send(
                    409,
                    {
                        "error": "You already created this dataset repo",
                        "url": f"{self.base()}/datasets/{repo_id}",
                    },
                )
            self.hub.repos[repo_id] = Repo(
                repo_id, bool(ask.get("private") or ask.get("visibility") == "private")
            )
        self.send(
            200,
            {
                "url": f"{self.base()}/datasets/{repo_id}",
                "name": repo_id,
                "id": repo_id,
            },
        )
        return None

    def base(self) -> str:
        return f"http://{self.headers.get('Host', '127.0.0.1')}"

    def on_info(self, query, raw, repo, revision="main") -> None:
        found = self.repo(repo)
        if found and (sha := self.commit_of(found, revision)):
            files = found.commits[sha]["files"]
            self.send(
                200,
                {
                    "_id": "0" * 24,
                    "id": found.id,
                    "sha": sha,
                    "private": found.private,
                    "gated": False,
                    "disabled": False,
                    "author": found.id.split("/")[0],
                    "lastModified": "2026-01-01T00:00:00.000Z",
                    "createdAt": "2026-01-01T00:00:00.000Z",
                    "likes": 0,
                    "downloads": 0,
                    "tags": [],
                    "cardData": {},
                    "siblings": [{"rfilename": p} for p in sorted(files)],
                },
            )

    # reading
    def entry(self, path: str, f: dict) -> dict:
        out = {"type": "file", "oid": f["oid"], "size": f["size"], "path": path}
        if f.get("sha256"):
            out["lfs"] = {"oid": f["sha256"], "size": f["size"], "pointerSize": 130}
        return out

    def on_tree(self, query, raw, repo, revision, path="") -> None:
        found = self.repo(repo)
        if not found or not (sha := self.commit_of(found, revision)):
            return None
        files, prefix = (
            found.commits[sha]["files"],
            (path.strip("/") + "/" if path.strip("/") else ""),
        )
        deep = query.get("recursive", ["false"])[0].lower() in ("true", "1")
        out: dict[str, dict] = {}
        for p, f in sorted(files.items()):
            if not p.startswith(prefix):
                continue
            parts = p[len(prefix) :].split("/")
            for i in range(1, len(parts)):
                folder = prefix + "/".join(parts[:i])
                if deep or i == 1:
                    out.setdefault(
                        folder,
                        {
                            "type": "directory",
                            "oid": hashlib.sha1(folder.encode()).hexdigest(),
                            "size": 0,
                            "path": folder,
                        },
                    )
            if deep or len(parts) == 1:
                out[p] = self.entry(p, f)
        if prefix and not out:
            return self.error(
                404, f"{path} does not exist on {revision}", "EntryNotFound"
            )
        self.send(200, list(out.values()))
        return None

    def on_paths_info(self, query, raw, repo, revision) -> None:
        found = self.repo(repo)
        if not found or not (sha := self.commit_of(found, revision)):
            return
        kind = self.headers.get("Content-Type", "")
        paths = (
            json.loads(raw)["paths"]
            if "json" in kind
            else parse_qs(raw.decode()).get("paths", [])
        )
        files, out = found.commits[sha]["files"], []
        for p in [paths] if isinstance(paths, str) else paths:
            p = p.strip("/")
            if p in files:
                out.append(self.entry(p, files[p]))
            elif any(q.startswith(p + "/") for q in files):
                out.append(
                    {
                        "type": "directory",
                        "oid": hashlib.sha1(p.encode()).hexdigest(),
                        "size": 0,
                        "path": p,
                    }
                )
        self.send(200, out)

    def on_refs(self, query, raw, repo) -> None:
        if found := self.repo(repo):

            def ref(kind, name, sha):
                return {
                    "name": name,
                    "ref": f"refs/{kind}/{name}",
                    "targetCommit": sha,
                }

            self.send(
                200,
                {
                    "branches": [ref("heads", n, s) for n, s in found.branches.items()],
                    "tags": [ref("tags", n, s) for n, s in found.tags.items()],
                    "converts": [],
                    "pullRequests": [],
                },
            )

    def on_commits(self, query, raw, repo, revision) -> None:
        found = self.repo(repo)
        if found and (sha := self.commit_of(found, revision)):
            out = []
            while sha:
                c = found.commits[sha]
                out.append(
                    {
                        "id": sha,
                        "title": c["title"],
                        "message": "",
                        "date": "2026-01-01T00:00:00.000Z",
                        "authors": [{"user": "stub"}],
                    }
                )
                sha = c["parent"]
            self.send(200, out)

    def on_resolve(self, query, raw, repo, revision, path) -> None:
        found = self.repo(repo)
        if not found or not (sha := self.commit_of(found, revision)):
            return None
        f = found.commits[sha]["files"].get(path)
        if f is None:
            return self.error(404, "Entry not found", "EntryNotFound")
        data, status = f["data"] if "data" in f else self.hub.blobs[f["sha256"]], 200
        headers = {
            "X-Repo-Commit": sha,
            "ETag": f'"{f.get("sha256") or f["oid"]}"',
            "Accept-Ranges": "bytes",
            "X-Linked-Size": str(len(data)),
        }
        if f.get("sha256"):
            headers["X-Linked-ETag"] = f'"{f["sha256"]}"'
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked and data:
            lo = int(asked[1]) if asked[1] else max(0, len(data) - int(asked[2]))
            hi = int(asked[2]) if asked[1] and asked[2] else len(data) - 1
            hi = min(hi, len(data) - 1)
            headers["Content-Range"] = f"bytes {lo}-{hi}/{len(data)}"
            data, status = data[lo : hi + 1], 206
        headers["Content-Length"] = str(len(data))
        self.send(status, data, headers, "application/octet-stream")
        return None

    # writing
    def on_preupload(self, query, raw, repo, revision) -> None:
        found = self.repo(repo, write=True)
        if not found or not (sha := self.commit_of(found, revision)):
            return
        old, out = found.commits[sha]["files"], []
        for f in json.loads(raw)["files"]:
            sample = base64.b64decode(f["sample"])
            large = (
                f["size"] > 10_000_000
                or b"\0" in sample
                or f["path"].endswith((".parquet", ".arrow", ".png", ".gz", ".zst"))
            )
            out.append(
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if large else "regular",
                    "shouldIgnore": False,
                    "oid": old.get(f["path"], {}).get("oid"),
                }
            )
        self.send(200, {"files": out, "commitOid": sha})

    def on_lfs_batch(self, query, raw, repo) -> None:
        if not self.repo(repo, write=True):
            return
        objects = []
        for o in json.loads(raw)["objects"]:
            item = {"oid": o["oid"], "size": o["size"], "authenticated": True}
            if o["oid"] not in self.hub.blobs:
                item["actions"] = {
                    "upload": {"href": f"{self.base()}/_lfs/{o['oid']}", "header": {}}
                }
            objects.append(item)
        self.send(
            200,
            {"transfer": "basic", "objects": objects},
            kind="application/vnd.git-lfs+json",
        )

    def on_lfs_upload(self, query, raw, sha256) -> None:
        with self.hub.lock:
            cut = self.hub.cuts_left > 0
            self.hub.cuts_left -= cut
        if cut:
            self.rfile.read(min(1024, int(self.headers.get("Content-Length") or 0)))
            self.close_connection = True
            self.connection.close()
            return None
        data = self.body()
        if hashlib.sha256(data).hexdigest() != sha256:
            return self.error(400, "sha256 does not match")
        with self.hub.lock:
            self.hub.blobs[sha256] = data
        self.send(200)
        return None

    def commit_note(self, repo: Repo, revision: str) -> str:
        """Let somebody else commit a note; returns the commit."""
        data, parent = b"x", repo.branches[revision]
        sha = hashlib.sha1(data + parent.encode()).hexdigest()
        note = {"data": data, "size": len(data), "oid": oid(data)}
        repo.commits[sha] = {
            "parent": parent,
            "title": "A note",
            "files": {**repo.commits[parent]["files"], "NOTES.md": note},
            "at": time.time(),
        }
        repo.branches[revision] = sha
        return sha

    def on_commit(self, query, raw, repo, revision) -> None:
        found = self.repo(repo, write=True)
        if not found:
            return None
        with self.hub.lock:
            parent = found.branches.get(revision)
            if parent is None:
                return self.error(
                    404, f"Invalid rev id: {revision}", "RevisionNotFound"
                )
            if self.hub.races_left:
                self.hub.races_left -= 1
                parent = self.commit_note(found, revision)
            files, title = dict(found.commits[parent]["files"]), ""
            for line in raw.decode().splitlines():
                if not line.strip():
                    continue
                op = json.loads(line)
                key, value = op["key"], op["value"]
                if key == "header":
                    title = value.get("summary", "")
                    if value.get("parentCommit") and value["parentCommit"] != parent:
                        return self.error(
                            412,
                            "A commit has happened since. Please refresh and try again.",
                        )
                elif key == "file":
                    data = base64.b64decode(value["content"])
                    files[value["path"]] = {
                        "data": data,
                        "size": len(data),
                        "oid": oid(data),
                    }
                elif key == "lfsFile":
                    if value["oid"] not in self.hub.blobs:
                        return self.error(
                            400, f"LFS object {value['oid']} was never uploaded"
                        )
                    size = len(self.hub.blobs[value["oid"]])
                    files[value["path"]] = {
                        "sha256": value["oid"],
                        "size": size,
                        "oid": hashlib.sha1(value["oid"].encode()).hexdigest(),
                    }
                elif key == "deletedFile":
                    if value["path"] not in files:
                        return self.error(
                            404, f"no such file: {value['path']}", "EntryNotFound"
                        )
                    del files[value["path"]]
                elif key == "deletedFolder":
                    files = {
                        p: f
                        for p, f in files.items()
                        if not p.startswith(value["path"].rstrip("/") + "/")
                    }
            sha = hashlib.sha1(
                raw + parent.encode() + str(time.time_ns()).encode()
            ).hexdigest()
            found.commits[sha] = {
                "parent": parent,
                "title": title,
                "files": files,
                "at": time.time(),
            }
            found.branches[revision] = sha
        self.send(
            200,
            {
                "success": True,
                "commitOid": sha,
                "commitUrl": f"{self.base()}/datasets/{found.id}/commit/{sha}",
                "hookOutput": "",
            },
        )
        return None

    def on_tag(self, query, raw, repo, revision) -> None:
        found = self.repo(repo, write=True)
        if not found:
            return None
        if self.command == "DELETE":
            if found.tags.pop(revision, None) is None:
                return self.error(404, "no such tag", "RevisionNotFound")
            return self.send(200, {})
        name = json.loads(raw)["tag"]
        if name in found.tags:
            return self.error(409, "Tag reference exists already")
        if sha := self.commit_of(found, revision):
            found.tags[name] = sha
            self.send(200, {})
        return None

    def on_branch(self, query, raw, repo, branch) -> None:
        found = self.repo(repo, write=True)
        if not found:
            return None
        if branch in found.branches:
            return self.error(409, "Reference already exists")
        start = json.loads(raw or b"{}").get("startingPoint", "main")
        if sha := self.commit_of(found, start):
            found.branches[branch] = sha
            self.send(200, {})
        return None

    def on_yaml(self, query, raw) -> None:
        self.send(200, {"errors": [], "warnings": []})


ID = r"(?P<repo>[^/]+/[^/]+?)"
ROUTES = [
    (("GET",), r"/api/whoami-v2", "whoami"),
    (("POST",), r"/api/repos/create", "create"),
    (("POST",), r"/api/validate-yaml", "yaml"),
    (("POST",), rf"/api/datasets/{ID}/preupload/(?P<revision>[^/]+)", "preupload"),
    (("POST",), rf"/api/datasets/{ID}/commit/(?P<revision>[^/]+)", "commit"),
    (("POST",), rf"/api/datasets/{ID}/paths-info/(?P<revision>[^/]+)", "paths_info"),
    (("POST", "DELETE"), rf"/api/datasets/{ID}/tag/(?P<revision>[^/]+)", "tag"),
    (("POST",), rf"/api/datasets/{ID}/branch/(?P<branch>.+)", "branch"),
    (("GET",), rf"/api/datasets/{ID}/tree/(?P<revision>[^/]+)(?P<path>/.*)?", "tree"),
    (("GET",), rf"/api/datasets/{ID}/refs", "refs"),
    (("GET",), rf"/api/datasets/{ID}/commits/(?P<revision>[^/]+)", "commits"),
    (("GET",), rf"/api/datasets/{ID}/revision/(?P<revision>[^/]+)", "info"),
    (("GET",), rf"/api/datasets/{ID}", "info"),
    (("POST",), rf"/datasets/{ID}\.git/info/lfs/objects/batch", "lfs_batch"),
    (("PUT",), r"/_lfs/(?P<sha256>[0-9a-f]{64})", "lfs_upload"),
    (
        ("GET", "HEAD"),
        rf"/datasets/{ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
        "resolve",
    ),
]


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--host", default="127.0.0.1")
    p.add_argument(
        "--port",
        type=int,
        default=8090,
        help="0 picks a free one, printed on the first line",
    )
    p.add_argument(
        "--token", default="", help="demand this token for writes and for private repos"
    )
    p.add_argument(
        "--owner", default="", help="the only namespace that the token may write to"
    )
    p.add_argument(
        "--fail", type=float, default=0.0, help="share of calls answered 503"
    )
    p.add_argument(
        "--cut-uploads", type=int, default=0, help="drop the first N uploads half way"
    )
    p.add_argument(
        "--race",
        type=int,
        default=0,
        help="somebody else commits a note just before each of the first N commits",
    )
    p.add_argument(
        "--refuse", type=int, default=403, help="status of the first refused commits"
    )
    p.add_argument(
        "--refuse-times", type=int, default=0, help="refuse the first N commits"
    )
    p.add_argument("--refuse-with", default="", help="the message of a refusal")
    p.add_argument("--retry-after", type=int, help="seconds named with a refusal")
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    Handler.hub = Hub(args)
    server = ThreadingHTTPServer((args.host, args.port), Handler)
    server.daemon_threads = True
    print(f"hub: listening on {args.host}:{server.server_address[1]}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
