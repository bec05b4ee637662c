"""The data model: what a run is about, as plain values.

Everything here is frozen, cheap to pickle and free of behaviour, because these values cross processes. Order is
never meaning: a `Comparison` and a `Verdict` can be swapped, and a label that depends on the order of two answers
shows up as `inconsistent`, not as a preference.

    persona + prompt -> Scenario -> play -> Episode(turns, candidates, judgments, pairs, discards)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

Role = Literal["user", "assistants", "judge", "writer"]
ROLES: tuple[Role, ...] = ("user", "assistants", "judge", "writer")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    "Whose message it is, as the model that reads it sees it."
    content: str
    "Its text."

    def as_dict(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Profile:
    """A persona's hidden point in a preference space: the simulator and the judge see it, the assistant does not."""

    space: str
    "Name of the preference space."
    names: tuple[str, ...]
    "Dimensions, in the space's order."
    values: tuple[str, ...]
    "The pole wanted on each dimension, parallel to `names`; empty where the person has no wish."
    vector: tuple[float, ...] = ()
    "The point in numbers, parallel to `names`; what they mean is `Space.profile`'s to say."

    def pole(self, dimension: str) -> str:
        return self.values[self.names.index(dimension)]


@dataclass(frozen=True, slots=True)
class Persona:
    """One simulated person."""

    id: str
    "Digest of who the person is (pack, traits, profile): the same person has the same id in every run."
    index: int
    "Row in the cast, from 0."
    text: str
    "The person in words, as the model that plays them reads it."
    traits: dict[str, Any]
    "Typed traits, as the pack's JSON Schema describes them."
    profile: Profile


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a dialogue starts from, when the persona does not open it."""

    id: str
    "Digest of the text."
    text: str
    "The first user message, as it is."


@dataclass(frozen=True, slots=True)
class Scenario:
    """All that decides one dialogue. Played twice with the same models, it asks the same requests."""

    key: str
    "Digest of persona, prompt, number and seed: the same under another model, so that a ledger can be reused."
    index: int
    "Place in the plan, from 0: orders the output, decides nothing."
    persona: Persona
    prompt: Prompt | None
    "The opening; `None` when the persona writes its own."
    need: str | None = None
    "What the person brings, where they write the opening themselves."


class Finish(StrEnum):
    """Why a reply ended."""

    stop = "stop"
    length = "length"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a reply is drawn."""

    temperature: float = 0.7
    "0 is greedy."
    top_p: float = 0.95
    "Nucleus, in (0, 1]."
    max_tokens: int = 256
    "Most completion tokens."
    stop: tuple[str, ...] = ()
    "Texts that end the reply; they are not part of it."


@dataclass(frozen=True, slots=True)
class Access:
    """How an endpoint is asked; no secret is in it, only the name of the variable that holds one."""

    key: str = "OPENAI_API_KEY"
    "Environment variable of the key."
    headers: tuple[tuple[str, str], ...] = ()
    "Sent with every call, as an organisation's name is."
    body: str = "{}"
    "JSON object of further fields of every request, such as vLLM's `chat_template_kwargs`."


USUAL = Access()
"How an endpoint is asked where the recipe says nothing."


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One call of a model, whole: two equal requests are the same call."""

    model: str
    "The model's fingerprint: provider, and the content or endpoint behind it."
    messages: tuple[Message, ...]
    sampling: Sampling
    seed: int
    "In [0, 2**31)."
    schema: str | None = None
    "JSON Schema (as text) that the reply must satisfy."
    choices: tuple[str, ...] = ()
    "When given, the reply is one of these, with the probability of each."
    n: int = 1
    "Answers that are drawn for one reading of the prompt."


@dataclass(frozen=True, slots=True)
class Said:
    """One of several answers to one request."""

    text: str
    finish: Finish
    completion_tokens: int | None
    "`None` where the model tells only those of all answers together."


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What a model answered."""

    text: str
    finish: Finish
    prompt_tokens: int
    cached_tokens: int
    "Of the prompt's, served from the prefix cache."
    completion_tokens: int
    choice_probabilities: dict[str, float] = field(default_factory=dict)
    "Where choices were asked: their probabilities, normalised to 1 over the choices."
    thinking_tokens: int = 0
    "Of the completion's: what a reasoning model thought and did not say."
    answers: tuple[Said, ...] = ()
    "Where several were asked for: all of them, the first again among them; token counts above are of all together."

    @property
    def said(self) -> tuple[Said, ...]:
        """The answers, at least one."""
        return self.answers or (Said(self.text, self.finish, self.completion_tokens),)


class Condition(StrEnum):
    """How a candidate was told to answer."""

    plain = "plain"
    "Knows nothing of the person."
    own = "own"
    "Steered by the person's own profile."
    opposite = "opposite"
    "Steered by the opposite profile."


