"""The options of a run: what to make, and how to make it.

They are kept beside the run (`work/options.json`), so that `retry` starts it again as it was
started.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from simforge.catalog import files
from simforge.errors import UsageError
from simforge.models import providers
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
    """Options as JSON values, with the folder that their paths start from; settings that may
    hold a secret are left out."""
    content = asdict(options)
    content["overrides"] = [
        assignment
        for assignment in options.overrides
        if not _may_hold_secret(assignment)
    ]
    content["folder"] = str(Path.cwd())
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in content.items()
    } | {"reuse": [str(path.resolve()) for path in options.reuse]}


def _may_hold_secret(assignment: str) -> bool:
    """Return whether a setting may hold a secret: headers and fields of requests, and
    environment variables of servers."""
    section = assignment.partition("=")[0].strip().partition(".")[0]
    return section == "endpoints" or (
        section == "servers" and "environment" in assignment
    )


def read_options(run: Path, typed: tuple[str, ...] = ()) -> tuple[Options, Path]:
    """The options that a run was started with, and the folder that their paths start from. Raises
    `UsageError` if the folder is not a run."""
    path = run / "work" / "options.json"
    if not path.is_file():
        raise UsageError(
            f"{run} is not a run of this version: there is no {path.relative_to(run)} in it."
        )
    content = files.read_json_object(path)
    try:
        folder = Path(content.pop("folder"))
        for name in ("prices", "runtime_env"):
            content[name] = Path(content[name]) if content[name] is not None else None
        for name in ("models", "overrides", "keys", "moved"):
            content[name] = tuple(map(str, content[name]))
        content["reuse"] = tuple(map(Path, content["reuse"]))
        options = Options(**{**content, "out": run.resolve()})
    except (KeyError, TypeError, ValueError) as problem:
        raise UsageError(
            f"{path} is damaged ({problem}): repeat the generate command of the run."
        ) from None
    for reference in options.models:
        # the file may come from somebody else; `typed` is what the user typed now
        providers.check_code(reference.rpartition("=")[2], typed)
    return options, folder
