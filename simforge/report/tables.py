"""Tables: an audit's figures by what they are about, each beside what would be good."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from simforge.audit import OURS
from simforge.audit.figures import Figure
from simforge.reliability import DARK
from simforge.types import Told

Row = tuple[str, Figure, str]
"What it is, the figure, and what would be good."


def all_of(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every table that there are figures for: its `name` and its `rows`, ready for the page."""
    found = [
        *_information(audit),
        ("Shortcuts", _shortcuts(audit)),
        *_labels(audit),
        ("Room", _room(audit)),
        ("People", list(_people(audit.get("cast", {})))),
        ("Dialogues", list(_dialogues(audit))),
        ("Hygiene", _hygiene(audit)),
    ]
    return [
        {"name": name, "rows": [{"what": what, "good": good, **one} for what, one, good in rows]}
        for name, rows in ((name, [row for row in rows if row[1].get("not_measured") != OURS]) for name, rows in found)
        if rows
    ]


def _information(audit: Mapping[str, Any]) -> Iterator[tuple[str, list[Row]]]:
    for family, by in audit.get("information", {}).items():
        for held, one in by.items() if "bits" not in by else {"": by}.items():
            yield f"Personal information ({family}{f', whole {held} held out' if held else ''})", _bits(one)
    for family, by in audit.get("judged", {}).items():
        if "judge" in by:
            rows = [
                ("bits a pair of the judge's own choices", by["judge"]["bits"], "as high as the labels'"),
                ("bits a pair of the labels, same pairs", by["labels"]["bits"], ""),
            ]
            yield f"What the judge says, and the labels ({family})", rows


def _bits(one: Mapping[str, Any]) -> list[Row]:
    rows: list[Row] = [("bits a pair", one["bits"], "above 0.2")]
    if "gap" in one:
        rows += [
            ("bits with profiles dealt at random", one["shuffled"], "at most 0.01"),
            ("accuracy without the profile", one["accuracy_without"], ""),
            ("accuracy with it", one["accuracy_with"], "0.05 more"),
            ("pairs that the profile makes less likely", one["below_zero"], "below 0.5"),
        ]
    return rows


def _shortcuts(audit: Mapping[str, Any]) -> list[Row]:
    told = audit["shortcuts"]
    rows: list[Row] = []
    for name, one in told["rules"].items():
        rows.append((f"'{name.replace('_', ' ')} wins' is right", one, "0.40 to 0.70"))
        if "excess" in one:
            rows.append(("'longer wins', beyond people's own choices (0.635)", one["excess"], "at most 0.03"))
    if "response_only" in audit.get("waterfall", {}):
        rows.append(("the answers alone tell the label", audit["waterfall"]["response_only"], ""))
    return [
        *rows,
        ("coefficient of the logarithm of the lengths' ratio", told["length"]["coefficient"], "near 0"),
        ("the same model wins", told["models"], "0.40 to 0.70"),
        ("chosen quotes the wish, more than rejected", told["echo"]["difference"], "below 0.01"),
    ]


def _labels(audit: Mapping[str, Any]) -> Iterator[tuple[str, list[Row]]]:
    judges, verdicts = audit["labels"]["judges"], audit.get("verdicts", {})
    calibration = verdicts.get("calibration", {})
    for name, one in judges.items() if "not_measured" not in judges else ():
        rows: list[Row] = [
            ("the same in both orders", one["agreement"], "0.85 and more"),
            ("beyond chance (kappa)", one["beyond_chance"], "above 0.5"),
            ("takes what stands first", one["first_shown"], "0.5"),
            ("agrees with labels by construction", one["with_construction"], "high"),
        ]
        if name in calibration:
            rows += [
                ("right, both orders together", calibration[name]["right"], "high"),
                ("surer than right by", calibration[name]["overconfidence"], "-0.05 to 0.05"),
                ("calibration error (ECE)", calibration[name]["ece"], _chance(calibration[name]["ece"])),
                ("Brier score", calibration[name]["brier"], "below 0.25, a coin's"),
            ]
        yield "The judge" if name == "judge" else f"The judge {name}", rows
    rows = []
    for name, good in (("between", "high"), ("self_preference", "below 0.05")):
        known = verdicts.get(name, {})
        said = {"between": "agree", "self_preference": "takes its own family's answers more often"}[name]
        for who, one in known.items() if "not_measured" not in known else ():
            rows.append((f"{who} {said}" if name == "between" else f"a judge of {who} {said}", one, good))
    for told, share in audit["labels"].get("in_the_dark", {}).items():
        one = {"value": share["share"], "n": share.get("n"), "interval": share["interval"]}
        rows.append((f"the judge says the same, told {DARK[Told(told)]}", one, "low, near chance"))
    covered = audit.get("certified", {}).get("coverage", {})
    if "not_measured" in covered:
        rows.append(("labels that are vouched for", covered, ""))
    else:
        rows += [
            (f"share of labels of which at most {bound} are wrong, at 90 % confidence", one, "")
            for bound, one in covered.items()
        ]
    yield "Labels", rows


