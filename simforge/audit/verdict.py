"""The verdict: what an audit's figures mean, in plain words, worst first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from simforge.audit import shortcuts
from simforge.audit.figures import measured

FAULT, DOUBT, GOOD = "fault", "doubt", "good"
STRONG = 0.2
"Bits a pair."
TRACE, HARDLY = 0.01, 0.03
"Bits a pair: less cannot be told from luck by a few thousand pairs; where less is sure, profiles decide nothing."
GAP = 0.05
"In accuracy, with the profile against without."
SLACK = 0.05
"How much surer than right a judge may be."
ENOUGH = 100
"Pairs of which it is said that there is nothing wrong with them."
REAL = 0.65
"Area under the curve up to which users pass for people."
Said = tuple[str, str]


def of(told: dict[str, Any]) -> list[dict[str, str]]:
    """Sentences with their weight: `fault`, `doubt` or `good`. Good is said only of what was measured."""
    found = [
        *_information(told.get("information", {}), told["labels"]["by"]),
        *_judged(told.get("judged", {})),
        *(list(_shortcuts(told["shortcuts"])) or [_no_shortcut(told["shortcuts"])]),
        *_labels(told["labels"]),
        *_verdicts(told.get("verdicts", {})),
        *_vouched(told.get("certified", {}), told.get("consistency", {})),
        _room(told["room"]),
        *_cast(told.get("cast", {})),
        *_dialogues(told.get("dialogues", {}), told.get("push_back", {})),
        *(list(_hygiene(told["hygiene"])) or [_clean(told["hygiene"])]),
    ]
    order = [FAULT, DOUBT, GOOD]
    return [{"weight": weight, "says": says} for weight, says in sorted(found, key=lambda one: order.index(one[0]))]


def _information(told: dict[str, Any], by: dict[str, int]) -> Iterator[Said]:
    """What the best family of scorers finds, on held-out prompts or else on held-out people: each is a lower bound."""
    known = {}
    for family, held in told.items():
        measures = [held[name] for name in ("prompts", "people") if name in held and measured(held[name]["bits"])]
        if measures:
            known[family] = measures[0]
    if not known:
        reasons = {held.get("prompts", held)["bits"]["not_measured"] for held in told.values()}
        if reasons:
            yield DOUBT, f"How personal the preferences are was not measured: {'; '.join(sorted(reasons))}."
        return
    overfitted = [family for family, one in known.items() if one["shuffled"]["interval"][0] > TRACE]
    for family in overfitted:
        said = f"{known[family]['shuffled']['value']:.3f} bits a pair, scorer: {family}"
        yield FAULT, f"Profiles that were dealt at random tell the labels too ({said}): its bits mean nothing."
    known = {family: one for family, one in known.items() if family not in overfitted}
    if not known:
        return
    family, one = max(known.items(), key=lambda item: item[1]["bits"]["interval"][0])
    said, (low, high) = _bits(one, family), one["bits"]["interval"]
    others = [f"{name}: {other['bits']['value']:.3f}" for name, other in known.items() if name != family]
    said += f"; with {', '.join(others)}" if others else ""
    if high < HARDLY:
        yield FAULT, f"The profiles decide nothing that can be measured: {said}."
    elif low <= 0 or one["bits"]["value"] < TRACE:
        yield DOUBT, f"It cannot be told from so many pairs whether the profiles decide anything: {said}."
    elif one["bits"]["value"] >= STRONG or one["gap"]["value"] >= GAP:
        if {*by} == {"construction"}:
            said += ". The labels are by construction: this is how far the answers show what was asked of them"
        yield GOOD, f"The preferences are personal: knowing who asks gives {said}."
    else:
        yield DOUBT, f"The preferences are a little personal: {said}; {STRONG} would be much."
    people = told[family].get("people", {}).get("bits", {})
    if low > 0 and measured(people) and people["interval"][1] <= 0:
        yield DOUBT, f"Of people whom it was not fitted to it tells nothing: {people['value']:.3f} bits a pair."


def _bits(one: dict[str, Any], family: str) -> str:
    bits = one["bits"]
    low, high = bits["interval"]
    return f"{bits['value']:.3f} bits a pair ({low:.3f} to {high:.3f}, {bits['n']} pairs, scorer: {family})"


def _judged(told: dict[str, Any]) -> Iterator[Said]:
    """What the judge's own choices hold, beside the labels by construction of the same pairs."""
    known = {family: by for family, by in told.items() if "judge" in by and measured(by["judge"]["bits"])}
    if not known:
        return
    family, by = max(known.items(), key=lambda item: item[1]["judge"]["bits"]["value"])
    said = f"{_bits(by['judge'], family)}, where the labels of the same pairs hold {by['labels']['bits']['value']:.3f}"
    low, high = by["judge"]["bits"]["interval"]
    if high < HARDLY or (low <= 0 and high < by["labels"]["bits"]["interval"][0]):
        yield DOUBT, f"The judge's own choices are not personal: {said}. Train on the labels, not on what it says."
    elif low <= 0:
        yield DOUBT, f"It cannot be told whether the judge's own choices are personal: {said}."
    elif by["judge"]["bits"]["value"] < by["labels"]["bits"]["value"] / 2:
        yield DOUBT, f"The judge's own choices are far less personal than the labels: {said}."
    else:
        yield GOOD, f"The judge's own choices are personal: {said}."


