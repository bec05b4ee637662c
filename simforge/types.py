"""The data model: the values that a run creates and passes around, as plain dataclasses.

Everything here is frozen, cheap to pickle and free of behaviour, because these values cross
processes. The order of two answers never carries meaning: a `Comparison` and a `Verdict` can be
swapped, and a label that depends on the order shows up as `inconsistent`, not as a preference.

    persona + prompt -> Scenario -> play -> Episode(turns, candidates, judgments, pairs, discards)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

JsonObject = dict[str, Any]
"A JSON object: text from a file or a server, or a row of a table."


Role = str


ROLES: tuple[Role, ...] = ("user", "assistants", "judge", "writer")
"The roles of every recipe; a recipe may name further models that write candidates."


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    "Speaker of the message, from the point of view of the model that reads it."
    content: str
    "Text of the message."

    def as_dict(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Profile:
    """A persona's hidden point in a preference space: the simulator and the judge see it, the
    assistant does not."""

    space: str
    "Name of the preference space."
    names: tuple[str, ...]
    "Dimensions, in the space's order."
    values: tuple[str, ...]
    "The pole wanted on each dimension, parallel to `names`; empty if the person has no wish."
    vector: tuple[float, ...] = ()
    "The point in numbers, parallel to `names`; `Space.profile` defines what they mean."

    def pole(self, dimension: str) -> str:
        return self.values[self.names.index(dimension)]


@dataclass(frozen=True, slots=True)
class Persona:
    """One simulated person."""

    id: str
    "Digest of pack, traits and profile: the same person has the same id in every run."
    index: int
    "Row in the cast, from 0."
    text: str
    "Description of the person, as the model that plays them reads it."
    traits: JsonObject
    "Typed traits, as defined by the pack's JSON Schema."
    profile: Profile


@dataclass(frozen=True, slots=True)
class Prompt:
    """An opening for a dialogue, if the persona does not write it."""

    id: str
    "Digest of the text."
    text: str
    "The first user message, unchanged."


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that decides one dialogue. Played twice with the same models, it makes the
    same requests."""

    key: str
    "Digest of persona, prompt, number and seed, not of the model: a ledger can be reused."
    index: int
    "Position in the plan, from 0: orders the output, decides nothing else."
    persona: Persona
    prompt: Prompt | None
    "The opening; `None` if the persona writes its own."
    need: str | None = None
    "The person's need, if they write the opening themselves."
    goals: tuple[str, ...] = ()
    "Further wishes, one per turn; the assistant learns them only from the person."
    facts: tuple[str, ...] = ()
    "Facts about the person that the dialogue may reveal, a phrase each."
    stranger: Persona | None = None
    "Another person who wants something else, to steer an answer or for a control."
    audience: tuple[Persona, ...] = ()
    "Other people from whose side the answers are judged too."
    least_informative_trait: str = ""
    "The person's least informative trait, in words, for a control of the judge."
    group: int = 0
    "Number of the group of people who get the same prompts and share answers."
    kind: str | None = None
    "Type of the conversation, if the recipe has several."
    session: int = 0
    "Position in the person's sequence of dialogues that build on each other, from 0."
    date: str | None = None
    "ISO date of the dialogue."


class Finish(StrEnum):
    """The reason why a reply ended."""

    stop = "stop"
    length = "length"
    "The token limit was reached."
    content_filter = "content_filter"
    "The server's filter cut the reply."
    thought = "thought"
    "The model thought until it ended or reached the token limit, and gave no answer."


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling settings of a reply."""

    temperature: float = 0.7
    "0 is greedy."
    top_p: float = 0.95
    "Nucleus sampling mass, in (0, 1]."
    max_tokens: int = 256
    "Maximum number of completion tokens."
    stop: tuple[str, ...] = ()
    "Texts that end the reply; they are not part of it."


@dataclass(frozen=True, slots=True)
class Access:
    """Settings for calling an endpoint. They contain no secret, only the name of the variable
    that holds one."""

    key_variable: str = "OPENAI_API_KEY"
    "Environment variable that holds the key."
    headers: tuple[tuple[str, str], ...] = ()
    "Headers sent with every call, such as an organisation's name."
    body: str = "{}"
    "JSON object of further fields of every request, such as vLLM's `chat_template_kwargs`."


DEFAULT_ACCESS = Access()
"Settings for calling an endpoint if the recipe sets none."


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One complete call of a model: two equal requests are the same call."""

    model: str
    "The model's fingerprint: provider, and the content or endpoint behind it."
    messages: tuple[Message, ...]
    sampling: Sampling
    seed: int
    "In [0, 2**31)."
    schema: str | None = None
    "JSON Schema (as text) that the reply must satisfy."
    choices: tuple[str, ...] = ()
    "If given, the reply is one of these, with the probability of each."
    n: int = 1
    "Number of answers to draw for one reading of the prompt."


