"""The options of a run: what to make, and how to make it.

They are kept beside the run (`work/options.json`), so that `retry` starts it again as it was
started. Options can run code, and send keys to a server. The file is therefore signed with a
secret of the user: a run folder that somebody else made, or changed, is not started by `retry`.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from simforge.catalog import files
from simforge.errors import UsageError
from simforge.identity import canonical
from simforge.types import JsonObject


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `simforge generate`."""

    out: Path
    personas: int | None
    "Number of people; `None` means all of `cast`."
    pipeline: str = "quickstart"
    seed: int = 0
    models: tuple[str, ...] = ()
    "`REF` for all roles, or `ROLE=REF`."
    prompts: str | None = None
    cast: str | None = None
    """People drawn earlier: a file written by `personas sample --out`, another run's folder, or
    a published version."""
    overrides: tuple[str, ...] = ()
    "`key=value` settings that change the recipe."
    keys: tuple[str, ...] = ()
    "`HOST=VARIABLE`: environment variables that may be sent to hosts as keys."
    moved: tuple[str, ...] = ()
    "`OLD=NEW`: URLs of endpoints that moved since the run began."
    executor: str | None = None
    "`local` or `ray`; by default `ray` if an address is given."
    ray_address: str | None = None
    runtime_env: Path | None = None
    "YAML file with Ray's runtime environment for workers and servers."
    workers: int | None = None
    concurrency: int | None = None
    "Dialogues in flight in one worker; by default 32 with an embedded model, else 256."
    max_in_flight: int | None = None
    "Maximum concurrent calls to each model's endpoint, over all workers."
    max_tokens_per_minute: int | None = None
    "Maximum tokens per minute of each model's endpoint, over all workers."
    ledger: str | None = None
    "Folder or URL of the ledger; by default it is in the run folder."
    reuse: tuple[Path, ...] = ()
    "Run folders whose ledgers answer any request that they already hold."
    max_failures: float = 0.05
    "Maximum share of scenarios that may fail."
    prices: Path | None = None
    "A file of prices per model."
    budget: float | None = None
    "Maximum cost of the run over all its starts, in the currency of the prices."


def as_json(options: Options) -> JsonObject:
    """Options as JSON values, with the folder that their paths start from, signed. Settings
    that may hold a secret are left out; their names are kept."""
    content = asdict(options)
    withheld = [text for text in options.overrides if _may_hold_secret(text)]
    content["overrides"] = [text for text in options.overrides if text not in withheld]
    content = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in content.items()
    } | {
        "folder": str(Path.cwd()),
        "reuse": [str(path.resolve()) for path in options.reuse],
        "withheld": [text.partition("=")[0].strip() for text in withheld],
    }
    return {**content, "signature": _signature(content)}


def _signature(content: JsonObject) -> str:
    """Return the signature of options by this user, without `out`: a run folder can be moved.
    Empty if the user's secret cannot be kept."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    path = state / "simforge" / "secret"
    signed = {name: value for name, value in content.items() if name != "out"}
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f"secret.{secrets.token_hex(8)}")
            draft.touch(mode=0o600, exist_ok=False)
            draft.write_text(secrets.token_hex(32), encoding="ascii")
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)  # the first of two processes that do this wins
            draft.unlink()
        secret = path.read_bytes()
    except OSError:
        return ""
    return hmac.new(secret, canonical(signed).encode(), hashlib.sha256).hexdigest()


def _may_hold_secret(assignment: str) -> bool:
    """Return whether a setting may hold a secret: headers and fields of requests, and
    environment variables of servers."""
    section = assignment.partition("=")[0].strip().partition(".")[0]
    return section == "endpoints" or (
        section == "servers" and "environment" in assignment
    )


def read_options(run: Path) -> tuple[Options, Path]:
    """The options that a run was started with, and the folder that their paths start from. Raises
    `UsageError` if the folder is not a run, or was not started by this user."""
    path = run / "work" / "options.json"
    if not path.is_file():
        raise UsageError(
            f"{run} is not a run of this version: there is no {path.relative_to(run)} in it."
        )
    content = files.read_json_object(path)
    signature = content.pop("signature", None)
    if not isinstance(signature, str) or not hmac.compare_digest(
        signature.encode(), _signature(content).encode() or b"none"
    ):
        raise UsageError(
            f"{path} was not written here by you, or was changed. Options can run code and send "
            "keys to servers, so retry does not take them from others: if you trust the run, "
            "repeat its generate command yourself."
        )
    withheld = content.pop("withheld")
    if withheld:
        raise UsageError(
            f"{run} was started with --set {', '.join(withheld)}, which can hold secrets and was "
            "therefore not stored: repeat the generate command of the run."
        )
    folder = Path(content.pop("folder"))
    for name in ("prices", "runtime_env"):
        content[name] = Path(content[name]) if content[name] is not None else None
    for name in ("models", "overrides", "keys", "moved"):
        content[name] = tuple(content[name])
    content["reuse"] = tuple(map(Path, content["reuse"]))
    return Options(**{**content, "out": run.resolve()}), folder
