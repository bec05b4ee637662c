"""The checks of a run's inputs: every mistake at once, with file and line, before anything is paid.

A recipe can be wrong in ways that its schema sees, in ways that involve several of its keys, and in
ways that show only beside the files that it names: a generator that never reads what the recipe
sets, a space without the scorers that the labels need. All of them are found here, whichever is
found first, and a check is left out only where another mistake makes its question meaningless.

    inputs = load_inputs("quickstart", people=100)      # raises RecipeError with all mistakes
    inputs.recipe, inputs.setup, inputs.cast, inputs.prompts
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from simforge import catalog
from simforge.catalog import documents, templates
from simforge.catalog.documents import Document, KeyPath
from simforge.catalog.templates import Generator
from simforge.dialogue import safety
from simforge.dialogue.guards import GUARDS
from simforge.errors import Mistake, RecipeError, SimForgeError, suggest
from simforge.judging.forms import FORMS, JudgeForm
from simforge.models.providers import is_scorer
from simforge.personas import spaces
from simforge.personas.cast import Cast
from simforge.recipe import prompts as prompt_sources
from simforge.recipe.schema import (
    WINNER,
    Recipe,
    model_names_in,
    read_recipe,
    references,
    scorer_names_in,
)
from simforge.recipe.setup import Setup
from simforge.run import casting
from simforge.types import ROLES, JsonObject, Prompt

T = TypeVar("T")


Problem = tuple[KeyPath, str]
"A mistake of a recipe: the key, and what is wrong with it."


TURN_VARIABLES = {"turn": 0, "goal": "x", "tell": "x", "mood": "x", "words": 10}


PERSON_VARIABLES: JsonObject = {
    "persona": "x",
    "traits": {},
    "wants": "x",
    "need": "x",
    "goals": [],
    "guide": "x",
    "knowledge": "x",
    "language": "x",
}


TEMPLATE_VARIABLES: dict[str, JsonObject] = {
    "user": {
        **PERSON_VARIABLES,
        "disclosure": "free",
        "draft": "x",
        **TURN_VARIABLES,
    },
    "assistant": {"steering": "x"},
    "reviser": {"steering": "x", "draft": "x"},
    "infer": {"persona": "x"},
    "writer": {"wishes": "x", "prompt": "x"},
}
"""Variables that each generator may use, with placeholder values for a trial rendering before
anything is spent; a judge form defines its own. Traits depend on the pack, so a template over
`traits` is rendered with those of the first person."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that a run is made from, without a mistake that could be found."""

    recipe: Recipe
    setup: Setup
    cast: Cast
    prompts: list[Prompt]
    "Empty if people write their own openings."


def load_inputs(
    pipeline: str,
    overrides: Iterable[str] = (),
    models: Iterable[str] = (),
    prompts: str | None = None,
    people: int | None = None,
    seed: int = 0,
    cast_source: str | None = None,
) -> Inputs:
    """Read a recipe and everything that it names, and draw its people. No model is needed.

    Raises `RecipeError` with every mistake of the recipe, of its generators, space and pack, and of
    the command line; and `UsageError` for a file of people or prompts that cannot be used.
    """
    document = read_recipe(pipeline, overrides, models, prompts)
    recipe, mistakes = _checked(document)
    return _loaded(document, recipe, mistakes, people, seed, cast_source)


def load_recipe(
    pipeline: str,
    overrides: Iterable[str] = (),
    models: Iterable[str] = (),
    prompts: str | None = None,
) -> Recipe:
    """Read a recipe without the files that it names. Raises `RecipeError` with every mistake."""
    document = read_recipe(pipeline, overrides, models, prompts)
    recipe, mistakes = _checked(document)
    if recipe is None or mistakes:
        raise RecipeError(mistakes)
    return recipe


def inputs_of(
    recipe: Recipe, people: int | None, seed: int, cast_source: str | None = None
) -> Inputs:
    """Read everything that a recipe names. Raises what `load_inputs` raises."""
    document = Document("the recipe", recipe.model_dump(mode="json"))
    return _loaded(document, recipe, [], people, seed, cast_source)


