"""The audit: how much personal preference is in a dataset, in bits, and what else decides its labels.

    audit("OUT")                                  -> everything, as `audit.json` has it
    audit("mine.parquet", columns={...})          -> of anyone's preference data

Each figure has its number of things and a 95 % interval, or the reason why it was not measured. The measures and what
good values are: docs/audit.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simforge import clusters
from simforge.audit import hygiene, labels, pairs, room, shortcuts, verdict
from simforge.audit.figures import not_measured
from simforge.audit.pairs import Pairs
from simforge.errors import UsageError


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


def audit(source: str, options: Options | None = None) -> dict[str, Any]:
    """Measure a dataset. Raises `SourceError`, `UsageError`, `HubError`."""
    options = options or Options()
    found = pairs.read(source, options.columns)
    told = cheap(found, options)
    told["information"], told["waterfall"] = _scored(found)
    told["certified"] = (
        labels.certified(source, options.trusted)
        if found.manifest
        else {"coverage": not_measured("it takes a dataset of SimForge")}
    )
    again = pairs.read(options.again, options.columns).frame if options.again else None
    told["consistency"] = (
        room.consistency(found.frame, again)
        if again is not None
        else {"same": not_measured("no other run was given (--again RUN)")}
    )
    told["verdict"] = verdict.of(told)
    return told


def cheap(found: Pairs, options: Options | None = None) -> dict[str, Any]:
    """What needs no scorer: seconds for ten thousand pairs, and nothing beyond SimForge itself."""
    options = options or Options()
    frame, manifest = found.frame, found.manifest
    chosen, rejected, people = (frame[name].to_list() for name in ("chosen", "rejected", "persona"))
    told = {
        "pairs": frame.height,
        "people": frame["persona"].n_unique() if frame["persona"].null_count() < frame.height else None,
        "shortcuts": {
            "rules": shortcuts.rules(chosen, rejected),
            "length": shortcuts.length(chosen, rejected, people),
            "models": shortcuts.models(frame),
            "echo": shortcuts.echo(frame),
            "human": shortcuts.HUMAN,
        },
        "labels": {**labels.judges(manifest), "families": labels.families(manifest)},
        "room": room.measure(frame),
        "hygiene": hygiene.measure(found, options.benchmarks),
        "fidelity": (manifest or {}).get("fidelity"),
        "discards": (manifest or {}).get("discards"),
    }
    return {**told, "verdict": verdict.of(told)}


def _scored(found: Pairs) -> tuple[dict[str, Any], dict[str, Any]]:
    """What scorers make of it, for each family of features and way of holding out."""
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise UsageError(
            'the audit needs scikit-learn: install SimForge with the extra report ("simforge[report]").'
        ) from None
    from simforge.audit import features, information

    frame = found.frame
    rows = np.arange(frame.height)
    if frame.height > information.ROWS:
        rows = np.sort(np.random.default_rng(0).choice(rows, information.ROWS, replace=False))
        frame = frame[rows]
    texts = list(dict.fromkeys([*frame["chosen"], *frame["rejected"]]))
    place = {text: number for number, text in enumerate(texts)}
    sides = [[place[text] for text in frame[side]] for side in ("chosen", "rejected")]
    asked = list(dict.fromkeys(frame["prompt"]))
    near = clusters.of_prompts(asked)
    prompt = dict(zip(asked, near, strict=True))
    folds = [prompt[text] for text in frame["prompt"]]
    people = [str(one) for one in frame["persona"]]
    kinds = [one or "overall" for one in frame["dimension"]]
    profiles = found.profiles[rows] if found.profiles is not None else None
    seen = features.text_family(texts)
    words = features.words(asked, 8) if len(asked) > 20 else np.zeros((len(asked), 1))
    at = {text: number for number, text in enumerate(asked)}
    split = shortcuts.waterfall(
        seen[sides[0]], seen[sides[1]], words[[at[text] for text in frame["prompt"]]], profiles, folds, kinds
    )
    if profiles is None:
        return {"text": {"bits": not_measured("nothing is known of who prefers: name the column of a profile")}}, split
    by = {
        "prompts": information.measure(seen[sides[0]], seen[sides[1]], profiles, folds, people, kinds),
        "people": information.measure(seen[sides[0]], seen[sides[1]], profiles, people, people, kinds),
    }
    return {"text": by}, split
