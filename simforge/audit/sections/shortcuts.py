"""Shortcuts: what else than the person could decide the labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from simforge.audit import shortcuts
from simforge.audit.drawing import BLUE, GREEN, INK, draw_bars, draw_line
from simforge.audit.figures import Results, measured
from simforge.audit.sections import (
    DOUBT,
    FAULT,
    GOOD,
    MIN_PAIRS,
    AuditData,
    Chart,
    Finding,
    Row,
    Section,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from simforge.dataset.manifest import Manifest


MIN_DIFFERENCE = 0.3
"Difference of a rule's accuracy between two wishes from which it is reported."


def _shortcut_findings(section: Results) -> Iterator[Finding]:
    low, high = shortcuts.RULE_BOUNDS
    for name, figure in section["rules"].items():
        if not measured(figure) or figure["applies"] < 0.2:
            continue
        a, b = figure["interval"]
        rule = (
            f"'{name.replace('_', ' ')} wins' is right in {figure['value']:.0%} "
            f"({a:.0%} to {b:.0%}, {figure['n']} pairs)"
        )
        if a > high:
            yield (
                FAULT,
                f"A shortcut: {rule}; of human choices, "
                f"{shortcuts.HUMAN_LONGER_SHARE:.0%} fall on the longer answer.",
            )
        elif b < low:
            yield FAULT, f"A shortcut the other way round: {rule}."
    figure = section["echo"]["difference"]
    if measured(figure) and figure["interval"][0] > 0.01:
        yield (
            FAULT,
            "Persona echo: chosen answers quote the person's wish "
            f"{figure['value']:.1%} more often than rejected ones.",
        )
    else:
        yield from _echo_by_wish(section.get("by_wish", {}))
    yield from _rules_by_wish(section.get("by_wish", {}))
    figure = section["models"]
    if measured(figure) and figure["interval"][0] > high:
        yield (
            FAULT,
            "The model decides the label: of two models, one wins in "
            f"{figure['value']:.0%} of {figure['n']} pairs.",
        )


def _echo_by_wish(by_wish: Results) -> Iterator[Finding]:
    """Finding on the wish that is quoted most, where the average over all wishes hides it."""
    quoted = {
        wish: part["echo"]
        for wish, part in by_wish.items()
        if measured(part["echo"]) and part["echo"]["interval"][0] > 0.01
    }
    if quoted:
        wish = max(quoted, key=lambda name: quoted[name]["value"])
        yield (
            FAULT,
            f"Persona echo: chosen answers quote the wish '{_short(wish)}' "
            f"{quoted[wish]['value']:.1%} more often than rejected ones.",
        )


def _rules_by_wish(by_wish: Results) -> Iterator[Finding]:
    """Findings on rules that point in opposite directions for two wishes: each may decide its
    labels, although the average over both looks harmless."""
    for name in shortcuts.RULES:
        rules = {
            wish: part["rules"][name]
            for wish, part in by_wish.items()
            if measured(part["rules"][name]) and part["rules"][name]["applies"] >= 0.2
        }
        if len(rules) < 2:
            continue
        first = min(rules, key=lambda wish: rules[wish]["value"])
        last = max(rules, key=lambda wish: rules[wish]["value"])
        apart = rules[last]["value"] - rules[first]["value"]
        if (
            apart >= MIN_DIFFERENCE
            and rules[first]["interval"][1] < rules[last]["interval"][0]
        ):
            yield (
                DOUBT,
                f"'{name.replace('_', ' ')} wins' is right in {rules[last]['value']:.0%} of the "
                f"pairs for '{_short(last)}' and in {rules[first]['value']:.0%} for "
                f"'{_short(first)}'. If no wish is about that, it is a shortcut.",
            )


def _short(wish: str) -> str:
    return wish if len(wish) <= 60 else f"{wish[:57]}..."


def _no_shortcut(section: Results, findings: list[Finding]) -> Finding:
    """Finding that names the rules that were tried and are not in any of the other findings."""
    low, high = shortcuts.RULE_BOUNDS
    doubted = " ".join(text for _, text in findings)
    tried = [
        name.replace("_", " ")
        for name, figure in section["rules"].items()
        if measured(figure)
        and figure["n"] >= MIN_PAIRS
        and low <= figure["value"] <= high
        and f"'{name.replace('_', ' ')} wins'" not in doubted
    ]
    if not tried:
        return (
            DOUBT,
            "There are too few pairs to tell whether a shortcut decides the labels.",
        )
    return (
        GOOD,
        f"No shortcut decides the labels, of those that were tried: {', '.join(tried)}.",
    )


def _shortcut_rows(audit: Results) -> list[Row]:
    shortcuts = audit["shortcuts"]
    rows: list[Row] = []
    for name, figure in shortcuts["rules"].items():
        rows.append(
            (f"'{name.replace('_', ' ')} wins' is right", figure, "0.40 to 0.70")
        )
        if "excess" in figure:
            rows.append(
                (
                    "'longer wins', beyond people's own choices (0.635)",
                    figure["excess"],
                    "at most 0.03",
                )
            )
    if "response_only" in audit.get("waterfall", {}):
        rows.append(
            (
                "the answers alone predict the label",
                audit["waterfall"]["response_only"],
                "",
            )
        )
    return [
        *rows,
        (
            "coefficient of the log ratio of lengths",
            shortcuts["length"]["coefficient"],
            "near 0",
        ),
        ("the same model wins", shortcuts["models"], "0.40 to 0.70"),
        (
            "chosen answers quote the wish, more often than rejected ones",
            shortcuts["echo"]["difference"],
            "below 0.01",
        ),
    ]


def _draw_rules(axes: Axes, audit: Results, manifest: Manifest | None) -> bool:
    rows = {
        f"{name.replace('_', ' ')} wins": figure
        for name, figure in audit["shortcuts"]["rules"].items()
        if measured(figure)
    }
    if not rows:
        return False
    draw_bars(axes, rows, BLUE)
    axes.axvspan(0.4, 0.7, color=GREEN, alpha=0.12)
    axes.axvline(audit["shortcuts"]["human"], color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlim(0, 1)
    axes.set_xlabel("accuracy (green: acceptable; dotted: people, for length)")
    return True


def _draw_length(axes: Axes, audit: Results, manifest: Manifest | None) -> bool:
    rows = [
        figure
        for figure in audit["shortcuts"]["length"].get("by_ratio", [])
        if measured(figure)
    ]
    if len(rows) < 2:
        return False
    draw_line(axes, rows)
    axes.axhspan(0.4, 0.7, color=GREEN, alpha=0.12)
    axes.axhline(audit["shortcuts"]["human"], color=INK, linewidth=0.8, linestyle=":")
    axes.set_xticks(
        range(len(rows)),
        [f"{figure['times'][0]:.2f} to {figure['times'][1]:.2f}" for figure in rows],
    )
    axes.set_ylim(0, 1)
    axes.set_xlabel("length of the longer answer / length of the shorter one")
    axes.set_ylabel("longer answer is chosen")
    return True


def _measure(data: AuditData) -> Results:
    frame = data.pairs.frame
    chosen, rejected = frame["chosen"].to_list(), frame["rejected"].to_list()
    owners = data.pairs.owners
    return {
        "shortcuts": {
            "rules": shortcuts.rules(chosen, rejected, owners),
            "length": shortcuts.length(chosen, rejected, owners),
            "models": shortcuts.winning_model(frame),
            "echo": shortcuts.echo(frame, owners),
            "by_wish": shortcuts.by_wish(frame, data.pairs.wishes, owners),
            "human": shortcuts.HUMAN_LONGER_SHARE,
        }
    }


def _findings(results: Results) -> Iterator[Finding]:
    findings = list(_shortcut_findings(results["shortcuts"]))
    yield from findings
    if not any(weight == FAULT for weight, _ in findings):
        nothing = _no_shortcut(results["shortcuts"], findings)
        if not findings or nothing[0] == GOOD:
            yield nothing


def _rows(results: Results) -> Iterator[tuple[str, list[Row]]]:
    yield "Shortcuts", _shortcut_rows(results)


SECTION = Section(
    order=2,
    quick=_measure,
    findings=_findings,
    rows=_rows,
    charts=[
        Chart(
            "Shortcut rules",
            "Accuracy of rules on length or format alone.",
            _draw_rules,
            2,
        ),
        Chart(
            "Length",
            "How often the longer answer is the chosen one, by how much longer it is (dotted: "
            "people).",
            _draw_length,
            3,
        ),
    ],
)