def _verdicts(told: dict[str, Any]) -> Iterator[Said]:
    """Calibration, and whether a judge prefers its own family."""
    known = told.get("calibration", {})
    for name, one in known.items() if "not_measured" not in known else ():
        off = one["overconfidence"]
        if measured(off) and max(off["interval"][0], -off["interval"][1]) > SLACK:
            said = f"it is sure of {one['sure']['value']:.0%} and right in {one['right']['value']:.0%}"
            yield DOUBT, f"The probabilities of {_judge(name)} cannot be taken as such: {said} of {off['n']} questions."
    known = told.get("self_preference", {})
    for name, one in known.items() if "not_measured" not in known else ():
        if measured(one) and one["interval"][0] > 0.05:
            yield FAULT, f"Self-preference: judges of the family {name} take its answers {one['value']:.0%} more often."


def _vouched(certified: dict[str, Any], again: dict[str, Any]) -> Iterator[Said]:
    """For how many labels somebody can vouch, and how steady people are."""
    coverage = certified.get("coverage", {})
    if coverage and "not_measured" not in coverage:
        said = ", ".join(f"at most {bound} in {one['value']:.0%}" for bound, one in coverage.items())
        some = any(one["value"] > 0 for one in coverage.values())
        yield (
            GOOD if some else DOUBT,
            f"By {certified['trusted']} trusted labels the share of wrong ones is vouched for: {said} of the pairs.",
        )
    one = again.get("icc", {})
    if measured(one):
        same = again["same"]
        said = f"they choose the same in {same['value']:.0%} of {same['n']} pairs, ICC {one['value']:.2f}"
        yield (GOOD if one["interval"][0] > 0.5 else DOUBT), f"In another run of the same people {said}; 0.5 is usable."


def _cast(told: dict[str, Any]) -> Iterator[Said]:
    """People against their pack."""
    marginals = told.get("marginals", {})
    for name, one in marginals.items() if "not_measured" not in marginals else ():
        if one["value"] > max(1.5 * one["chance"][1], 0.03):
            said = f"total variation {one['value']:.2f}, by chance at most {one['chance'][1]:.2f}"
            yield FAULT, f"The people are not as their pack says: {name.replace('_', ' ')} is off ({said})."
    off = told.get("joints", {}).get("off", [])
    if off:
        said = "; ".join(
            f"{' and '.join(one['traits'])} (Cramer's V {one['here']:.2f}, in the pack {one['asked']:.2f})"
            for one in off[:3]
        )
        yield FAULT, f"{len(off)} pairs of traits do not go together as the pack says: {said.replace('_', ' ')}."
    one = told.get("effective", {}).get("ratio", {})
    if measured(one) and one["interval"][1] < 0.9:
        yield FAULT, f"The people are less different than the pack's: {one['value']:.0%} of its effective number."
    one = told.get("near_duplicates", {})
    if measured(one) and one["interval"][0] > 0.01:
        yield DOUBT, f"{one['value']:.0%} of the people are nearly the same as another."


def _dialogues(told: dict[str, Any], push_back: dict[str, Any]) -> Iterator[Said]:
    """Simulated users against people."""
    realism = told.get("realism", {})
    known = {name: realism[name] for name in ("characters", "style") if measured(realism.get(name, {}))}
    if known:
        best = max(known.values(), key=lambda one: float(one["value"]))
        low, high = best["interval"]
        said = f"a classifier tells a user message from a human one with an AUC of {best['value']:.2f}"
        said += f" ({low:.2f} to {high:.2f}; 0.5 would be a coin)"
        passes = high <= REAL
        what = "pass for people" if passes else "can be told apart from people"
        yield (GOOD if passes else DOUBT), f"The users {what}: {said}."
    if "messages" in told:
        off = [name for name, one in told["style"].items() if measured(one) and not _human(one, name)]
        if off:
            said = ", ".join(f"{name.replace('_', ' ')} {_range(name, told['style'][name])}" for name in off)
            yield DOUBT, f"User messages are not written as people write, in {told['messages']} of them: {said}."
    guards = told.get("guards", {})
    for name, one in guards.items() if "not_measured" not in guards else ():
        if measured(one) and one["interval"][0] > 0.05:
            said = f"{one['value']:.0%} of {one['n']} user messages"
            yield DOUBT, f"The guard {name.replace('_', ' ')} objects to {said}."
    endings = told.get("endings", {})
    broken = [endings[name]["value"] for name in ("broken_role", "loop", "guarded") if measured(endings.get(name, {}))]
    if sum(broken) > 0.1:
        yield DOUBT, f"{sum(broken):.0%} of the dialogues were ended by a guard."
    one = push_back.get("wrong", {})
    if measured(one):
        low, high = one["interval"]
        said = f"{one['value']:.0%} of {one['n']} plainly wrong answers ({low:.0%} to {high:.0%}"
        said += f"; of right ones {push_back['control']['value']:.0%})"
        yield (DOUBT if high < 0.5 else GOOD), f"The users object to {said}."


