"""Dataset versions on the Hugging Face Hub, as tags of a repository.

    push(Path("OUT"), "OWNER/NAME", "1.2.0")     -> one commit, one tag v1.2.0
    pull("OWNER/NAME@1.2.0", Path("OUT"))        -> the same folder again, every file checked

A version is a sealed run with a semantic version number. Tags are never moved. Pushing the same
bytes makes no second commit, and an interrupted push does not upload finished files again. If
somebody else has committed in the meantime, the commit is made on top of theirs. Repositories
are private unless public is requested, and columns that a pack marks as sensitive are not
uploaded unless requested.
"""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from simforge.dataset.manifest import Manifest, read_manifest
from simforge.errors import HubError, NotFound, SourceError, UsageError
from simforge.hub import releases
from simforge.hub.releases import TAG, PublishedVersion, PushResult, Version
from simforge.identity import file_sha256

if TYPE_CHECKING:
    from huggingface_hub import HfApi


T = TypeVar("T")


MAX_ATTEMPTS = 8
"Maximum number of attempts of a call to the Hub."


MAX_COMMIT_ATTEMPTS = 5
"Maximum number of attempts to commit on top of other people's commits."


FIRST_PAUSE_S = 0.2
"Seconds before the first retry; doubled for each further one."


MAX_WAIT_S = 120.0
"Longest pause in seconds that the Hub may ask for before a command gives up."


MAX_PAUSE_S = 10.0
"Maximum number of seconds between two attempts."


_LOCATED: dict[tuple[str, str], PublishedVersion] = {}
"Versions already looked up, by endpoint and reference; valid because tags never move."


_VERIFIED_FILES: set[tuple[Path, str]] = set()
"Files in the Hub's cache whose digests this process has checked."


_NAME = r"(?!\.)(?!.*(?:--|\.\.))[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?"


REPOSITORY = re.compile(rf"{_NAME}/{_NAME}", re.ASCII)
"Form of a repository's name; the Hub allows no two dots or dashes in a row."


REFERENCE = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@v?(?P<version>[^@/]+)")
"Form of a version on the Hub: OWNER/NAME@1.2.0, or @latest."


def push(
    folder: Path,
    repo: str,
    version: str,
    public: bool = False,
    with_traits: bool = False,
    replace: tuple[str, ...] = (),
) -> PushResult:
    """Publish a sealed run as a version; `with_traits` includes the columns that its pack marks
    as sensitive. Files of the repository that SimForge did not write stay as they are; those in
    `replace` may be overwritten or deleted.

    Raises `UsageError`, `HubError`.
    """
    wanted, api = Version.parse(version), _api()
    _check_repo_name(repo)
    with releases.stage_for_publication(folder, with_traits, str(wanted)) as (
        staged,
        manifest,
    ):
        _with_retries(
            lambda: api.create_repo(
                repo, repo_type="dataset", private=not public, exist_ok=True
            ),
            repo,
        )
        if public:
            _check_public(api, repo)
        for _ in range(MAX_COMMIT_ATTEMPTS):
            head, tags = _refs(api, repo)
            if wanted in tags:
                return _existing_version(api, repo, wanted, tags[wanted], manifest)
            before = max(
                (existing for existing in tags if existing < wanted), default=None
            )
            old = _manifest(api, repo, tags[before]) if before else None
            release = releases.describe_release(repo, wanted, before, old, manifest)
            commit, committed = head, False
            if not releases.same_version(_manifest(api, repo, head), manifest):
                texts = releases.text_files(manifest, release, staged)
                operations = _operations(
                    api, repo, head, staged, texts, _manifest(api, repo, head), replace
                )
                new_commit = _commit(api, repo, head, operations, f"Version {wanted}")
                if new_commit is None:  # somebody else committed first
                    continue
                commit, committed = new_commit, True
            _tag(api, repo, wanted, commit)
            return PushResult(
                PublishedVersion(repo, wanted, commit, manifest),
                committed,
                release.changes,
            )
    raise HubError(
        f"{repo}: others kept committing during the push ({MAX_COMMIT_ATTEMPTS} "
        "attempts). Try again later."
    )


def versions(repo: str) -> list[PublishedVersion]:
    """List the versions of a repository, oldest first. Raises `HubError`."""
    _check_repo_name(repo)
    api = _api()
    _, tags = _refs(api, repo)
    return [
        PublishedVersion(
            repo, version, tags[version], _manifest(api, repo, tags[version]) or {}
        )
        for version in sorted(tags)
    ]