@dataclass(frozen=True, slots=True)
class Completion:
    """One of several answers to one request."""

    text: str
    finish: Finish
    completion_tokens: int | None
    "`None` if the model reports only the total of all answers."


@dataclass(frozen=True, slots=True)
class ChatReply:
    """A model's reply to one request."""

    text: str
    finish: Finish
    prompt_tokens: int
    cached_tokens: int
    "Prompt tokens that were served from the prefix cache."
    completion_tokens: int
    choice_probabilities: dict[str, float] = field(default_factory=dict)
    "Probabilities of the choices, if choices were given; normalised to sum to 1 over them."
    thinking_tokens: int = 0
    "Completion tokens that a reasoning model used for thinking, not for its answer."
    answers: tuple[Completion, ...] = ()
    "All answers, including the first, if several were requested; token counts cover all."

    @property
    def completions(self) -> tuple[Completion, ...]:
        """All answers, at least one."""
        return self.answers or (
            Completion(self.text, self.finish, self.completion_tokens),
        )


@dataclass(frozen=True, slots=True)
class Candidate:
    """One assistant's answer to a prefix."""

    id: str
    "Digest of dialogue, turn, variant, dimension and sample number."
    turn: int
    "From 0."
    variant: str
    "The recipe's name for these answers: by default, the condition's name."
    condition: str
    "How it was steered: a name of `simforge.recipe.conditions`."
    dimension: str | None
    "Dimension on which it was steered; `None` if it was not steered, or by the whole profile."
    sample: int
    "Number among the answers of one condition, from 0."
    model: str
    steering: str
    "The information about the person that the assistant was given; empty for `plain`."
    completion: Completion

    @property
    def text(self) -> str:
        return self.completion.text


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two candidates that answer one prefix, compared from a person's side."""

    prefix: tuple[Message, ...]
    a: Candidate
    b: Candidate
    dimension: str | None
    "The dimension to compare on; `None` is overall."

    def swap(self) -> Comparison:
        return Comparison(self.prefix, self.b, self.a, self.dimension)


class Choice(StrEnum):
    """A judge's choice in one comparison in one order."""

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
    "Probability that the first is better, ties counted half; `None` without a distribution."
    certainty: float | None = None
    "The judge's stated certainty, 0 to 1; `None` if it was not asked for."
    reasons: str = ""
    "The judge's reasons, stated before its verdict; empty if they were not asked for."
    repaired: bool = False
    "Whether the first reply could not be parsed, so that the judge was asked once more."
    value_first: float | None = None
    "Rating of the first answer, if answers are rated one by one."
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
    """The combined result of the verdicts of all orders."""

    a = "a"
    b = "b"
    tie = "tie"
    inconsistent = "inconsistent"
    unreadable = "unreadable"


Method = Literal[
    "construction", "measure", "model", "rating", "scorers", "weighted", "panel"
]
"""How the outcome was decided. `construction`: by the way the answers were made. `measure`: by
a number computed from the texts. `model`: by a model's verdicts on both answers. `rating`: by a
model's ratings of each answer. `scorers`: by scores, weighted by the person's profile.
`weighted`: by verdicts on each dimension, weighted. `panel`: by several judges."""


class ProfileShown(StrEnum):
    """The view of the person that a judge is shown; all but the first are blind controls."""

    profile = "profile"
    "The person's description and wishes."
    nobody = "nobody"
    "Nothing."
    stranger = "stranger"
    "The description and wishes of another person."
    trait = "trait"
    "Only the person's least informative trait."


