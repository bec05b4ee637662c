"""The data model: what a run is about, as plain values.

Everything here is frozen, cheap to pickle and free of behaviour, because these values cross processes. Order is
never meaning: a `Comparison` and a `Verdict` can be swapped, and a label that depends on the order of two answers
shows up as `inconsistent`, not as a preference.

    persona + prompt -> Scenario -> play -> Episode(turns, candidates, judgments, pairs, discards)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

Role = str
ROLES: tuple[Role, ...] = ("user", "assistants", "judge", "writer")
"The roles of every recipe; one may name further models, which its candidates are asked of."


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
    goals: tuple[str, ...] = ()
    "What they want of it beyond the need, one thing a turn; the assistant has to hear it from them."
    facts: tuple[str, ...] = ()
    "What there is to tell about the person, a phrase each."
    stranger: Persona | None = None
    "Somebody else who wants something else, where an answer is steered, or a judge led astray, by one."
    audience: tuple[Persona, ...] = ()
    "Others from whose side the answers are judged too."
    least: str = ""
    "The person's least telling trait, in words: what a judge is told who shall know next to nothing."
    group: int = 0
    "Number of the group of people who get the same prompts and share answers."
    kind: str | None = None
    "Type of the conversation, where the recipe has several."
    session: int = 0
    "Number of the dialogue among those of a person that build on each other, from 0."
    date: str | None = None
    "ISO date on which it takes place."


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
    stranger = "stranger"
    "Steered by the profile of another person of the cast."
    inferred = "inferred"
    "Told what an assistant makes of the person from the dialogue so far."
    others = "others"
    "Steered by a preference that the person does not have: an answer for each of them."
    revised = "revised"
    "A plain answer, revised by the person's own profile."


OWN = (Condition.own, Condition.revised)
"Conditions under which an answer follows the person's own wishes."


@dataclass(frozen=True, slots=True)
class Candidate:
    """One assistant's answer to a prefix."""

    id: str
    "Digest of dialogue, turn, arm, dimension and sample number."
    turn: int
    "From 0."
    arm: str
    "Name that the recipe calls these answers by: the condition's, unless it says otherwise."
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
    p_first: float | None = None
    "Probability that the first is better, a tie counted half; `None` where the judge gives no distribution."
    certainty: float | None = None
    "How sure the judge says that it is, 0 to 1; `None` where it is not asked."
    reasons: str = ""
    "What it says before its verdict, where it is asked."
    repaired: bool = False
    "Whether a first reply could not be read, and the judge was asked once more."
    value_first: float | None = None
    "What the first answer was rated, where answers are rated one by one."
    value_second: float | None = None

    def swap(self) -> Verdict:
        return replace(
            self,
            choice=_SWAPPED.get(self.choice, self.choice),
            p_first=None if self.p_first is None else 1.0 - self.p_first,
            value_first=self.value_second,
            value_second=self.value_first,
        )


class Outcome(StrEnum):
    """What the verdicts of all orders say together."""

    a = "a"
    b = "b"
    tie = "tie"
    inconsistent = "inconsistent"
    unreadable = "unreadable"


Method = Literal["construction", "measure", "model", "rating", "scorers", "weighted", "panel"]
"""What decided: the way the answers were made; a number of the text; a model's verdicts on both answers; its ratings of
each; scorers, weighted by the person's profile; verdicts on each dimension, weighted; several judges."""


class Told(StrEnum):
    """What a judge knows of the person; all but the first are controls."""

    profile = "profile"
    "Who they are and what they want."
    nobody = "nobody"
    "Nothing."
    stranger = "stranger"
    "Who somebody else is, and what they want."
    trait = "trait"
    "The one trait that tells least about them."


