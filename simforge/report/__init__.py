"""The report: one file that a person wants to read, about what an audit found.

    write(Path("OUT"), audit)      -> OUT/report.html

It needs no network and no server: charts are drawn into it, and one small script filters what is shown. Everything that
a model wrote is escaped, and the page's own policy lets no other script run.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from simforge import loading
from simforge.audit.verdict import DOUBT, FAULT, GOOD
from simforge.report import charts

NAME = "report.html"
DIALOGUES, PAIRS = 20, 50
"To read."
WEIGHTS = {FAULT: "Fault", DOUBT: "Doubt", GOOD: "Good"}


def write(run: Path, audit: dict[str, Any]) -> Path:
    """Write the report of an audited run into its folder. Raises `UsageError` where the charts cannot be drawn."""
    path = run / NAME
    path.write_text(render(audit, loading.manifest(run), _dialogues(run), _pairs(run)), encoding="utf-8")
    return path


def render(
    audit: dict[str, Any], manifest: dict[str, Any], dialogues: list[dict[str, Any]], pairs: list[dict[str, Any]]
) -> str:
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
        manifest=manifest,
        title=manifest["recipe"]["description"].strip().split(".")[0],
        verdict=[{**one, "name": WEIGHTS[one["weight"]]} for one in audit["verdict"]],
        tables=_tables(audit),
        charts=charts.all_of(audit, manifest),
        dialogues=dialogues,
        pairs=pairs,
        dimensions=sorted({one["dimension"] for one in pairs}),
        script=script,
        digest=digest,
    )


def _tables(audit: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures, by what they are about, each with what would be good."""
    rules = audit["shortcuts"]["rules"]
    shortcuts = [(f"'{name.replace('_', ' ')} wins' is right", one, "0.40 to 0.70") for name, one in rules.items()]
    shortcuts.append(("the same model wins", audit["shortcuts"]["models"], "0.40 to 0.70"))
    echo = audit["shortcuts"]["echo"]
    shortcuts += [("chosen quotes the wish, more than rejected", echo["difference"], "below 0.01")]
    room = audit["room"]
    hygiene = audit["hygiene"]
    found = [
        ("Shortcuts", shortcuts),
        (
            "Room",
            [
                ("two people disagree on the same two answers", room["conflict"], "above 0.05"),
                ("best that can be done without knowing who asks", room["ceiling"], "well below 1"),
                ("of the minority", room["minority"], "above 0"),
            ],
        ),
        (
            "Hygiene",
            [
                ("pairs repeated by one person", hygiene["repeated_by_one_person"], "below 0.01"),
                ("nearly the same as another", hygiene["near_duplicates"], "below 0.1"),
                ("both answers refuse", hygiene["refusals"]["both"], "below 0.01"),
                ("held-out people who are in train", hygiene["leaks"]["people"], "0"),
                ("held-out prompts that are in train", hygiene["leaks"]["prompts"], "0"),
            ],
        ),
    ]
    for family, by in audit.get("information", {}).items():
        for held, one in by.items() if "bits" not in by else {"": by}.items():
            rows = [("bits a pair", one["bits"], "above 0.2")]
            if "gap" in one:
                rows += [
                    ("bits with other people's profiles", one["shuffled"], "at most 0.01"),
                    ("accuracy without the profile", one["accuracy_without"], ""),
                    ("accuracy with it", one["accuracy_with"], "0.05 more"),
                    ("pairs that the profile makes less likely", one["below_zero"], "below 0.5"),
                ]
            found.insert(0, (f"Personal information ({family}{f', whole {held} held out' if held else ''})", rows))
    judges = audit["labels"]["judges"]
    for name, one in judges.items() if "not_measured" not in judges else ():
        rows = [
            ("the same in both orders", one["agreement"], "0.85 and more"),
            ("beyond chance (kappa)", one["beyond_chance"], "above 0.5"),
            ("takes what stands first", one["first_shown"], "0.5"),
            ("agrees with labels by construction", one["with_construction"], "high"),
        ]
        found.append((f"The judge {name}", rows))
    return [
        {"name": name, "rows": [{"what": what, "good": good, **one} for what, one, good in rows]}
        for name, rows in found
    ]


def _dialogues(run: Path) -> list[dict[str, Any]]:
    """Dialogues to read, with who speaks and what they want."""
    import polars as pl

    people = loading.scan(run, "personas").select("profile", persona_id="id", who=_about(run))
    rows = (
        loading.scan(run, "dialogues")
        .filter(pl.col("parent").is_null())
        .head(DIALOGUES)
        .join(people, on="persona_id", how="left", maintain_order="left")
        .select("who", "profile", "messages", "ending", "flags")
        .collect()
        .to_dicts()
    )
    return [{**row, "wants": _wants(row["profile"])} for row in rows]


def _pairs(run: Path) -> list[dict[str, Any]]:
    """Pairs to read side by side: of each dimension as many."""
    import polars as pl

    people = loading.scan(run, "personas").select(persona_id="id", who=_about(run))
    rows = loading.scan(run).with_columns(dimension=pl.col("dimension").fill_null("overall"))
    kinds = rows.select(pl.col("dimension").unique()).collect().height
    each = rows.filter(pl.int_range(pl.len()).over("dimension") < -(-PAIRS // max(1, kinds)))
    shown = each.head(PAIRS).join(people, on="persona_id", how="left", maintain_order="left")
    columns = ("who", "profile", "dimension", "system", "prompt", "chosen", "rejected", "label", "margin", "p_chosen")
    return [{**row, "wants": _wants(row["profile"])} for row in shown.select(*columns).collect().to_dicts()]


def _about(run: Path) -> Any:
    """The person's text, unless it was left out."""
    import polars as pl

    there = "text" in loading.scan(run, "personas").collect_schema().names()
    return pl.col("text") if there else pl.lit("(left out)")


def _wants(profile: dict[str, Any]) -> str:
    wanted = zip(profile["names"], profile["values"], strict=True)
    return ", ".join(f"{name}: {value}" for name, value in wanted if value)
