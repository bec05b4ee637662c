"""The Hub: dataset versions as tags of a repository.

    push(Path("OUT"), "OWNER/NAME", "1.2.0")     -> one commit, one tag v1.2.0
    pull("OWNER/NAME@1.2.0", Path("OUT"))        -> the same folder again, every file checked

A version is a sealed run under a semantic version. A tag is never moved; the same bytes make no second commit; what was
uploaded before a cut is not uploaded again; and where somebody else committed meanwhile, the commit is made on top of
theirs. Repositories are private unless they are asked to be public, and what a pack calls sensitive stays at home
unless it is named.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from simforge import releases
from simforge.errors import HubError, NotFound, UsageError
from simforge.identity import file_sha256
from simforge.releases import TAG, Published, Pushed, Version

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")
TRIES = 8
"Times that a call to the Hub is tried."
RACES = 5
"Times that a commit is made again on top of somebody else's."
PAUSE = 0.2
"Seconds before the first try again; doubles each time."
LONGEST = 10.0
"Seconds between two tries at most."
_KNOWN: dict[tuple[str, str], Published] = {}
"Versions that were looked up, by endpoint and reference: a tag never moves."
_CHECKED: set[tuple[Path, str]] = set()
"Files of the Hub's cache that this process has held against their digests."
REFERENCE = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@v?(?P<version>[^@/]+)")
"How a version on the Hub is written: OWNER/NAME@1.2.0, or @latest."


def push(folder: Path, repo: str, version: str, public: bool = False, traits: bool = False) -> Pushed:
    """Publish a sealed run as a version, with what its pack calls sensitive where `traits` says so.

    Raises `UsageError`, `HubError`.
    """
    wanted, api = Version.of(version), _api()
    _named(repo)
    with releases.ready(folder, traits, str(wanted)) as (staged, manifest):
        _try(lambda: api.create_repo(repo, repo_type="dataset", private=not public, exist_ok=True), repo)
        for _ in range(RACES):
            head, tags = _refs(api, repo)
            if wanted in tags:
                return _there_already(api, repo, wanted, tags[wanted], manifest)
            before = max((one for one in tags if one < wanted), default=None)
            old = _manifest(api, repo, tags[before]) if before else None
            release = releases.release(repo, wanted, before, old, manifest)
            commit, committed = head, False
            if not releases.same(_manifest(api, repo, head), manifest):
                texts = releases.texts(manifest, release, staged)
                found = _committed(api, repo, head, staged, texts, f"Version {wanted}")
                if found is None:  # somebody else was faster
                    continue
                commit, committed = found, True
            _tagged(api, repo, wanted, commit)
            return Pushed(Published(repo, wanted, commit, manifest), committed, release.changes)
    raise HubError(f"{repo}: others commit to it all the time ({RACES} tries). Try again.")


def versions(repo: str) -> list[Published]:
    """The versions of a repository, oldest first. Raises `HubError`."""
    _named(repo)
    api = _api()
    _, tags = _refs(api, repo)
    return [Published(repo, one, tags[one], _manifest(api, repo, tags[one]) or {}) for one in sorted(tags)]


def pull(reference: str, out: Path | None = None, tables: tuple[str, ...] = (), split: str | None = None) -> Path:
    """Fetch a version, whole or some of its tables, or a split of them; gives its folder. Without `out` it lies in the
    Hub's cache.

    Raises `UsageError`, `HubError` where a file is not what the manifest says.
    """
    from huggingface_hub import snapshot_download

    api, found = _api(), located(reference)
    if out is not None and out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is there already and not empty: choose another --out.")
    wanted = (
        ["README.md", "manifest.json", "audit.json", *(f"data/{table}/{split or ''}*" for table in tables)]
        if tables
        else None
    )
    folder = Path(
        _try(
            lambda: snapshot_download(
                found.repo, repo_type="dataset", revision=found.commit, local_dir=out, allow_patterns=wanted
            ),
            found.repo,
        )
    )
    if out is not None:
        shutil.rmtree(folder / ".cache", ignore_errors=True)
    for name, about in found.manifest["files"].items():
        path = folder / name
        if wanted is not None and not path.exists():
            continue
        if (path, about["sha256"]) not in _CHECKED and (not path.is_file() or file_sha256(path) != about["sha256"]):
            if out is not None:
                shutil.rmtree(folder)
            raise HubError(f"{reference}: {name} is not what its manifest says; pull it again. ({api.endpoint})")
        _CHECKED.add((path, about["sha256"]))
    return folder


def located(reference: str) -> Published:
    """The version that a reference names. Raises `UsageError`, `NotFound`, `HubError`."""
    match = REFERENCE.fullmatch(reference)
    if match is None:
        raise UsageError(f"a version on the Hub is written OWNER/NAME@1.2.0 (or @latest), not {reference!r}.")
    api, repo = _api(), match["repo"]
    if (api.endpoint, reference) in _KNOWN:
        return _KNOWN[api.endpoint, reference]
    _, tags = _refs(api, repo)
    if not tags:
        raise HubError(f"{repo} has no versions: push one with simforge push DIR {repo} --version 0.1.0.")
    wanted = max(tags) if match["version"] == "latest" else Version.of(match["version"])
    if wanted not in tags:
        raise NotFound("version", str(wanted), [*map(str, tags), "latest"], f"They are those of {repo}.")
    manifest = _manifest(api, repo, tags[wanted])
    if manifest is None:
        raise HubError(f"{repo}@{wanted} has no manifest.json: it is no dataset of SimForge.")
    found = Published(repo, wanted, tags[wanted], manifest)
    if match["version"] != "latest":
        _KNOWN[api.endpoint, reference] = found
    return found


def is_version(source: str) -> bool:
    """Whether a source is written as a version on the Hub."""
    return REFERENCE.fullmatch(source) is not None


def _committed(api: HfApi, repo: str, head: str, folder: Path, texts: dict[str, str], message: str) -> str | None:
    """Commit the folder's data and texts in one, in place of what was there; `None` where somebody else was faster."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    adds = [CommitOperationAdd(name, content.encode()) for name, content in texts.items()]
    adds += [CommitOperationAdd(name, str(folder / name)) for name in releases.content(folder, texts)]
    named = {one.path_in_repo for one in adds}
    there = _try(lambda: api.list_repo_files(repo, repo_type="dataset", revision=head), repo)
    ours = [name for name in there if name.startswith("data/") or name in releases.BESIDES]
    gone = [name for name in ours if name not in named]
    operations: list[Any] = [*adds, *(CommitOperationDelete(name) for name in gone)]

    def commit() -> str:
        made = api.create_commit(
            repo, operations, commit_message=message, repo_type="dataset", parent_commit=head, revision="main"
        )
        return str(made.oid)

    try:
        return _try(commit, repo)
    except _LostRace:
        return None