@dataclass(frozen=True, slots=True)
class Judgment:
    """A comparison, decided or not, from one person's side."""

    id: str
    turn: int
    persona_id: str
    "From whose side."
    told: Told
    a: str
    "Candidate id."
    b: str
    dimension: str | None
    method: Method
    judge: str
    "The model, or the rule's name."
    outcome: Outcome
    role: Role = ""
    "Name of the judge in the recipe's `models`; empty for rules."
    question: str = ""
    "Digest of what a model was asked, whatever the order: equal questions have one answer, whoever asks."
    verdict_ab: Choice | None = None
    "With `a` shown first; `None` where the method has no order or this order was not asked."
    verdict_ba: Choice | None = None
    "With `b` shown first, in the words of that order."
    p_a: float | None = None
    "Soft label: probability that `a` is better, averaged over the orders asked."
    certainty: float | None = None
    "How sure the judge said that it was, 0 to 1, on average."
    p_ab: float | None = None
    "With `a` shown first: the judge's own probability that the first is better; `None` where it gives words only."
    p_ba: float | None = None
    "With `b` shown first: its probability that the first, which is `b`, is better."
    value_a: float | None = None
    "What the measure gave for `a`, in its unit; the person's rating of it; or what their scorers make of it."
    value_b: float | None = None
    stability: float | None = None
    "Where each order was asked more than once: how often two verdicts in one order were the same."
    repaired: int = 0
    "Verdicts that could only be read when they were asked for again."
    reasons_ab: str = ""
    reasons_ba: str = ""


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A decided chosen/rejected over a shared prefix."""

    id: str
    turn: int
    persona: Persona
    "Whose preference it is: who had the dialogue, or one of their audience."
    prefix: tuple[Message, ...]
    chosen: Candidate
    rejected: Candidate
    dimension: str | None
    label: Literal["construction", "judge", "scorers", "tie"]
    "What decided it; a `tie` that the recipe keeps was decided by nothing."
    p_chosen: float | None
    "The judge's soft label for the chosen answer; `None` where no judge was asked."
    judgment: str | None
    "Id of the judge's judgment, whether it made the label or stands beside it."
    certainty: float | None
    "How sure the judge said that it was, 0 to 1."
    measure_gap: float | None
    "Chosen minus rejected in the wanted direction, in the measure's unit; `None` without a measure."
    value_gap: float | None = None
    """The chosen answer's value minus the other's: points of a rating, or standard deviations of weighted scores;
    `None` without either."""


@dataclass(frozen=True, slots=True)
class Discard:
    """A decided absence."""

    turn: int | None
    stage: Literal["dialogue", "candidates", "judging", "pairing"]
    reason: str
    "A word from `REASONS`."
    detail: str
    persona_id: str | None = None
    "From whose side it was judged; `None` is who had the dialogue."


REASONS = {
    "model_error": "a model call failed",
    "broken_role": "the simulated user stopped being a user, and a guard ended the dialogue there",
    "loop": "the simulated user only exchanged courtesies or said nothing new",
    "guarded": "a guard rejects the whole dialogue",
    "empty": "an answer has no words",
    "cut_off": "an answer ended at the token limit",
    "refusal": "an answer refuses",
    "off_language": "an answer is not written in the dialogue's script",
    "repeats_prompt": "an answer repeats the user's message",
    "broken": "an answer repeats itself or is garbled",
    "unsafe": "the answer that would be chosen is unsafe",
    "same_text": "both answers are the same",
    "near_same": "both answers are nearly the same",
    "duplicate": "the person has a pair already that is nearly the same",
    "leak": "an answer quotes the words it was steered with",
    "measure_disagrees": "the text does not show the preference that it was steered by",
    "judge_disagrees": "the judge prefers the other answer in both orders",
    "tie": "no difference is seen, or too small a one",
    "uncertain": "the judge is less certain than the recipe asks",
    "length": "the answers differ more in length than the recipe allows",
    "surplus": "the turn has given as many pairs as the recipe allows",
    "inconsistent": "a judge changes its mind with the order, or judges disagree",
    "unreadable": "the judge's verdict cannot be read",
}
"Every reason a discard can have, with its meaning."


class Ending(StrEnum):
    """How a dialogue ended."""

    max_turns = "max_turns"
    satisfied = "satisfied"
    "The person thanked, took leave or said that they were done."
    gave_up = "gave_up"
    "The person's patience was used up."
    loop = "loop"
    "Courtesies without end."
    broken_role = "broken_role"
    guarded = "guarded"
    "A guard rejected the whole dialogue, by the recipe's policy."
    no_answer = "no_answer"
    "No candidate of the last turn was fit to go on with."
    model_error = "model_error"


BROKEN = (Ending.broken_role, Ending.loop, Ending.guarded)
"Endings that are the simulated user's fault."


@dataclass(frozen=True, slots=True)
class UserTurn:
    """How one user message came about and what it gives away; the message itself is the turn's."""

    flags: tuple[str, ...] = ()
    "Guards that object to the message as it stands."
    mended: tuple[str, ...] = ()
    "Guards that objected to a first draft."
    mood: str = ""
    "The person's mood as they wrote, in a word; empty where nothing has moved it."
    revealed: tuple[int, ...] = ()
    "Facts about the person that are told here for the first time, by their number."
    raised: tuple[int, ...] = ()
    "Goals that are brought up here for the first time, by their number."
    met: tuple[int, ...] = ()
    "Goals that the answer which the dialogue went on with takes up for the first time."