def _chance(figure: Figure) -> str:
    return f"chance gives up to {figure['chance'][1]:.3f}" if "chance" in figure else ""


def _room(audit: Mapping[str, Any]) -> list[Row]:
    room, again = audit["room"], audit.get("consistency", {})
    rows = [
        ("two people disagree on the same two answers", room["conflict"], "above 0.05"),
        ("best that can be done without knowing who asks", room["ceiling"], "well below 1"),
        ("a judgment that most others on the same answers do not share", room["minority"], "above 0"),
    ]
    if "same" in again:
        rows.append(("a person chooses the same in another run", again["same"], "near 1"))
    return [*rows, ("of the person and not the run (ICC)", again["icc"], "above 0.5")] if "icc" in again else rows


def _people(cast: Mapping[str, Any]) -> Iterator[Row]:
    marginals = cast.get("marginals", {})
    if "not_measured" in marginals:
        yield "as their pack says", marginals, ""
    elif marginals:
        name = max(marginals, key=lambda one: float(marginals[one]["value"] - marginals[one]["chance"][1]))
        one = marginals[name]
        yield f"the worst of {len(marginals)} traits off its pack: {name}", one, _chance(one)
    error = cast.get("joints", {}).get("error")
    if error is not None:
        yield (
            f"pairs of traits off their pack ({cast['joints'].get('pairs', 0)} pairs, Cramer's V)",
            error,
            _chance(error),
        )
    if "ratio" in cast.get("effective", {}):
        yield "effective number, of the pack's", cast["effective"]["ratio"], "0.9 and more"
    if "near_duplicates" in cast:
        yield "nearly the same as another", cast["near_duplicates"], "below 0.01"


def _dialogues(audit: Mapping[str, Any]) -> Iterator[Row]:
    told, push = audit.get("dialogues", {}), audit.get("push_back", {})
    realism = told.get("realism", {})
    if "not_measured" in realism:
        yield "told from people", realism, ""
    else:
        for name, one in realism.items():
            what = "two halves of the human ones" if name == "control" else f"told from people by {name} (AUC)"
            yield what, one, "0.5" if name == "control" else "up to 0.65"
    for name, what, good in (
        ("goals", "goals that an answer took up", ""),
        ("endings", "ended: ", ""),
        ("guards", "the guard objects: ", "below 0.05"),
    ):
        one = told.get(name, {})
        if "value" in one:
            yield what, one, good
        elif "not_measured" not in one:
            for kind, share in one.items():
                yield f"{what}{kind.replace('_', ' ')}", share, good
    for name, one in told.get("style", {}).items() if "messages" in told else ():
        low, high = one["human"]
        yield f"style: {name.replace('_', ' ')}", one, f"people {low:.2f} to {high:.2f}"
    at_once = told.get("disclosure", {}).get("at_once")
    if at_once is not None:
        yield "of what they tell, told in the first message", at_once, "below 1"
    if "wrong" in push:
        yield "object to plainly wrong answers", push["wrong"], "high"
    if "control" in push:
        yield "object to right ones", push["control"], "near 0"


def _hygiene(audit: Mapping[str, Any]) -> list[Row]:
    told = audit["hygiene"]
    return [
        ("pairs repeated by one person", told["repeated_by_one_person"], "below 0.01"),
        ("nearly the same as another", told["near_duplicates"], "below 0.1"),
        ("both answers refuse", told["refusals"]["both"], "below 0.01"),
        ("held-out people who are in train", told["leaks"]["people"], "0"),
        ("held-out prompts that are in train", told["leaks"]["prompts"], "0"),
        ("prompts that overlap with a benchmark", told["benchmarks"]["prompts"], "0"),
    ]