def _tagged(api: HfApi, repo: str, version: Version, commit: str) -> None:
    def tag() -> None:
        api.create_tag(repo, tag=version.tag, revision=commit, repo_type="dataset", exist_ok=True)

    _try(tag, repo)
    _, tags = _refs(api, repo)
    if tags.get(version) != commit:
        raise HubError(f"{repo}: the tag {version.tag} was set by somebody else meanwhile, on other data.")


def _there_already(api: HfApi, repo: str, version: Version, commit: str, manifest: dict[str, Any]) -> Pushed:
    """A version that is there is left alone, whatever it is."""
    releases.unmoved(repo, version, _manifest(api, repo, commit), manifest)
    return Pushed(Published(repo, version, commit, manifest), False, [])


def _refs(api: HfApi, repo: str) -> tuple[str, dict[Version, str]]:
    """Commit of `main`, and of each tag that is a version."""
    refs = _try(lambda: api.list_repo_refs(repo, repo_type="dataset"), repo)
    heads = {one.name: one.target_commit for one in refs.branches}
    versions = [one for one in refs.tags if TAG.fullmatch(one.name)]
    return heads.get("main", ""), {Version.of(one.name): one.target_commit for one in versions}


def _manifest(api: HfApi, repo: str, revision: str) -> dict[str, Any] | None:
    """The manifest at a revision, where there is one."""
    from huggingface_hub.errors import EntryNotFoundError

    try:
        path = _try(lambda: api.hf_hub_download(repo, "manifest.json", repo_type="dataset", revision=revision), repo)
    except EntryNotFoundError:
        return None
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    return found if isinstance(found, dict) and isinstance(found.get("files"), dict) else None


class _LostRace(Exception):
    """Somebody else has committed since."""


def _try(call: Callable[[], T], repo: str) -> T:
    """A call to the Hub, again while that can help. Raises `HubError` with the Hub's own words."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    network: Any = (HfHubHTTPError, *HfHubHTTPError.__bases__, OSError)  # the library below the client comes and goes
    problem: BaseException | None = None
    for attempt in range(TRIES):
        try:
            return call()
        except LocalEntryNotFoundError as lost:  # it could not be asked, which is not that there is none
            problem = lost
        except EntryNotFoundError:
            raise
        except RepositoryNotFoundError as missing:
            hint = "log in with `hf auth login`, or set HF_TOKEN, where it is private"
            raise HubError(f"the Hub has no dataset {repo}, or you may not see it: {hint} ({_said(missing)})") from None
        except HfHubHTTPError as refused:
            status = refused.response.status_code if refused.response is not None else 0
            if status == 412:
                raise _LostRace from None
            if status in (401, 403):
                hint = "log in with `hf auth login`, or set HF_TOKEN to a token that may write there"
                raise HubError(f"the Hub refuses {repo} ({status}: {_said(refused)}): {hint}.") from None
            if status and status < 500 and status not in (408, 429):
                raise HubError(f"the Hub refuses {repo} ({status}: {_said(refused)}).") from None
            problem = refused
        except network as lost:
            problem = lost
        time.sleep(min(LONGEST, PAUSE * 2**attempt))
    assert problem is not None
    raise HubError(f"the Hub cannot be reached for {repo} ({TRIES} tries): {_said(problem)}") from None


def _said(problem: BaseException) -> str:
    return " ".join(str(problem).split())[:200]


def _named(repo: str) -> None:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise UsageError(f"a dataset on the Hub is written OWNER/NAME, not {repo!r}; a folder of versions file://PATH.")


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(library_name="simforge")
