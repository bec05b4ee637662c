"""Stores: dataset versions as folders at a URL that fsspec knows, such as `s3://bucket/soup`.

    push(Path("OUT"), "s3://bucket/soup", "1.2.0")     -> s3://bucket/soup/v1.2.0
    located("s3://bucket/soup@1.2.0")                  -> where that is, and its manifest

A version is whole where its manifest is, which is written last. It is never written again: the same bytes are left
alone, other bytes refused. What was uploaded before a cut is not uploaded again.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simforge import releases
from simforge.errors import NotFound, SourceError, UsageError
from simforge.identity import digest, file_sha256
from simforge.releases import TAG, Published, Pushed, Version

REFERENCE = re.compile(r"(?P<url>\w[\w+.-]*://.+)@v?(?P<version>\d+\.\d+\.\d+|latest)")
"How a version at a URL is written."
UNDER_WAY = "pushing"
"File of a version that is not whole: which one it will be."


def push(folder: Path, url: str, version: str, traits: bool = False) -> Pushed:
    """Publish a sealed run as a version at a URL. Raises `UsageError`, `SourceError`."""
    wanted, url = Version.of(version), url.rstrip("/")
    with releases.ready(folder, traits, str(wanted)) as (staged, manifest), _spoken(url):
        store, root = url_to_fs(url)
        place, known = f"{root}/{wanted.tag}", _versions(store, root)
        made = Published(url, wanted, f"{url}/{wanted.tag}", manifest)
        if wanted in known:
            releases.unmoved(url, wanted, known[wanted], manifest)
            return Pushed(made, False, [])
        before = max((one for one in known if one < wanted), default=None)
        release = releases.release(url, wanted, before, known[before] if before else None, manifest)
        texts = releases.texts(manifest, release, staged)
        going_on = _begun(store, place, digest([manifest["files"], manifest["besides"]]))
        for name in releases.content(staged, texts):
            local, remote = staged / name, f"{place}/{name}"
            if not (going_on and store.exists(remote) and store.size(remote) == local.stat().st_size):
                store.makedirs(remote.rpartition("/")[0], exist_ok=True)
                store.put_file(str(local), remote)
        written = {f"{place}/{name}" for name in (*releases.content(staged, texts), *texts)}
        for remote in store.find(place):
            if remote not in written:
                store.rm_file(remote)
        for name, text in texts.items():
            store.pipe_file(f"{place}/{name}", text.encode())
        return Pushed(made, True, release.changes)


def versions(url: str) -> list[Published]:
    """The versions at a URL, oldest first. Raises `SourceError`."""
    url = url.rstrip("/")
    with _spoken(url):
        known = _versions(*url_to_fs(url))
        return [Published(url, one, f"{url}/{one.tag}", known[one]) for one in sorted(known)]


def located(reference: str) -> Published:
    """The version that a reference names; its `commit` is the URL of its folder. Raises `NotFound`, `SourceError`."""
    match = REFERENCE.fullmatch(reference)
    if match is None:
        raise UsageError(f"a version at a URL is written s3://bucket/NAME@1.2.0 (or @latest), not {reference!r}.")
    known = {one.version: one for one in versions(match["url"])}
    if not known:
        raise SourceError(
            f"{match['url']} has no versions: push one with simforge push DIR {match['url']} --version 0.1.0."
        )
    wanted = max(known) if match["version"] == "latest" else Version.of(match["version"])
    if wanted not in known:
        raise NotFound("version", str(wanted), [*map(str, known), "latest"], f"They are those of {match['url']}.")
    return known[wanted]


def pull(reference: str, out: Path) -> Path:
    """Fetch a version whole, and check every file against its manifest. Raises `UsageError`, `SourceError`."""
    found = located(reference)
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is there already and not empty: choose another --out.")
    with _spoken(reference):
        store, place = url_to_fs(found.commit)
        for remote in store.find(place):
            local = out / remote.removeprefix(place).lstrip("/")
            local.parent.mkdir(parents=True, exist_ok=True)
            store.get_file(remote, str(local))
    for name, about in found.manifest["files"].items():
        if not (out / name).is_file() or file_sha256(out / name) != about["sha256"]:
            shutil.rmtree(out)
            raise SourceError(f"{reference}: {name} is not what its manifest says: it was spoilt there, or on the way.")
    return out


def is_version(source: str) -> bool:
    """Whether a source is written as a version at a URL."""
    return REFERENCE.fullmatch(source) is not None


def url_to_fs(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    import fsspec

    store, root = fsspec.core.url_to_fs(url)
    return store, root.rstrip("/")


def _versions(store: Any, root: str) -> dict[Version, dict[str, Any]]:
    """The manifest of each version that is whole."""
    store.invalidate_cache()
    found = {}
    for path in store.ls(root, detail=False) if store.exists(root) else []:
        name = path.rstrip("/").rpartition("/")[2]
        if TAG.fullmatch(name) and store.exists(f"{path}/manifest.json"):
            found[Version.of(name)] = json.loads(store.cat_file(f"{path}/manifest.json"))
    return found


def _begun(store: Any, place: str, what: str) -> bool:
    """Whether this very version has been begun here before; takes note of it where not."""
    note = f"{place}/{UNDER_WAY}"
    if store.exists(note) and store.cat_file(note).decode() == what:
        return True
    if store.exists(place):  # what was begun of another one
        store.rm(place, recursive=True)
    store.makedirs(place, exist_ok=True)
    store.pipe_file(note, what.encode())
    return False


@contextmanager
def _spoken(url: str) -> Iterator[None]:
    """Turn what a store says into a sentence."""
    try:
        yield
    except (OSError, ValueError, ImportError, NotImplementedError) as problem:  # the last: a store that is read only
        said = " ".join(str(problem).split())[:200]
        raise SourceError(f"{url} cannot be used: {said or type(problem).__name__}.") from None