def _checked(document: Document) -> tuple[Recipe | None, list[Mistake]]:
    """The recipe of a document and its mistakes. Where parts of it are invalid, the recipe is what
    is left without them; `None` if that is none."""
    recipe, mistakes = documents.check(document, Recipe)
    if recipe is None:
        recipe = documents.valid_part(document, Recipe, mistakes)
    mistakes = [*mistakes, *_reference_mistakes(document)]
    if recipe is not None:
        mistakes += _consistency_mistakes(document, recipe, mistakes)
    return recipe, mistakes


def _reference_mistakes(document: Document) -> list[Mistake]:
    """Names in the recipe that refer to nothing; works on a recipe with other mistakes too."""
    used = [
        *_values_of(document.value.get("candidates"), "model"),
        *_list_at(document, ("judge", "panel")),
        *scorer_names_in(document),
    ]
    mistakes = [
        document.mistake(
            ("models", name),
            "is never used: it is neither a role, nor the `model` of a variant of "
            f"`candidates`, nor in `judge.panel`{suggest(name, [*ROLES, *used])}",
        )
        for name in model_names_in(document)
        if name not in (*ROLES, *used)
    ]
    for path, reference in references():
        value = _value_at(document, path)
        if reference.kind == "prompts" or not isinstance(value, str):
            continue
        name = value if catalog.is_path(value) else reference.folder + value
        try:
            catalog.entry(reference.kind, name)
        except SimForgeError as problem:
            mistakes.append(document.mistake(path, str(problem)))
    guards = _value_at(document, ("dialogue", "guards"))
    for name in guards if isinstance(guards, dict) else ():
        if name not in GUARDS:
            message = f"there is no guard {name!r}{suggest(str(name), GUARDS)}"
            mistakes.append(document.mistake(("dialogue", "guards", name), message))
    return mistakes


Check = Callable[[Recipe], Iterator[Problem]]


_CHECKS: list[tuple[tuple[str, ...], Check]] = []


def _reads(*keys: str) -> Callable[[Check], Check]:
    """Register a check of the recipe; it is left out where one of these keys is a mistake (of
    `key.*`, where one below it is)."""

    def register(check: Check) -> Check:
        _CHECKS.append((keys, check))
        return check

    return register


def _consistency_mistakes(
    document: Document, recipe: Recipe, known: list[Mistake]
) -> list[Mistake]:
    """Mistakes that involve several keys."""
    broken = {mistake.path for mistake in known}
    return [
        document.mistake(path, message)
        for keys, check in _CHECKS
        if not any(_concerns(key, path) for key in keys for path in broken)
        for path, message in check(recipe)
    ]


def _concerns(key: str, path: str) -> bool:
    """Return true if a mistake at a path leaves nothing to check about a key."""
    if key.endswith(".*"):
        return path.startswith(key.removesuffix("*"))
    return key == path or key.startswith(f"{path}.")


@_reads("candidates.conditions", "candidates.opening", "dialogue.infer")
def _check_inference(recipe: Recipe) -> Iterator[Problem]:
    infers = any(
        variant.definition.infers for variant in recipe.candidates.all_variants
    )
    if infers and recipe.dialogue.infer is None:
        yield (
            ("dialogue", "infer"),
            "the condition `inferred` needs a generator here, such as assistant/infer",
        )


@_reads(
    "models",
    "models.*",
    "judge",
    "judge.panel",
    "candidates",
    "dialogue",
    "prompts.source",
)
def _check_models(recipe: Recipe) -> Iterator[Problem]:
    for role in recipe.roles:
        if role in recipe.models:
            continue
        in_panel = recipe.judge is not None and role in recipe.judge.panel
        path: KeyPath = (
            ("judge", "panel") if in_panel and role not in ROLES else ("models",)
        )
        yield (
            path,
            f"the pipeline uses the role {role!r} and names no model: add {role}: "
            f"PROVIDER:NAME to `models`{suggest(role, recipe.models)}",
        )


@_reads("prompts.source", "dialogue.conversations")
def _check_conversations(recipe: Recipe) -> Iterator[Problem]:
    if recipe.dialogue.conversations and recipe.prompts.source != "persona":
        yield (
            ("dialogue", "conversations"),
            "need people who write their own openings: set prompts.source to persona",
        )