def pull(
    reference: str,
    out: Path | None = None,
    tables: tuple[str, ...] = (),
    split: str | None = None,
) -> Path:
    """Download a version, or some of its tables or one split of them, and return its folder:
    `out`, or one in the Hub's cache.

    Raises `UsageError`, and `HubError` if a file does not match the manifest.
    """
    from huggingface_hub import snapshot_download

    api, published = _api(), locate(reference)
    if out is not None and out.exists() and any(out.iterdir()):
        raise UsageError(
            f"{out} already exists and is not empty: choose another --out."
        )
    wanted = releases.files_of_tables(published.manifest, tables, split)
    folder = Path(
        _with_retries(
            lambda: snapshot_download(
                published.repo,
                repo_type="dataset",
                revision=published.commit,
                local_dir=out,
                allow_patterns=wanted,
            ),
            published.repo,
        )
    )
    if out is not None:
        shutil.rmtree(folder / ".cache", ignore_errors=True)
    for name, digest in releases.listed_digests(published.manifest).items():
        path = folder / name
        if name not in wanted:
            continue
        if (path, digest) not in _VERIFIED_FILES and (
            not path.is_file() or file_sha256(path) != digest
        ):
            if out is not None:
                shutil.rmtree(folder)
            raise HubError(
                f"{reference}: {name} is not what its manifest says; pull it again. "
                f"({api.endpoint})"
            )
        _VERIFIED_FILES.add((path, digest))
    return folder


def locate(reference: str) -> PublishedVersion:
    """Find the version that a reference names. Raises `UsageError`, `NotFound`, `HubError`."""
    match = REFERENCE.fullmatch(reference)
    if match is None:
        raise UsageError(
            f"a version on the Hub is written OWNER/NAME@1.2.0 (or @latest), not {reference!r}."
        )
    api, repo = _api(), match["repo"]
    _check_repo_name(repo)
    if (api.endpoint, reference) in _LOCATED:
        return _LOCATED[api.endpoint, reference]
    _, tags = _refs(api, repo)
    if not tags:
        raise HubError(
            f"{repo} has no versions: push one with simforge push DIR {repo} --version 0.1.0."
        )
    version = (
        max(tags) if match["version"] == "latest" else Version.parse(match["version"])
    )
    if version not in tags:
        raise NotFound(
            "version",
            str(version),
            [*map(str, tags), "latest"],
            f"They belong to {repo}.",
        )
    manifest = _manifest(api, repo, tags[version])
    if manifest is None:
        raise HubError(
            f"{repo}@{version} has no manifest.json: it is not a SimForge dataset."
        )
    published = PublishedVersion(repo, version, tags[version], manifest)
    if match["version"] != "latest":
        _LOCATED[api.endpoint, reference] = published
    return published


def is_version(source: str) -> bool:
    """Return whether a source has the form of a version on the Hub."""
    return REFERENCE.fullmatch(source) is not None


def _check_public(api: HfApi, repo: str) -> None:
    """Raise `UsageError` if a repository that exists is private: who may read it is changed
    there, not by a push."""
    about = _with_retries(lambda: api.repo_info(repo, repo_type="dataset"), repo)
    if about.private:
        raise UsageError(
            f"{repo} exists and is private, and --public only makes a new repository public: "
            "change it in its settings on the Hub, or push without --public."
        )


