"""Sections of an audit: one module for each, with its figures and everything that is made of them.

A section measures its part of `audit.json`, says what that means (findings, worst first), lists its
figures beside their good values (rows of the report), and draws its charts. Nothing else knows a
section by its name.

To add a figure, add it to its section; for a figure of another kind, add a module here that defines
`SECTION`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from simforge.audit.figures import Figure, Results
from simforge.audit.pairs import Pairs
from simforge.audit.scoring import FAMILIES as SCORER_FAMILIES
from simforge.catalog.registry import Registry

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from simforge.dataset.manifest import Manifest

FAULT, DOUBT, GOOD = "fault", "doubt", "good"


STRONG_BITS = 0.2
"Bits a pair from which preferences count as personal."


TRACE_BITS, NEGLIGIBLE_BITS = 0.01, 0.03
"Bits a pair: less is noise in a few thousand pairs; an upper bound that means no effect."


ACCURACY_GAP = 0.05
"Gain in accuracy with the profile from which preferences count as personal."


CALIBRATION_SLACK = 0.05
"Tolerated overconfidence of a judge."


MIN_PAIRS = 100
"Fewest pairs of which the findings state that nothing is wrong."


REALISTIC_AUC = 0.65
"Area under the curve up to which simulated users pass for people."


SIMFORGE_ONLY = "only measured for SimForge datasets"
"Reason why some measures are missing for data from elsewhere."


FAMILIES = tuple(SCORER_FAMILIES)
"Names of the families of scorers."


Finding = tuple[str, str]
"Weight (`fault`, `doubt` or `good`) and sentence. Only what was measured can be good."


Row = tuple[str, Figure, str]
"Description, figure, and good value."


Draw = Callable[["Axes", Results, "Manifest | None"], bool]
"Draws an audit and the manifest of its dataset on axes; `False` if there is no figure."


@dataclass(frozen=True)
class AuditOptions:
    """Inputs of an audit other than the dataset."""

    columns: Mapping[str, str] | None = None
    "Columns of a preference file from elsewhere, by their role (`pairs.COLUMNS`)."
    again: str | None = None
    "Another run with the same people."
    trusted: Path | None = None
    "File of labels that are known to be right or wrong."
    benchmarks: Sequence[Path] = ()
    "Files of prompts that the dataset must not overlap with."
    human: Path | None = None
    "File of dialogues of real people, to compare the simulated ones with."
    probe: bool = False
    "True if the model that played the people is asked how they react to wrong answers."
    model: str | None = None
    "The model that is asked; by default the one that the dataset names."
    families: Sequence[str] = FAMILIES
    "Families of scorers to use."


@dataclass(frozen=True, slots=True)
class AuditData:
    """The data and the options that a section measures."""

    pairs: Pairs
    options: AuditOptions
    source: str = ""
    "Where the pairs come from; empty if only the pairs are at hand."
    again: Pairs | None = None
    "The pairs of another run with the same people."


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of the report."""

    title: str
    about: str
    "What it shows, as a sentence."
    draw: Draw
    place: int = 100
    "Charts are shown in this order."


def _nothing(data: AuditData) -> Results:
    return {}


@dataclass(frozen=True, slots=True)
class Section:
    """A part of an audit."""

    order: int
    "Sections are shown in this order."
    findings: Callable[[Results], Iterator[Finding]]
    "What the figures mean, from all results of the audit."
    rows: Callable[[Results], Iterator[tuple[str, list[Row]]]]
    "Tables of the report, each with its name."
    quick: Callable[[AuditData], Results] = _nothing
    "Measures all that takes seconds for ten thousand pairs and needs no optional package."
    measure: Callable[[AuditData], Results] = _nothing
    "Measures the rest."
    charts: Sequence[Chart] = field(default=())


SECTIONS: Registry[Section] = Registry(
    "section of an audit",
    Section,
    package="simforge.audit.sections",
    variable="SECTION",
)


def ordered_sections() -> list[Section]:
    """All sections, in the order in which they are shown."""
    return sorted(SECTIONS.values(), key=lambda section: section.order)


def chance_text(figure: Figure) -> str:
    """The good value of a figure that has a range by chance."""
    return f"chance gives up to {figure['chance'][1]:.3f}" if "chance" in figure else ""
