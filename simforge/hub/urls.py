"""Dataset versions as folders at a URL supported by fsspec, such as `s3://bucket/soup`.

    push(Path("OUT"), "s3://bucket/soup", "1.2.0")     -> s3://bucket/soup/v1.2.0
    locate("s3://bucket/soup@1.2.0")                  -> its location and its manifest

A version is complete once its manifest exists, which is written last. It is never overwritten:
pushing the same bytes changes nothing, different bytes are refused. An interrupted push does
not upload finished files again.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simforge.catalog import files
from simforge.dataset.manifest import DATA_FILE, Manifest, parse_manifest
from simforge.errors import NotFound, SourceError, UsageError
from simforge.hub import releases
from simforge.hub.releases import OUR_FILES, TAG, PublishedVersion, PushResult, Version
from simforge.identity import digest, file_sha256

REFERENCE = re.compile(r"(?P<url>\w[\w+.-]*://.+)@v?(?P<version>\d+\.\d+\.\d+|latest)")
"Form of a version at a URL."


PUSH_MARKER = "pushing"
"File that marks an incomplete version; it holds the digest of the intended content."


def push(folder: Path, url: str, version: str, with_traits: bool = False) -> PushResult:
    """Publish a sealed run as a version at a URL. Raises `UsageError`, `SourceError`."""
    wanted, url = Version.parse(version), url.rstrip("/")
    with (
        releases.stage_for_publication(folder, with_traits, str(wanted)) as (
            staged,
            manifest,
        ),
        _store_errors(url),
    ):
        store, root = url_to_fs(url)
        version_path, manifests = f"{root}/{wanted.tag}", _read_manifests(store, root)
        published = PublishedVersion(url, wanted, f"{url}/{wanted.tag}", manifest)
        if wanted in manifests:
            releases.check_unchanged(url, wanted, manifests[wanted], manifest)
            return PushResult(published, False, [])
        before = max(
            (existing for existing in manifests if existing < wanted), default=None
        )
        release = releases.describe_release(
            url, wanted, before, manifests[before] if before else None, manifest
        )
        texts = releases.text_files(manifest, release, staged)
        resuming = _resume_or_begin(
            store, version_path, digest([manifest["files"], manifest["optional_files"]])
        )
        for name in releases.data_files(staged, texts):
            local, remote = staged / name, f"{version_path}/{name}"
            if not (
                resuming
                and store.exists(remote)
                and store.size(remote) == local.stat().st_size
            ):
                store.makedirs(remote.rpartition("/")[0], exist_ok=True)
                store.put_file(str(local), remote)
        for name, text in texts.items():
            store.pipe_file(f"{version_path}/{name}", text.encode())
        store.rm_file(f"{version_path}/{PUSH_MARKER}")
        return PushResult(published, True, release.changes)


def versions(url: str) -> list[PublishedVersion]:
    """List the versions at a URL, oldest first. Raises `SourceError`."""
    url = url.rstrip("/")
    with _store_errors(url):
        manifests = _read_manifests(*url_to_fs(url))
        return [
            PublishedVersion(url, version, f"{url}/{version.tag}", manifests[version])
            for version in sorted(manifests)
        ]


def locate(reference: str) -> PublishedVersion:
    """Find the version that a reference names; its `commit` is the URL of its folder. Raises
    `UsageError`, `NotFound`, `SourceError`."""
    match = REFERENCE.fullmatch(reference)
    if match is None:
        raise UsageError(
            f"a version at a URL is written s3://bucket/NAME@1.2.0 (or @latest), not {reference!r}."
        )
    published = {entry.version: entry for entry in versions(match["url"])}
    if not published:
        raise SourceError(
            f"{match['url']} has no versions: push one with simforge push DIR "
            f"{match['url']} --version 0.1.0."
        )
    version = (
        max(published)
        if match["version"] == "latest"
        else Version.parse(match["version"])
    )
    if version not in published:
        raise NotFound(
            "version",
            str(version),
            [*map(str, published), "latest"],
            f"They belong to {match['url']}.",
        )
    return published[version]


def pull(reference: str, out: Path, tables: tuple[str, ...] = ()) -> Path:
    """Download a version, or some of its tables, and check every file against the manifest.
    Raises `UsageError`, `SourceError`."""
    published = locate(reference)
    if out.exists() and any(out.iterdir()):
        raise UsageError(
            f"{out} already exists and is not empty: choose another --out."
        )
    with _store_errors(reference):
        store, version_path = url_to_fs(published.commit)
        wanted = releases.files_of_tables(published.manifest, tables)
        for name in wanted:
            remote = f"{version_path}/{name}"
            if store.exists(remote):
                local = out / name
                local.parent.mkdir(parents=True, exist_ok=True)
                store.get_file(remote, str(local))
    for name, digest_ in releases.listed_digests(published.manifest).items():
        if name not in wanted:
            continue
        if not (out / name).is_file() or file_sha256(out / name) != digest_:
            shutil.rmtree(out, ignore_errors=True)
            raise SourceError(
                f"{reference}: {name} is not what its manifest says: it was damaged "
                "there or in transit."
            )
    return out


def is_version(source: str) -> bool:
    """Return whether a source has the form of a version at a URL."""
    return REFERENCE.fullmatch(source) is not None


def url_to_fs(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it."""
    import fsspec

    store, root = fsspec.core.url_to_fs(url)
    return store, root.rstrip("/")


def _read_manifests(store: Any, root: str) -> dict[Version, Manifest]:
    """Read the manifests of all complete versions."""
    store.invalidate_cache()
    manifests = {}
    for path in store.ls(root, detail=False) if store.exists(root) else []:
        name = path.rstrip("/").rpartition("/")[2]
        if TAG.fullmatch(name) and store.exists(f"{path}/manifest.json"):
            place = f"{path}/manifest.json"
            text = store.cat_file(place, end=files.MAX_JSON_BYTES)
            manifests[Version.parse(name)] = parse_manifest(text, place)
    return manifests


def _resume_or_begin(store: Any, version_path: str, content_digest: str) -> bool:
    """Return whether a push of this same version was begun here before; otherwise clear the
    folder and mark it as begun."""
    note = f"{version_path}/{PUSH_MARKER}"
    begun = store.cat_file(note, end=10_000).decode() if store.exists(note) else ""
    if begun == content_digest:
        return True
    left = store.find(version_path) if store.exists(version_path) else []
    foreign = [
        path
        for path in left
        if not DATA_FILE.fullmatch(path.removeprefix(f"{version_path}/"))
        and path.removeprefix(f"{version_path}/") not in (*OUR_FILES, PUSH_MARKER)
    ]
    if foreign or (left and not begun):
        raise SourceError(
            f"{version_path} holds files that SimForge did not write, such as "
            f"{(foreign or left)[0]}: choose another version or another place."
        )
    for path in left:  # left over from a push of other content that was interrupted
        store.rm_file(path)
    store.makedirs(version_path, exist_ok=True)
    store.pipe_file(note, content_digest.encode())
    return False


@contextmanager
def _store_errors(url: str) -> Iterator[None]:
    """Turn the errors of a store into a `SourceError`."""
    try:
        yield
    except (
        OSError,
        ValueError,
        ImportError,
        NotImplementedError,
    ) as problem:  # the last: a read-only store
        reason = " ".join(str(problem).split())[:200]
        raise SourceError(
            f"{url} cannot be used: {reason or type(problem).__name__}."
        ) from None