@dataclass(frozen=True, slots=True)
class Turn:
    """One user message, the candidates that answer it, and which one the dialogue goes on with."""

    number: int
    user: str
    candidates: tuple[Candidate, ...]
    continued: str | None
    "Id of the candidate that the dialogue goes on with; `None` where none was fit and it ended."
    said: UserTurn
    "How the user message came about."
    inferred: str | None = None
    "What an assistant makes of the person so far, where the recipe asks it."
    ratings: dict[str, float] = field(default_factory=dict)
    "The person's rating of candidates, by id, where they rate."
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    "By candidate: ratings of its attributes, or what each scorer gives it."


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
class Conduct:
    """How a person behaves in one dialogue, drawn before it starts."""

    patience: int | None = None
    "Disappointing answers that they take before they leave; `None` is any number."
    knowledge: str = ""
    "What they know of the subject, in words; empty where the recipe does not say."
    words: float | None = None
    "Median length of their messages in words; `None` where the recipe leaves it to the model."
    lower_case: bool = False
    "Whether they start messages in lower case."
    no_stop: bool = False
    "Whether they leave the last full stop or question mark out."
    typos: float = 0.0
    "Share of their words that are mistyped."
    language: str = ""
    "What they write in; empty where the recipe does not say."


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a dialogue, from its opening to an ending. A dialogue that branched has several: each is a row."""

    id: str
    "The scenario's key; of a branch, a digest of where it left."
    parent: str | None
    "The line that it left; `None` for the first."
    left: int | None
    "Turn after which it left its parent."
    turns: tuple[Turn, ...]
    "From the opening on; those up to `left` are its parent's."
    ending: Ending
    closing: str | None
    "What the person said in leaving, which nobody answered."
    rejected: tuple[str, ...]
    "Guards that objected to the message before which the line ended."
    feedback: dict[str, tuple[int, int]]
    "By attribute: how well the first answer did, and how much that had to do with the choice, 1 to 100."
    judgments: tuple[Judgment, ...]
    pairs: tuple[PreferencePair, ...]
    discards: tuple[Discard, ...]
    usage: dict[str, Usage]
    "By role."

    @property
    def own(self) -> tuple[Turn, ...]:
        """The turns that are not its parent's."""
        return self.turns if self.left is None else self.turns[self.left + 1 :]


@dataclass(frozen=True, slots=True)
class Episode:
    """A played scenario: everything that was said and decided."""

    scenario: Scenario
    conduct: Conduct
    lines: tuple[Line, ...]
    "The first line, then its branches; a branch stands after the line that it left."

    @property
    def usage(self) -> dict[str, Usage]:
        """Calls and tokens by role."""
        found: dict[str, Usage] = {}
        for line in self.lines:
            for role, used in line.usage.items():
                found[role] = found.get(role, Usage()) + used
        return found
