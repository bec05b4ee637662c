"""The audit: how much personal preference is in a dataset, in bits, and what else decides its labels.

    audit("OUT")                                  -> everything, as `audit.json` has it
    audit("mine.parquet", Options(columns={...})) -> of anyone's preference data

Each figure has its number of things and a 95 % interval, or the reason why it was not measured. The measures and what
good values are: docs/audit.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simforge.audit import dialogues, hygiene, labels, pairs, people, pushback, room, scoring, shortcuts, verdict
from simforge.audit.figures import not_measured
from simforge.audit.pairs import Pairs
from simforge.errors import SourceError, UsageError

FAMILIES = tuple(scoring.FAMILIES)
"Of scorers, by name."


@dataclass(frozen=True)
class Options:
    """What there is beside the data."""

    columns: Mapping[str, str] | None = None
    "Of anyone's data: which column is what (`pairs.COLUMNS`)."
    again: str | None = None
    "Another run of the same people."
    trusted: Path | None = None
    "Labels that are known to be right or wrong."
    benchmarks: Sequence[Path] = ()
    "Prompt files that the data shall not overlap with."
    human: Path | None = None
    "Dialogues of real people, to hold the simulated ones against."
    probe: bool = False
    "Whether the model that played the people is asked how they take wrong answers."
    families: Sequence[str] = FAMILIES
    "Of scorers."


def audit(source: str, options: Options | None = None) -> dict[str, Any]:
    """Measure a dataset. Raises `SourceError`, `UsageError`, `HubError`."""
    options = options or Options()
    for option, path in (("--human", options.human), ("--trusted", options.trusted)):
        if path is not None and not path.is_file():
            raise SourceError(f"{option}: there is no file {path}.")
    if options.again is not None and Path(options.again).resolve() == Path(source).resolve():
        raise UsageError(f"--again {options.again} is the same run: give another one of the same people.")
    found = pairs.read(source, options.columns)
    again = pairs.read(options.again, options.columns).frame if options.again else None
    told = cheap(found, options)
    told |= scoring.measure(found, options.families)
    told |= _made(source, found.manifest, options) if found.manifest else _FOREIGN
    told["consistency"] = (
        room.consistency(found.frame, again)
        if again is not None
        else {"same": not_measured("no other run was given (--again RUN)")}
    )
    told["verdict"] = verdict.of(told)
    return told


OURS = "it takes a dataset of SimForge"
"Why some things are not measured of anyone's data."
_FOREIGN = {
    name: {one: not_measured(OURS) for one in names}
    for name, names in (
        ("certified", ("coverage",)),
        ("verdicts", ("calibration", "self_preference", "between")),
        ("cast", ("marginals", "near_duplicates")),
        ("dialogues", ("endings", "guards", "goals", "disclosure", "style", "realism")),
        ("push_back", ("wrong",)),
    )
}


def _made(source: str, manifest: dict[str, Any], options: Options) -> dict[str, Any]:
    """What is known only of data that SimForge made: who its people are, how they spoke, and what its judges said."""
    probed = not_measured("the model that played the people was not asked (--probe)")
    return {
        "certified": labels.certified(source, options.trusted),
        "verdicts": labels.verdicts(source, manifest),
        "cast": people.measure(source, manifest),
        "dialogues": dialogues.measure(source, manifest, options.human),
        "push_back": pushback.measure(source, manifest) if options.probe else {"wrong": probed},
    }


def cheap(found: Pairs, options: Options | None = None) -> dict[str, Any]:
    """What needs no scorer: seconds for ten thousand pairs, and nothing beyond SimForge itself."""
    options = options or Options()
    frame, manifest = found.frame, found.manifest
    chosen, rejected, owners = frame["chosen"].to_list(), frame["rejected"].to_list(), found.owners
    told = {
        "pairs": frame.height,
        "people": frame["persona"].n_unique() if frame["persona"].null_count() < frame.height else None,
        "shortcuts": {
            "rules": shortcuts.rules(chosen, rejected),
            "length": shortcuts.length(chosen, rejected, owners),
            "models": shortcuts.models(frame),
            "echo": shortcuts.echo(frame, owners),
            "human": shortcuts.HUMAN,
        },
        "labels": {
            **labels.judges(manifest),
            "families": labels.families(manifest),
            "by": dict(frame["label"].drop_nulls().value_counts(sort=True).iter_rows()),
        },
        "room": room.measure(frame),
        "hygiene": hygiene.measure(found, options.benchmarks),
    }
    return {**told, "verdict": verdict.of(told)}
