"""Generators: the prompt templates of LLM roles, one file each in `generators/`.

A generator is front matter (sampling settings, choices) and a text in sections, each a message:

    ---
    role: assistant
    sampling: {temperature: 0.7, max_tokens: 200}
    ---
    @system
    You answer questions. {{ steering }}
    @dialogue

`@system`, `@user` and `@assistant` are one message each. `@dialogue` is the history so far,
from the speaker's point of view: the speaker's own messages get the role `assistant`, the other
side's messages get the role `user` and are rendered with the section `@heard`, if there is one
(variables `text`, and `last`: true if the history ends with that message). `@again` is added
when the first answer was not acceptable (variables `hint` and `draft`). Sections are split
before anything is rendered, so a model's text can never become a section. Templates are Jinja
in an immutable sandbox and strict: a missing variable is an error.

Variables that change from turn to turn for a person are rendered with their values at each
turn. Every request therefore extends the previous one, and a prefix cache serves all of it but
its end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, cast

import jinja2
import jinja2.nodes
from pydantic import Field, model_validator

from simforge import catalog
from simforge.catalog import documents, sandbox
from simforge.catalog.documents import Strict
from simforge.errors import Mistake, RecipeError, suggest
from simforge.types import Message, Sampling

SECTIONS = ("system", "user", "assistant", "dialogue", "heard", "again")


_HEADER = re.compile(
    r"^@(system|user|assistant|dialogue|heard|again)[ \t]*$", re.MULTILINE
)


class SamplingSettings(Strict):
    """Sampling settings in the front matter."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    "0 means greedy decoding."
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    max_tokens: Annotated[int, Field(ge=1, le=32_768)] = 256
    stop: list[str] = []


class FrontMatter(Strict):
    """The head of a generator file."""

    role: Literal["user", "assistant", "judge", "writer"]
    "The role that the text is written for."
    description: str
    sampling: SamplingSettings = SamplingSettings()
    form: str = "pairwise"
    """Subject of one call to a judge: two answers; several pairs of answers; all answers of
    a turn, to be ranked; one answer, to be rated; a finished dialogue."""
    choices: list[str] = []
    """For a judge that compares: the words of its verdict, for first, second and (if a third
    is given) tie."""
    reply_fields: list[Literal["reasons", "verdict", "certainty"]] = ["verdict"]
    """For a judge that compares two answers: the parts of its reply, in this order. Anything
    more than the verdict is requested as JSON. The certainty is a whole number from 0 to
    100."""
    batch_size: Annotated[int, Field(ge=2, le=64)] = 5
    "For a `batch`: maximum number of pairs in one call."
    attributes: list[str] = []
    """For a judge that rates or fills in a survey: the attributes it is asked about; without
    any, it rates the answer as a whole."""
    scale: Annotated[list[int], Field(min_length=2, max_length=2)] = [1, 100]
    "For a judge that rates: the lowest and the highest number."
    end_marker: str | None = None
    """For a user: the text that a model trained to simulate users replies when the person is
    done."""
    speaks_as: Literal["assistant", "user"] = "assistant"
    """The role given to the generator's own messages: `user` for models that are trained to
    simulate users."""

    @model_validator(mode="after")
    def _check_judge_fields(self) -> FrontMatter:
        if "verdict" not in self.reply_fields:
            raise ValueError("reply_fields: a judge's reply needs a `verdict`")
        if self.scale[0] >= self.scale[1]:
            raise ValueError(
                "scale: needs the lowest number and the highest, such as [0, 4], and "
                f"not {self.scale}"
            )
        return self