def _human(one: dict[str, Any], name: str) -> bool:
    """Whether a figure of style may be within those of human chats, give or take a tenth, or a quarter of a length."""
    low, high = one["human"]
    spare = 0.25 * high if name == "words" else 0.1
    return bool(low - spare <= one["interval"][1] and one["interval"][0] <= high + spare)


def _range(name: str, one: dict[str, Any]) -> str:
    form = "{:.0f} (people {:.0f} to {:.0f})" if name == "words" else "{:.0%} (people {:.0%} to {:.0%})"
    return form.format(one["value"], *one["human"])


def _judge(name: str, first: bool = False) -> str:
    return ("The" if first else "the") + (" judge" if name == "judge" else f" judge {name}")


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


def _no_shortcut(told: dict[str, Any]) -> Said:
    low, high = shortcuts.BOUNDS
    tried = [
        name.replace("_", " ")
        for name, one in told["rules"].items()
        if measured(one) and one["n"] >= ENOUGH and low <= one["value"] <= high
    ]
    if not tried:
        return DOUBT, "There are too few pairs to tell whether a shortcut decides the labels."
    return GOOD, f"No shortcut decides the labels, of those that were tried: {', '.join(tried)}."


def _clean(told: dict[str, Any]) -> Said:
    """What there is none of, of what was looked at."""
    looked = {
        "repeated pairs": told["repeated_by_one_person"],
        "near-duplicates": told["near_duplicates"],
        "refusals on both sides": told["refusals"]["both"],
        **{f"held-out {name} in train": one for name, one in told["leaks"].items()},
    }
    none = [name for name, one in looked.items() if measured(one) and one["n"] >= 10]
    if told["pairs"] < ENOUGH or not none:
        return DOUBT, "There are too few pairs to tell whether they are repeated, leak or refuse."
    return GOOD, f"There are hardly any {', '.join(none)}."


def _labels(told: dict[str, Any]) -> Iterator[Said]:
    judges = told["judges"]
    weight = FAULT if {*told["by"]} != {"construction"} else DOUBT  # it has decided nothing
    for name, one in judges.items() if "not_measured" not in judges else ():
        first, agreement = one["first_shown"], one["agreement"]
        if measured(first) and (first["interval"][0] > 0.6 or first["interval"][1] < 0.4):
            place = f"{first['value']:.0%} of {first['n']} verdicts"
            yield weight, f"A position bias: {_judge(name)} takes what stands first in {place}."
        if measured(agreement) and agreement["interval"][1] < 0.7:
            yield (
                weight,
                f"{_judge(name, True)} says the same in both orders in only {agreement['value']:.0%} of "
                f"{agreement['n']} questions; 85% would be good.",
            )
        elif measured(agreement) and agreement["interval"][0] >= 0.85:
            yield GOOD, f"{_judge(name, True)} says the same in both orders in {agreement['value']:.0%}."
    shared = told["families"]["shared"]
    if isinstance(shared, list) and shared and "not_measured" not in judges:
        roles = ", ".join(told["families"]["roles"])
        yield DOUBT, f"One family of models ({', '.join(shared)}) plays {roles}: judges may prefer their own."


def _room(told: dict[str, Any]) -> Said:
    conflict = told["conflict"]
    if not measured(conflict):
        return DOUBT, f"Whether people disagree was not measured: {conflict['not_measured']}."
    said = f"on the same two answers (conflict {conflict['value']:.2f}, {conflict['n']} pairs of answers)"
    if conflict["interval"][1] < 0.05:
        return FAULT, f"People hardly disagree {said}: who asks makes no difference."
    ceiling = told["ceiling"]["value"]
    return GOOD, f"People disagree {said}; a model that does not know the person is right in {ceiling:.0%} at best."


def _hygiene(told: dict[str, Any]) -> Iterator[Said]:
    for name, what in (
        ("repeated_by_one_person", "are repeated by one person"),
        ("same_text", "have the same text on both sides, or none on one"),
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
