"""The verdict: what an audit's figures mean, in plain words, worst first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from simforge.audit import shortcuts
from simforge.audit.figures import measured

FAULT, DOUBT, GOOD = "fault", "doubt", "good"
STRONG = 0.2
"Bits a pair."
GAP = 0.05
"In accuracy, with the profile against without."
Said = tuple[str, str]


def of(told: dict[str, Any]) -> list[dict[str, str]]:
    """Sentences with their weight: `fault`, `doubt` or `good`."""
    found = [
        *_information(told.get("information", {})),
        *(list(_shortcuts(told["shortcuts"])) or [(GOOD, "No shortcut decides the labels, of those that were tried.")]),
        *_labels(told["labels"]),
        _room(told["room"]),
        *(
            list(_hygiene(told["hygiene"]))
            or [(GOOD, "No duplicates, leaks between splits or refusals on both sides.")]
        ),
    ]
    order = [FAULT, DOUBT, GOOD]
    return [{"weight": weight, "says": says} for weight, says in sorted(found, key=lambda one: order.index(one[0]))]


def _information(told: dict[str, Any]) -> Iterator[Said]:
    for family, by in told.items():
        one = by.get("prompts", by)
        bits = one["bits"]
        if not measured(bits):
            yield DOUBT, f"How personal the preferences are was not measured: {bits['not_measured']}."
            continue
        low, high = bits["interval"]
        said = f"{bits['value']:.3f} bits a pair ({low:.3f} to {high:.3f}, {bits['n']} pairs, scorer: {family})"
        if one["shuffled"]["interval"][0] > 0.01:
            yield FAULT, f"A leak: other people's profiles tell the labels too. {said}."
        elif low <= 0:
            yield FAULT, f"The profiles decide nothing that can be measured: {said}."
        elif bits["value"] >= STRONG or one["gap"]["value"] >= GAP:
            yield GOOD, f"The preferences are personal: who asks tells {said}."
        else:
            yield DOUBT, f"The preferences are a little personal: {said}; {STRONG} would be much."


def _shortcuts(told: dict[str, Any]) -> Iterator[Said]:
    low, high = shortcuts.BOUNDS
    for name, one in told["rules"].items():
        if not measured(one) or one["says"] < 0.2:
            continue
        a, b = one["interval"]
        rule = f"'{name.replace('_', ' ')} wins' is right in {one['value']:.0%} ({a:.0%} to {b:.0%}, {one['n']} pairs)"
        if a > high:
            yield FAULT, f"A shortcut: {rule}; of people's own choices {shortcuts.HUMAN:.0%} fall on the longer answer."
        elif b < low:
            yield FAULT, f"A shortcut the other way round: {rule}."
    one = told["echo"]["difference"]
    if measured(one) and one["interval"][0] > 0.01:
        yield (
            FAULT,
            f"Persona echo: chosen answers quote the person's wish {one['value']:.1%} more often than rejected ones.",
        )
    one = told["models"]
    if measured(one) and one["interval"][0] > high:
        yield (
            FAULT,
            f"The model's name decides: of two models the same one wins in {one['value']:.0%} of {one['n']} pairs.",
        )


def _labels(told: dict[str, Any]) -> Iterator[Said]:
    judges = told["judges"]
    for name, one in judges.items() if "not_measured" not in judges else ():
        first, agreement = one["first_shown"], one["agreement"]
        if measured(first) and (first["interval"][0] > 0.6 or first["interval"][1] < 0.4):
            place = f"{first['value']:.0%} of {first['n']} verdicts"
            yield FAULT, f"A position bias: the judge {name} takes what stands first in {place}."
        if measured(agreement) and agreement["interval"][1] < 0.7:
            yield (
                FAULT,
                f"The judge {name} says the same in both orders in {agreement['value']:.0%} only; 85% would be good.",
            )
        elif measured(agreement) and agreement["interval"][0] >= 0.85:
            yield GOOD, f"The judge {name} says the same in both orders in {agreement['value']:.0%}."
    shared = told["families"]["shared"]
    if isinstance(shared, list) and shared and "not_measured" not in judges:
        yield DOUBT, f"Judge and assistants are of one family ({', '.join(shared)}): judges prefer their own."


def _room(told: dict[str, Any]) -> Said:
    conflict = told["conflict"]
    if not measured(conflict):
        return DOUBT, f"Whether people disagree was not measured: {conflict['not_measured']}."
    said = f"on the same two answers (conflict {conflict['value']:.2f}, {conflict['n']} pairs of answers)"
    if conflict["interval"][1] < 0.05:
        return FAULT, f"People hardly disagree {said}: who asks makes no difference."
    ceiling = told["ceiling"]["value"]
    return GOOD, f"People disagree {said}; who does not know them is right in {ceiling:.0%} at best."


def _hygiene(told: dict[str, Any]) -> Iterator[Said]:
    for name, what in (
        ("repeated_by_one_person", "are repeated by one person"),
        ("same_text", "have the same text on both sides"),
        ("empty", "have an empty answer"),
    ):
        one = told[name]
        if measured(one) and one["interval"][0] > 0.01:
            yield FAULT, f"{one['value']:.0%} of the pairs {what}."
    one = told["near_duplicates"]
    if measured(one) and one["interval"][0] > 0.1:
        yield DOUBT, f"{one['value']:.0%} of the different pairs are nearly the same as another."
    one = told["refusals"]["both"]
    if measured(one) and one["interval"][0] > 0.01:
        yield FAULT, f"Both answers refuse in {one['value']:.0%} of the pairs."
    for what, one in told["leaks"].items():
        if measured(one) and one["value"] > 0:
            yield FAULT, f"A leak: {one['value']:.0%} of the held-out {what} are in train too."
