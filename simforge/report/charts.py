"""Charts: what an audit's figures look like, drawn by matplotlib as SVG that stands in the page."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

from simforge.audit.figures import measured
from simforge.errors import UsageError

INK, GOOD, BAD, PLAIN = "#222222", "#3a7d44", "#b3412f", "#4a6fa5"
SIZE = (6.2, 2.9)
SHOWN = 12
"Bars of a chart at most."
Manifest = Mapping[str, Any] | None
Draw = Callable[[Any, dict[str, Any], Manifest], bool]
"Draws into the axes, of an audit and the dataset's manifest; `False` where there is nothing to draw."


def all_of(audit: dict[str, Any], manifest: Manifest) -> list[dict[str, str]]:
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


def _drawn(draw: Draw, audit: dict[str, Any], manifest: Manifest) -> str | None:
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


def _bits(axes: Any, audit: dict[str, Any], manifest: Manifest) -> bool:
    rows = {}
    several = len(audit.get("information", {})) > 1
    for family, by in audit.get("information", {}).items():
        for name, one in by.get("prompts", {}).get("by_dimension", {}).items():
            if measured(one["bits"]):
                rows[f"{name.replace('_', ' ')} ({family})" if several else name] = one["bits"]
    if not rows:
        return False
    best = sorted(rows, key=lambda name: -float(rows[name]["value"]))[:SHOWN]
    _bars(axes, {name: rows[name] for name in best}, GOOD)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.axvline(0.2, color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlabel("bits a pair (dotted: 0.2, much)")
    return True


def _bars(axes: Any, rows: dict[str, Any], colour: str) -> None:
    axes.barh(
        list(rows),
        [one["value"] for one in rows.values()],
        color=colour,
        xerr=_errors(list(rows.values())),
        error_kw={"elinewidth": 1, "capsize": 2},
    )
    axes.invert_yaxis()


def _line(axes: Any, points: list[Any]) -> None:
    values = [one["value"] for one in points]
    axes.errorbar(range(len(points)), values, yerr=_errors(points), marker="o", color=PLAIN, capsize=3)


def _errors(points: list[Any]) -> list[list[float]]:
    """How far each interval reaches below and above its value."""
    below = [max(0.0, one["value"] - one["interval"][0]) for one in points]
    return [below, [max(0.0, one["interval"][1] - one["value"]) for one in points]]


def _rules(axes: Any, audit: dict[str, Any], manifest: Manifest) -> bool:
    rows = {f"{name.replace('_', ' ')} wins": one for name, one in audit["shortcuts"]["rules"].items() if measured(one)}
    if not rows:
        return False
    _bars(axes, rows, PLAIN)
    axes.axvspan(0.4, 0.7, color=GOOD, alpha=0.12)
    axes.axvline(audit["shortcuts"]["human"], color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlim(0, 1)
    axes.set_xlabel("right in (green: sound; dotted: people, for length)")
    return True


def _waterfall(axes: Any, audit: dict[str, Any], manifest: Manifest) -> bool:
    steps = audit.get("waterfall", {}).get("bits", {})
    if not steps or not all(isinstance(one, dict) and measured(one) for one in steps.values()):
        return False
    left = 1.0
    for number, (name, figure) in enumerate(steps.items()):
        bits = figure["value"]
        colour = GOOD if name == "persona" else INK if name == "residual" else PLAIN
        axes.bar(number, bits, bottom=left - bits, color=colour)
        axes.annotate(f"{bits:.2f}", (number, left), ha="center", va="bottom", fontsize=8)
        left -= bits
    axes.set_xticks(range(len(steps)), list(steps))
    axes.set_ylim(0, 1.12)
    axes.set_ylabel("bits of the label")
    return True


def _position(axes: Any, audit: dict[str, Any], manifest: Manifest) -> bool:
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


def _disclosure(axes: Any, audit: dict[str, Any], manifest: Manifest) -> bool:
    told = audit.get("dialogues", {}).get("disclosure", {}).get("by_turn")
    turns = [one for one in told if measured(one)] if isinstance(told, list) else []
    if not turns:
        return False
    _line(axes, turns)
    axes.set_ylim(0, 1)
    axes.set_xticks(range(len(turns)), [str(turn) for turn in range(1, len(turns) + 1)])
    axes.set_xlabel("turn")
    axes.set_ylabel("told about themselves")
    return True


def _population(axes: Any, audit: dict[str, Any], manifest: Manifest) -> bool:
    """The traits that lie furthest off, each beside what chance gives."""
    traits = audit.get("cast", {}).get("marginals", {})
    if not traits or "not_measured" in traits:
        return False
    order = sorted(traits, key=lambda name: float(traits[name]["chance"][1] - traits[name]["value"]))[:SHOWN]
    names = [name.replace("_", " ") for name in order]
    values = [traits[name]["value"] for name in order]
    limits = [traits[name]["chance"][1] for name in order]
    axes.barh(
        names, values, color=[BAD if value > limit else GOOD for value, limit in zip(values, limits, strict=True)]
    )
    axes.plot(limits, range(len(order)), linestyle="", marker="|", markersize=12, color=INK)
    axes.invert_yaxis()
    axes.set_xlabel("total variation from the pack (mark: the most that chance gives)")
    return True


def _worst_trait(axes: Any, audit: dict[str, Any], manifest: Manifest) -> bool:
    """The trait furthest off, value by value."""
    traits = audit.get("cast", {}).get("marginals", {})
    if not traits or "not_measured" in traits:
        return False
    name = max(traits, key=lambda one: float(traits[one]["value"] - traits[one]["chance"][1]))
    one = traits[name]
    tall = [max(asked, got) for asked, got in zip(one["asked"], one["got"], strict=True)]
    most = [place for place in sorted(range(len(tall)), key=lambda place: -tall[place])[:SHOWN] if tall[place]]
    places = range(len(most))
    axes.barh([place - 0.2 for place in places], [one["asked"][at] for at in most], 0.4, color=INK, label="pack")
    axes.barh([place + 0.2 for place in places], [one["got"][at] for at in most], 0.4, color=PLAIN, label="here")
    axes.set_yticks(list(places), [str(one["values"][at])[:28] for at in most])
    axes.invert_yaxis()
    axes.legend(frameon=False)
    axes.set_xlabel(f"share of people by {name.replace('_', ' ')}")
    return True


def _length(axes: Any, audit: dict[str, Any], manifest: Manifest) -> bool:
    rows = [one for one in audit["shortcuts"]["length"].get("by_ratio", []) if measured(one)]
    if len(rows) < 2:
        return False
    _line(axes, rows)
    axes.axhspan(0.4, 0.7, color=GOOD, alpha=0.12)
    axes.axhline(audit["shortcuts"]["human"], color=INK, linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(rows)), [f"{one['times'][0]:.2f} to {one['times'][1]:.2f}" for one in rows])
    axes.set_ylim(0, 1)
    axes.set_xlabel("how many times as long the longer answer is")
    axes.set_ylabel("longer is chosen")
    return True


def _discards(axes: Any, audit: dict[str, Any], manifest: Manifest) -> bool:
    if manifest is None or not manifest["discards"]:
        return False
    kept = sum(manifest["counts"]["preferences"].values())
    rows = {"pairs": kept, **dict(sorted(manifest["discards"].items(), key=lambda one: -one[1])[:9])}
    colours = [GOOD, *[PLAIN] * (len(rows) - 1)]
    axes.barh([name.replace("_", " ") for name in rows], list(rows.values()), color=colours)
    axes.invert_yaxis()
    axes.set_xlabel("comparisons and dialogues")
    return True


CHARTS: list[tuple[str, str, Draw]] = [
    ("How personal, by dimension", "What the profile tells of the label on prompts that no scorer has seen.", _bits),
    ("Where the label's bit goes", "What each thing explains of held-out pairs, one after the other.", _waterfall),
    ("Rules without a person", "How far one gets by length or format alone.", _rules),
    ("Length", "How often the longer answer is the chosen one, by how much longer it is (dotted: people).", _length),
    ("People and their pack", "How far each trait is from what the pack asks for.", _population),
    ("The trait that is furthest off", "What the pack asks for, and who is here.", _worst_trait),
    ("Place", "Whether judges lean to what they are shown first.", _position),
    ("Disclosure", "The share of what there is to tell that people have told by each turn.", _disclosure),
    ("What became no pair", "Pairs, and what was discarded on the way, by reason.", _discards),
]