@dataclass(frozen=True, slots=True)
class Judgment:
    """The result of a comparison, decided or not, from one person's side."""

    id: str
    turn: int
    persona_id: str
    "The person from whose side the answers were judged."
    profile_shown: ProfileShown
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
    "Digest of the question, independent of the order: equal questions have one answer."
    verdict_ab: Choice | None = None
    "Verdict with `a` shown first; `None` without an order, or if this one was not asked."
    verdict_ba: Choice | None = None
    "Verdict with `b` shown first; `first` means `b`."
    p_a: float | None = None
    "Soft label: probability that `a` is better, averaged over the orders asked."
    certainty: float | None = None
    "The judge's stated certainty, 0 to 1, on average."
    p_ab: float | None = None
    "The judge's probability, with `a` shown first, of the first; `None` with words only."
    p_ba: float | None = None
    "The judge's probability, with `b` shown first, of the first, which is `b`."
    value_a: float | None = None
    "Value of `a`: the measure's, the person's rating, or the weighted scorer value."
    value_b: float | None = None
    stability: float | None = None
    "Share of same-order verdict pairs that agree, if each order was asked repeatedly."
    repaired: int = 0
    "Number of verdicts that could be parsed only after asking again."
    reasons_ab: str = ""
    reasons_ba: str = ""


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A chosen and a rejected answer to a shared prefix, from a decided comparison."""

    id: str
    turn: int
    persona: Persona
    "The person whose preference it is: the person in the dialogue, or one of the audience."
    prefix: tuple[Message, ...]
    chosen: Candidate
    rejected: Candidate
    dimension: str | None
    label: Literal["construction", "judge", "scorers", "tie"]
    "What decided it; a `tie` that the recipe keeps was decided at random."
    p_chosen: float | None
    "The judge's soft label for the chosen answer; `None` if no judge was asked."
    judgment: str | None
    "Id of the judge's judgment, whether it made the label or only accompanies it."
    certainty: float | None
    "The judge's stated certainty, 0 to 1."
    measure_gap: float | None
    """Chosen minus rejected in the wanted direction, in the measure's unit; `None` without a
    measure."""
    value_gap: float | None = None
    """The chosen answer's value minus the other's: points of a rating, or standard deviations
    of weighted scores; `None` without either."""


@dataclass(frozen=True, slots=True)
class Discard:
    """Something that was left out, with the stage and the reason."""

    turn: int | None
    stage: Literal["dialogue", "candidates", "judging", "pairing"]
    reason: str
    "A key of `REASONS`."
    detail: str
    persona_id: str | None = None
    "The person from whose side it was judged; `None` is the person in the dialogue."


REASONS = {
    "model_error": "a model call failed",
    "broken_role": "the simulated user fell out of the role, and a guard ended the dialogue there",
    "loop": "the simulated user only exchanged courtesies or said nothing new",
    "guarded": "a guard rejected the whole dialogue",
    "empty": "an answer has no words",
    "cut_off": "an answer ended at the token limit",
    "content_filter": "the server's filter cut an answer",
    "only_thought": "the model only thought, and no answer followed",
    "markup": "an answer contains markup of a chat template",
    "refusal": "an answer refuses",
    "off_language": "an answer is not written in the dialogue's script",
    "repeats_prompt": "an answer repeats the user's message",
    "broken": "an answer repeats itself or is garbled",
    "unsafe": "the answer that would be chosen is unsafe",
    "same_text": "both answers are the same",
    "near_same": "both answers are nearly the same",
    "duplicate": "the person already has a pair that is nearly the same",
    "leak": "an answer quotes the words it was steered with",
    "measure_disagrees": "the measure of the texts does not confirm the label",
    "judge_disagrees": "the judge prefers the other answer in both orders",
    "tie": "there is no difference, or it is too small",
    "uncertain": "the judge is less certain than the recipe asks",
    "length": "the answers differ more in length than the recipe allows",
    "surplus": "the turn already has as many pairs as the recipe allows",
    "inconsistent": "a judge's verdict depends on the order of the answers, or judges disagree",
    "unreadable": "the judge's verdict cannot be parsed",
}
"Every reason that a discard can have, with its meaning."


class Ending(StrEnum):
    """The way a dialogue ended."""

    max_turns = "max_turns"
    satisfied = "satisfied"
    "The person thanked, took leave or said that they were done."
    gave_up = "gave_up"
    "The person ran out of patience."
    loop = "loop"
    "The person only exchanged courtesies or said nothing new."
    broken_role = "broken_role"
    guarded = "guarded"
    "A guard rejected the whole dialogue, by the recipe's policy."
    no_answer = "no_answer"
    "No candidate of the last turn was fit to continue with."
    model_error = "model_error"


GUARD_ENDINGS = (Ending.broken_role, Ending.loop, Ending.guarded)
"Endings caused by a failure of the simulated user."


@dataclass(frozen=True, slots=True)
class UserTurn:
    """The making of a user message and what it reveals; the text itself is in the turn."""

    flags: tuple[str, ...] = ()
    "Guards that object to the message as it is stored."
    repaired: tuple[str, ...] = ()
    "Guards that objected to the first draft, but not to the message that replaced it."
    mood: str = ""
    "The person's mood when they wrote, in a word; empty if nothing has changed it."
    revealed_facts: tuple[int, ...] = ()
    "Numbers of the facts about the person that this message reveals for the first time."
    raised_goals: tuple[int, ...] = ()
    "Numbers of the goals that this message brings up for the first time."
    met_goals: tuple[int, ...] = ()
    "Numbers of the goals that the continuing answer addresses for the first time."


@dataclass(frozen=True, slots=True)
class Turn:
    """One user message, its candidate answers, and the one that continues the dialogue."""

    number: int
    user: str
    candidates: tuple[Candidate, ...]
    continued: str | None
    "Id of the candidate that continues the dialogue; `None` if none was fit and it ended."
    user_turn: UserTurn
    "How the user message was made."
    inferred: str | None = None
    "What an assistant infers about the person so far, if the recipe asks for it."
    ratings: dict[str, float] = field(default_factory=dict)
    "The person's rating of each candidate, by id, if answers are rated."
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    "Ratings of attributes, or the value from each scorer or measure, by candidate."


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts of calls and tokens of one role; they can be added."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    thinking_tokens: int = 0
    "Completion tokens used for thinking, not for the answer."

    @classmethod
    def of(cls, reply: ChatReply) -> Usage:
        """Counts one reply."""
        return cls(
            1,
            reply.prompt_tokens,
            reply.cached_tokens,
            reply.completion_tokens,
            reply.thinking_tokens,
        )

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
class Behavior:
    """A person's behavior in one dialogue, drawn before the dialogue starts."""

    patience: int | None = None
    "Number of disappointing answers after which the person leaves; `None` means never."
    knowledge: str = ""
    "What the person knows about the subject, in words; empty if the recipe does not set it."
    words: float | None = None
    "Median length of the person's messages in words; `None`: the model decides."
    lower_case: bool = False
    "Whether the person starts messages in lower case."
    no_final_punctuation: bool = False
    "Whether the person omits the last full stop or question mark."
    typos: float = 0.0
    "Share of the person's words that are mistyped."
    language: str = ""
    "Language that the person writes in; empty if the recipe does not set it."


