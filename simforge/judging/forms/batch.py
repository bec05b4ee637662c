"""The form `batch`: several pairs of answers per call (Personalized Soups, arXiv 2310.11564)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from simforge.judging.aggregation import by_model
from simforge.judging.forms import JUDGE_VARIABLES, JudgeForm, OrderedVerdict, Round
from simforge.judging.parsing import (
    ParseFailure,
    object_schema,
    parse_verdicts,
    verdict_or_unreadable,
)
from simforge.models.calls import gather_or_cancel
from simforge.types import Comparison, Verdict

if TYPE_CHECKING:
    from simforge.judging.judge import TurnJudge


async def _ask(judge: TurnJudge, asked: Round) -> list[OrderedVerdict]:
    """Judges several pairs of answers per call, as in Personalized Soups (there: several
    prompts per call)."""
    words, pairs_per_call = (
        judge.generator.front.choices,
        judge.generator.front.batch_size,
    )
    ordered = asked.as_shown()
    batches = [
        ordered[start : start + pairs_per_call]
        for start in range(0, len(ordered), pairs_per_call)
    ]

    async def judge_batch(batch: Sequence[Comparison]) -> list[Verdict]:
        items = [
            {
                "number": number,
                "wants": asked.perspective.wants(
                    judge.setup.space, comparison.dimension
                ),
                "first": comparison.a.text,
                "second": comparison.b.text,
            }
            for number, comparison in enumerate(batch, start=1)
        ]
        verdicts = {
            "type": "array",
            "items": {"enum": words},
            "minItems": len(batch),
            "maxItems": len(batch),
        }
        schema = object_schema({"verdicts": verdicts})
        parsed, repaired = await judge.ask_with_repair(
            asked.perspective,
            asked.role,
            {"items": items},
            lambda reply: parse_verdicts(reply, words, len(batch)),
            asked.attempt,
            schema,
        )
        parsed_verdicts = (
            [parsed] * len(batch) if isinstance(parsed, ParseFailure) else parsed
        )
        return [verdict_or_unreadable(verdict, repaired) for verdict in parsed_verdicts]

    all_verdicts = [
        verdict
        for batch_verdicts in await gather_or_cancel(
            judge_batch(batch) for batch in batches
        )
        for verdict in batch_verdicts
    ]
    return list(zip(asked.orders, all_verdicts, strict=True))


ASSUMED_PAIRS_PER_CALL = 4
"Pairs that a call is about, on average, for the estimate."


FORM = JudgeForm(
    about="several comparisons of two answers in one call",
    variables={
        **JUDGE_VARIABLES,
        "items": [{"number": 1, "wants": "x", "first": "x", "second": "x"}],
    },
    ask=_ask,
    combine=by_model,
    calls=lambda compared, dimensions, answers: (
        compared * dimensions / ASSUMED_PAIRS_PER_CALL
    ),
    needs_choices=True,
    replies_with_choice=lambda front: False,
    splits_by_dimension=True,
)
