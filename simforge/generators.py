"""Generators: what a model is told, each a file in `generators/`.

A generator is front matter (sampling settings, choices) and a text in sections, each a message:

    ---
    role: assistant
    sampling: {temperature: 0.7, max_tokens: 200}
    ---
    @system
    You answer questions. {{ steering }}
    @dialogue

`@system`, `@user` and `@assistant` are one message each. `@dialogue` is the history so far, projected for the
speaker: what it said itself is `assistant`, what it heard is `user`, put into words by the `@heard` section where
there is one (variables `text`, and `last`: whether the history ends with it). `@again` is added where a first answer
would not do (variables `hint` and `draft`). The sections are found before anything is rendered, so a model's text can
never become one. Templates are Jinja in an immutable sandbox and strict: a missing variable is an error.

What changes from turn to turn for a person is rendered as it was at each turn, so that every request extends the one
before it, and a prefix cache serves all but its end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, cast

import jinja2
import jinja2.meta
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import Field, model_validator

from simforge import catalog, documents
from simforge.documents import Strict
from simforge.errors import Mistake, RecipeError, nearest
from simforge.types import Message, Sampling

SECTIONS = ("system", "user", "assistant", "dialogue", "heard", "again")
_HEADER = re.compile(r"^@(system|user|assistant|dialogue|heard|again)[ \t]*$", re.MULTILINE)


class SamplingSettings(Strict):
    """Sampling, as the front matter says it."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    "0 is greedy."
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    max_tokens: Annotated[int, Field(ge=1, le=32_768)] = 256
    stop: list[str] = []


class FrontMatter(Strict):
    """The head of a generator file."""

    role: Literal["user", "assistant", "judge", "writer"]
    "Whom the text speaks to."
    description: str
    sampling: SamplingSettings = SamplingSettings()
    form: Literal["pairwise", "batch", "ranking", "rating", "survey"] = "pairwise"
    """For a judge, what one call is about: two answers; several pairs of answers; all answers of a turn, put in order;
    one answer, in numbers; a dialogue that is over."""
    choices: list[str] = []
    "For a judge that compares: the words of its verdict, for first, second and, where a third is given, tie."
    says: list[Literal["reasons", "verdict", "certainty"]] = ["verdict"]
    """For a judge that compares two: what it replies, in this order; more than the verdict is asked for as JSON. Its
    certainty is a whole number, 0 to 100."""
    at_once: Annotated[int, Field(ge=2, le=64)] = 5
    "For a `batch`: most pairs of one call."
    attributes: list[str] = []
    "For a judge that rates or fills in a survey: what it asks about; a rating without any is of the whole."
    scale: Annotated[list[int], Field(min_length=2, max_length=2)] = [1, 100]
    "For a judge that rates: the lowest and the highest number."
    ends: str | None = None
    "For a user: what it says when the person is done, as models that are trained to be users do."
    speaks_as: Literal["assistant", "user"] = "assistant"
    "The role under which it finds its own messages: `user` for models that are trained to be users."

    @model_validator(mode="after")
    def _judges(self) -> FrontMatter:
        compares = self.role == "judge" and self.form in ("pairwise", "batch")
        if compares and len(self.choices) not in (2, 3):
            raise ValueError('needs two or three `choices`, for first, second and, if wanted, tie: ["1", "2", tie]')
        if self.form == "survey" and not self.attributes:
            raise ValueError("a survey needs `attributes`: what it asks about")
        if "verdict" not in self.says:
            raise ValueError("says: a judge has to say its `verdict`")
        if self.scale[0] >= self.scale[1]:
            raise ValueError(f"scale: needs the lowest number and the highest, such as [0, 4], and not {self.scale}")
        return self


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a generator's text."""

    kind: Literal["system", "user", "assistant", "dialogue"]
    template: str


