"""A pipeline: one YAML file that defines the dataset to make.

`Recipe` is the schema of that file. A wrong recipe fails here, with all its mistakes reported
at once. Execution settings (workers, concurrency, folder) are not part of it, because they must
not change the result.

    recipe = load("quickstart", overrides=["dialogue.turns=3"], models=["local:smollm2-135m"])
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from simforge import catalog
from simforge.catalog import documents
from simforge.catalog.documents import Document, KeyPath, Strict
from simforge.errors import NotFound, suggest
from simforge.identity import canonical
from simforge.models.providers import is_scorer
from simforge.recipe.conditions import CONDITIONS, Condition
from simforge.types import DEFAULT_ACCESS, ROLES, Access, JsonObject, Role

Share = Annotated[float, Field(ge=0, le=1)]


Disclosure = Literal["free", "nothing", "gradually", "up_front"]
"""How much people reveal about themselves. `free`: the generator decides. `nothing`: they
are instructed to reveal nothing. `gradually`: one fact per turn, in each person's own order.
`up_front`: everything in the opening."""


Policy = Literal["repair", "nudge", "flag", "cut", "discard", "off"]
"""What follows an objection. `repair`: the message is asked for once more with a hint; if that
does not help, the dialogue ends before the message. `nudge`: the message is asked for once
more; if that does not help, it is kept with its flag. `flag`: the message is kept with its
flag. `cut`: the dialogue ends before the message. `discard`: the dialogue ends before the
message and yields no pairs (in a tree: its branch). `off`: the guard does not run."""


WINNER = "winner"
"Name that, in `conditions`, refers to the variant whose answer the dialogue continued with."


@dataclass(frozen=True, slots=True)
class Reference:
    """Marks a key whose value names a file of the catalogue, or is the path of one."""

    kind: str
    "Kind of file, as `simforge.catalog` knows it; `prompts` for a prompt source."
    folder: str = ""
    "Folder of the kind in which names are looked up."


PackName = Annotated[str, Reference("personas")]


SpaceName = Annotated[str, Reference("personas", "spaces/")]


WritingName = Annotated[str, Reference("personas", "writing/")]


GeneratorName = Annotated[str, Reference("generators")]


def _known_condition(name: str) -> str:
    if name != WINNER and name not in CONDITIONS:
        raise ValueError(f"there is no condition {name!r}{suggest(name, CONDITIONS)}")
    return name


ConditionName = Annotated[
    str,
    AfterValidator(_known_condition),
    WithJsonSchema({"type": "string", "enum": [*CONDITIONS, WINNER]}),
]


class CastSettings(Strict):
    """The simulated people."""

    pack: PackName = "everyday"
    "Persona pack: a name from `personas/`, or a path."
    space: SpaceName = "psoup"
    "Preference space: a name from `personas/spaces/`, or a path."
    mirrored: bool = True
    """Draw profiles in opposite pairs: persona 2k+1 wants the opposite of persona 2k on every
    dimension. With shared prompts this sends every prompt to people who want opposite things."""
    keep_profiles: bool = True
    """With `--cast`: people who were written with their profiles keep them. If false, the same
    people get new profiles, drawn from `space`."""


class Prompts(Strict):
    """The source of the prompts that dialogues start from."""

    source: Annotated[str, Reference("prompts")] = "persona"
    """`persona`: each persona writes its own opening. Otherwise a set from `pipelines/prompts/`
    by name, or the path of a JSONL, CSV or Parquet file."""
    per_persona: Annotated[int, Field(ge=1, le=10_000)] = 1
    "Dialogues that each persona has, each from a different prompt."
    group_size: Annotated[int, Field(ge=2, le=1_000)] = 2
    """Size of a group of people who get the same prompts. They are neighbours in the cast
    (with `cast.mirrored`, they include people with opposite profiles). If an assistant gets
    the same request for two of them, it answers once."""
    columns: dict[Literal["text", "context"], str] = {"text": "text"}
    """Columns of the file: `text` is the prompt; `context`, where given and not empty, follows
    it after a blank line (Alpaca's `input`)."""


class Conversation(Strict):
    """A type of conversation."""

    guide: str
    "Instruction to the person about it, written to follow 'the person'."
    needs: list[str] = []
    "Needs that people bring to it; by default those of the pack."


class Dialogue(Strict):
    """The course of a dialogue."""

    turns: Annotated[int, Field(ge=1, le=64)] = 1
    "Maximum number of user messages."
    user: GeneratorName = "user/default"
    "Generator of the simulated user."
    continue_with: Literal["preferred", "rejected", "random", "both"] = "preferred"
    """The candidate that enters the history: the one that the label prefers, the other one,
    or a random one. A turn without a label continues with the answer steered by the person's
    own profile (else the first answer). `both` continues with each of the two, on a branch
    of its own."""
    max_branches: Annotated[int, Field(ge=2, le=64)] = 8
    """Maximum number of branches of one dialogue if `continue_with` is `both`. A branch that
    cannot split without exceeding it continues as `preferred`."""
    conversations: dict[str, Conversation] = {}
    "Types of conversation by name; a person's dialogues cycle through them."
    goals: bool = True
    """If true, people bring up the goals behind their need, one per turn, where the pack has
    goals."""
    disclosure: Disclosure = "free"
    "How much people reveal about themselves, and when."
    patience: list[Annotated[int, Field(ge=1)]] | None = None
    """Minimum and maximum number of disappointing answers that a person takes before they
    leave. If the dialogue continues with an answer that they did not prefer, the count goes
    up by one; with an answer that they did prefer, it goes down by one. By default they
    never leave."""
    knowledge: dict[str, Annotated[float, Field(gt=0)]] = {}
    "Levels of subject knowledge, in words, with shares; one is drawn for each dialogue."
    writing: WritingName | None = None
    """Writing style from `personas/writing/`, or a path; by default the model derives it
    from the persona's text."""
    infer: GeneratorName | None = None
    """Generator that asks the assistant at every turn to infer the person's profile; needed
    for the condition `inferred`."""
    infer_from: Literal["dialogue", "persona"] = "dialogue"
    """Input of that generator: the dialogue alone, or also the persona, so that it picks out
    what the dialogue has revealed."""
    feedback: GeneratorName | None = None
    """Generator that asks the judge to fill in a survey about the first answer after the
    dialogue is over."""
    guards: dict[str, Policy] = {}
    """Policy for each guard that objects to a user message; `simforge show guards` lists the
    guards."""

    @field_validator("patience")
    @classmethod
    def _check_patience(cls, patience: list[int] | None) -> list[int] | None:
        if patience is not None and (len(patience) != 2 or patience[0] > patience[1]):
            raise ValueError(
                f"needs two numbers, the fewest and the most, such as [2, 4], and not {patience}"
            )
        return patience


class Variant(Strict):
    """A named set of answers that share a condition, a model and a temperature."""

    name: str
    "Name of the variant in comparisons."
    condition: ConditionName = "plain"
    "Condition: the information that the assistant gets about the person."
    model: str = "assistants"
    "Model that answers: a name in `models`."
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    "Temperature that replaces the generator's."

    @property
    def definition(self) -> Condition:
        """The definition of its condition."""
        return CONDITIONS.find(self.condition)

    @model_validator(mode="after")
    def _check_name(self) -> Variant:
        if self.name in CONDITIONS and self.name != self.condition:
            raise ValueError(
                f"name: {self.name!r} is the name of a condition, and this variant has "
                f"{self.condition!r}: choose another name"
            )
        return self


def _to_variant(entry: str | Variant) -> Variant:
    """The variant for an entry of `conditions`; for `winner`, only the name matters."""
    if isinstance(entry, Variant):
        return entry
    return Variant(name=entry, condition="plain" if entry == WINNER else entry)


class Opening(Strict):
    """The answers that compete at the first turn, if they differ from those at later turns."""

    conditions: Annotated[list[ConditionName | Variant], Field(min_length=1)]
    "Entries in the same form as in `candidates`."
    samples: Annotated[int, Field(ge=1, le=16)] = 1
    "Number of answers per condition."

    @property
    def variants(self) -> list[Variant]:
        return [_to_variant(entry) for entry in self.conditions]


class Candidates(Strict):
    """The answers that compete."""

    conditions: Annotated[list[ConditionName | Variant], Field(min_length=1)] = [
        "own",
        "opposite",
    ]
    """How candidates are steered: a condition, `{name: ..., condition: ..., model: ...,
    temperature: ...}`, or (with an `opening`) `winner`, the variant that the dialogue continued
    with at the previous turn."""
    contrast: Literal["rotate", "all", "whole"] = "rotate"
    """Content of the steering: one dimension per turn, in rotation; every dimension at every
    turn, each with its own answers; or the whole profile at once."""
    samples: Annotated[int, Field(ge=1, le=16)] = 1
    "Answers per condition, each with its own seed."
    opening: Opening | None = None
    "The answers that compete at the first turn; by default the same as at later turns."
    shared: Literal["group", "everyone"] = "group"
    """People who share answers to identical messages: the group of `prompts.group_size`, or
    everyone who gets the prompt, so that the answers to a prompt are paid for once
    (PersonalLLM)."""
    generator: GeneratorName = "assistant/default"
    """Generator of the assistant; it places the steering (in a system message, or appended
    to the user message)."""
    reviser: GeneratorName = "assistant/revise"
    """Generator that asks the assistant to revise an unsteered answer, for the condition
    `revised`."""
    writer: GeneratorName | None = None
    """Generator of the writer, which turns the person's wishes into a system message; by
    default the sentences of the preference space are used."""

    @property
    def variants(self) -> list[Variant]:
        """The variants that compete at a turn; `winner` is included as a variant of that name."""
        return [_to_variant(entry) for entry in self.conditions]

    def variants_at(self, turn: int, winner: str | None) -> tuple[list[Variant], int]:
        """The variants that compete at a turn, and the number of answers per variant; `winner` is
        the variant that won the previous turn."""
        if turn == 0 and self.opening is not None:
            return self.opening.variants, self.opening.samples
        variants_by_name = {variant.name: variant for variant in self.all_variants}
        return [
            variants_by_name.get(winner or "", variant)
            if variant.name == WINNER
            else variant
            for variant in self.variants
        ], self.samples

    @property
    def all_variants(self) -> list[Variant]:
        """All variants that compete at any turn."""
        return [
            *(self.opening.variants if self.opening else []),
            *(variant for variant in self.variants if variant.name != WINNER),
        ]

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names in `models` that are asked for answers."""
        return tuple(dict.fromkeys(variant.model for variant in self.all_variants))

    @model_validator(mode="after")
    def _check_variants(self) -> Candidates:
        if any(
            isinstance(entry, Variant) and entry.name == WINNER
            for entry in self.conditions
        ):
            raise ValueError(
                "name: 'winner' is reserved for the variant that won the opening: "
                "choose another name"
            )
        if WINNER in self.conditions and (
            self.opening is None or len(self.conditions) > 1
        ):
            raise ValueError(
                "`winner` needs an `opening` and competes only with itself: list it "
                "alone, with `samples`"
            )
        for prefix, variants, samples in self.phases():
            names = [variant.name for variant in variants]
            if len(names) * samples < 2:
                raise ValueError(
                    f"{prefix}one answer leaves nothing to compare: add a condition or samples"
                )
            if len(set(names)) < len(names):
                raise ValueError(
                    f"{prefix}a condition is listed twice: use `samples`, or give each "
                    "a different name"
                )
            present = {variant.condition for variant in variants}
            for variant in variants:
                revised = variant.definition.revises
                if revised and revised not in present:
                    raise ValueError(
                        f"{prefix}`{variant.condition}` revises the `{revised}` "
                        "answer: list that too"
                    )
        return self

    def phases(self) -> list[tuple[str, list[Variant], int]]:
        """Error prefix, variants and answers per variant: for the opening, if it differs, and for
        the other turns."""
        opening = (
            [("opening: ", self.opening.variants, self.opening.samples)]
            if self.opening
            else []
        )
        return [*opening, ("", self.variants, self.samples)]


class Judge(Strict):
    """Models that judge answers from a person's side. Their generator defines how they are
    asked."""

    generator: GeneratorName = "judge/pairwise"
    """Generator of the judge: it compares two answers, compares several pairs in one call,
    ranks, or rates."""
    share: Share = 1.0
    "Share of comparisons that are judged, selected by derived randomness."
    orders: Literal["both", "one"] = "both"
    "Ask each comparison in both orders, or in one order drawn at random."
    repeats: Annotated[int, Field(ge=1, le=16)] = 1
    """Number of times that each order is asked, to measure how stable the judge is; give its
    generator a temperature above 0."""
    by: Literal["overall", "dimension"] = "overall"
    """For judges that compare answers. `overall`: one question about all that the person
    wants. `dimension`: one question per dimension, combined with the weights of the profile.
    Both are stored in `judgments`."""
    panel: Annotated[list[Role], Field(min_length=1)] = ["judge"]
    """Judges: names in `models`. Verdicts of several judges are combined, and their
    agreement is reported."""
    audience: Annotated[int, Field(ge=1, le=64)] = 4
    """Number of people from whose side each judged comparison is judged: the person who had
    the dialogue, and others. Half of these people are chosen because they want something
    else, the rest at random."""
    controls: Share = 0.1
    """Share of the judged comparisons that are judged again as blind controls: without the
    person's profile, with the profile of a stranger who wants something else, and, if the
    generator shows the persona, with only its least informative trait. They show how much
    the profile decides."""

    @field_validator("panel")
    @classmethod
    def _check_panel(cls, panel: list[str]) -> list[str]:
        duplicates = [name for name in panel if panel.count(name) > 1]
        if duplicates:
            raise ValueError(
                f"{duplicates[0]!r} is listed twice: give the same model another name "
                "under `models`"
            )
        return panel


class Labels(Strict):
    """The rule that decides which answer is the chosen one."""

    by: Literal["construction", "judge", "scorers"] = "construction"
    """`construction`: the answer steered by the person's own profile beats one that was not.
    `judge`: the judge's outcome over all its orders. `scorers`: the scores of the preference
    space, weighted by the profile."""
    check: Literal["measure", "none"] = "measure"
    """Discard pairs whose texts contradict the label, according to the space's measure for
    that dimension."""
    verify: Literal["none", "veto", "agree"] = "none"
    """Influence of the judge on a label by construction or by scorers. `none`: no influence.
    `veto`: the judge rejects the label by preferring the other answer in both orders.
    `agree`: the judge must agree, where it was asked."""


class Pairing(Strict):
    """The candidates that become pairs."""

    compare: (
        Literal["best", "random"]
        | Annotated[list[tuple[str, str]], Field(min_length=1)]
    ) = [("own", "opposite")]
    """Conditions (or names of variants) to compare. For labels by construction the first of each
    pair is the chosen one. A condition paired with itself compares its samples with each
    other. `best`, for judges that rate: the best rated answer of a turn against another one
    drawn at random, as pairs are commonly made from PRISM's ratings. `random`: two answers
    of a turn, drawn separately for each person (PersonalLLM)."""
    min_gap: Annotated[float, Field(ge=0)] = 0
    """Minimum difference between ratings (in points) or weighted scores (in standard
    deviations); a smaller difference is a tie."""
    ties: Literal["drop", "keep"] = "drop"
    """Discard ties, or keep them with margin 0, in a random order. Inconsistent and
    unreadable verdicts are not ties."""
    min_certainty: Share = 0
    "Minimum certainty of a judge that makes the labels and reports its certainty."
    max_length_ratio: Annotated[float, Field(ge=1)] | None = None
    """Maximum ratio between the lengths of the two answers, in words, so that length does
    not decide."""
    max_pairs: Annotated[int, Field(ge=1)] | None = None
    "Maximum number of pairs per turn and person: those closest in length are kept."


class Filters(Strict):
    """Checks that an answer must pass before it can be part of a pair. Every drop is a
    discard with its reason."""

    cut_off: bool = True
    "Drop answers that ended at the token limit."
    refusal: bool = True
    "Drop answers that refuse."
    off_language: bool = True
    "Drop answers in another script than the user's message."
    broken: bool = True
    "Drop answers that repeat themselves or are garbled."
    near_duplicates: bool = True
    """Drop pairs whose answers are nearly the same, and pairs that nearly repeat another
    pair of the same person."""
    safety: Literal["constraint", "studied"] = "constraint"
    """`constraint`: no wish can make an unsafe answer the chosen one, and no space may ask
    for one. Recipes that study what people find acceptable set `studied`."""
    leak: bool = True
    """Drop answers that repeat the words of their steering (six in a row, or two distinctive
    ones close together), or that talk about how they answer."""


class Splits(Strict):
    """Held-out shares. People and prompts are held out whole, never row by row."""

    validation: Share = 0.0
    "Share of the personas."
    test_personas: Share = 0.0
    "Share of the personas."
    test_prompts: Share = 0.0
    "Share of the shared prompts; needs a prompt source."


class EndpointSettings(Strict):
    """Settings for requests to an OpenAI-compatible endpoint."""

    key_variable: str = "OPENAI_API_KEY"
    "Environment variable that holds the key; the key itself is never written to a file."
    headers: dict[str, str] = {}
    "Headers sent with every call, for example `OpenAI-Organization`."
    body: JsonObject = {}
    """Additional fields of every request, for example `chat_template_kwargs:
    {enable_thinking: false}`."""

    @property
    def access(self) -> Access:
        return Access(
            self.key_variable, tuple(sorted(self.headers.items())), canonical(self.body)
        )


class ServerSettings(Strict):
    """Settings for serving a `vllm` model on the cluster."""

    replicas: Annotated[int, Field(ge=1)] = 1
    "Number of servers for the model; dialogues are spread over them."
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    "Number of accelerators on one node that a replica is split over."
    gpus: Annotated[float, Field(ge=0)] | None = None
    """Accelerators that a replica requests from Ray; by default `tensor_parallel`. 0 runs on
    CPUs."""
    cpus: Annotated[float, Field(ge=0)] = 1
    "CPUs that a replica requests from Ray."
    resources: dict[str, Annotated[float, Field(gt=0)]] = {}
    "Custom Ray resources that a replica requests, to select the nodes that may run it."
    arguments: dict[str, bool | int | float | str] = {}
    """Additional arguments of `vllm serve`, such as `max-model-len: 8192`; true means a flag
    without a value."""
    environment: dict[str, str] = {}
    "Environment variables of the server."
    startup_seconds: Annotated[float, Field(gt=0)] = 1800
    "Maximum seconds until a replica is ready; the first load of a large model takes long."
    autoscaled: bool = False
    "Wait for nodes that the cluster starts on demand, if no present node is large enough."

    @model_validator(mode="after")
    def _check_arguments(self) -> ServerSettings:
        reserved = {
            "model",
            "served-model-name",
            "host",
            "port",
            "tensor-parallel-size",
        } & {*self.arguments}
        if reserved:
            raise ValueError(
                f"arguments: {', '.join(sorted(reserved))} is set by SimForge"
            )
        return self

    @property
    def accelerators(self) -> float:
        """Accelerators that a replica requests from Ray."""
        return float(self.tensor_parallel) if self.gpus is None else self.gpus

    @property
    def flags(self) -> list[str]:
        """The arguments as command-line flags."""
        options = [
            (f"--{name.lstrip('-')}", value)
            for name, value in self.arguments.items()
            if value is not False
        ]
        return [
            part
            for name, value in options
            for part in ([name] if value is True else [name, str(value)])
        ]


class Recipe(Strict):
    """A pipeline file."""

    description: str
    "The dataset that it makes, in one or two lines."
    paper: str | None = None
    "The paper that it reproduces, if any."
    departures: str | None = None
    "Differences from that paper, and the reasons."
    models: dict[Role, str]
    """Model reference of each role that the pipeline uses (`user`, `assistants`, `judge`,
    `writer`), and of additional names, which variants of `candidates` may ask."""
    endpoints: dict[str, EndpointSettings] = {}
    "Settings for the endpoints of `openai:NAME@URL` models, by URL (or its beginning and `*`)."
    licences: dict[str, str] = {}
    """Licences that SimForge does not know, as the Hub spells them: of models, by reference
    (or its beginning and `*`), and of `prompts` and `people` from your own files. The
    strictest licence of all sources applies to the rows."""
    servers: dict[str, ServerSettings] = {}
    "Settings for serving `vllm:NAME` models, by reference (or its beginning and `*`)."
    cast: CastSettings = CastSettings()
    prompts: Prompts = Prompts()
    dialogue: Dialogue = Dialogue()
    candidates: Candidates = Candidates()
    judge: Judge | None = None
    labels: Labels = Labels()
    pairing: Pairing = Pairing()
    filters: Filters = Filters()
    splits: Splits = Splits()

    def access(self, reference: str) -> Access:
        """Access settings of a model's endpoint: the longest entry that matches its first
        URL, or the name of a `vllm` model."""
        url = reference.rpartition("@")[2].split(",")[0].rstrip("/")
        matching = [
            name for name in self.endpoints if fnmatchcase(url, name.rstrip("/"))
        ]
        return (
            self.endpoints[max(matching, key=len)].access
            if matching
            else DEFAULT_ACCESS
        )

    def server(self, reference: str) -> ServerSettings:
        """Settings for serving a `vllm` model: the longest entry that matches."""
        matching = [name for name in self.servers if fnmatchcase(reference, name)]
        return self.servers[max(matching, key=len)] if matching else ServerSettings()

    def licence(self, source: str) -> str | None:
        """The licence that the recipe names for a model's reference or for `prompts`: the
        longest entry that matches."""
        matching = [name for name in self.licences if fnmatchcase(source, name)]
        return self.licences[max(matching, key=len)] if matching else None

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles that the pipeline calls."""
        needs_user = self.dialogue.turns > 1 or self.prompts.source == "persona"
        answering = [
            *self.candidates.model_names,
            *(["assistants"] if self.dialogue.infer else []),
        ]
        judges = [
            *(self.judge.panel if self.judge else []),
            *(["judge"] if self.dialogue.feedback else []),
        ]
        writers = ["writer"] if self.candidates.writer else []
        scorers = [
            name for name, reference in self.models.items() if is_scorer(reference)
        ]
        return tuple(
            dict.fromkeys(
                [
                    *(["user"] if needs_user else []),
                    *writers,
                    *answering,
                    *judges,
                    *scorers,
                ]
            )
        )


def references(
    model: type[BaseModel] = Recipe, path: KeyPath = ()
) -> Iterator[tuple[KeyPath, Reference]]:
    """The keys of a recipe that name files, with what they name."""
    for name, field in model.model_fields.items():
        marks = [mark for mark in field.metadata if isinstance(mark, Reference)]
        for part in (field.annotation, *get_args(field.annotation)):
            marks += [
                mark
                for mark in getattr(part, "__metadata__", ())
                if isinstance(mark, Reference)
            ]
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from references(part, (*path, name))
        for mark in marks[:1]:
            yield (*path, name), mark


def without_locations(recipe: Recipe) -> JsonObject:
    """The recipe as JSON values without access settings, and with files by name only: a
    dataset must not reveal anyone's folders or accounts."""
    content: JsonObject = recipe.model_dump(
        mode="json", exclude={"endpoints", "servers"}
    )
    for path, _ in references():
        section = content.get(str(path[0])) or {}
        value = section.get(path[-1])
        if isinstance(value, str) and catalog.is_path(value):
            section[path[-1]] = Path(value).name
    return content


def read_recipe(
    reference: str,
    overrides: Iterable[str] = (),
    models: Iterable[str] = (),
    prompts: str | None = None,
) -> Document:
    """Read a pipeline file and apply the command-line arguments to it.

    `overrides` are `key=value` on the recipe, `models` are `REF` (all roles) or `ROLE=REF`,
    `prompts` is a prompt source. Raises `RecipeError` if it is not YAML.
    """
    entry = catalog.entry("pipelines", reference)
    document = documents.read(entry.text, entry.label)
    for assignment in overrides:
        document.override(assignment)
    if prompts is not None:
        document.put(("prompts", "source"), prompts, f"--prompts {prompts}")
    for reference_or_role in models:
        _set_models(document, reference_or_role)
    return document


def _set_models(document: Document, text: str) -> None:
    role, equals, reference = text.partition("=")
    if not equals or ":" in role:  # a reference may itself contain an equals sign
        role, reference = "", text
    elif role not in (
        known_roles := list(dict.fromkeys([*ROLES, *model_names_in(document)]))
    ):
        raise NotFound(
            "role", role, known_roles, "Write --model REF or --model ROLE=REF."
        )
    text_roles = dict.fromkeys(
        name
        for name in (*ROLES, *model_names_in(document))
        if name not in scorer_names_in(document)
    )
    for target_role in [role] if role else text_roles:
        document.put(("models", target_role), reference, f"--model {text}")


def model_names_in(document: Document) -> list[str]:
    """Names of the models in the file."""
    models = document.value.get("models")
    return [str(name) for name in models] if isinstance(models, dict) else []


def scorer_names_in(document: Document) -> list[str]:
    """Names of the scoring models; the preference space decides which of them it uses."""
    return [
        name
        for name in model_names_in(document)
        if is_scorer(str(document.value["models"][name]))
    ]
