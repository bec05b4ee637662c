"""The columns of a dataset's tables: name, Arrow type, description and value stand together.

To add a column, add a `Column` to its table here. Schemas, the dataset's card, `schemas/` and
the rows follow from it. Types are declared, never inferred: a column that is empty in one run
has the same type as in the next. Nested values are Arrow lists and structs, never JSON text.
Nothing that depends on time, machine or attempt enters a table, so the same replies give the
same bytes.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import pyarrow as pa

from simforge.dialogue import style
from simforge.dialogue.guards import GUARDS
from simforge.personas.spaces import Space
from simforge.recipe.conditions import CONDITIONS
from simforge.types import (
    Branch,
    Candidate,
    Discard,
    Ending,
    Episode,
    JsonObject,
    Judgment,
    Message,
    Persona,
    PreferencePair,
    Scenario,
    Turn,
)

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Column(Generic[R]):
    """A column of a table."""

    name: str
    type: pa.DataType
    description: str
    value: Callable[[R], object]
    "How a row gets its value, of the column's type."


@dataclass(frozen=True, slots=True)
class PersonRow:
    """The source of a row of `personas`."""

    persona: Persona
    source: str
    "Name of the persona pack."
    licence: str
    "SPDX id of its licence."


@dataclass(frozen=True, slots=True)
class BranchRow:
    """The source of every row of an episode."""

    episode: Episode
    branch: Branch

    @property
    def scenario(self) -> Scenario:
        return self.episode.scenario


@dataclass(frozen=True, slots=True)
class PairRow(BranchRow):
    """The source of a row of `preferences`."""

    pair: PreferencePair
    space: Space

    @property
    def own_dialogue(self) -> bool:
        """True if the person took part in the dialogue."""
        return self.pair.persona is self.scenario.persona

    @property
    def steered_to_profile(self) -> bool:
        """True if the chosen answer was steered by what the person wants."""
        condition = CONDITIONS.find(self.pair.chosen.condition)
        return self.own_dialogue and condition.follows_wishes


@dataclass(frozen=True, slots=True)
class DialogueRow(BranchRow):
    """The source of a row of `dialogues`."""

    user_model: str | None

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages of the branch, with the answers that it continued with."""
        messages: list[Message] = []
        for turn in self.branch.turns:
            messages += [Message("user", turn.user), *continued_answer(turn)]
        return tuple(messages)

    @property
    def disclosed(self) -> list[int]:
        """Number of facts that the person has disclosed by each turn."""
        counts = (len(turn.user_turn.revealed_facts) for turn in self.branch.turns)
        return list(itertools.accumulate(counts))

    @property
    def goals(self) -> list[dict[str, object]]:
        """Each goal, with the turns at which it was raised and met."""
        return [
            {
                "goal": goal,
                "raised": _first_turn_with(self.branch, "raised_goals", number),
                "met": _first_turn_with(self.branch, "met_goals", number),
            }
            for number, goal in enumerate(self.scenario.goals)
        ]

    @property
    def goals_met(self) -> int:
        return sum(goal["met"] is not None for goal in self.goals)


@dataclass(frozen=True, slots=True)
class TurnRow(BranchRow):
    """The source of a row of `turns`."""

    turn: Turn
    parent: str | None
    "Id of the answer that the message replies to."


@dataclass(frozen=True, slots=True)
class CandidateRow(TurnRow):
    """The source of a row of `candidates`."""

    candidate: Candidate
    prefix: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class JudgmentRow(BranchRow):
    """The source of a row of `judgments`."""

    judgment: Judgment


@dataclass(frozen=True, slots=True)
class DiscardRow(BranchRow):
    """The source of a row of `discards`."""

    discard: Discard


MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


PROFILE = pa.struct(
    [
        ("space", pa.string()),
        ("names", pa.list_(pa.string())),
        ("values", pa.list_(pa.string())),
        ("vector", pa.list_(pa.float64())),
    ]
)


BEHAVIOR = pa.struct(
    [
        ("patience", pa.int32()),
        ("knowledge", pa.string()),
        ("words", pa.float64()),
        ("lower_case", pa.bool_()),
        ("no_final_punctuation", pa.bool_()),
        ("typos", pa.float64()),
        ("language", pa.string()),
    ]
)


GOALS = pa.list_(
    pa.struct([("goal", pa.string()), ("raised", pa.int32()), ("met", pa.int32())])
)


FEEDBACK = pa.list_(
    pa.struct(
        [
            ("attribute", pa.string()),
            ("performance", pa.int32()),
            ("choice", pa.int32()),
        ]
    )
)