@_reads("prompts.columns")
def _check_columns(recipe: Recipe) -> Iterator[Problem]:
    if "context" in recipe.prompts.columns and "text" not in recipe.prompts.columns:
        yield ("prompts", "columns"), "needs `text` beside `context`"


@_reads("prompts.source", "candidates.shared")
def _check_sharing(recipe: Recipe) -> Iterator[Problem]:
    if recipe.candidates.shared == "everyone" and recipe.prompts.source == "persona":
        yield (
            ("candidates", "shared"),
            "people write their own openings, so no prompt is shared: set "
            "prompts.source, or leave it at `group`",
        )


@_reads("labels", "judge", "judge.share", "pairing.min_certainty")
def _check_need_of_a_judge(recipe: Recipe) -> Iterator[Problem]:
    judge = recipe.judge
    if judge is None:
        if recipe.labels.by == "judge":
            yield (
                ("labels", "by"),
                "is `judge`, but the pipeline has no judge: add one, judge: "
                "{generator: judge/pairwise}",
            )
        if recipe.labels.verify != "none":
            yield ("labels", "verify"), "needs a judge, and the pipeline has none"
        if recipe.pairing.min_certainty:
            yield (
                ("pairing", "min_certainty"),
                "needs a judge, and the pipeline has none",
            )
    elif recipe.labels.by == "judge" and judge.share < 1:
        yield (
            ("judge", "share"),
            "labels.by is `judge`, so every comparison is judged: set it to 1, not "
            f"{judge.share}",
        )


@_reads("splits", "prompts.source")
def _check_splits(recipe: Recipe) -> Iterator[Problem]:
    if recipe.splits.validation + recipe.splits.test_personas >= 1:
        yield ("splits",), "validation and test_personas leave nothing for train"
    if recipe.splits.test_prompts and recipe.prompts.source == "persona":
        yield (
            ("splits", "test_prompts"),
            "personas write their own openings, so there are no shared prompts to hold out",
        )


@_reads("pairing.compare", "labels.by", "judge")
def _check_drawn_comparisons(recipe: Recipe) -> Iterator[Problem]:
    if not isinstance(recipe.pairing.compare, str):
        return
    if recipe.pairing.compare == "best" and recipe.judge is None:
        yield (
            ("pairing", "compare"),
            "is `best`, which needs ratings: add a judge, judge: {generator: judge/rating}",
        )
    if recipe.labels.by == "construction":
        yield (
            ("labels", "by"),
            "cannot be construction, because pairing.compare is "
            f"{recipe.pairing.compare}: set it to judge or scorers",
        )


@_reads("pairing.compare", "labels.by", "candidates")
def _check_listed_comparisons(recipe: Recipe) -> Iterator[Problem]:
    """Comparisons that have nothing to compare, or whose label would mean nothing."""
    if isinstance(recipe.pairing.compare, str):
        return
    phases = recipe.candidates.phases()
    variants = {variant.name: variant for _, listed, _ in phases for variant in listed}
    for number, (first, second) in enumerate(recipe.pairing.compare):
        path: KeyPath = ("pairing", "compare", number)
        unknown = [
            name
            for name in dict.fromkeys((first, second))
            if name not in variants or name == WINNER
        ]
        for name in unknown:
            yield (
                path,
                f"there is no variant named {name!r}; the variants are: {_listed(variants)}",
            )
        if unknown:
            continue
        samples = [
            count
            for _, listed, count in phases
            if {first, second} <= {variant.name for variant in listed}
        ]
        if not samples:
            yield path, f"{first!r} and {second!r} never compete at the same turn"
        if first == second and samples and max(samples) < 2:
            yield path, "compares samples of one condition: set candidates.samples to 2"
        preferred, other = variants[first].definition, variants[second].definition
        by_construction = preferred.follows_wishes and not other.follows_wishes
        if recipe.labels.by == "construction" and not by_construction:
            yield (
                path,
                "a label by construction needs `own` or `revised` first and another "
                "condition second; otherwise set labels.by to judge",
            )


def _listed(variants: Iterable[str]) -> str:
    names = ", ".join(name for name in variants if name != WINNER)
    return (
        f"{names} (`winner` is always one of these: use their names)"
        if WINNER in variants
        else names
    )