def _operations(
    api: HfApi,
    repo: str,
    head: str,
    folder: Path,
    texts: dict[str, str],
    old: Manifest | None,
    replace: tuple[str, ...],
) -> list[Any]:
    """Return the operations of a commit: add the new files, delete those of the version that
    is there. Raises `UsageError` if a file that SimForge did not write is in the way."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    adds = [
        CommitOperationAdd(name, content.encode()) for name, content in texts.items()
    ]
    adds += [
        CommitOperationAdd(name, str(folder / name))
        for name in releases.data_files(folder, texts)
    ]
    new_names = {operation.path_in_repo for operation in adds}
    existing_files = _with_retries(
        lambda: api.list_repo_files(repo, repo_type="dataset", revision=head), repo
    )
    ours = set(releases.published_files(old)) if old else set()
    # files below data/ would be read as part of the dataset
    foreign = [
        name
        for name in existing_files
        if name not in ours and (name in new_names or name.startswith("data/"))
    ]
    kept = [name for name in foreign if name not in replace]
    if kept:
        flags = " ".join(f"--replace {name}" for name in kept[:20])
        raise UsageError(
            f"{repo} holds files that SimForge did not write and that are in the way of this "
            f"version. If they may go, add {flags}{' ...' if len(kept) > 20 else ''}"
        )
    stale = [
        name
        for name in existing_files
        if name not in new_names and (name in ours or name in foreign)
    ]
    return [*adds, *(CommitOperationDelete(name) for name in stale)]


def _commit(
    api: HfApi, repo: str, head: str, operations: list[Any], message: str
) -> str | None:
    """Change the repository in one commit; `None` if somebody else committed first."""

    def commit() -> str:
        commit_info = api.create_commit(
            repo,
            operations,
            commit_message=message,
            repo_type="dataset",
            parent_commit=head,
            revision="main",
        )
        return str(commit_info.oid)

    try:
        return _with_retries(commit, repo)
    except _CommitConflict:
        return None


def _tag(api: HfApi, repo: str, version: Version, commit: str) -> None:
    def tag() -> None:
        api.create_tag(
            repo, tag=version.tag, revision=commit, repo_type="dataset", exist_ok=True
        )

    _with_retries(tag, repo)
    _, tags = _refs(api, repo)
    if tags.get(version) != commit:
        raise HubError(
            f"{repo}: the tag {version.tag} was set by somebody else in the meantime, "
            "on different data."
        )


def _existing_version(
    api: HfApi, repo: str, version: Version, commit: str, manifest: Manifest
) -> PushResult:
    """Handle a version that exists: leave it alone, and raise `UsageError` if it is
    different."""
    releases.check_unchanged(repo, version, _manifest(api, repo, commit), manifest)
    return PushResult(PublishedVersion(repo, version, commit, manifest), False, [])


def _refs(api: HfApi, repo: str) -> tuple[str, dict[Version, str]]:
    """Return the commit of `main`, and the commit of each tag that is a version."""
    refs = _with_retries(lambda: api.list_repo_refs(repo, repo_type="dataset"), repo)
    heads = {branch.name: branch.target_commit for branch in refs.branches}
    version_tags = [tag for tag in refs.tags if TAG.fullmatch(tag.name)]
    return heads.get("main", ""), {
        Version.parse(tag.name): tag.target_commit for tag in version_tags
    }


def _manifest(api: HfApi, repo: str, revision: str) -> Manifest | None:
    """Download the manifest at a revision; `None` if there is none."""
    from huggingface_hub.errors import EntryNotFoundError

    try:
        path = _with_retries(
            lambda: api.hf_hub_download(
                repo, "manifest.json", repo_type="dataset", revision=revision
            ),
            repo,
        )
    except EntryNotFoundError:
        return None
    try:
        return read_manifest(Path(path).parent)
    except SourceError:  # somebody else's file of this name
        return None


class _CommitConflict(Exception):
    """Raised when somebody else has committed in the meantime."""


def _with_retries(call: Callable[[], T], repo: str) -> T:
    """Call the Hub, with retries while they can help. Raises `HubError` with the Hub's own
    message."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    network: Any = (
        HfHubHTTPError,
        *HfHubHTTPError.__bases__,
        OSError,
    )  # its HTTP library varies
    problem: BaseException | None = None
    for attempt in range(MAX_ATTEMPTS):
        pause = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2**attempt)
        try:
            return call()
        except OfflineModeIsEnabled:
            raise HubError(
                f"HF_HUB_OFFLINE is set, so {repo} cannot be reached: unset it."
            ) from None
        except HFValidationError as wrong:
            raise UsageError(f"{repo}: {_error_text(wrong)}") from None
        except LocalEntryNotFoundError as lost:  # could not ask, not: does not exist
            problem = lost
        except EntryNotFoundError:
            raise
        except RepositoryNotFoundError as missing:
            hint = "log in with `hf auth login`, or set HF_TOKEN, if it is private"
            raise HubError(
                f"the Hub has no dataset {repo}, or you lack access: {hint} "
                f"({_error_text(missing)})"
            ) from None
        except HfHubHTTPError as refused:
            status = refused.response.status_code if refused.response is not None else 0
            if status == 412:
                raise _CommitConflict from None
            if status in (401, 403):
                raise HubError(
                    f"the Hub refuses {repo} ({status}: {_error_text(refused)})"
                    f"{_refusal_hint(_error_text(refused))}."
                ) from None
            if status == 429:
                pause = _retry_after_seconds(refused.response) or pause
                if pause > MAX_WAIT_S:
                    raise HubError(
                        f"the Hub accepts no more requests for now ({_error_text(refused)}): try "
                        f"again in {math.ceil(pause / 60)} minutes."
                    ) from None
            if status and status < 500 and status not in (408, 429):
                raise HubError(
                    f"the Hub refuses {repo} ({status}: {_error_text(refused)})."
                ) from None
            problem = refused
        except network as lost:
            problem = lost
        time.sleep(pause)
    assert problem is not None
    raise HubError(
        f"the Hub cannot be reached for {repo} ({MAX_ATTEMPTS} attempts): {_error_text(problem)}"
    ) from None


def _refusal_hint(words: str) -> str:
    """Return what to do about a refusal, after the Hub's own words."""
    lower = words.lower()
    if any(word in lower for word in ("storage", "quota", "limit")):
        return ""
    if "pull request" in lower or "create_pr" in lower:
        return (
            ": it takes changes by pull request only; push to a repository of your own"
        )
    return ": log in with `hf auth login`, or set HF_TOKEN to a token with write access"


def _retry_after_seconds(response: Any) -> float | None:
    try:
        return max(0.0, float(response.headers.get("Retry-After")))
    except (AttributeError, TypeError, ValueError):
        return None


def _error_text(problem: BaseException) -> str:
    words = getattr(problem, "server_message", None) or str(problem)
    return " ".join(words.split())[:300]


def _check_repo_name(repo: str) -> None:
    if not REPOSITORY.fullmatch(repo):
        raise UsageError(
            f"a dataset on the Hub is written OWNER/NAME, not {repo!r}; a folder of "
            "versions file://PATH."
        )


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(library_name="simforge")
