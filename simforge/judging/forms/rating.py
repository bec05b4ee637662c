"""The form `rating`: one answer per call, in numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simforge.judging.aggregation import by_rating
from simforge.judging.forms import JUDGE_VARIABLES, JudgeForm, OrderedVerdict, Round
from simforge.types import Choice, Verdict

if TYPE_CHECKING:
    from simforge.judging.judge import TurnJudge


async def _ask(judge: TurnJudge, asked: Round) -> list[OrderedVerdict]:
    """Rates one answer per call; the answer with the higher rating is preferred."""
    answers = {
        candidate.id: candidate
        for comparison in asked.comparisons
        for candidate in (comparison.a, comparison.b)
    }
    rated = dict(
        zip(
            answers,
            await judge.rate(
                list(answers.values()), asked.perspective, asked.role, asked.attempt
            ),
            strict=True,
        )
    )
    gap, placed = judge.setup.recipe.pairing.min_gap, []
    for comparison, order in zip(asked.comparisons, asked.orders, strict=True):
        a, b = rated[comparison.a.id], rated[comparison.b.id]
        if a is None or b is None:
            placed.append((order, Verdict(Choice.unreadable)))
            continue
        lead = a.points - b.points
        choice = (
            Choice.tie
            if not lead or abs(lead) < gap
            else Choice.first
            if lead > 0
            else Choice.second
        )
        repaired = a.repaired or b.repaired
        placed.append(
            (
                order,
                Verdict(
                    choice,
                    repaired=repaired,
                    value_first=a.points,
                    value_second=b.points,
                ),
            )
        )
    return placed


FORM = JudgeForm(
    about="one answer in one call, rated",
    variables={**JUDGE_VARIABLES, "wants": "x", "answer": "x", "attributes": []},
    ask=_ask,
    combine=by_rating,
    calls=lambda compared, dimensions, answers: answers,
    has_orders=False,
    rates=True,
)