@dataclass(slots=True)
class _Loading:
    """The reading of a run's files, with everything that went wrong."""

    document: Document
    recipe: Recipe
    mistakes: list[Mistake]
    problems: list[SimForgeError] = field(default_factory=list)
    "Problems of files that are not the recipe's mistakes: people, prompts."

    def get(self, load: Callable[[], T], *path: str | int) -> T | None:
        """Read something that a key of the recipe names; `None` if it, or the key, is wrong."""
        key = documents.dotted(path)
        if any(mistake.path == key for mistake in self.mistakes):
            return None
        try:
            return load()
        except RecipeError as problem:
            self.mistakes += problem.mistakes
        except SimForgeError as problem:
            self.problems.append(problem)
        return None

    def generator(self, *path: str) -> Generator | None:
        """The generator that a key names; `None` if it names none, or it is wrong."""
        value: Any = self.recipe
        for part in path:
            value = getattr(value, part, None)
        return self.get(lambda: templates.load(value), *path) if value else None

    def finish(self) -> None:
        """Raise what went wrong: a single problem as it is, several as mistakes."""
        if len(self.problems) == 1 and not self.mistakes:
            raise self.problems[0]
        if self.mistakes or self.problems:
            label = self.document.label
            others = [
                Mistake(label, None, "", str(problem)) for problem in self.problems
            ]
            raise RecipeError(dict.fromkeys([*self.mistakes, *others]))


def _loaded(
    document: Document,
    recipe: Recipe | None,
    mistakes: list[Mistake],
    people: int | None,
    seed: int,
    cast_source: str | None,
) -> Inputs:
    if recipe is None:
        raise RecipeError(mistakes)
    loading = _Loading(document, recipe, list(mistakes))
    space = loading.get(lambda: spaces.load_space(recipe.cast.space), "cast", "space")
    cast = loading.get(
        lambda: casting.prepare_cast(recipe, people, seed, cast_source), "cast", "pack"
    )
    shared: list[Prompt] | None = []
    if recipe.prompts.source != "persona":
        columns = dict(recipe.prompts.columns)
        shared = loading.get(
            lambda: prompt_sources.load(recipe.prompts.source, columns),
            "prompts",
            "source",
        )
    generators = _Generators.load(loading)
    if cast is not None and shared is not None:
        loading.mistakes += _of_people(document, recipe, cast, shared)
    loading.mistakes += _of_generators(document, recipe, generators, cast)
    if space is not None:
        loading.mistakes += _of_space(document, recipe, space)
    loading.finish()
    assert space is not None and cast is not None and shared is not None
    setup = Setup.from_recipe(recipe, space, seed)
    loading.mistakes += _of_user(document, setup)
    loading.finish()
    return Inputs(recipe, setup, cast, shared)


@dataclass(frozen=True, slots=True)
class _Generators:
    """The generators of a recipe that could be read, by the key that names each."""

    by_key: dict[KeyPath, Generator]

    @classmethod
    def load(cls, loading: _Loading) -> _Generators:
        read = {
            path: loading.generator(*map(str, path))
            for path, reference in references()
            if reference.kind == "generators" and not _is_unused(loading.recipe, path)
        }
        return cls({path: generator for path, generator in read.items() if generator})


def _is_unused(recipe: Recipe, path: KeyPath) -> bool:
    """Return true if no variant needs the generator: a reviser without answers to revise."""
    return path == ("candidates", "reviser") and not any(
        variant.definition.revises for variant in recipe.candidates.all_variants
    )


def _of_people(
    document: Document, recipe: Recipe, cast: Cast, shared: list[Prompt]
) -> Iterator[Mistake]:
    """Find what the pack of the people cannot give."""
    conversations = recipe.dialogue.conversations.values()
    has_needs = cast.pack.needs or (
        conversations and all(conversation.needs for conversation in conversations)
    )
    if not shared and not has_needs:
        yield document.mistake(
            ("cast", "pack"),
            f"personas of {cast.name} cannot open a dialogue: neither the pack nor "
            "every one of dialogue.conversations has `needs`. Add some, or give "
            "--prompts.",
        )
    disclosure = recipe.dialogue.disclosure
    if disclosure in ("gradually", "up_front") and not cast.pack.facts:
        yield document.mistake(
            ("dialogue", "disclosure"),
            f"is {disclosure}, and the pack of {cast.name} has no `facts` to tell: add "
            "some (personas/README.md), or set it to free.",
        )


