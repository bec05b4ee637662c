"""Charts: what an audit's figures look like, drawn by matplotlib as SVG that stands in the page."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from simforge.audit.figures import measured
from simforge.errors import UsageError

INK, GOOD, BAD, PLAIN = "#222222", "#3a7d44", "#b3412f", "#4a6fa5"
SIZE = (6.2, 2.9)


def all_of(audit: dict[str, Any], manifest: dict[str, Any]) -> list[dict[str, str]]:
    """Every chart of which there are figures: its title, what it shows, and the SVG. Raises `UsageError` where the
    library is missing."""
    try:
        import matplotlib
    except ImportError:
        raise UsageError(
            'the report needs matplotlib: install SimForge with the extra report ("simforge[report]").'
        ) from None
    matplotlib.use("svg")
    found = []
    for title, about, draw in CHARTS:
        drawn = _drawn(draw, audit, manifest)
        if drawn is not None:
            found.append({"title": title, "about": about, "svg": drawn})
    return found


def _drawn(
    draw: Callable[[Any, dict[str, Any], dict[str, Any]], bool], audit: dict[str, Any], manifest: dict[str, Any]
) -> str | None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "simforge", "font.size": 9, "text.parse_math": False}):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        if not draw(axes, audit, manifest):
            return None
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()[out.getvalue().index("<svg") :]


def _bits(axes: Any, audit: dict[str, Any], manifest: dict[str, Any]) -> bool:
    by = audit.get("information", {}).get("text", {}).get("prompts", {}).get("by_dimension", {})
    rows = {name: one["bits"] for name, one in by.items() if measured(one["bits"])}
    if not rows:
        return False
    _bars(axes, rows, GOOD)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.axvline(0.2, color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlabel("bits a pair (dotted: 0.2, much)")
    return True


def _bars(axes: Any, rows: dict[str, Any], colour: str) -> None:
    names = list(rows)
    values = [one["value"] for one in rows.values()]
    spans = [one.get("interval") or [one["value"]] * 2 for one in rows.values()]
    errors = [[max(0.0, value - low) for value, (low, _) in zip(values, spans, strict=True)],
              [max(0.0, high - value) for value, (_, high) in zip(values, spans, strict=True)]]  # fmt: skip
    axes.barh(names, values, color=colour, xerr=errors, error_kw={"elinewidth": 1, "capsize": 2})
    axes.invert_yaxis()


def _rules(axes: Any, audit: dict[str, Any], manifest: dict[str, Any]) -> bool:
    rows = {f"{name.replace('_', ' ')} wins": one for name, one in audit["shortcuts"]["rules"].items() if measured(one)}
    if not rows:
        return False
    _bars(axes, rows, PLAIN)
    axes.axvspan(0.4, 0.7, color=GOOD, alpha=0.12)
    axes.axvline(audit["shortcuts"]["human"], color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlim(0, 1)
    axes.set_xlabel("right in (green: sound; dotted: people, for length)")
    return True


def _waterfall(axes: Any, audit: dict[str, Any], manifest: dict[str, Any]) -> bool:
    steps = audit.get("waterfall", {}).get("bits")
    if not steps:
        return False
    left = 1.0
    for number, (name, bits) in enumerate(steps.items()):
        colour = GOOD if name == "persona" else INK if name == "residual" else PLAIN
        axes.bar(number, bits, bottom=left - bits, color=colour)
        axes.annotate(f"{bits:.2f}", (number, left), ha="center", va="bottom", fontsize=8)
        left -= bits
    axes.set_xticks(range(len(steps)), list(steps))
    axes.set_ylim(0, 1.12)
    axes.set_ylabel("bits of the label")
    return True


def _position(axes: Any, audit: dict[str, Any], manifest: dict[str, Any]) -> bool:
    judges = audit["labels"]["judges"]
    rows = {
        name: one["first_shown"]
        for name, one in judges.items()
        if isinstance(one, dict) and measured(one["first_shown"])
    }
    if not rows:
        return False
    _bars(axes, rows, BAD if any(not 0.4 < one["value"] < 0.6 for one in rows.values()) else GOOD)
    axes.axvline(0.5, color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlim(0, 1)
    axes.set_xlabel("takes what stands first (0.5 leans to neither)")
    return True


def _disclosure(axes: Any, audit: dict[str, Any], manifest: dict[str, Any]) -> bool:
    told = (audit.get("fidelity") or {}).get("disclosure")
    if not told:
        return False
    axes.plot(range(1, len(told) + 1), told, marker="o", color=PLAIN)
    axes.set_ylim(0, 1)
    axes.set_xlabel("turn")
    axes.set_ylabel("told about themselves")
    return True


def _discards(axes: Any, audit: dict[str, Any], manifest: dict[str, Any]) -> bool:
    kept = sum(manifest["counts"]["preferences"].values())
    if not manifest["discards"]:
        return False
    rows = {"pairs": kept, **dict(sorted(manifest["discards"].items(), key=lambda one: -one[1])[:9])}
    colours = [GOOD, *[PLAIN] * (len(rows) - 1)]
    axes.barh([name.replace("_", " ") for name in rows], list(rows.values()), color=colours)
    axes.invert_yaxis()
    axes.set_xlabel("comparisons and dialogues")
    return True


CHARTS: list[tuple[str, str, Callable[[Any, dict[str, Any], dict[str, Any]], bool]]] = [
    ("How personal, by dimension", "What the profile tells of the label on prompts that no scorer has seen.", _bits),
    ("Where the label's bit goes", "What each thing explains of held-out pairs, one after the other.", _waterfall),
    ("Rules without a person", "How far one gets by length or format alone.", _rules),
    ("Place", "Whether judges lean to what they are shown first.", _position),
    ("Disclosure", "The share of what there is to tell that people have told by each turn.", _disclosure),
    ("What became no pair", "Pairs, and what was discarded on the way, by reason.", _discards),
]
