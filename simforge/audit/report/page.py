"""The report: one HTML page with the results of an audit.

    write(Path("OUT"), audit, sample("OUT"))      -> OUT/report.html

It needs no network and no server: the charts are embedded, and one small script filters the
pairs. All text written by a model is escaped, and the content security policy of the page
allows no other script.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simforge.audit import pairs
from simforge.audit.figures import Results
from simforge.audit.report import charts, tables
from simforge.audit.sections import DOUBT, FAULT, GOOD
from simforge.dataset.manifest import Manifest
from simforge.dataset.writing import write_atomically
from simforge.hub import loading
from simforge.models import providers

FILE_NAME = "report.html"


MAX_DIALOGUES, MAX_PAIRS = 20, 50
"Most dialogues and pairs that the report shows."


WEIGHT_NAMES = {FAULT: "Fault", DOUBT: "Doubt", GOOD: "Good"}


@dataclass(frozen=True)
class Sample:
    """Parts of the dataset that a report shows."""

    title: str
    about: str
    pairs: list[Results]
    dialogues: list[Results] = field(default_factory=list)
    manifest: Manifest | None = None


def sample_rows(source: str, columns: Mapping[str, str] | None = None) -> Sample:
    """Select pairs and dialogues to show, from a dataset or a file from elsewhere. Raises what
    `audit.pairs.read` raises."""
    if not pairs.is_simforge_dataset(source, columns):
        return Sample(Path(source).name, "", _external_pairs(source, columns))
    manifest = loading.manifest(source)
    notes = providers.card_notes(
        [model["reference"] for model in manifest["models"].values()]
    )
    return Sample(
        title=manifest["recipe"]["description"].strip().split(".")[0],
        about=f"Seed {manifest['seed']} · digest {manifest['digest']} · SimForge "
        f"{manifest['simforge']}. Nobody in it is a real person, and no human checked "
        "the labels." + "".join(f" {note.replace('*', '')}" for note in notes),
        pairs=_pairs(source),
        dialogues=_dialogues(source),
        manifest=manifest,
    )


def write(folder: Path, audit: Results, shown: Sample) -> Path:
    """Write the report of an audit into a folder. Raises `UsageError` if the charts cannot be
    drawn."""
    path = folder / FILE_NAME
    write_atomically(path, render(audit, shown))
    return path


def render(audit: Results, shown: Sample) -> str:
    """Render the page of the report."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    folder = Path(__file__).parent
    script = (folder / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=True, trim_blocks=True
    )
    page = environment.from_string((folder / "report.html").read_text(encoding="utf-8"))
    return page.render(
        audit=audit,
        shown=shown,
        verdict=[
            {**finding, "name": WEIGHT_NAMES[finding["weight"]]}
            for finding in audit["verdict"]
        ],
        tables=tables.all_of(audit),
        charts=charts.all_of(audit, shown.manifest),
        dimensions=sorted({pair["dimension"] for pair in shown.pairs}),
        labels=sorted({pair["label"] for pair in shown.pairs if pair["label"]}),
        script=script,
        digest=digest,
    )


def _dialogues(source: str) -> list[Results]:
    """Select dialogues to show, with the person and their wishes."""
    import polars as pl

    people = loading.scan(source, "personas").select(
        "profile", persona_id="id", who=_persona_text(source)
    )
    rows = (
        loading.scan(source, "dialogues")
        .filter(pl.col("parent").is_null())
        .head(MAX_DIALOGUES)
        .join(people, on="persona_id", how="left", maintain_order="left")
        .select("who", "profile", "messages", "ending", "flags")
        .collect()
        .to_dicts()
    )
    return [{**row, "wants": _wants(row["profile"])} for row in rows]


def _pairs(source: str) -> list[Results]:
    """Select pairs to show side by side: an equal number from each dimension, with the verdicts
    of judges."""
    import polars as pl

    people = loading.scan(source, "personas").select(
        persona_id="id", who=_persona_text(source)
    )
    rows = loading.scan(source).with_columns(
        dimension=pl.col("dimension").fill_null("overall")
    )
    kinds = rows.select(pl.col("dimension").unique()).collect().height
    mixed = rows.with_columns(lot=pl.col("id").hash(seed=0)).sort(
        "lot", "id"
    )  # from all people, not only the first
    by_dimension = mixed.filter(
        pl.int_range(pl.len()).over("dimension") < -(-MAX_PAIRS // max(1, kinds))
    )
    shown = by_dimension.head(MAX_PAIRS).join(
        people, on="persona_id", how="left", maintain_order="left"
    )
    columns = (
        "who",
        "profile",
        "dimension",
        "prompt",
        "chosen",
        "rejected",
        "label",
        "margin",
        "p_chosen",
    )
    table = shown.select(*columns, "judgment_id", "chosen_id").collect()
    judgments = {}
    judgment_ids = table["judgment_id"].drop_nulls().unique()
    if len(judgment_ids):
        judged = (
            loading.scan(source, "judgments")
            .filter(pl.col("id").is_in(judgment_ids.to_list()))
            .collect()
        )
        judgments = {row["id"]: row for row in judged.to_dicts()}
    return [
        {
            **row,
            "wants": _wants(row["profile"]),
            "verdict": _judgment_text(
                judgments.get(row["judgment_id"]), row["chosen_id"]
            ),
        }
        for row in table.to_dicts()
    ]


def _judgment_text(judgment: Results | None, chosen: str) -> str:
    """Verdicts of a judge in words; empty if no judge was asked."""
    if judgment is None:
        return ""
    sides = {
        "a": "chosen" if judgment["a"] == chosen else "rejected",
        "b": "rejected" if judgment["a"] == chosen else "chosen",
    }
    shown = {
        "first": "the first",
        "second": "the second",
        "tie": "a tie",
        None: "not asked",
    }
    orders = [
        shown.get(judgment[name], judgment[name])
        for name in ("verdict_ab", "verdict_ba")
    ]
    outcome = sides.get(judgment["outcome"], judgment["outcome"])
    text = (
        f"{judgment['judge']} said {orders[0]} with the {sides['a']} one first, "
        f"{orders[1]} the other way round: {outcome}"
    )
    return (
        f"{text}. {judgment.get('reasons_ab') or ''}".strip()
    )  # reasons may have been withheld


def _external_pairs(source: str, columns: Mapping[str, str] | None) -> list[Results]:
    """Select pairs to show from a file from elsewhere."""
    import polars as pl

    dataset = pairs.read(source, columns)
    table = dataset.frame.with_columns(
        about=pl.Series(dataset.descriptions or [""] * len(dataset), dtype=pl.String)
    )
    table = table.sample(min(MAX_PAIRS, len(dataset)), seed=0, shuffle=True)
    return [
        {
            "who": ", ".join(text for text in (row["persona"], row["about"]) if text),
            "wants": row["wish"] or "",
            "dimension": row["dimension"] or "overall",
            "prompt": [{"role": "user", "content": row["prompt"] or ""}],
            "chosen": [{"content": row["chosen"]}],
            "rejected": [{"content": row["rejected"]}],
            "label": "",
            "margin": None,
            "p_chosen": None,
            "verdict": "",
        }
        for row in table.to_dicts()
    ]


def _persona_text(source: str) -> Any:
    """Column with the text of the person, or a note that it was left out."""
    import polars as pl

    has_text = "text" in loading.scan(source, "personas").collect_schema().names()
    return pl.col("text") if has_text else pl.lit("(left out)")


def _wants(profile: Results) -> str:
    wanted = zip(profile["names"], profile["values"], strict=True)
    return ", ".join(f"{name}: {value}" for name, value in wanted if value)