_ROLES: dict[KeyPath, tuple[str, str]] = {
    ("dialogue", "user"): ("user", "user"),
    ("dialogue", "infer"): ("assistant", "infer"),
    ("dialogue", "feedback"): ("judge", ""),
    ("candidates", "generator"): ("assistant", "assistant"),
    ("candidates", "reviser"): ("assistant", "reviser"),
    ("candidates", "writer"): ("writer", "writer"),
    ("judge", "generator"): ("judge", ""),
}
"Role of the generator that each key names, and its entry of `TEMPLATE_VARIABLES`."


def _of_generators(
    document: Document, recipe: Recipe, generators: _Generators, cast: Cast | None
) -> Iterator[Mistake]:
    """Mistakes of the generators, and settings of the recipe that they cannot satisfy."""
    for path, generator in generators.by_key.items():
        role, name = _ROLES[path]
        if generator.front.role != role:
            matching = [
                entry
                for entry in catalog.names("generators")
                if entry.startswith(f"{role}/")
            ]
            yield document.mistake(
                path,
                f"{generator.label} is written for the role {generator.front.role!r}, and "
                f"the recipe uses it for {role!r}. There are: {', '.join(matching)}.",
            )
            continue
        variables = TEMPLATE_VARIABLES.get(name, {})
        if role == "judge":
            form = _form_of(generator)
            if form is None:
                yield generator.mistake(
                    "form",
                    "there is not a judge form "
                    f"{generator.front.form!r}{suggest(generator.front.form, FORMS)}",
                )
                continue
            if form.needs_choices and len(generator.front.choices) not in (2, 3):
                yield generator.mistake(
                    "choices",
                    "needs two or three `choices`, for first, second and, if wanted, tie: "
                    '["1", "2", tie]',
                )
            variables = dict(form.variables)
        elif role == "user":
            variables = {**variables, "traits": cast.traits(0) if cast else {}}
        if cast is not None or "traits" not in variables:
            yield from generator.check_templates(variables)
    yield from _of_judge(document, recipe, generators.by_key)


def _form_of(generator: Generator) -> JudgeForm | None:
    return FORMS.get(generator.front.form)


def _of_judge(
    document: Document, recipe: Recipe, generators: dict[KeyPath, Generator]
) -> Iterator[Mistake]:
    """Settings of the recipe that the judge's generator cannot satisfy."""
    feedback = generators.get(("dialogue", "feedback"))
    if feedback is not None:
        survey = _form_of(feedback)
        if survey is not None and survey.ask is not None:
            yield document.mistake(
                ("dialogue", "feedback"),
                f"needs a survey, and the form of {feedback.label} is {feedback.front.form}",
            )
    judge = generators.get(("judge", "generator"))
    form = _form_of(judge) if judge is not None else None
    if judge is None or form is None or recipe.judge is None:
        return
    if form.ask is None:
        yield document.mistake(
            ("judge", "generator"),
            f"{judge.label} is a survey, which is filled in after a dialogue: name it "
            "in dialogue.feedback",
        )
        return
    if recipe.pairing.compare == "best" and not form.rates:
        yield document.mistake(
            ("pairing", "compare"),
            "is best, which needs ratings: use judge/rating, or another of the form rating",
        )
    dialogue = recipe.dialogue
    if dialogue.patience and dialogue.continue_with == "preferred" and not form.rates:
        yield document.mistake(
            ("dialogue", "patience"),
            "has no effect, because every person gets the answer that they prefer: "
            "set dialogue.continue_with to random or both, or use a judge that rates",
        )
    if recipe.judge.by == "dimension" and not form.splits_by_dimension:
        yield document.mistake(
            ("judge", "by"),
            f"is dimension, but a judge of the form {judge.front.form} cannot be asked about "
            "one dimension at a time; judges of these forms can: "
            + ", ".join(name for name, one in FORMS.items() if one.splits_by_dimension),
        )
    if recipe.pairing.min_certainty > 0 and "certainty" not in judge.front.reply_fields:
        yield document.mistake(
            ("pairing", "min_certainty"),
            "is set, but the judge does not reply with `certainty`: use "
            f"judge/certainty, or add it to `reply_fields` of {judge.label}",
        )


