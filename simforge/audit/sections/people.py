"""People: how far they are what their pack declares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from simforge.audit import people
from simforge.audit.drawing import BLUE, GREEN, INK, MAX_BARS, RED
from simforge.audit.figures import Results, measured, not_measured
from simforge.audit.sections import (
    DOUBT,
    FAULT,
    SIMFORGE_ONLY,
    AuditData,
    Chart,
    Finding,
    Row,
    Section,
    chance_text,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from simforge.dataset.manifest import Manifest


def _people_findings(section: Results) -> Iterator[Finding]:
    """Findings on the people compared with their pack."""
    marginals = section.get("marginals", {})
    for name, figure in marginals.items() if "not_measured" not in marginals else ():
        if figure["value"] > max(1.5 * figure["chance"][1], 0.03):
            text = (
                f"total variation {figure['value']:.2f}, by chance at most "
                f"{figure['chance'][1]:.2f}"
            )
            yield (
                FAULT,
                f"The people do not match their pack: {name.replace('_', ' ')} is off ({text}).",
            )
    off_pairs = section.get("joints", {}).get("off", [])
    if off_pairs:
        text = "; ".join(
            f"{' and '.join(pair['traits'])} (Cramer's V {pair['observed']:.2f}, in "
            f"the pack {pair['expected']:.2f})"
            for pair in off_pairs[:3]
        )
        yield (
            FAULT,
            f"{len(off_pairs)} pairs of traits are not associated as in the pack: "
            f"{text.replace('_', ' ')}.",
        )
    figure = section.get("effective", {}).get("ratio", {})
    if measured(figure) and figure["interval"][1] < 0.9:
        yield (
            FAULT,
            f"The people are less diverse than the pack: {figure['value']:.0%} of its "
            "effective size.",
        )
    figure = section.get("near_duplicates", {})
    if measured(figure) and figure["interval"][0] > 0.01:
        yield (
            DOUBT,
            f"{figure['value']:.0%} of the people are near-duplicates of another person.",
        )


def _people_rows(cast: Results) -> Iterator[Row]:
    marginals = cast.get("marginals", {})
    if "not_measured" in marginals:
        yield "match with the pack", marginals, ""
    elif marginals:
        name = max(
            marginals,
            key=lambda trait: float(
                marginals[trait]["value"] - marginals[trait]["chance"][1]
            ),
        )
        figure = marginals[name]
        yield (
            f"distance from the pack, worst of {len(marginals)} traits: {name}",
            figure,
            chance_text(figure),
        )
    error = cast.get("joints", {}).get("error")
    if error is not None:
        yield (
            "association of traits, error against the pack "
            f"({cast['joints'].get('pairs', 0)} pairs, Cramer's V)",
            error,
            chance_text(error),
        )
    if "ratio" in cast.get("effective", {}):
        yield (
            "effective number of people, relative to the pack",
            cast["effective"]["ratio"],
            "0.9 and more",
        )
    if "near_duplicates" in cast:
        yield "near-duplicates of another person", cast["near_duplicates"], "below 0.01"


def _draw_population(axes: Axes, audit: Results, manifest: Manifest | None) -> bool:
    """Draw the traits that differ most from the pack, each with the range that chance gives."""
    traits = audit.get("cast", {}).get("marginals", {})
    if not traits or "not_measured" in traits:
        return False
    order = sorted(
        traits,
        key=lambda name: float(traits[name]["chance"][1] - traits[name]["value"]),
    )[:MAX_BARS]
    names = [name.replace("_", " ") for name in order]
    values = [traits[name]["value"] for name in order]
    limits = [traits[name]["chance"][1] for name in order]
    axes.barh(
        names,
        values,
        color=[
            RED if value > limit else GREEN
            for value, limit in zip(values, limits, strict=True)
        ],
    )
    axes.plot(
        limits, range(len(order)), linestyle="", marker="|", markersize=12, color=INK
    )
    axes.invert_yaxis()
    axes.set_xlabel("total variation from the pack (mark: upper limit by chance)")
    return True


def _draw_worst_trait(axes: Axes, audit: Results, manifest: Manifest | None) -> bool:
    """Draw the trait that differs most from the pack, value by value."""
    traits = audit.get("cast", {}).get("marginals", {})
    if not traits or "not_measured" in traits:
        return False
    name = max(
        traits,
        key=lambda trait: float(traits[trait]["value"] - traits[trait]["chance"][1]),
    )
    marginal = traits[name]
    heights = [
        max(expected, observed)
        for expected, observed in zip(
            marginal["expected"], marginal["observed"], strict=True
        )
    ]
    shown = [
        place
        for place in sorted(range(len(heights)), key=lambda place: -heights[place])[
            :MAX_BARS
        ]
        if heights[place]
    ]
    places = range(len(shown))
    axes.barh(
        [place - 0.2 for place in places],
        [marginal["expected"][index] for index in shown],
        0.4,
        color=INK,
        label="pack",
    )
    axes.barh(
        [place + 0.2 for place in places],
        [marginal["observed"][index] for index in shown],
        0.4,
        color=BLUE,
        label="dataset",
    )
    axes.set_yticks(
        list(places), [str(marginal["values"][index])[:28] for index in shown]
    )
    axes.invert_yaxis()
    axes.legend(frameon=False)
    axes.set_xlabel(f"share of people by {name.replace('_', ' ')}")
    return True


def _measure(data: AuditData) -> Results:
    if data.pairs.manifest is None:
        names = ("marginals", "near_duplicates")
        return {"cast": {name: not_measured(SIMFORGE_ONLY) for name in names}}
    return {"cast": people.measure(data.source, data.pairs.manifest)}


def _findings(results: Results) -> Iterator[Finding]:
    yield from _people_findings(results.get("cast", {}))


def _rows(results: Results) -> Iterator[tuple[str, list[Row]]]:
    yield "People", list(_people_rows(results.get("cast", {})))


SECTION = Section(
    order=5,
    measure=_measure,
    findings=_findings,
    rows=_rows,
    charts=[
        Chart(
            "People and their pack",
            "How far each trait is from what the pack asks for.",
            _draw_population,
            4,
        ),
        Chart(
            "The trait that is furthest off",
            "Shares that the pack asks for, and those in the dataset.",
            _draw_worst_trait,
            5,
        ),
    ],
)
