"""A pipeline: one YAML file that says what is made.

`Recipe` is what the file may say; a wrong recipe fails here, with all its mistakes at once. How a run is executed
(workers, concurrency, folder) is not in it, because it must not change what comes out.

    recipe = load("quickstart", overrides=["dialogue.turns=3"], models=["local:smollm2-135m"])
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from simforge import catalog, documents
from simforge.documents import Document, Strict
from simforge.errors import Mistake, NotFound, RecipeError, SimForgeError
from simforge.identity import canonical
from simforge.types import ROLES, USUAL, Access, Condition, Role

Share = Annotated[float, Field(ge=0, le=1)]


class Cast(Strict):
    """Who the users are."""

    pack: str = "everyday"
    "Persona pack: a name from `personas/`, or a path."
    space: str = "psoup"
    "Preference space: a name from `personas/spaces/`, or a path."
    mirrored: bool = True
    """Draw profiles in opposite pairs: persona 2k+1 wants the opposite of persona 2k on every dimension. With shared
    prompts this sends every prompt to people who want opposite things."""


class Prompts(Strict):
    """What dialogues start from."""

    source: str = "persona"
    """`persona`: each persona writes its own opening. Otherwise a set from `pipelines/prompts/` by name, or the path
    of a JSONL, CSV or Parquet file."""
    per_persona: Annotated[int, Field(ge=1, le=10_000)] = 1
    "Dialogues that each persona plays, each from another prompt."
    columns: dict[Literal["text", "context"], str] = {"text": "text"}
    """Columns of the file: `text` is the prompt; `context`, where given and not empty, follows it after a blank line
    (Alpaca's `input`)."""


class Dialogue(Strict):
    """How a dialogue goes."""

    turns: Annotated[int, Field(ge=1, le=64)] = 1
    "Most user messages."
    user: str = "user/default"
    "Generator of the simulated user."
    continue_with: Literal["preferred", "rejected", "random"] = "preferred"
    """The candidate that enters the history: the one the label prefers, the other, or any. A turn without a label
    goes on with the own-steered (else the first) answer."""


class Candidates(Strict):
    """Which answers compete."""

    conditions: Annotated[list[Condition], Field(min_length=1)] = [Condition.own, Condition.opposite]
    "How candidates are told to answer."
    contrast: Literal["rotate", "all", "whole"] = "rotate"
    """What steering speaks of: one dimension a turn, in rotation; every dimension at every turn, each with answers of
    its own; or the whole profile at once."""
    samples: Annotated[int, Field(ge=1, le=16)] = 1
    "Answers per condition, each with its own seed."
    generator: str = "assistant/default"
    "Generator of the assistant; it places the steering (system message, or appended to the user's words)."

    @model_validator(mode="after")
    def _competition(self) -> Candidates:
        if len(self.conditions) * self.samples < 2:
            raise ValueError("one condition with one sample leaves nothing to compare: add a condition or samples")
        if len(set(self.conditions)) < len(self.conditions):
            raise ValueError("a condition is listed twice: use `samples` for several answers of one condition")
        return self


class Judge(Strict):
    """A model that compares answers from the person's side."""

    generator: str = "judge/pairwise"
    "Generator of the judge."
    share: Share = 1.0
    "Share of comparisons that are judged, drawn by derived randomness."
    orders: Literal["both", "one"] = "both"
    "Ask each comparison in both orders, or in one drawn at random."


class Labels(Strict):
    """What makes an answer the chosen one."""

    by: Literal["construction", "judge"] = "construction"
    """`construction`: the answer steered by the own profile beats one that was not. `judge`: the judge's outcome over
    all its orders."""
    check: Literal["measure", "none"] = "measure"
    "Discard pairs whose texts contradict the label by the space's measure for that dimension."
    agree: bool = False
    "Keep a pair by construction only where the judge, if it was asked, came to the same outcome."


class Pairing(Strict):
    """Which candidates become pairs."""

    compare: Annotated[list[tuple[Condition, Condition]], Field(min_length=1)] = [(Condition.own, Condition.opposite)]
    """Conditions that are compared. For labels by construction the first of each is the chosen one. The same
    condition twice compares its samples with each other."""


class Filters(Strict):
    """What an answer must pass before it can be part of a pair. Every drop is a discard with its reason."""

    cut_off: bool = True
    "Drop answers that ended at the token limit."
    refusal: bool = True
    "Drop answers that refuse."
    off_language: bool = True
    "Drop answers in another script than the user's message."
    leak: bool = True
    """Drop answers that repeat the words they were steered with (six in a row, or two telling ones close together), or
    that talk about how they answer."""


class Splits(Strict):
    """Held-out shares. People and prompts are held out whole, never row by row."""

    validation: Share = 0.0
    "Of the personas."
    test_personas: Share = 0.0
    "Of the personas."
    test_prompts: Share = 0.0
    "Of the shared prompts; needs a prompt source."


class Endpoint(Strict):
    """How an OpenAI-compatible endpoint is asked."""

    key: str = "OPENAI_API_KEY"
    "Environment variable that holds the key; the key itself stands in no file."
    headers: dict[str, str] = {}
    "Sent with every call, for example `OpenAI-Organization`."
    body: dict[str, Any] = {}
    "Further fields of every request, for example `chat_template_kwargs: {enable_thinking: false}`."

    @property
    def access(self) -> Access:
        return Access(self.key, tuple(sorted(self.headers.items())), canonical(self.body))


class Server(Strict):
    """How a `vllm` model is served on the cluster."""

    replicas: Annotated[int, Field(ge=1)] = 1
    "Servers of the model; its dialogues are spread over them."
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    "Accelerators of one node that a replica is split over."
    gpus: Annotated[float, Field(ge=0)] | None = None
    "Accelerators that a replica asks of Ray; by default as many as `tensor_parallel`. 0 runs on CPUs."
    cpus: Annotated[float, Field(ge=0)] = 1
    "CPUs that a replica asks of Ray."
    resources: dict[str, Annotated[float, Field(gt=0)]] = {}
    "Resources of your own naming that a replica asks of Ray, to say which nodes may have it."
    arguments: dict[str, bool | int | float | str] = {}
    "Further arguments of `vllm serve`, such as `max-model-len: 8192`; true is a flag without a value."
    environment: dict[str, str] = {}
    "Environment variables of the server."
    startup: Annotated[float, Field(gt=0)] = 1800
    "Seconds that a replica may take to be ready; loading a large model for the first time takes long."
    autoscaled: bool = False
    "Wait for nodes that the cluster starts on demand, where no present node is large enough."

    @model_validator(mode="after")
    def _fits(self) -> Server:
        own = {"model", "served-model-name", "host", "port", "tensor-parallel-size"} & {*self.arguments}
        if own:
            raise ValueError(f"arguments: {', '.join(sorted(own))} is set by SimForge")
        return self

    @property
    def accelerators(self) -> float:
        """What a replica asks of Ray."""
        return float(self.tensor_parallel) if self.gpus is None else self.gpus

    @property
    def flags(self) -> list[str]:
        """The arguments as they stand on a command line."""
        said = [(f"--{name.lstrip('-')}", value) for name, value in self.arguments.items() if value is not False]
        return [part for name, value in said for part in ([name] if value is True else [name, str(value)])]


class Recipe(Strict):
    """A pipeline file."""

    description: str
    "What it makes, in a line or two."
    paper: str | None = None
    "What it reproduces, where it does."
    departures: str | None = None
    "Where it departs from that, and why."
    models: dict[Role, str]
    "Model reference of each role that the pipeline uses."
    endpoints: dict[str, Endpoint] = {}
    "How the endpoints of `openai:NAME@URL` models are asked, by URL (or its beginning and `*`)."
    servers: dict[str, Server] = {}
    "How the `vllm:NAME` models are served, by reference (or its beginning and `*`)."
    cast: Cast = Cast()
    prompts: Prompts = Prompts()
    dialogue: Dialogue = Dialogue()
    candidates: Candidates = Candidates()
    judge: Judge | None = None
    labels: Labels = Labels()
    pairing: Pairing = Pairing()
    filters: Filters = Filters()
    splits: Splits = Splits()

    def access(self, reference: str) -> Access:
        """How a model's endpoint is asked: by the longest entry that fits its first URL, of a `vllm` model its name."""
        url = reference.rpartition("@")[2].split(",")[0].rstrip("/")
        fitting = [name for name in self.endpoints if fnmatchcase(url, name.rstrip("/"))]
        return self.endpoints[max(fitting, key=len)].access if fitting else USUAL

    def server(self, reference: str) -> Server:
        """How a `vllm` model is served: by the longest entry that fits."""
        fitting = [name for name in self.servers if fnmatchcase(reference, name)]
        return self.servers[max(fitting, key=len)] if fitting else Server()

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles that the pipeline calls."""
        user = self.dialogue.turns > 1 or self.prompts.source == "persona"
        wanted = {"user": user, "assistants": True, "judge": self.judge is not None, "writer": False}
        return tuple(role for role in ROLES if wanted[role])


def load(
    reference: str,
    overrides: Iterable[str] = (),
    models: Iterable[str] = (),
    prompts: str | None = None,
) -> Recipe:
    """Read a pipeline and apply the command line to it.

    `overrides` are `key=value` on the recipe, `models` are `REF` (all roles) or `ROLE=REF`, `prompts` is a prompt
    source. Raises `RecipeError` with every mistake of the file and of the overrides.
    """
    found = catalog.entry("pipelines", reference)
    document = documents.read(found.text, found.label)
    for assignment in overrides:
        document.override(assignment)
    if prompts is not None:
        document.put(("prompts", "source"), prompts, f"--prompts {prompts}")
    for reference_or_role in models:
        _set_models(document, reference_or_role)
    recipe, mistakes = documents.check(document, Recipe)
    mistakes += _across(document, recipe) if recipe else _unreadable_parts(document)
    if recipe is None or mistakes:
        raise RecipeError(mistakes)
    return recipe


def _set_models(document: Document, text: str) -> None:
    role, equals, reference = text.partition("=")
    if not equals or ":" in role:  # a reference may itself contain an equals sign
        role, reference = "", text
    elif role not in ROLES:
        raise NotFound("role", role, ROLES, "Write --model REF or --model ROLE=REF.")
    for each in [role] if role else ROLES:
        document.put(("models", each), reference, f"--model {text}")


def _across(document: Document, recipe: Recipe) -> list[Mistake]:
    """What one key cannot know alone."""
    mistakes = _unreadable_parts(document)
    conditions, samples = recipe.candidates.conditions, recipe.candidates.samples
    for number, (first, second) in enumerate(recipe.pairing.compare):
        path = ("pairing", "compare", number)
        for condition in {first, second} - set(conditions):
            mistakes.append(
                document.mistake(
                    path, f"no candidates are made under {condition.value!r}; made are: {', '.join(conditions)}"
                )
            )
        if first == second and samples < 2:
            mistakes.append(document.mistake(path, "compares samples of one condition: set candidates.samples to 2"))
        if recipe.labels.by == "construction" and (first == second or first != Condition.own):
            mistakes.append(
                document.mistake(
                    path,
                    "a label by construction needs `own` first and another condition "
                    "second; otherwise set labels.by to judge",
                )
            )
    for role in recipe.roles:
        if role not in recipe.models:
            mistakes.append(document.mistake(("models",), f"the pipeline uses the role {role!r} and names no model"))
    if recipe.labels.by == "judge" and recipe.judge is None:
        mistakes.append(document.mistake(("labels", "by"), "is `judge`, and the pipeline has no judge"))
    if recipe.labels.by == "judge" and recipe.judge is not None and recipe.judge.share < 1:
        said = f"labels.by is `judge`, so every comparison is judged: set it to 1, not {recipe.judge.share}"
        mistakes.append(document.mistake(("judge", "share"), said))
    if sum((recipe.splits.validation, recipe.splits.test_personas)) >= 1:
        mistakes.append(document.mistake(("splits",), "validation and test_personas leave nothing for train"))
    if recipe.labels.agree and recipe.judge is None:
        mistakes.append(document.mistake(("labels", "agree"), "needs a judge, and the pipeline has none"))
    if recipe.splits.test_prompts and recipe.prompts.source == "persona":
        mistakes.append(
            document.mistake(
                ("splits", "test_prompts"),
                "personas write their own openings, so there are no shared prompts to hold out",
            )
        )
    if "context" in recipe.prompts.columns and "text" not in recipe.prompts.columns:
        mistakes.append(document.mistake(("prompts", "columns"), "needs `text` beside `context`"))
    return mistakes


def _unreadable_parts(document: Document) -> list[Mistake]:
    """Names in the recipe that the catalogue does not have; works on a recipe that is wrong elsewhere too."""
    mistakes = []
    for path, kind, prefix in _REFERENCES:
        value = document.value
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, str):
            try:
                catalog.entry(kind, value if catalog.is_path(value) else prefix + value)
            except SimForgeError as problem:
                mistakes.append(document.mistake(path, str(problem)))
    return mistakes


_REFERENCES = (
    (("cast", "pack"), "personas", ""),
    (("cast", "space"), "personas", "spaces/"),
    (("dialogue", "user"), "generators", ""),
    (("candidates", "generator"), "generators", ""),
    (("judge", "generator"), "generators", ""),
)
