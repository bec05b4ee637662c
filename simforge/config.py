"""A pipeline: one YAML file that says what is made.

`Recipe` is what the file may say; a wrong recipe fails here, with all its mistakes at once. How a run is executed
(workers, concurrency, folder) is not in it, because it must not change what comes out.

    recipe = load("quickstart", overrides=["dialogue.turns=3"], models=["local:smollm2-135m"])
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from simforge import catalog, documents
from simforge.documents import Document, Strict
from simforge.errors import Mistake, NotFound, RecipeError, SimForgeError, nearest
from simforge.guards import GUARDS, Policy
from simforge.identity import canonical
from simforge.types import OWN, ROLES, USUAL, Access, Condition, Role

SCORING = ("score:", "reward:")
"How references of models begin that give a text a number."
Share = Annotated[float, Field(ge=0, le=1)]
Disclosure = Literal["free", "nothing", "gradually", "up_front"]
"""How much people tell about themselves. `free`: the generator decides. `nothing`: they are told to tell nothing.
`gradually`: one fact a turn, in an order of their own. `up_front`: everything in the opening."""


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
    people: Annotated[int, Field(ge=2, le=1_000)] = 2
    """People who get the same prompts; they stand together in the cast (with `cast.mirrored`, opposite people among
    them), and what an assistant is asked in the same words for two of them it answers once."""
    columns: dict[Literal["text", "context"], str] = {"text": "text"}
    """Columns of the file: `text` is the prompt; `context`, where given and not empty, follows it after a blank line
    (Alpaca's `input`)."""


class Conversation(Strict):
    """A type of conversation."""

    guide: str
    "What people are told about it, as it follows 'the person'."
    needs: list[str] = []
    "What they bring to it; by default those of the pack."


def _guard(name: str) -> str:
    if name not in GUARDS:
        raise ValueError(f"there is no guard {name!r}{nearest(name, GUARDS)}")
    return name


class Dialogue(Strict):
    """How a dialogue goes."""

    turns: Annotated[int, Field(ge=1, le=64)] = 1
    "Most user messages."
    user: str = "user/default"
    "Generator of the simulated user."
    continue_with: Literal["preferred", "rejected", "random", "both"] = "preferred"
    """The candidate that enters the history: the one the label prefers, the other, or any. A turn without a label
    goes on with the own-steered (else the first) answer. `both` goes on with each of them, on a line of its own."""
    lines: Annotated[int, Field(ge=2, le=64)] = 8
    "Most lines of one dialogue, where `continue_with` is `both`: a line without room for two goes on as `preferred`."
    conversations: dict[str, Conversation] = {}
    "Types of conversation by name; a person's dialogues take them in turn."
    goals: bool = True
    "Whether people bring up the goals behind their need, one a turn, where the pack has some."
    disclosure: Disclosure = "free"
    "How much people tell about themselves, and when."
    patience: list[Annotated[int, Field(ge=1)]] | None = None
    """Fewest and most disappointing answers that a person takes before they leave: the dialogue going on with an answer
    that they did not prefer is one, with one that they did takes one back. By default they stay."""
    knowledge: dict[str, Annotated[float, Field(gt=0)]] = {}
    "What people know of their subject, in words, with shares; drawn for each dialogue."
    writing: str | None = None
    "How people write, from `personas/writing/`, or a path; by default the model decides, by the persona's text."
    infer: str | None = None
    "Generator that asks the assistant, at every turn, what it makes of the person; for the condition `inferred`."
    infer_from: Literal["dialogue", "persona"] = "dialogue"
    "Whether that generator sees only the dialogue, or also whom it is about, to pick out what has been told."
    feedback: str | None = None
    "Generator that asks the judge, once the dialogue is over, to fill in a survey about its first answer."
    guards: dict[Annotated[str, AfterValidator(_guard)], Policy] = {}
    "What follows when a guard objects to a user message, by guard; `simforge show guards` has them all."

    @field_validator("patience")
    @classmethod
    def _two(cls, patience: list[int] | None) -> list[int] | None:
        if patience is not None and (len(patience) != 2 or patience[0] > patience[1]):
            raise ValueError(f"needs two numbers, the fewest and the most, such as [2, 4], and not {patience}")
        return patience

    def policy(self, guard: str) -> Policy:
        """What follows when a guard objects."""
        return self.guards.get(guard, GUARDS[guard].policy)


WINNER = "winner"
"In `conditions`: the arm whose answer the dialogue went on with."


class Arm(Strict):
    """Answers that are told apart from others, by whom and how they are asked."""

    name: str
    "What comparisons call them."
    condition: Condition = Condition.plain
    "What the assistant is told about the person."
    model: str = "assistants"
    "Who is asked: a name in `models`."
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    "In place of the generator's."

    @model_validator(mode="after")
    def _own_name(self) -> Arm:
        if self.name in {*Condition} and self.name != self.condition:
            raise ValueError(
                f"name: {self.name!r} is a condition's, and this is {self.condition.value!r}: give another"
            )
        return self


def _arm(given: str | Arm) -> Arm:
    """The arm that a condition stands for; of `winner` only the name counts."""
    if isinstance(given, Arm):
        return given
    return Arm(name=given, condition=Condition.plain if given == WINNER else Condition(given))


class Opening(Strict):
    """Which answers compete at the first turn, where it differs from the others."""

    conditions: Annotated[list[Condition | Arm], Field(min_length=1)]
    "As in `candidates`."
    samples: Annotated[int, Field(ge=1, le=16)] = 1
    "Answers of each."

    @property
    def arms(self) -> list[Arm]:
        return [_arm(one) for one in self.conditions]


class Candidates(Strict):
    """Which answers compete."""

    conditions: Annotated[list[Condition | Literal["winner"] | Arm], Field(min_length=1)] = [
        Condition.own,
        Condition.opposite,
    ]
    """How candidates are told to answer: a condition, `{name: ..., condition: ..., model: ..., temperature: ...}`, or
    (with an `opening`) `winner`, which is the one that the dialogue went on with at the turn before."""
    contrast: Literal["rotate", "all", "whole"] = "rotate"
    """What steering speaks of: one dimension a turn, in rotation; every dimension at every turn, each with answers of
    its own; or the whole profile at once."""
    samples: Annotated[int, Field(ge=1, le=16)] = 1
    "Answers per condition, each with its own seed."
    opening: Opening | None = None
    "Which answers compete at the first turn; by default the same as at the others."
    shared: Literal["group", "everyone"] = "group"
    """Who shares answers to the same messages: the people of `prompts.people`, or all who get the prompt, so that a
    prompt's answers are paid for once (PersonalLLM)."""
    generator: str = "assistant/default"
    "Generator of the assistant; it places the steering (system message, or appended to the user's words)."
    reviser: str = "assistant/revise"
    "Generator that asks the assistant to revise a plain answer, for the condition `revised`."
    writer: str | None = None
    "Generator of the writer, who puts what a person wants into a system message; by default the space's sentences do."

    @property
    def arms(self) -> list[Arm]:
        """Who competes at a turn; `winner` is an arm of that name."""
        return [_arm(one) for one in self.conditions]

    def competing(self, turn: int, winner: str | None) -> tuple[list[Arm], int]:
        """Who competes at a turn, and how many answers each gives; `winner` is the arm that won the turn before."""
        if turn == 0 and self.opening is not None:
            return self.opening.arms, self.opening.samples
        known = {arm.name: arm for arm in self.everyone}
        return [known.get(winner or "", arm) if arm.name == WINNER else arm for arm in self.arms], self.samples

    @property
    def everyone(self) -> list[Arm]:
        """Who competes at any turn."""
        return [*(self.opening.arms if self.opening else []), *(arm for arm in self.arms if arm.name != WINNER)]

    @property
    def models(self) -> tuple[str, ...]:
        """The names in `models` that are asked for answers."""
        return tuple(dict.fromkeys(arm.model for arm in self.everyone))

    @model_validator(mode="after")
    def _competition(self) -> Candidates:
        if any(isinstance(one, Arm) and one.name == WINNER for one in self.conditions):
            raise ValueError("name: 'winner' stands for the arm that won the opening: give another")
        if WINNER in self.conditions and (self.opening is None or len(self.conditions) > 1):
            raise ValueError("`winner` is the arm that won the `opening`, and competes with itself: give it `samples`")
        for where, arms, samples in self.turns():
            names = [arm.name for arm in arms]
            if len(names) * samples < 2:
                raise ValueError(f"{where}one answer leaves nothing to compare: add a condition or samples")
            if len(set(names)) < len(names):
                raise ValueError(f"{where}a condition is listed twice: use `samples`, or give names to each")
            revised = any(arm.condition == Condition.revised for arm in arms)
            if revised and not any(arm.condition == Condition.plain for arm in arms):
                raise ValueError(f"{where}`revised` revises the `plain` answer: list that too")
        return self

    def turns(self) -> list[tuple[str, list[Arm], int]]:
        """Who competes, and how many answers each gives: at the opening where it differs, and at the other turns."""
        opening = [("opening: ", self.opening.arms, self.opening.samples)] if self.opening else []
        return [*opening, ("", self.arms, self.samples)]


class Judge(Strict):
    """Models that judge answers from a person's side. How they are asked is their generator's affair."""

    generator: str = "judge/pairwise"
    "Generator of the judge: it compares two answers, compares several pairs at once, ranks, or rates."
    share: Share = 1.0
    "Share of comparisons that are judged, drawn by derived randomness."
    orders: Literal["both", "one"] = "both"
    "Ask each comparison in both orders, or in one drawn at random."
    repeats: Annotated[int, Field(ge=1, le=16)] = 1
    "Times that each order is asked, to see how stable the judge is; give its generator a temperature above 0."
    by: Literal["overall", "dimension"] = "overall"
    """Where answers are compared overall: ask for all that the person wants at once, or for each dimension by itself,
    which the profile's weights then combine. Both are in `judgments`."""
    panel: Annotated[list[Role], Field(min_length=1)] = ["judge"]
    "Who judges: names in `models`. Several are combined, and told how far they agree."
    audience: Annotated[int, Field(ge=1, le=64)] = 4
    """People from whose side each judged comparison is judged: who had the dialogue and others, half of all for wanting
    something else and the rest at random."""
    controls: Share = 0.1
    """Share of the judged comparisons that are judged again in the dark: told nothing of the person, told of a stranger
    who wants something else, and, where the generator shows the person, told the one trait that says least. They show
    what the profile decides."""

    @field_validator("panel")
    @classmethod
    def _once(cls, panel: list[str]) -> list[str]:
        twice = [name for name in panel if panel.count(name) > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} is listed twice: give the same model another name under `models`")
        return panel


class Labels(Strict):
    """What makes an answer the chosen one."""

    by: Literal["construction", "judge", "scorers"] = "construction"
    """`construction`: the answer steered by the own profile beats one that was not. `judge`: the judge's outcome over
    all its orders. `scorers`: the scorers of the space, weighted by the profile."""
    check: Literal["measure", "none"] = "measure"
    "Discard pairs whose texts contradict the label by the space's measure for that dimension."
    verify: Literal["none", "veto", "agree"] = "none"
    """What the judge may do to a label by construction or by scorers: nothing; `veto` it by preferring the other answer
    in both orders; or it has to `agree`, where it was asked."""


class Pairing(Strict):
    """Which candidates become pairs."""

    compare: Literal["best", "random"] | Annotated[list[tuple[str, str]], Field(min_length=1)] = [("own", "opposite")]
    """Conditions (or names of arms) that are compared. For labels by construction the first of each is the chosen one.
    The same one twice compares its samples with each other. `best`, where a judge rates: the best rated answer of a
    turn with another, drawn at random, as PRISM's ratings are commonly made into pairs. `random`: two answers of a
    turn, each person's own draw (PersonalLLM)."""
    gap: Annotated[float, Field(ge=0)] = 0
    """By how much ratings (in their points) or weighted scores (in standard deviations) must differ; a smaller
    difference is a tie."""
    ties: Literal["drop", "keep"] = "drop"
    "Discard ties, or keep them with margin 0, in a drawn order. Inconsistent and unreadable verdicts are no ties."
    certainty: Share = 0
    "How sure a judge that makes the labels, and is asked for it, must be."
    length_ratio: Annotated[float, Field(ge=1)] | None = None
    "How many times as long as the other an answer may be, in words, so that length does not decide."
    most: Annotated[int, Field(ge=1)] | None = None
    "Most pairs that a turn gives to a person: those closest in length."


class Filters(Strict):
    """What an answer must pass before it can be part of a pair. Every drop is a discard with its reason."""

    cut_off: bool = True
    "Drop answers that ended at the token limit."
    refusal: bool = True
    "Drop answers that refuse."
    off_language: bool = True
    "Drop answers in another script than the user's message."
    broken: bool = True
    "Drop answers that go in circles or are garbled."
    near_duplicates: bool = True
    "Drop pairs whose answers are nearly the same, and pairs that a person has already in nearly the same words."
    safety: Literal["constraint", "studied"] = "constraint"
    """`constraint`: nobody's wishes make an unsafe answer the chosen one, and no space may ask for one. A recipe that
    studies what people find acceptable says `studied`."""
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
    """Model reference of each role that the pipeline uses: `user`, `assistants`, `judge`, `writer`; and of further
    names, which arms of `candidates` may ask."""
    endpoints: dict[str, Endpoint] = {}
    "How the endpoints of `openai:NAME@URL` models are asked, by URL (or its beginning and `*`)."
    licences: dict[str, str] = {}
    """Licences that SimForge does not know, as the Hub writes them: of models by their reference (or its beginning and
    `*`), of `prompts` and of `people` from a file of yours. The strictest of all sources' is that of the rows."""
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

    def licence(self, what: str) -> str | None:
        """The licence that the recipe names for a model's reference, or for `prompts`: the longest entry that fits."""
        fitting = [name for name in self.licences if fnmatchcase(what, name)]
        return self.licences[max(fitting, key=len)] if fitting else None

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles that the pipeline calls."""
        user = self.dialogue.turns > 1 or self.prompts.source == "persona"
        asked = [*self.candidates.models, *(["assistants"] if self.dialogue.infer else [])]
        judges = [*(self.judge.panel if self.judge else []), *(["judge"] if self.dialogue.feedback else [])]
        writes = ["writer"] if self.candidates.writer else []
        scores = [name for name, reference in self.models.items() if reference.startswith(SCORING)]
        return tuple(dict.fromkeys([*(["user"] if user else []), *writes, *asked, *judges, *scores]))


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
    elif role not in (known := list(dict.fromkeys([*ROLES, *_named(document)]))):
        raise NotFound("role", role, known, "Write --model REF or --model ROLE=REF.")
    spoken = dict.fromkeys(one for one in (*ROLES, *_named(document)) if one not in _scoring(document))
    for each in [role] if role else spoken:
        document.put(("models", each), reference, f"--model {text}")


def _named(document: Document) -> list[str]:
    """The names that the file gives to models."""
    models = document.value.get("models")
    return [str(name) for name in models] if isinstance(models, dict) else []


def _models_of(value: Any) -> list[str]:
    """What the keys `model` in a part of the file say."""
    if isinstance(value, dict):
        own = [str(value["model"])] if "model" in value else []
        return own + [name for inner in value.values() for name in _models_of(inner)]
    return [name for inner in value for name in _models_of(inner)] if isinstance(value, list) else []


def _panel(document: Document) -> list[str]:
    """The names in `judge.panel`."""
    judge = document.value.get("judge")
    panel = judge.get("panel") if isinstance(judge, dict) else None
    return [str(name) for name in panel] if isinstance(panel, list) else []


def _scoring(document: Document) -> list[str]:
    """The models that are there to score: the space says which of them it wants."""
    return [name for name in _named(document) if str(document.value["models"][name]).startswith(SCORING)]


def _across(document: Document, recipe: Recipe) -> list[Mistake]:
    """What one key cannot know alone."""
    mistakes = [*_unreadable_parts(document), *_compared(document, recipe)]
    if any(arm.condition == Condition.inferred for arm in recipe.candidates.everyone) and recipe.dialogue.infer is None:
        said = "answers are `inferred`, and nothing is: name a generator, such as assistant/infer"
        mistakes.append(document.mistake(("dialogue", "infer"), said))
    if recipe.dialogue.conversations and recipe.prompts.source != "persona":
        said = "are for people who open the dialogue: set prompts.source to persona"
        mistakes.append(document.mistake(("dialogue", "conversations"), said))
    for role in recipe.roles:
        if role not in recipe.models:
            panel = recipe.judge is not None and role in recipe.judge.panel and role not in ROLES
            path: tuple[str | int, ...] = ("judge", "panel") if panel else ("models",)
            said = f"the pipeline uses the role {role!r} and names no model: add {role}: PROVIDER:NAME to `models`"
            mistakes.append(document.mistake(path, said + nearest(role, recipe.models)))
    if recipe.labels.by == "judge" and recipe.judge is None:
        mistakes.append(
            document.mistake(
                ("labels", "by"),
                "is `judge`, and the pipeline has no judge: add one, judge: {generator: judge/pairwise}",
            )
        )
    if recipe.labels.by == "judge" and recipe.judge is not None and recipe.judge.share < 1:
        said = f"labels.by is `judge`, so every comparison is judged: set it to 1, not {recipe.judge.share}"
        mistakes.append(document.mistake(("judge", "share"), said))
    if sum((recipe.splits.validation, recipe.splits.test_personas)) >= 1:
        mistakes.append(document.mistake(("splits",), "validation and test_personas leave nothing for train"))
    if recipe.labels.verify != "none" and recipe.judge is None:
        mistakes.append(document.mistake(("labels", "verify"), "needs a judge, and the pipeline has none"))
    if recipe.pairing.certainty and recipe.judge is None:
        mistakes.append(document.mistake(("pairing", "certainty"), "needs a judge, and the pipeline has none"))
    if recipe.candidates.shared == "everyone" and recipe.prompts.source == "persona":
        said = "people write their own openings, so nobody gets another's: set prompts.source, or leave it at `group`"
        mistakes.append(document.mistake(("candidates", "shared"), said))
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


def _compared(document: Document, recipe: Recipe) -> list[Mistake]:
    """Comparisons that can find nothing to compare, or whose label would mean nothing."""
    mistakes = []
    turns = recipe.candidates.turns()
    arms = {arm.name: arm for _, these, _ in turns for arm in these}
    if recipe.pairing.compare in ("best", "random"):
        if recipe.pairing.compare == "best" and recipe.judge is None:
            said = "is `best`, which needs ratings: add a judge, judge: {generator: judge/rating}"
            mistakes.append(document.mistake(("pairing", "compare"), said))
        if recipe.labels.by == "construction":
            said = f"draws answers (pairing.compare is {recipe.pairing.compare}): set it to judge or scorers"
            mistakes.append(document.mistake(("labels", "by"), said))
        return mistakes
    for number, (first, second) in enumerate(recipe.pairing.compare):
        path = ("pairing", "compare", number)
        unknown = [name for name in dict.fromkeys((first, second)) if name not in arms or name == WINNER]
        mistakes += [
            document.mistake(path, f"no candidates are made under {name!r}; made are: {_listed(arms)}")
            for name in unknown
        ]
        if unknown:
            continue
        together = [count for _, these, count in turns if {first, second} <= {arm.name for arm in these}]
        if not together:
            mistakes.append(document.mistake(path, f"{first!r} and {second!r} never compete at the same turn"))
        if first == second and together and max(together) < 2:
            mistakes.append(document.mistake(path, "compares samples of one condition: set candidates.samples to 2"))
        sides = arms[first].condition, arms[second].condition
        if recipe.labels.by == "construction" and (sides[0] not in OWN or sides[1] in OWN):
            said = "a label by construction needs `own` or `revised` first and another condition second; otherwise set "
            mistakes.append(document.mistake(path, said + "labels.by to judge"))
    return mistakes


def _listed(arms: Iterable[str]) -> str:
    names = ", ".join(name for name in arms if name != WINNER)
    return f"{names} (`winner` is one of these: name those)" if WINNER in arms else names


def _unreadable_parts(document: Document) -> list[Mistake]:
    """Names in the recipe that nothing knows; works on a recipe that is wrong elsewhere too."""
    asked = [*_models_of(document.value.get("candidates")), *_panel(document), *_scoring(document)]
    mistakes = [
        document.mistake(
            ("models", name),
            "is asked by nothing: it is neither a role, nor the `model` of an arm of `candidates`, nor in `judge.panel`"
            f"{nearest(name, [*ROLES, *asked])}",
        )
        for name in _named(document)
        if name not in (*ROLES, *asked)
    ]
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
    (("dialogue", "infer"), "generators", ""),
    (("dialogue", "feedback"), "generators", ""),
    (("dialogue", "writing"), "personas", "writing/"),
    (("candidates", "generator"), "generators", ""),
    (("candidates", "reviser"), "generators", ""),
    (("candidates", "writer"), "generators", ""),
    (("judge", "generator"), "generators", ""),
)
