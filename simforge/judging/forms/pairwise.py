"""The form `pairwise`: two answers per call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simforge.judging.aggregation import by_model
from simforge.judging.forms import JUDGE_VARIABLES, JudgeForm, OrderedVerdict, Round
from simforge.judging.parsing import (
    REPLY_FIELDS,
    ParseFailure,
    object_schema,
    parse_reasoned,
    parse_word,
    verdict_or_unreadable,
)
from simforge.models.calls import gather_or_cancel
from simforge.types import ChatReply, Comparison, Verdict

if TYPE_CHECKING:
    from simforge.judging.judge import TurnJudge


async def _ask(judge: TurnJudge, asked: Round) -> list[OrderedVerdict]:
    """Judges two answers per call."""
    front = judge.generator.front
    plain = front.reply_fields == ["verdict"]
    schema = (
        None
        if plain
        else object_schema(
            {
                field_name: REPLY_FIELDS[field_name](front.choices)
                for field_name in front.reply_fields
            }
        )
    )

    def parse(reply: ChatReply) -> Verdict | ParseFailure:
        return (
            parse_word(reply, front.choices)
            if plain
            else parse_reasoned(reply, front.choices, front.reply_fields)
        )

    async def judge_pair(comparison: Comparison) -> Verdict:
        variables = {
            "wants": asked.perspective.wants(judge.setup.space, comparison.dimension),
            "dimension": comparison.dimension,
            "first": comparison.a.text,
            "second": comparison.b.text,
        }
        return verdict_or_unreadable(
            *await judge.ask_with_repair(
                asked.perspective, asked.role, variables, parse, asked.attempt, schema
            )
        )

    verdicts = await gather_or_cancel(
        judge_pair(comparison) for comparison in asked.as_shown()
    )
    return list(zip(asked.orders, verdicts, strict=True))


FORM = JudgeForm(
    about="one comparison of two answers in one call",
    variables={
        **JUDGE_VARIABLES,
        "wants": "x",
        "dimension": "x",
        "first": "x",
        "second": "x",
    },
    ask=_ask,
    combine=by_model,
    calls=lambda compared, dimensions, answers: compared * dimensions,
    needs_choices=True,
    splits_by_dimension=True,
    replies_with_choice=lambda front: front.reply_fields == ["verdict"],
)