@dataclass(frozen=True, slots=True)
class Generator:
    """A parsed generator: a plain value, so that it travels with the work. Templates are compiled where used."""

    name: str
    label: str
    front: FrontMatter
    sections: tuple[Section, ...]
    heard: str
    "Template of what the other side said; has the variables `text` and `last` (whether the history ends with it)."
    again: str | None = None
    "Template that asks once more, with the variable `hint`; without one the same is asked with another seed."

    @property
    def sampling(self) -> Sampling:
        settings = self.front.sampling
        return Sampling(settings.temperature, settings.top_p, settings.max_tokens, tuple(settings.stop))

    def reads(self, variable: str) -> bool:
        """Whether any of its templates uses a variable."""
        templates = (*(section.template for section in self.sections), self.heard, self.again or "")
        return any(variable in variables_of(template) for template in templates)

    def messages(
        self,
        variables: Mapping[str, Any],
        history: Sequence[Message] = (),
        speaker: str = "assistant",
        notes: Sequence[Mapping[str, Any]] = (),
        hint: str | None = None,
    ) -> tuple[Message, ...]:
        """The rendered messages; `history` is in the dialogue's own roles and is projected for `speaker`.

        `notes` are a user's variables turn by turn: what stands before the dialogue is rendered with those of the
        opening, and what was heard with those of the turn that it led to.
        """
        rendered: list[Message] = []
        first = {**variables, **(notes[0] if notes else {})}
        for section in self.sections:
            if section.kind == "dialogue":
                last = len(history) - 1
                for place, message in enumerate(history):
                    then = notes[min(place // 2 + 1, len(notes) - 1)] if notes else {}
                    rendered.append(self._projected(message, speaker, {**variables, **then, "last": place == last}))
            else:
                rendered.append(Message(section.kind, _render(section.template, first, self.label)))
        if hint is not None and self.again is not None:
            now = {**variables, **(notes[-1] if notes else {}), "hint": hint}
            rendered.append(Message("user", _render(self.again, now, self.label)))
        return tuple(_merged(rendered))

    def rehearse(self, variables: Mapping[str, Any]) -> list[Mistake]:
        """What is wrong with the templates, found by their variables and by rendering them once."""
        mistakes = []
        known_to = [(one.template, {*variables}) for one in self.sections]
        known_to += [(self.heard, {*variables, "text", "last"}), (self.again or "", {*variables, "hint", "draft"})]
        for template, known in known_to:
            unknown = variables_of(template) - known
            for name in sorted(unknown):
                mistakes.append(Mistake(self.label, None, "", f"unknown variable {name!r}{nearest(name, known)}"))
        if mistakes:
            return mistakes
        needed = {"user": ("dialogue",), "assistant": ("dialogue",)}.get(self.front.role, ())
        kinds = [section.kind for section in self.sections]
        mistakes += [Mistake(self.label, None, "", f"needs a section @{kind}") for kind in needed if kind not in kinds]
        if self.front.role == "assistant" and "steering" in variables and not self.reads("steering"):
            mistakes.append(
                Mistake(self.label, None, "", "never uses {{ steering }}: all conditions would answer alike")
            )
        try:
            spoken = {"draft": "x", **variables}
            self.messages(spoken, [Message("user", "x"), Message("assistant", "x")], "user", hint="x")
            self.messages(variables, [Message("user", "x")], "assistant")
        except RecipeError as problem:
            mistakes += problem.mistakes
        return mistakes

    def _projected(self, message: Message, speaker: str, variables: Mapping[str, Any]) -> Message:
        other: Literal["user", "assistant"] = "user" if self.front.speaks_as == "assistant" else "assistant"
        if message.role == speaker:
            return Message(self.front.speaks_as, message.content)
        return Message(other, _render(self.heard, {**variables, "text": message.content}, self.label))


def load(reference: str) -> Generator:
    """Read a generator by name or path; raises `RecipeError` with its mistakes."""
    found = catalog.entry("generators", reference)
    head, line, body = _split(found.text, found.label)
    front = documents.validated(documents.read(head, found.label, first_line=2), FrontMatter)
    pieces = _HEADER.split(body)
    if pieces[0].strip() or len(pieces) < 3:
        raise RecipeError(
            [
                Mistake(
                    found.label,
                    line,
                    "",
                    "the text must start with a section: @system, @user, @assistant or @dialogue, alone on a line",
                )
            ]
        )
    sections = list(zip(pieces[1::2], (piece.strip() for piece in pieces[2::2]), strict=True))
    heard = next((template for kind, template in sections if kind == "heard"), "{{ text }}")
    again = next((template for kind, template in sections if kind == "again"), None)
    mistakes: list[Mistake | None] = [
        Mistake(found.label, line + body[: match.start()].count("\n"), "", f"@{match[1]} is no section{choices}")
        for match in re.finditer(r"^@(\w+)[ \t]*$", body, re.MULTILINE)
        if match[1] not in SECTIONS
        for choices in [nearest(match[1], SECTIONS) or f"; there are: {', '.join(SECTIONS)}"]
    ]
    mistakes += [_syntax(template, found.label, line) for _, template in sections]
    kinds = [kind for kind, _ in sections]
    if "heard" in kinds and "dialogue" in kinds and kinds.index("heard") < kinds.index("dialogue"):
        mistakes.append(Mistake(found.label, line, "", "@heard stands before @dialogue: put it after"))
    if any(mistakes):
        raise RecipeError(mistake for mistake in mistakes if mistake)
    kept = tuple(Section(cast(Any, kind), text) for kind, text in sections if kind not in ("heard", "again"))
    return Generator(reference, found.label, front, kept, heard, again)


@cache
def variables_of(template: str) -> frozenset[str]:
    """The variables that a template reads."""
    return frozenset(jinja2.meta.find_undeclared_variables(_environment().parse(template)))


@cache
def compiled(template: str) -> jinja2.Template:
    """A template, compiled once per process."""
    made = _environment().from_string(template)
    made.globals = dict(made.globals)  # jinja's chain of mappings is copied at every rendering, at half of its cost
    return made


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=False, autoescape=False
    )


def _render(template: str, variables: Mapping[str, Any], label: str) -> str:
    try:
        return compiled(template).render(variables).strip()
    except (jinja2.TemplateError, ArithmeticError, TypeError, ValueError, LookupError) as problem:
        known = ", ".join(sorted(variables))
        raise RecipeError([Mistake(label, None, "", f"{problem}; the variables are: {known}")]) from None


def _split(text: str, label: str) -> tuple[str, int, str]:
    """Front matter, the line where the body starts, and the body."""
    match = re.match(r"---\r?\n(.*?)\r?\n---\r?\n", text, re.DOTALL)
    if match is None:
        raise RecipeError([Mistake(label, 1, "", "must start with front matter between two lines of ---")])
    return match[1], match[0].count("\n") + 1, text[match.end() :]


def _syntax(template: str, label: str, line: int) -> Mistake | None:
    try:
        compiled(template)
    except jinja2.TemplateSyntaxError as problem:
        return Mistake(label, line + problem.lineno, "", f"template: {problem.message}")
    return None


def _merged(messages: Sequence[Message]) -> list[Message]:
    """Messages of one role in a row become one, since chat templates expect roles to alternate."""
    merged: list[Message] = []
    for message in messages:
        if not message.content:
            continue
        if merged and merged[-1].role == message.role:
            merged[-1] = Message(message.role, f"{merged[-1].content}\n\n{message.content}")
        else:
            merged.append(message)
    return merged
