"""Dialogues: how they end, how users write and what they disclose, beside real people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from simforge.audit import dialogues, pushback
from simforge.audit.drawing import draw_line
from simforge.audit.figures import Results, measured, not_measured
from simforge.audit.sections import (
    DOUBT,
    GOOD,
    REALISTIC_AUC,
    SIMFORGE_ONLY,
    AuditData,
    Chart,
    Finding,
    Row,
    Section,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from simforge.dataset.manifest import Manifest


def _dialogue_findings(section: Results, push_back: Results) -> Iterator[Finding]:
    """Findings on the simulated users compared with people."""
    realism = section.get("realism", {})
    auc_by_features = {
        name: realism[name]
        for name in ("characters", "style")
        if measured(realism.get(name, {}))
    }
    if auc_by_features:
        best = max(auc_by_features.values(), key=lambda figure: float(figure["value"]))
        low, high = best["interval"]
        text = (
            "a classifier separates user messages from human ones with an AUC of "
            f"{best['value']:.2f}"
        )
        text += f" ({low:.2f} to {high:.2f}; 0.5 is chance)"
        passes = high <= REALISTIC_AUC
        statement = "pass for people" if passes else "can be told apart from people"
        yield (GOOD if passes else DOUBT), f"The users {statement}: {text}."
    if "messages" in section:
        unusual = [
            name
            for name, figure in section["style"].items()
            if measured(figure) and not _within_human_range(figure, name)
        ]
        if unusual:
            text = ", ".join(
                f"{name.replace('_', ' ')} {_style_range(name, section['style'][name])}"
                for name in unusual
            )
            yield (
                DOUBT,
                f"Users do not write as people do, in {section['messages']} messages: {text}.",
            )
    guards = section.get("guards", {})
    for name, figure in guards.items() if "not_measured" not in guards else ():
        if measured(figure) and figure["interval"][0] > 0.05:
            text = f"{figure['value']:.0%} of {figure['n']} user messages"
            yield DOUBT, f"The guard {name.replace('_', ' ')} objects to {text}."
    endings = section.get("endings", {})
    broken = [
        endings[name]["value"]
        for name in ("broken_role", "loop", "guarded")
        if measured(endings.get(name, {}))
    ]
    if sum(broken) > 0.1:
        yield DOUBT, f"{sum(broken):.0%} of the dialogues were ended by a guard."
    figure = push_back.get("wrong", {})
    if measured(figure):
        low, high = figure["interval"]
        text = (
            f"{figure['value']:.0%} of {figure['n']} plainly wrong answers ({low:.0%} "
            f"to {high:.0%}"
        )
        text += f"; of right ones {push_back['control']['value']:.0%})"
        yield (DOUBT if high < 0.5 else GOOD), f"The users object to {text}."


def _within_human_range(figure: Results, name: str) -> bool:
    """Return `True` if the interval of a style figure overlaps the range of human chats, with a
    tolerance of 0.1, or of a quarter for a length."""
    low, high = figure["human"]
    tolerance = 0.25 * high if name == "words" else 0.1
    return bool(
        low - tolerance <= figure["interval"][1]
        and figure["interval"][0] <= high + tolerance
    )


def _style_range(name: str, figure: Results) -> str:
    template = (
        "{:.0f} (people {:.0f} to {:.0f})"
        if name == "words"
        else "{:.0%} (people {:.0%} to {:.0%})"
    )
    return template.format(figure["value"], *figure["human"])


def _dialogue_rows(audit: Results) -> Iterator[Row]:
    dialogues, push = audit.get("dialogues", {}), audit.get("push_back", {})
    realism = dialogues.get("realism", {})
    if "not_measured" in realism:
        yield "separable from people", realism, ""
    else:
        for name, figure in realism.items():
            label = (
                "two halves of the human messages"
                if name == "control"
                else f"separable from people by {name} (AUC)"
            )
            yield label, figure, "0.5" if name == "control" else "up to 0.65"
    for name, label, good in (
        ("goals", "goals that an answer addressed", ""),
        ("endings", "ended: ", ""),
        ("guards", "the guard objects: ", "below 0.05"),
    ):
        figure = dialogues.get(name, {})
        if "value" in figure:
            yield label, figure, good
        elif "not_measured" not in figure:
            for kind, share in figure.items():
                yield f"{label}{kind.replace('_', ' ')}", share, good
    for name, figure in (
        dialogues.get("style", {}).items() if "messages" in dialogues else ()
    ):
        low, high = figure["human"]
        yield (
            f"style: {name.replace('_', ' ')}",
            figure,
            f"people {low:.2f} to {high:.2f}",
        )
    first_message = dialogues.get("disclosure", {}).get("in_first_message")
    if first_message is not None:
        yield (
            "share of the disclosed facts in the first message",
            first_message,
            "below 1",
        )
    if "wrong" in push:
        yield "object to plainly wrong answers", push["wrong"], "high"
    if "control" in push:
        yield "object to right answers", push["control"], "near 0"


def _draw_disclosure(axes: Axes, audit: Results, manifest: Manifest | None) -> bool:
    by_turn = audit.get("dialogues", {}).get("disclosure", {}).get("by_turn")
    turns = (
        [figure for figure in by_turn if measured(figure)]
        if isinstance(by_turn, list)
        else []
    )
    if not turns:
        return False
    draw_line(axes, turns)
    axes.set_ylim(0, 1)
    axes.set_xticks(range(len(turns)), [str(turn) for turn in range(1, len(turns) + 1)])
    axes.set_xlabel("turn")
    axes.set_ylabel("share of facts disclosed")
    return True


def _measure(data: AuditData) -> Results:
    if data.pairs.manifest is None:
        names = ("endings", "guards", "goals", "disclosure", "style", "realism")
        return {
            "dialogues": {name: not_measured(SIMFORGE_ONLY) for name in names},
            "push_back": {"wrong": not_measured(SIMFORGE_ONLY)},
        }
    unprobed = "the model that played the people was not asked (use --probe)"
    return {
        "dialogues": dialogues.measure(
            data.source, data.pairs.manifest, data.options.human
        ),
        "push_back": pushback.measure(
            data.source, data.pairs.manifest, data.options.model
        )
        if data.options.probe
        else {"wrong": not_measured(unprobed)},
    }


def _findings(results: Results) -> Iterator[Finding]:
    yield from _dialogue_findings(
        results.get("dialogues", {}), results.get("push_back", {})
    )


def _rows(results: Results) -> Iterator[tuple[str, list[Row]]]:
    yield "Dialogues", list(_dialogue_rows(results))


SECTION = Section(
    order=6,
    measure=_measure,
    findings=_findings,
    rows=_rows,
    charts=[
        Chart(
            "Disclosure",
            "Share of their facts that people have disclosed by each turn.",
            _draw_disclosure,
            7,
        )
    ],
)