@dataclass(frozen=True, slots=True)
class Branch:
    """One branch of a dialogue, from its opening to an ending. A dialogue that branched has
    several; each is a row."""

    id: str
    "The scenario's key; for a later branch, a digest of the place where it forked."
    parent: str | None
    "The branch that it forked from; `None` for the first."
    branched_at: int | None
    "Turn after which it forked from its parent."
    turns: tuple[Turn, ...]
    "All turns from the opening on; those up to the fork are shared with its parent."
    ending: Ending
    closing: str | None
    "The person's parting words, which nobody answered."
    rejected_by: tuple[str, ...]
    "Guards that objected to the message before which the branch ended."
    feedback: dict[str, tuple[int, int]]
    "By attribute: how well the first answer did, and its weight in the choice, 1 to 100."
    judgments: tuple[Judgment, ...]
    pairs: tuple[PreferencePair, ...]
    discards: tuple[Discard, ...]
    usage: dict[str, Usage]
    "Calls and tokens, by role."

    @property
    def own_turns(self) -> tuple[Turn, ...]:
        """Turns that are not shared with its parent."""
        return (
            self.turns
            if self.branched_at is None
            else self.turns[self.branched_at + 1 :]
        )


@dataclass(frozen=True, slots=True)
class Episode:
    """A played scenario: everything that was said and decided."""

    scenario: Scenario
    behavior: Behavior
    branches: tuple[Branch, ...]
    "The first branch, then those that forked; each comes after the one it forked from."

    @property
    def usage(self) -> dict[str, Usage]:
        """Calls and tokens of all branches, by role."""
        totals: dict[str, Usage] = {}
        for branch in self.branches:
            for role, branch_usage in branch.usage.items():
                totals[role] = totals.get(role, Usage()) + branch_usage
        return totals