def _of_space(
    document: Document, recipe: Recipe, space: spaces.Space
) -> Iterator[Mistake]:
    """Find what the preference space cannot give, and unsafe poles."""
    own = spaces.read_document(recipe.cast.space)
    for variant in recipe.candidates.all_variants:
        kinds = variant.definition.space_kinds
        if kinds and space.kind not in kinds:
            yield document.mistake(
                ("candidates", "conditions"),
                f"`{variant.condition}` uses the wishes that a person does not have, "
                f"but in a space of the kind {space.kind} people have one on every "
                "dimension: use `stranger`",
            )
    yield from _of_scorers(document, own, recipe, space)
    if recipe.filters.safety != "studied":
        for dimension, pole, text in safety.unsafe_wishes(space):
            yield own.mistake(
                ("dimensions", dimension, "poles", pole),
                f"asks for unsafe answers ({text!r}); a recipe that studies what "
                "people accept sets filters.safety to studied",
            )


def _of_scorers(
    document: Document, own: Document, recipe: Recipe, space: spaces.Space
) -> Iterator[Mistake]:
    """Dimensions without a scorer, and scoring models that nothing uses."""
    scoring = [
        name for name, reference in recipe.models.items() if is_scorer(reference)
    ]
    used: set[str] = set()
    if recipe.labels.by == "scorers":
        if recipe.candidates.contrast != "whole":
            yield document.mistake(
                ("candidates", "contrast"),
                "labels.by is scorers, which score the whole profile at once: set it to whole",
            )
        for name, axis in space.dimensions.items():
            path: KeyPath = ("dimensions", name)
            if axis.measure is None and axis.scorer is None:
                yield own.mistake(
                    path,
                    "labels.by is scorers, and this has neither a `measure` nor a `scorer`",
                )
            elif axis.mean is None or axis.sd is None:
                yield own.mistake(
                    path,
                    "labels.by is scorers, which needs its `mean` and `sd`: compute "
                    "them from `scores` in the candidates of a small run",
                )
            if axis.scorer is None:
                continue
            used.add(axis.scorer)
            if axis.scorer not in scoring:
                yield own.mistake(
                    (*path, "scorer"),
                    f"names the scorer {axis.scorer!r}, but the recipe's `models` have "
                    f"no scorer of that name: add {axis.scorer}: score:NAME@URL",
                )
    for name in sorted({*scoring} - used):
        yield document.mistake(
            ("models", name),
            "is a scorer that nothing uses: set labels.by to scorers, with a space that names it",
        )


def _of_user(document: Document, setup: Setup) -> Iterator[Mistake]:
    """Settings that the user's generator never reads: they would be in the data but not in the
    dialogues."""
    dialogue, writing = setup.recipe.dialogue, setup.writing
    settings = {
        "knowledge": (bool(dialogue.knowledge), "knowledge"),
        "writing": (writing is not None, "words"),
        "writing (languages)": (
            writing is not None and bool(writing.languages),
            "language",
        ),
        "conversations": (bool(dialogue.conversations), "guide"),
        "disclosure": (dialogue.disclosure in ("gradually", "up_front"), "tell"),
    }
    for key, (is_set, variable) in settings.items():
        if is_set and not setup.user.uses(variable):
            yield document.mistake(
                ("dialogue", key.partition(" ")[0]),
                f"dialogue.{key} is set, and {setup.user.label} never uses {{{{ "
                f"{variable} }}}}",
            )


def _value_at(document: Document, path: KeyPath) -> Any:
    value = document.value
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _list_at(document: Document, path: KeyPath) -> list[str]:
    value = _value_at(document, path)
    return [str(name) for name in value] if isinstance(value, list) else []


def _values_of(value: Any, key: str) -> list[str]:
    """The values of all keys of a name in a part of the file."""
    if isinstance(value, dict):
        own = [str(value[key])] if key in value else []
        return own + [
            name for inner in value.values() for name in _values_of(inner, key)
        ]
    if isinstance(value, list):
        return [name for inner in value for name in _values_of(inner, key)]
    return []
