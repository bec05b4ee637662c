"""The form `ranking`: all answers of a turn on one sheet, to be put in order."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

from simforge.judging.aggregation import by_model
from simforge.judging.forms import JUDGE_VARIABLES, JudgeForm, OrderedVerdict, Round
from simforge.judging.parsing import ParseFailure, object_schema, parse_list
from simforge.models.calls import gather_or_cancel
from simforge.types import ChatReply, Choice, Verdict

if TYPE_CHECKING:
    from simforge.judging.judge import TurnJudge


ANSWER_LABELS = [
    *string.ascii_uppercase,
    *(a + b for a in string.ascii_uppercase for b in string.ascii_uppercase),
]
"Labels of the answers in a ranking."


async def _ask(judge: TurnJudge, asked: Round) -> list[OrderedVerdict]:
    """Ranks all answers of a dimension on one sheet, and on another sheet in reversed order. Of
    two answers, the one ranked higher is preferred. The order recorded for a pair is the order
    on the sheet."""
    sheets: dict[str | None, list[str]] = {}
    texts: dict[str, str] = {}
    for comparison, order in zip(asked.comparisons, asked.orders, strict=True):
        sheet = sheets.setdefault(comparison.dimension, [])
        for candidate in (comparison.a, comparison.b):
            texts[candidate.id] = candidate.text
            if candidate.id not in sheet:
                sheet.insert(len(sheet) if order == "ab" else 0, candidate.id)

    async def rank_sheet(
        dimension: str | None, sheet: list[str]
    ) -> tuple[dict[str, int] | None, bool]:
        letters = dict(zip(ANSWER_LABELS, sheet, strict=False))
        variables = {
            "wants": asked.perspective.wants(judge.setup.space, dimension),
            "answers": {letter: texts[key] for letter, key in letters.items()},
        }
        items = {
            "type": "array",
            "items": {"enum": [*letters]},
            "minItems": len(letters),
            "maxItems": len(letters),
        }

        def parse(reply: ChatReply) -> dict[str, int] | ParseFailure:
            ranking = parse_list(reply, "ranking")
            if isinstance(ranking, ParseFailure) or sorted(map(str, ranking)) != sorted(
                letters
            ):
                return (
                    ranking
                    if isinstance(ranking, ParseFailure)
                    else ParseFailure(
                        f"it does not list each of {', '.join(letters)} exactly once"
                    )
                )
            return {letters[letter]: rank for rank, letter in enumerate(ranking)}

        places, repaired = await judge.ask_with_repair(
            asked.perspective,
            asked.role,
            variables,
            parse,
            asked.attempt,
            object_schema({"ranking": items}),
        )
        return (None if isinstance(places, ParseFailure) else places), repaired

    rankings = await gather_or_cancel(
        rank_sheet(dimension, sheet) for dimension, sheet in sheets.items()
    )
    by_dimension = dict(zip(sheets, rankings, strict=True))
    placed = []
    for comparison in asked.comparisons:
        sheet, (ranks, repaired) = (
            sheets[comparison.dimension],
            by_dimension[comparison.dimension],
        )
        order = (
            "ab"
            if sheet.index(comparison.a.id) < sheet.index(comparison.b.id)
            else "ba"
        )
        first, second = (
            (comparison.a, comparison.b)
            if order == "ab"
            else (comparison.b, comparison.a)
        )
        better = ranks is not None and ranks[first.id] < ranks[second.id]
        choice = (
            Choice.unreadable
            if ranks is None
            else Choice.first
            if better
            else Choice.second
        )
        placed.append((order, Verdict(choice, repaired=repaired)))
    return placed


FORM = JudgeForm(
    about="all answers of a turn in one call, ranked",
    variables={**JUDGE_VARIABLES, "wants": "x", "answers": {"A": "x"}},
    ask=_ask,
    combine=by_model,
    calls=lambda compared, dimensions, answers: dimensions,
    shares_sheet=True,
)
