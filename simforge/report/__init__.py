"""The report: one file that a person wants to read, about what an audit found.

    write(Path("OUT"), audit, sample("OUT"))      -> OUT/report.html

It needs no network and no server: charts are drawn into it, and one small script filters what is shown. Everything that
a model wrote is escaped, and the page's own policy lets no other script run.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simforge import loading
from simforge.audit import pairs
from simforge.audit.verdict import DOUBT, FAULT, GOOD
from simforge.report import charts, tables

NAME = "report.html"
DIALOGUES, PAIRS = 20, 50
"To read."
WEIGHTS = {FAULT: "Fault", DOUBT: "Doubt", GOOD: "Good"}


_REHEARSED = " A scripted model wrote some of it: such texts mean nothing and are for rehearsal only."


@dataclass(frozen=True)
class Sample:
    """What a report shows of the data itself."""

    title: str
    about: str
    pairs: list[dict[str, Any]]
    dialogues: list[dict[str, Any]] = field(default_factory=list)
    manifest: Mapping[str, Any] | None = None


def sample(source: str, columns: Mapping[str, str] | None = None) -> Sample:
    """Pairs and dialogues to read, of a dataset or of anyone's pairs. Raises what `audit.pairs.read` raises."""
    if not pairs.is_own(source, columns):
        return Sample(Path(source).name, "", _foreign(source, columns))
    manifest = loading.manifest(source)
    return Sample(
        title=manifest["recipe"]["description"].strip().split(".")[0],
        about=f"Seed {manifest['seed']} · digest {manifest['digest']} · SimForge {manifest['simforge']}. "
        "Nobody in it is a real person, and no human checked the labels."
        + (_REHEARSED if any(one["reference"].startswith("scripted:") for one in manifest["models"].values()) else ""),
        pairs=_pairs(source),
        dialogues=_dialogues(source),
        manifest=manifest,
    )


def write(folder: Path, audit: dict[str, Any], shown: Sample) -> Path:
    """Write the report of an audit into a folder. Raises `UsageError` where the charts cannot be drawn."""
    path = folder / NAME
    path.write_text(render(audit, shown), encoding="utf-8")
    return path


def render(audit: dict[str, Any], shown: Sample) -> str:
    """The report's page."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    here = Path(__file__).parent
    script = (here / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=True, trim_blocks=True)
    page = environment.from_string((here / "report.html").read_text(encoding="utf-8"))
    return page.render(
        audit=audit,
        shown=shown,
        verdict=[{**one, "name": WEIGHTS[one["weight"]]} for one in audit["verdict"]],
        tables=tables.all_of(audit),
        charts=charts.all_of(audit, shown.manifest),
        dimensions=sorted({one["dimension"] for one in shown.pairs}),
        labels=sorted({one["label"] for one in shown.pairs if one["label"]}),
        script=script,
        digest=digest,
    )


def _dialogues(source: str) -> list[dict[str, Any]]:
    """Dialogues to read, with who speaks and what they want."""
    import polars as pl

    people = loading.scan(source, "personas").select("profile", persona_id="id", who=_about(source))
    rows = (
        loading.scan(source, "dialogues")
        .filter(pl.col("parent").is_null())
        .head(DIALOGUES)
        .join(people, on="persona_id", how="left", maintain_order="left")
        .select("who", "profile", "messages", "ending", "flags")
        .collect()
        .to_dicts()
    )
    return [{**row, "wants": _wants(row["profile"])} for row in rows]


def _pairs(source: str) -> list[dict[str, Any]]:
    """Pairs to read side by side: of each dimension as many, with what judges said of them."""
    import polars as pl

    people = loading.scan(source, "personas").select(persona_id="id", who=_about(source))
    rows = loading.scan(source).with_columns(dimension=pl.col("dimension").fill_null("overall"))
    kinds = rows.select(pl.col("dimension").unique()).collect().height
    mixed = rows.with_columns(lot=pl.col("id").hash(seed=0)).sort("lot", "id")  # of all people, not of the first
    each = mixed.filter(pl.int_range(pl.len()).over("dimension") < -(-PAIRS // max(1, kinds)))
    shown = each.head(PAIRS).join(people, on="persona_id", how="left", maintain_order="left")
    columns = ("who", "profile", "dimension", "prompt", "chosen", "rejected", "label", "margin", "p_chosen")
    found = shown.select(*columns, "judgment_id", "chosen_id").collect()
    said = {}
    asked = found["judgment_id"].drop_nulls().unique()
    if len(asked):
        judged = loading.scan(source, "judgments").filter(pl.col("id").is_in(asked.to_list())).collect()
        said = {row["id"]: row for row in judged.to_dicts()}
    return [
        {**row, "wants": _wants(row["profile"]), "verdict": _verdict(said.get(row["judgment_id"]), row["chosen_id"])}
        for row in found.to_dicts()
    ]


def _verdict(said: dict[str, Any] | None, chosen: str) -> str:
    """A judge's verdicts in words; empty where none was asked."""
    if said is None:
        return ""
    sides = {"a": "chosen" if said["a"] == chosen else "rejected", "b": "rejected" if said["a"] == chosen else "chosen"}
    shown = {"first": "the first", "second": "the second", "tie": "a tie", None: "not asked"}
    orders = [shown.get(said[name], said[name]) for name in ("verdict_ab", "verdict_ba")]
    outcome = sides.get(said["outcome"], said["outcome"])
    told = (
        f"{said['judge']} said {orders[0]} with the {sides['a']} one first, {orders[1]} the other way round: {outcome}"
    )
    return f"{told}. {said.get('reasons_ab') or ''}".strip()  # reasons may have been withheld


def _foreign(source: str, columns: Mapping[str, str] | None) -> list[dict[str, Any]]:
    """Pairs of anyone's data to read."""
    import polars as pl

    found = pairs.read(source, columns)
    drawn = found.frame.with_columns(about=pl.Series(found.about or [""] * len(found), dtype=pl.String))
    drawn = drawn.sample(min(PAIRS, len(found)), seed=0, shuffle=True)
    return [
        {
            "who": ", ".join(one for one in (row["persona"], row["about"]) if one),
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
        for row in drawn.to_dicts()
    ]


def _about(source: str) -> Any:
    """The person's text, unless it was left out."""
    import polars as pl

    there = "text" in loading.scan(source, "personas").collect_schema().names()
    return pl.col("text") if there else pl.lit("(left out)")


def _wants(profile: dict[str, Any]) -> str:
    wanted = zip(profile["names"], profile["values"], strict=True)
    return ", ".join(f"{name}: {value}" for name, value in wanted if value)
