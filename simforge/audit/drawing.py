"""What the charts of an audit have in common: colours, bars and lines with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simforge.audit.figures import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, GREEN, RED, BLUE = "#222222", "#3a7d44", "#b3412f", "#4a6fa5"


SIZE = (6.2, 2.9)


MAX_BARS = 12
"Most bars in a chart."


def draw_bars(axes: Axes, rows: Results, colour: str) -> None:
    axes.barh(
        list(rows),
        [figure["value"] for figure in rows.values()],
        color=colour,
        xerr=error_bars(list(rows.values())),
        error_kw={"elinewidth": 1, "capsize": 2},
    )
    axes.invert_yaxis()


def draw_line(axes: Axes, points: list[Any]) -> None:
    values = [figure["value"] for figure in points]
    axes.errorbar(
        range(len(points)),
        values,
        yerr=error_bars(points),
        marker="o",
        color=BLUE,
        capsize=3,
    )


def error_bars(points: list[Any]) -> list[list[float]]:
    """Distances from each value down and up to the ends of its interval."""
    below = [max(0.0, figure["value"] - figure["interval"][0]) for figure in points]
    return [
        below,
        [max(0.0, figure["interval"][1] - figure["value"]) for figure in points],
    ]