@dataclass(frozen=True, slots=True)
class Candidate:
    """One assistant's answer to a prefix."""

    id: str
    "Digest of scenario, turn, condition, dimension and sample number."
    turn: int
    "From 0."
    condition: Condition
    dimension: str | None
    "Dimension it was steered on; `None` where it was not, or by the whole profile."
    sample: int
    "Number among the answers of one condition, from 0."
    model: str
    steering: str
    "What it was told about the person, empty for `plain`."
    said: Said

    @property
    def text(self) -> str:
        return self.said.text


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two candidates that answer one prefix, seen from a person's side."""

    prefix: tuple[Message, ...]
    a: Candidate
    b: Candidate
    dimension: str | None
    "The dimension to compare on; `None` is overall."

    def swap(self) -> Comparison:
        return Comparison(self.prefix, self.b, self.a, self.dimension)


class Choice(StrEnum):
    """What a judge said of one comparison in one order."""

    first = "first"
    second = "second"
    tie = "tie"
    unreadable = "unreadable"


_SWAPPED = {Choice.first: Choice.second, Choice.second: Choice.first}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judge call on one comparison in one order."""

    choice: Choice
    p_first: float | None
    "Probability that the first is better, a tie counted half; `None` where the judge gives no distribution."
    raw: str
    "The reply as it came."

    def swap(self) -> Verdict:
        p = None if self.p_first is None else 1.0 - self.p_first
        return Verdict(_SWAPPED.get(self.choice, self.choice), p, self.raw)


class Outcome(StrEnum):
    """What the verdicts of all orders say together."""

    a = "a"
    b = "b"
    tie = "tie"
    inconsistent = "inconsistent"
    unreadable = "unreadable"


@dataclass(frozen=True, slots=True)
class Judgment:
    """A comparison, decided or not."""

    id: str
    turn: int
    a: str
    "Candidate id."
    b: str
    dimension: str | None
    method: Literal["construction", "measure", "pairwise"]
    judge: str
    "The model, or the rule's name."
    verdict_ab: Choice | None
    "With `a` shown first; `None` where the method has no order or this order was not asked."
    verdict_ba: Choice | None
    "With `b` shown first, in the words of that order."
    outcome: Outcome
    p_a: float | None
    "Soft label: probability that `a` is better, averaged over the orders asked."
    value_a: float | None = None
    "What the measure gave for `a`, in the measure's unit."
    value_b: float | None = None


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A decided chosen/rejected over a shared prefix."""

    id: str
    turn: int
    prefix: tuple[Message, ...]
    chosen: Candidate
    rejected: Candidate
    dimension: str | None
    label: Literal["construction", "judge"]
    "What decided it."
    p_chosen: float | None
    "The judge's soft label for the chosen answer; `None` where no judge was asked."
    measure_gap: float | None
    "Chosen minus rejected in the wanted direction, in the measure's unit; `None` without a measure."


@dataclass(frozen=True, slots=True)
class Discard:
    """A decided absence."""

    turn: int | None
    stage: Literal["dialogue", "candidates", "judging", "pairing"]
    reason: str
    "A word from `REASONS`."
    detail: str


REASONS = {
    "model_error": "a model call failed",
    "broken_role": "the simulated user stopped being a user, twice in a row",
    "empty": "an answer has no words",
    "cut_off": "an answer ended at the token limit",
    "refusal": "an answer refuses",
    "off_language": "an answer is not written in the dialogue's script",
    "repeats_prompt": "an answer repeats the user's message",
    "same_text": "both answers are the same",
    "leak": "an answer quotes the words it was steered with",
    "measure_disagrees": "the text does not show the preference that it was steered by",
    "judge_disagrees": "the judge prefers the other answer in both orders",
    "tie": "the judge sees no difference",
    "inconsistent": "the judge changes its mind with the order",
    "unreadable": "the judge's verdict cannot be read",
}
"Every reason a discard can have, with its meaning."


class Ending(StrEnum):
    """How a dialogue ended."""

    max_turns = "max_turns"
    satisfied = "satisfied"
    broken_role = "broken_role"
    no_answer = "no_answer"
    "No candidate of the last turn was fit to go on with."
    model_error = "model_error"


@dataclass(frozen=True, slots=True)
class Turn:
    """One user message, the candidates that answer it, and which one the dialogue goes on with."""

    number: int
    user: str
    candidates: tuple[Candidate, ...]
    continued: str | None
    "Id of the candidate that the dialogue goes on with; `None` where none was fit and it ended."


@dataclass(frozen=True, slots=True)
class Usage:
    """Calls and tokens, by role. Adds up."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    thinking_tokens: int = 0
    "Of the completion's, thought and not said."

    @classmethod
    def of(cls, reply: ChatReply) -> Usage:
        """What one reply took."""
        return cls(1, reply.prompt_tokens, reply.cached_tokens, reply.completion_tokens, reply.thinking_tokens)

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
            self.thinking_tokens + other.thinking_tokens,
        )

    def __sub__(self, other: Usage) -> Usage:
        return self + Usage(
            -other.calls,
            -other.prompt_tokens,
            -other.cached_tokens,
            -other.completion_tokens,
            -other.thinking_tokens,
        )


@dataclass(frozen=True, slots=True)
class Episode:
    """A played scenario: everything that was said and decided."""

    scenario: Scenario
    turns: tuple[Turn, ...]
    ending: Ending
    judgments: tuple[Judgment, ...]
    pairs: tuple[PreferencePair, ...]
    discards: tuple[Discard, ...]
    usage: dict[str, Usage]
    "By role."