SCORES = pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))


STYLE = pa.struct([(name, pa.float64()) for name in style.STYLE_FIGURES])


def _flags(branch: Branch, until: int) -> list[str]:
    """List the guards that object to user messages up to turn `until`, each once."""
    return list(
        dict.fromkeys(
            flag
            for turn in branch.turns
            if turn.number <= until
            for flag in turn.user_turn.flags
        )
    )


def _first_turn_with(branch: Branch, event: str, number: int) -> int | None:
    """First turn at which a goal was raised, or met; `None` if there is none."""
    return next(
        (
            turn.number
            for turn in branch.turns
            if number in getattr(turn.user_turn, event)
        ),
        None,
    )


def continued_answer(turn: Turn) -> list[Message]:
    """The answer that the dialogue continued with, as a list of one message; empty if there is
    none."""
    return [
        Message("assistant", candidate.text)
        for candidate in turn.candidates
        if candidate.id == turn.continued
    ]


def _messages(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    return [message.as_dict() for message in messages]


def _profile(persona: Persona) -> JsonObject:
    profile = persona.profile
    return {
        "space": profile.space,
        "names": list(profile.names),
        "values": list(profile.values),
        "vector": list(profile.vector),
    }


def guard_column(name: str) -> Column[TurnRow]:
    """The column of `turns` that says whether a guard objects."""
    meaning = GUARDS[name].meaning
    return Column(name, pa.bool_(), f"Guard: {meaning}.", partial(_is_flagged, name))


def _is_flagged(guard: str, row: TurnRow) -> bool:
    """Return true if a guard objects to the user message."""
    return guard in row.turn.user_turn.flags


PAIRS: list[Column[PairRow]] = [
    Column("id", pa.string(), "Digest of the comparison.", lambda row: row.pair.id),
    Column(
        "prompt",
        MESSAGES,
        "The dialogue up to and including the user message that both answers reply to.",
        lambda row: _messages(row.pair.prefix),
    ),
    Column(
        "chosen",
        MESSAGES,
        "The answer that the person prefers, as one assistant message.",
        lambda row: [{"role": "assistant", "content": row.pair.chosen.text}],
    ),
    Column(
        "rejected",
        MESSAGES,
        "The other answer, as one assistant message.",
        lambda row: [{"role": "assistant", "content": row.pair.rejected.text}],
    ),
    Column(
        "system",
        pa.string(),
        "The preference in words, as a system message under which `chosen` is the "
        "better answer. It is not part of `prompt`, and the person did not see it "
        "with the answers.",
        lambda row: (
            row.pair.chosen.steering
            if row.steered_to_profile
            else row.space.steering(row.pair.persona.profile, row.pair.dimension)
        ),
    ),
    Column(
        "persona_id", pa.string(), "Row of `personas`.", lambda row: row.pair.persona.id
    ),
    Column(
        "profile",
        PROFILE,
        "The person's hidden preference profile.",
        lambda row: _profile(row.pair.persona),
    ),
    Column(
        "dimension",
        pa.string(),
        "Dimension of the comparison; null means overall.",
        lambda row: row.pair.dimension,
    ),
    Column(
        "own_dialogue",
        pa.bool_(),
        "True if the person took part in the dialogue; false if they only judged it.",
        lambda row: row.own_dialogue,
    ),
    Column(
        "label",
        pa.string(),
        "Source of the label: `construction`, `judge`, `scorers`, or a `tie` that the "
        "recipe keeps.",
        lambda row: row.pair.label,
    ),
    Column(
        "margin",
        pa.float64(),
        "Log-odds of `p_calibrated`, or of the judge's own probabilities, limited to "
        "±4; 0 for ties; negative if a judge disagrees with the label; null if the "
        "reliability of its verdicts is unknown.",
        lambda row: None,
    ),
    Column(
        "p_chosen",
        pa.float64(),
        "The judge's soft label for `chosen`, averaged over both orders; null if no "
        "judge was asked.",
        lambda row: row.pair.p_chosen,
    ),
    Column(
        "p_calibrated",
        pa.float64(),
        "`p_chosen` corrected for the judge's noise, which is estimated from its two "
        "orders (errors assumed independent); null if the noise is unknown, or if the "
        "judge gave probabilities.",
        lambda row: None,
    ),
    Column(
        "certainty",
        pa.float64(),
        "Certainty that the judge stated, 0 to 1; null if it was not asked.",
        lambda row: row.pair.certainty,
    ),
    Column(
        "judgment_id",
        pa.string(),
        "Row of `judgments` with the judge's verdicts, whether or not they decided "
        "the label.",
        lambda row: row.pair.judgment,
    ),
    Column(
        "measure_gap",
        pa.float64(),
        "Chosen minus rejected on the dimension's measure, in its unit; null without "
        "a measure.",
        lambda row: row.pair.measure_gap,
    ),
    Column(
        "value_gap",
        pa.float64(),
        "Value of `chosen` minus `rejected`: points of the person's ratings, or "
        "standard deviations of weighted scores; null without either.",
        lambda row: row.pair.value_gap,
    ),
    Column(
        "flags",
        pa.list_(pa.string()),
        "Guards that object to a user message of `prompt`; usually empty.",
        lambda row: _flags(row.branch, row.pair.turn),
    ),
    Column(
        "turn", pa.int32(), "Turn of the dialogue, from 0.", lambda row: row.pair.turn
    ),
    Column(
        "dialogue_id", pa.string(), "Row of `dialogues`.", lambda row: row.branch.id
    ),
    Column(
        "prompt_id",
        pa.string(),
        "Digest of the shared prompt; null if the person wrote the opening message.",
        lambda row: row.scenario.prompt.id if row.scenario.prompt else None,
    ),
    Column(
        "chosen_id", pa.string(), "Row of `candidates`.", lambda row: row.pair.chosen.id
    ),
    Column(
        "rejected_id",
        pa.string(),
        "Row of `candidates`.",
        lambda row: row.pair.rejected.id,
    ),
    Column(
        "chosen_condition",
        pa.string(),
        "How the chosen answer was steered.",
        lambda row: row.pair.chosen.condition,
    ),
    Column(
        "rejected_condition",
        pa.string(),
        "How the rejected answer was steered.",
        lambda row: row.pair.rejected.condition,
    ),
    Column(
        "chosen_model",
        pa.string(),
        "Model of the chosen answer.",
        lambda row: row.pair.chosen.model,
    ),
    Column(
        "rejected_model",
        pa.string(),
        "Model of the rejected answer.",
        lambda row: row.pair.rejected.model,
    ),
]


DIALOGUES: list[Column[DialogueRow]] = [
    Column(
        "id",
        pa.string(),
        "Digest of the scenario (persona, prompt, number, seed); for a branch, of its "
        "branching point.",
        lambda row: row.branch.id,
    ),
    Column(
        "parent",
        pa.string(),
        "Dialogue that this one branched from; null if it is not a branch.",
        lambda row: row.branch.parent,
    ),
    Column(
        "branched_at",
        pa.int32(),
        "Last turn shared with the parent, from 0.",
        lambda row: row.branch.branched_at,
    ),
    Column(
        "persona_id",
        pa.string(),
        "Row of `personas`.",
        lambda row: row.scenario.persona.id,
    ),
    Column(
        "prompt_id",
        pa.string(),
        "Digest of the shared prompt; null if the person wrote the opening message.",
        lambda row: row.scenario.prompt.id if row.scenario.prompt else None,
    ),
    Column(
        "session",
        pa.int32(),
        "Position in a sequence of dialogues that build on each other, from 0; "
        "currently always 0.",
        lambda row: row.scenario.session,
    ),
    Column(
        "date",
        pa.date32(),
        "Date on which the dialogue takes place; null if the recipe sets none.",
        lambda row: (
            datetime.date.fromisoformat(row.scenario.date)
            if row.scenario.date
            else None
        ),
    ),
    Column(
        "conversation_type",
        pa.string(),
        "Type of the conversation; null if the recipe has only one.",
        lambda row: row.scenario.kind,
    ),
    Column(
        "need",
        pa.string(),
        "Need that the person came with, if they wrote the opening message.",
        lambda row: row.scenario.need,
    ),
    Column(
        "messages",
        MESSAGES,
        "All messages, with the answers that the dialogue continued with.",
        lambda row: _messages(tuple(row.messages)),
    ),
    Column(
        "closing",
        pa.string(),
        "Last message of the person, which got no answer; null if there is none.",
        lambda row: row.branch.closing,
    ),
    Column(
        "turns",
        pa.int32(),
        "Number of user messages that were answered.",
        lambda row: len(row.branch.turns),
    ),
    Column(
        "ending",
        pa.string(),
        ", ".join(f"`{ending}`" for ending in Ending) + ".",
        lambda row: row.branch.ending,
    ),
    Column(
        "behavior",
        BEHAVIOR,
        "Behavior assigned to the simulated user, sampled before the dialogue.",
        lambda row: {
            name: getattr(row.episode.behavior, name) for name in BEHAVIOR.names
        },
    ),
    Column(
        "goals",
        GOALS,
        "Goals behind the need, with the turns at which each was raised and met.",
        lambda row: row.goals,
    ),
    Column(
        "goals_met",
        pa.float64(),
        "Share of the goals that an answer met; null without goals.",
        lambda row: row.goals_met / len(row.goals) if row.goals else None,
    ),
    Column(
        "facts",
        pa.int32(),
        "Number of facts about the person that they can disclose.",
        lambda row: len(row.scenario.facts),
    ),
    Column(
        "disclosed",
        pa.list_(pa.int32()),
        "Number of facts that the person had disclosed by each turn.",
        lambda row: row.disclosed,
    ),
    Column(
        "flags",
        pa.list_(pa.string()),
        "Guards that object to a user message of this dialogue, each once.",
        lambda row: _flags(row.branch, len(row.branch.turns)),
    ),
    Column(
        "rejected_by",
        pa.list_(pa.string()),
        "Guards that rejected the user message at which the dialogue was ended.",
        lambda row: list(row.branch.rejected_by),
    ),
    Column(
        "feedback",
        FEEDBACK,
        "The person's survey about the first answer, filled in after the dialogue; "
        "may be empty.",
        lambda row: [
            {"attribute": name, "performance": performance, "choice": choice}
            for name, (performance, choice) in row.branch.feedback.items()
        ],
    ),
    Column(
        "style",
        STYLE,
        "Style statistics of the user messages, for comparison with human chats.",
        lambda row: style.style_figures(
            [
                turn.user
                for turn in row.branch.turns
                if row.scenario.prompt is None or turn.number
            ]
        ),
    ),
    Column(
        "user_model",
        pa.string(),
        "Model that played the simulated user; null if none was needed.",
        lambda row: row.user_model,
    ),
    Column(
        "calls",
        pa.int32(),
        "Model calls of the dialogue, all roles; for a branch, since the branching "
        "point.",
        lambda row: sum(usage.calls for usage in row.branch.usage.values()),
    ),
    Column(
        "prompt_tokens",
        pa.int64(),
        "Tokens read in those calls.",
        lambda row: sum(usage.prompt_tokens for usage in row.branch.usage.values()),
    ),
    Column(
        "completion_tokens",
        pa.int64(),
        "Tokens written in those calls.",
        lambda row: sum(usage.completion_tokens for usage in row.branch.usage.values()),
    ),
]


TURNS: list[Column[TurnRow]] = [
    Column(
        "dialogue_id",
        pa.string(),
        "Row of `dialogues`; a branch has rows only for the turns after the branching "
        "point.",
        lambda row: row.branch.id,
    ),
    Column(
        "persona_id",
        pa.string(),
        "Row of `personas`.",
        lambda row: row.scenario.persona.id,
    ),
    Column(
        "turn", pa.int32(), "Turn of the dialogue, from 0.", lambda row: row.turn.number
    ),
    Column(
        "parent",
        pa.string(),
        "Answer that the message replies to, a row of `candidates`; null for the "
        "opening message.",
        lambda row: row.parent,
    ),
    Column("text", pa.string(), "The user message.", lambda row: row.turn.user),
    Column(
        "mood",
        pa.string(),
        "The person's mood when writing; empty if unchanged from the start.",
        lambda row: row.turn.user_turn.mood,
    ),
    Column(
        "disclosed",
        pa.list_(pa.string()),
        "Facts about themselves that the person discloses here for the first time.",
        lambda row: [
            row.scenario.facts[number] for number in row.turn.user_turn.revealed_facts
        ],
    ),
    Column(
        "goals",
        pa.list_(pa.string()),
        "Goals that the person raises here for the first time.",
        lambda row: [
            row.scenario.goals[number] for number in row.turn.user_turn.raised_goals
        ],
    ),
    Column(
        "inferred",
        pa.string(),
        "The assistant's current description of the person; null if the recipe does "
        "not ask for it.",
        lambda row: row.turn.inferred,
    ),
    Column(
        "repaired",
        pa.list_(pa.string()),
        "Guards that objected to the first draft but not to this message.",
        lambda row: list(row.turn.user_turn.repaired),
    ),
    *(guard_column(name) for name in GUARDS),
]


CANDIDATES: list[Column[CandidateRow]] = [
    Column(
        "id",
        pa.string(),
        "Digest of dialogue, turn, variant, dimension and sample.",
        lambda row: row.candidate.id,
    ),
    Column(
        "dialogue_id", pa.string(), "Row of `dialogues`.", lambda row: row.branch.id
    ),
    Column(
        "parent",
        pa.string(),
        "Previous answer of the dialogue, a row of this table; null at the first turn.",
        lambda row: row.parent,
    ),
    Column(
        "turn",
        pa.int32(),
        "Turn of the dialogue, from 0.",
        lambda row: row.candidate.turn,
    ),
    Column(
        "prefix",
        MESSAGES,
        "Messages that the candidate replies to.",
        lambda row: _messages(row.prefix),
    ),
    Column(
        "variant",
        pa.string(),
        "Name of this group of answers in the recipe; by default the condition.",
        lambda row: row.candidate.variant,
    ),
    Column(
        "condition",
        pa.string(),
        ", ".join(f"`{name}`" for name in CONDITIONS) + ".",
        lambda row: row.candidate.condition,
    ),
    Column(
        "dimension",
        pa.string(),
        "Dimension that the answer was steered on; null for none, or for the whole "
        "profile.",
        lambda row: row.candidate.dimension,
    ),
    Column(
        "sample",
        pa.int32(),
        "Index among the answers of one condition, from 0.",
        lambda row: row.candidate.sample,
    ),
    Column(
        "steering",
        pa.string(),
        "Information about the person that the assistant was given.",
        lambda row: row.candidate.steering,
    ),
    Column("model", pa.string(), "Model reference.", lambda row: row.candidate.model),
    Column(
        "text",
        pa.string(),
        "The answer, as the model gave it.",
        lambda row: row.candidate.text,
    ),
    Column(
        "finish",
        pa.string(),
        "`stop`, or `length` if the answer was cut off.",
        lambda row: row.candidate.completion.finish,
    ),
    Column(
        "completion_tokens",
        pa.int32(),
        "Length in tokens; null if the server reports only the sum of several samples.",
        lambda row: row.candidate.completion.completion_tokens,
    ),
    Column(
        "rating",
        pa.float64(),
        "The person's rating, on the scale of the judge's generator (of a panel, the mean "
        "of its judges' ratings); null if there is none.",
        lambda row: row.turn.ratings.get(row.candidate.id),
    ),
    Column(
        "scores",
        SCORES,
        "Ratings of single attributes, or scores by the scorers of the space; usually "
        "empty.",
        lambda row: [
            {"name": name, "value": value}
            for name, value in row.turn.scores.get(row.candidate.id, {}).items()
        ],
    ),
    Column(
        "continued",
        pa.bool_(),
        "Whether the dialogue continued with it.",
        lambda row: row.candidate.id == row.turn.continued,
    ),
]


JUDGMENTS: list[Column[JudgmentRow]] = [
    Column(
        "id",
        pa.string(),
        "Digest of comparison and method.",
        lambda row: row.judgment.id,
    ),
    Column(
        "dialogue_id", pa.string(), "Row of `dialogues`.", lambda row: row.branch.id
    ),
    Column(
        "persona_id",
        pa.string(),
        "Row of `personas`: the person whose preference is judged.",
        lambda row: row.judgment.persona_id,
    ),
    Column(
        "profile_shown",
        pa.string(),
        "Profile shown to the judge: the person's `profile`; for the blind controls "
        "`nobody` (nothing), a `stranger`'s, or the least informative `trait`.",
        lambda row: row.judgment.profile_shown,
    ),
    Column(
        "turn",
        pa.int32(),
        "Turn of the dialogue, from 0.",
        lambda row: row.judgment.turn,
    ),
    Column("a", pa.string(), "Row of `candidates`.", lambda row: row.judgment.a),
    Column("b", pa.string(), "Row of `candidates`.", lambda row: row.judgment.b),
    Column(
        "dimension",
        pa.string(),
        "Dimension of the comparison; null means overall.",
        lambda row: row.judgment.dimension,
    ),
    Column(
        "method",
        pa.string(),
        "`construction`, `measure`, `model` (verdicts on both answers), `rating`, "
        "`scorers`, `weighted` (verdicts on each dimension) or `panel` (several "
        "judges).",
        lambda row: row.judgment.method,
    ),
    Column(
        "judge",
        pa.string(),
        "The model, or the rule's or measure's name.",
        lambda row: row.judgment.judge,
    ),
    Column(
        "role",
        pa.string(),
        "Name of the judge in the recipe's `models`; empty for rules and panels.",
        lambda row: row.judgment.role,
    ),
    Column(
        "question",
        pa.string(),
        "Digest of the question to the model, independent of order; equal questions "
        "share one answer.",
        lambda row: row.judgment.question,
    ),
    Column(
        "verdict_ab",
        pa.string(),
        "Verdict with `a` shown first; null if not asked.",
        lambda row: row.judgment.verdict_ab,
    ),
    Column(
        "verdict_ba",
        pa.string(),
        "Verdict with `b` shown first (`first` means `b`); null if not asked.",
        lambda row: row.judgment.verdict_ba,
    ),
    Column(
        "outcome",
        pa.string(),
        "`a`, `b`, `tie`, `inconsistent` or `unreadable`.",
        lambda row: row.judgment.outcome,
    ),
    Column(
        "p_a",
        pa.float64(),
        "Soft label for `a`; null if there is none.",
        lambda row: row.judgment.p_a,
    ),
    Column(
        "p_ab",
        pa.float64(),
        "The judge's probability that the first is better, `a` shown first; null for "
        "verdicts in words.",
        lambda row: row.judgment.p_ab,
    ),
    Column(
        "p_ba",
        pa.float64(),
        "The judge's probability that the first is better, `b` shown first (so of "
        "`b`).",
        lambda row: row.judgment.p_ba,
    ),
    Column(
        "certainty",
        pa.float64(),
        "Certainty that the judge stated, 0 to 1; null if it was not asked.",
        lambda row: row.judgment.certainty,
    ),
    Column(
        "stability",
        pa.float64(),
        "How often repeated verdicts in the same order were equal; null if asked once.",
        lambda row: row.judgment.stability,
    ),
    Column(
        "repaired",
        pa.int32(),
        "Number of verdicts that could be parsed only after asking again.",
        lambda row: row.judgment.repaired,
    ),
    Column(
        "reasons_ab",
        pa.string(),
        "Reasoning before the verdict with `a` shown first; empty if not requested.",
        lambda row: row.judgment.reasons_ab,
    ),
    Column(
        "reasons_ba",
        pa.string(),
        "The same with `b` shown first.",
        lambda row: row.judgment.reasons_ba,
    ),
    Column(
        "value_a",
        pa.float64(),
        "Value of `a` by the measure, the rating or the weighted scorers.",
        lambda row: row.judgment.value_a,
    ),
    Column(
        "value_b", pa.float64(), "The same for `b`.", lambda row: row.judgment.value_b
    ),
]


DISCARDS: list[Column[DiscardRow]] = [
    Column(
        "dialogue_id", pa.string(), "Row of `dialogues`.", lambda row: row.branch.id
    ),
    Column(
        "persona_id",
        pa.string(),
        "Row of `personas`: the person concerned.",
        lambda row: row.discard.persona_id or row.scenario.persona.id,
    ),
    Column(
        "turn",
        pa.int32(),
        "Turn of the dialogue, from 0; null means the whole dialogue.",
        lambda row: row.discard.turn,
    ),
    Column(
        "stage",
        pa.string(),
        "`dialogue`, `candidates`, `judging` or `pairing`.",
        lambda row: row.discard.stage,
    ),
    Column(
        "reason",
        pa.string(),
        "One word; the dataset's card lists the meanings.",
        lambda row: row.discard.reason,
    ),
    Column(
        "detail", pa.string(), "Details of the reason.", lambda row: row.discard.detail
    ),
]


PERSONAS_BEFORE_TRAITS: list[Column[PersonRow]] = [
    Column(
        "id",
        pa.string(),
        "Digest of traits, profile and row.",
        lambda row: row.persona.id,
    ),
    Column(
        "index", pa.int64(), "Row of the cast, from 0.", lambda row: row.persona.index
    ),
]


PERSONAS_AFTER_TRAITS: list[Column[PersonRow]] = [
    Column(
        "text",
        pa.string(),
        "The person in words, as the simulator reads it.",
        lambda row: row.persona.text,
    ),
    Column(
        "profile",
        PROFILE,
        "The hidden preference profile.",
        lambda row: _profile(row.persona),
    ),
    Column("source", pa.string(), "Persona pack.", lambda row: row.source),
    Column(
        "licence",
        pa.string(),
        "SPDX id of the pack's licence.",
        lambda row: row.licence,
    ),
]
"The traits of the pack stand between these columns."
