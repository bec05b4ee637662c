"""The charts of the report, as SVG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from simforge.audit.drawing import SIZE
from simforge.audit.figures import Results
from simforge.audit.sections import Draw, ordered_sections
from simforge.errors import UsageError
from simforge.install import how_to_install

if TYPE_CHECKING:
    from simforge.dataset.manifest import Manifest


def all_of(audit: Results, manifest: Manifest | None) -> list[dict[str, str]]:
    """Draw every chart that has figures: its title, what it shows, and the SVG. Raises
    `UsageError` if matplotlib is missing."""
    try:
        import matplotlib
    except ImportError:
        raise UsageError(
            f"the report needs matplotlib: {how_to_install('report')}."
        ) from None
    matplotlib.use("svg")
    result = []
    every = [chart for section in ordered_sections() for chart in section.charts]
    for chart in sorted(every, key=lambda chart: chart.place):
        svg = _draw_svg(chart.draw, audit, manifest)
        if svg is not None:
            result.append({"title": chart.title, "about": chart.about, "svg": svg})
    return result


def _draw_svg(draw: Draw, audit: Results, manifest: Manifest | None) -> str | None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "simforge",
            "font.size": 9,
            "text.parse_math": False,
        }
    ):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        if not draw(axes, audit, manifest):
            return None
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()[out.getvalue().index("<svg") :]
