"""Judge forms: the ways to ask a model which of two answers a person prefers.

One module for each form, found by the `form` of a judge's generator. A form defines the variables
of its generator, how it asks and reads, how its verdicts combine, and how many calls that takes.
Nothing else decides by the name of a form.

To add a form, add a module here that defines `FORM`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simforge.catalog.registry import Registry
from simforge.catalog.templates import FrontMatter
from simforge.types import Comparison, JsonObject, Judgment, Role, Verdict

if TYPE_CHECKING:
    from simforge.judging.judge import Perspective, TurnJudge
    from simforge.judging.rules import Rater


OrderedVerdict = tuple[str, Verdict]
"The order in which two answers were shown (`ab` or `ba`), and the verdict."


JUDGE_VARIABLES: JsonObject = {"prefix": [], "persona": "x"}
"Variables that every judge's generator may use, with placeholder values."


@dataclass(frozen=True, slots=True)
class Round:
    """One round of questions: comparisons, each in one order, for one judge."""

    comparisons: Sequence[Comparison]
    orders: Sequence[str]
    "`ab` or `ba` for each comparison."
    perspective: Perspective
    role: Role
    attempt: str
    "Suffix that tells repeats of the same question apart."

    def as_shown(self) -> list[Comparison]:
        """The comparisons, with the answer that is shown first as `a`."""
        return [
            comparison if order == "ab" else comparison.swap()
            for comparison, order in zip(self.comparisons, self.orders, strict=True)
        ]


Ask = Callable[["TurnJudge", Round], Coroutine[Any, Any, list[OrderedVerdict]]]
"Asks a judge a round of questions; returns a verdict for each comparison."


Combine = Callable[[Comparison, "Rater", dict[str, list[Verdict]], str], Judgment]
"Combines the verdicts of one comparison, by order, into a judgment."


@dataclass(frozen=True, slots=True)
class JudgeForm:
    """A way to ask a judge."""

    about: str
    "Subject of one call, as a phrase for the documentation."
    variables: Mapping[str, Any]
    "Variables of its generator, with placeholder values for a trial rendering."
    ask: Ask | None
    "`None` if it is not about comparisons."
    combine: Combine | None
    calls: Callable[[float, float, float], float]
    """Calls of a turn in one order, from the number of comparisons on each dimension, of
    dimensions, and of answers."""
    needs_choices: bool = False
    "Its generator lists the words of a verdict."
    has_orders: bool = True
    "The order of the answers matters, so both orders are asked."
    splits_by_dimension: bool = False
    "It can be asked for each dimension by itself (`judge.by: dimension`)."
    rates: bool = False
    "It gives each answer a rating."
    shares_sheet: bool = False
    "All answers on one dimension are asked about together, so they are sampled together."
    replies_with_choice: Callable[[FrontMatter], bool] = field(
        default=lambda front: bool(front.choices)
    )
    """Whether the whole reply to a generator of the form is one of its choices, so that an
    endpoint must be able to enforce them and to give their probabilities."""


FORMS: Registry[JudgeForm] = Registry(
    "judge form",
    JudgeForm,
    package="simforge.judging.forms",
    variable="FORM",
    hint="It is the `form` of a judge's generator.",
)