@dataclass(frozen=True, slots=True)
class MessageSection:
    """One part of a generator's text."""

    kind: Literal["system", "user", "assistant", "dialogue", "heard", "again"]
    template: str
    line: int = 1
    "Line of the file on which its template starts."


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A rendered generator: what a model is sent, and how its reply is drawn."""

    messages: tuple[Message, ...]
    sampling: Sampling
    choices: tuple[str, ...] = ()
    "The only replies that are allowed; empty for any. Not used where a JSON Schema is given."

    def at(self, temperature: float | None) -> RenderedPrompt:
        """Return the prompt with another temperature; `None` keeps its own."""
        if temperature is None:
            return self
        return replace(self, sampling=replace(self.sampling, temperature=temperature))


@dataclass(frozen=True, slots=True)
class Generator:
    """A parsed generator: a plain value that is sent with the work. Templates are compiled
    where they are used."""

    name: str
    label: str
    front: FrontMatter
    sections: tuple[MessageSection, ...]
    heard: MessageSection
    """Template for the other side's messages; its variables are `text` and `last` (true if
    the history ends with the message)."""
    again: MessageSection | None = None
    """Template for asking again, with the variable `hint`; without it, the same request is
    sent with another seed."""
    lines: Mapping[str, int] = field(default_factory=dict)
    "Line of each key of the front matter."

    @property
    def sampling(self) -> Sampling:
        settings = self.front.sampling
        return Sampling(
            settings.temperature,
            settings.top_p,
            settings.max_tokens,
            tuple(settings.stop),
        )

    def uses(self, variable: str) -> bool:
        """Return true if any of its templates uses a variable."""
        return any(
            variable in sandbox.variables_of(section.template)
            for section in self._all_sections
        )

    @property
    def _all_sections(self) -> tuple[MessageSection, ...]:
        return (*self.sections, self.heard, *([self.again] if self.again else []))

    def mistake(self, key: str, message: str) -> Mistake:
        """A mistake of the front matter, with the line of its key."""
        return Mistake(self.label, self.lines.get(key), key, message)

    def messages(
        self,
        variables: Mapping[str, Any],
        history: Sequence[Message] = (),
        speaker: str = "assistant",
        notes: Sequence[Mapping[str, Any]] = (),
        hint: str | None = None,
    ) -> tuple[Message, ...]:
        """Render the messages; `history` is in the dialogue's own roles and is projected for
        `speaker`.

        `notes` are a user's variables, turn by turn. Sections before the dialogue are rendered
        with those of the opening, and the other side's messages with those of the turn that
        follows them.
        """
        rendered: list[Message] = []
        opening_variables = {**variables, **(notes[0] if notes else {})}
        for section in self.sections:
            if section.kind == "dialogue":
                last = len(history) - 1
                for index, message in enumerate(history):
                    turn_notes = (
                        notes[min(index // 2 + 1, len(notes) - 1)] if notes else {}
                    )
                    rendered.append(
                        self._project(
                            message,
                            speaker,
                            {**variables, **turn_notes, "last": index == last},
                        )
                    )
            else:
                rendered.append(
                    Message(
                        cast("Literal['system', 'user', 'assistant']", section.kind),
                        _render(section, opening_variables, self.label),
                    )
                )
        if hint is not None and self.again is not None:
            current_variables = {
                **variables,
                **(notes[-1] if notes else {}),
                "hint": hint,
            }
            rendered.append(
                Message("user", _render(self.again, current_variables, self.label))
            )
        return tuple(_merge_roles(rendered))

    def render(
        self,
        variables: Mapping[str, Any],
        history: Sequence[Message] = (),
        speaker: str = "assistant",
        notes: Sequence[Mapping[str, Any]] = (),
        hint: str | None = None,
    ) -> RenderedPrompt:
        """Render a request to the role's model; the parameters are those of `messages`."""
        messages = self.messages(variables, history, speaker, notes, hint)
        return RenderedPrompt(messages, self.sampling, tuple(self.front.choices))

    def check_templates(self, variables: Mapping[str, Any]) -> list[Mistake]:
        """Find mistakes in the templates, by their variables and by rendering them once."""
        mistakes = []
        extra = {"heard": {"text", "last"}, "again": {"hint", "draft"}}
        for section in self._all_sections:
            known_variables = {*variables, *extra.get(section.kind, ())}
            for name, line in _variable_lines(section.template):
                if name not in known_variables:
                    message = (
                        f"unknown variable {name!r}{suggest(name, known_variables)}"
                    )
                    place = section.line + line - 1
                    mistakes.append(Mistake(self.label, place, "", message))
        if mistakes:
            return mistakes
        needed = {"user": ("dialogue",), "assistant": ("dialogue",)}.get(
            self.front.role, ()
        )
        kinds = [section.kind for section in self.sections]
        mistakes += [
            Mistake(self.label, None, "", f"needs a section @{kind}")
            for kind in needed
            if kind not in kinds
        ]
        if (
            self.front.role == "assistant"
            and "steering" in variables
            and not self.uses("steering")
        ):
            mistakes.append(
                Mistake(
                    self.label,
                    None,
                    "",
                    "never uses {{ steering }}: all conditions would answer alike",
                )
            )
        try:
            all_variables = {"draft": "x", **variables}
            self.messages(
                all_variables,
                [Message("user", "x"), Message("assistant", "x")],
                "user",
                hint="x",
            )
            self.messages(variables, [Message("user", "x")], "assistant")
        except RecipeError as problem:
            mistakes += problem.mistakes
        return mistakes

    def _project(
        self, message: Message, speaker: str, variables: Mapping[str, Any]
    ) -> Message:
        other: Literal["user", "assistant"] = (
            "user" if self.front.speaks_as == "assistant" else "assistant"
        )
        if message.role == speaker:
            return Message(self.front.speaks_as, message.content)
        return Message(
            other,
            _render(self.heard, {**variables, "text": message.content}, self.label),
        )


def load(reference: str) -> Generator:
    """Read a generator by name or path. Raises `RecipeError` with its mistakes."""
    entry = catalog.entry("generators", reference)
    head, first_line, body = _split(entry.text, entry.label)
    document = documents.read(head, entry.label, first_line=2)
    front = documents.validated(document, FrontMatter)
    sections = _sections(body, first_line, entry.label)
    kinds = [section.kind for section in sections]
    mistakes = [
        Mistake(
            entry.label,
            first_line + body[: match.start()].count("\n"),
            "",
            f"@{match[1]} is not a section"
            + (suggest(match[1], SECTIONS) or f"; there are: {', '.join(SECTIONS)}"),
        )
        for match in re.finditer(r"^@(\w+)[ \t]*$", body, re.MULTILINE)
        if match[1] not in SECTIONS
    ]
    mistakes += [
        mistake
        for section in sections
        if (mistake := _check_syntax(section, entry.label)) is not None
    ]
    if "heard" in kinds and "dialogue" in kinds:
        heard_at, dialogue_at = kinds.index("heard"), kinds.index("dialogue")
        if heard_at < dialogue_at:
            line = sections[heard_at].line - 1
            mistakes.append(
                Mistake(entry.label, line, "", "@heard must come after @dialogue")
            )
    if mistakes:
        raise RecipeError(mistakes)
    by_kind = {section.kind: section for section in sections}
    return Generator(
        reference,
        entry.label,
        front,
        tuple(
            section for section in sections if section.kind not in ("heard", "again")
        ),
        heard=by_kind.get("heard", MessageSection("heard", "{{ text }}")),
        again=by_kind.get("again"),
        lines={str(path[0]): line for path, line in document.lines.items() if path},
    )


def _sections(body: str, first_line: int, label: str) -> list[MessageSection]:
    """The sections of a generator's text, in order."""
    headers = list(_HEADER.finditer(body))
    if not headers or body[: headers[0].start()].strip():
        message = (
            "the text must start with a section: @system, @user, @assistant or "
            "@dialogue, alone on a line"
        )
        raise RecipeError([Mistake(label, first_line, "", message)])
    ends = [*(header.start() for header in headers[1:]), len(body)]
    sections = []
    for header, end in zip(headers, ends, strict=True):
        text = body[header.end() : end]
        blank_lines = text[: len(text) - len(text.lstrip())].count("\n")
        line = first_line + body[: header.end()].count("\n") + blank_lines
        sections.append(MessageSection(cast(Any, header[1]), text.strip(), line))
    return sections


def _variable_lines(template: str) -> list[tuple[str, int]]:
    """The variables that a template reads, each with the line of its first use, from 1."""
    tree, wanted = sandbox.parse_template(template), sandbox.variables_of(template)
    first: dict[str, int] = {}
    for node in tree.find_all(jinja2.nodes.Name):
        if node.name in wanted:
            first[node.name] = min(node.lineno, first.get(node.name, node.lineno))
    return sorted(first.items(), key=lambda item: (item[1], item[0]))


def _render(section: MessageSection, variables: Mapping[str, Any], label: str) -> str:
    try:
        return sandbox.compile_template(section.template).render(variables).strip()
    except jinja2.TemplateError as problem:
        message = f"{problem}; the variables are: {', '.join(sorted(variables))}"
        raise RecipeError([Mistake(label, section.line, "", message)]) from None


def _split(text: str, label: str) -> tuple[str, int, str]:
    """Split a file into front matter, the line where the body starts, and the body."""
    match = re.match(r"---\r?\n(.*?)\r?\n---\r?\n", text, re.DOTALL)
    if match is None:
        raise RecipeError(
            [
                Mistake(
                    label,
                    1,
                    "",
                    "must start with front matter between two lines of ---",
                )
            ]
        )
    return match[1], match[0].count("\n") + 1, text[match.end() :]


def _check_syntax(section: MessageSection, label: str) -> Mistake | None:
    try:
        sandbox.compile_template(section.template)
    except jinja2.TemplateSyntaxError as problem:
        line = section.line + problem.lineno - 1
        return Mistake(label, line, "", f"template: {problem.message}")
    return None


def _merge_roles(messages: Sequence[Message]) -> list[Message]:
    """Merge consecutive messages of the same role, since chat templates expect roles to
    alternate."""
    merged: list[Message] = []
    for message in messages:
        if not message.content:
            continue
        if merged and merged[-1].role == message.role:
            merged[-1] = Message(
                message.role, f"{merged[-1].content}\n\n{message.content}"
            )
        else:
            merged.append(message)
    return merged
