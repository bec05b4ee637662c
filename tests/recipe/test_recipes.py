"""What a recipe may say, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import simforge

from simforge import catalog
from simforge.catalog import documents, templates
from simforge.dataset import schemas
from simforge.errors import NotFound, RecipeError
from simforge.personas import spaces
from simforge.personas.loader import load_pack
from simforge.recipe import prompts
from simforge.recipe.behavior import load_writing_style
from simforge.run import pipeline
from simforge.run.checks import load_recipe

WRONG = """\
description: broken on purpose
cast:
  pack: everyday
  spcae: psoup
dialogue:
  turns: 0
  user: user/defualt
  continue_with: prefered
candidates:
  conditions: [own, oposite]
models:
  assistnats: 'scripted:'
"""


@pytest.mark.parametrize("name", catalog.names("pipelines"))
def test_every_shipped_pipeline_loads_with_all_that_it_names(name):
    recipe = load_recipe(name)
    assert spaces.load_space(recipe.cast.space).dimensions
    assert load_pack(recipe.cast.pack).traits
    assert templates.load(recipe.candidates.generator).front.role == "assistant"


@pytest.mark.parametrize("name", catalog.names("generators"))
def test_every_shipped_generator_loads_and_says_whom_it_speaks_to(name):
    assert templates.load(name).front.role == name.split("/")[0]


def test_every_shipped_file_about_people_is_of_one_of_the_four_kinds():
    for name in catalog.names("personas"):
        folder, _, rest = name.rpartition("/")
        if folder == "spaces":
            assert spaces.load_space(rest).dimensions
        elif folder == "writing":
            assert (
                load_writing_style(rest).words.p90
                > load_writing_style(rest).words.median
            )
        elif folder == "speech":
            assert rest in ("human", "known", "phrases", "roles")
        else:
            assert load_pack(name).traits


def test_a_space_that_follows_traits_gives_those_who_said_so_what_they_said():
    recipe = load_recipe("prism")
    plan, _ = pipeline.prepare(recipe, 2000, seed=0)
    people = [plan.persona(index) for index in range(2000)]
    wants = {
        high: sum(
            "factuality" in plan.space.wanted_dimensions(one.profile)
            for one in people
            if (one.traits["pref_factuality"] >= 98) is high
        )
        / sum((one.traits["pref_factuality"] >= 98) is high for one in people)
        for high in (True, False)
    }
    assert wants[True] > 1.5 * wants[False] and all(
        plan.space.wanted_dimensions(one.profile) for one in people
    )


def test_the_shipped_schemas_are_those_of_the_code():
    assert {
        name: catalog.entry("schemas", name).text for name in catalog.names("schemas")
    } == schemas.render()


def test_the_shipped_prompts_are_at_least_two_hundred_and_all_different():
    found = prompts.load("everyday-instructions", {"text": "text"})
    assert len(found) >= 200
    assert len({prompt.id for prompt in found}) == len(found)


def test_a_recipe_with_six_mistakes_reports_six_with_their_lines(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(WRONG)
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path))
    assert [(m.line, m.path) for m in caught.value.mistakes] == [
        (4, "cast.spcae"),
        (6, "dialogue.turns"),
        (7, "dialogue.user"),
        (8, "dialogue.continue_with"),
        (10, "candidates.conditions.1"),
        (12, "models.assistnats"),
    ]
    assert "did you mean 'space'?" in str(caught.value)
    assert "did you mean 'user/default'" in str(caught.value)


def test_what_one_key_cannot_know_alone_is_checked_across_keys(tmp_path):
    path = tmp_path / "across.yaml"
    path.write_text(
        "description: d\n"
        "candidates: {conditions: [own, plain]}\n"
        "pairing: {compare: [[own, opposite], [plain, own], [own, own]]}\n"
        "labels: {by: judge}\n"
        "splits: {test_prompts: 0.1}\n"
        "models: {assistants: 'scripted:'}\n"
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path))
    assert [m.path for m in caught.value.mistakes] == [
        "pairing.compare.0", "pairing.compare.2", "labels.by", "splits.test_prompts", "models",
    ]  # fmt: skip


def test_an_override_is_named_as_the_place_of_its_mistake():
    with pytest.raises(
        RecipeError,
        match=r"--set dialogue\.turns=many: dialogue\.turns: input should be a valid int",
    ):
        load_recipe("quickstart", overrides=["dialogue.turns=many"])


def test_models_are_set_for_all_roles_or_for_one():
    recipe = load_recipe("quickstart", models=["scripted:", "judge=local:smollm2-135m"])
    assert recipe.models["user"] == recipe.models["assistants"] == "scripted:"
    assert recipe.models["judge"] == "local:smollm2-135m"
    with pytest.raises(NotFound, match="did you mean 'judge'"):
        load_recipe("quickstart", models=["jugde=scripted:"])


def test_a_name_is_a_name_even_when_a_file_of_that_name_lies_here(
    tmp_path, monkeypatch
):
    (tmp_path / "quickstart").write_text("nonsense")
    monkeypatch.chdir(tmp_path)
    assert load_recipe("quickstart").dialogue.turns == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\na: 2\n", "f.yaml:2: a: is given twice"),
        ("a: [1\n", "f.yaml:2: not YAML"),
        ("user: scripted:\n", "needs quotes"),
        ("- 1\n", "must be a mapping"),
        ("a: !!python/object/apply:os.system [ls]\n", "not YAML"),
    ],
)
def test_yaml_that_is_not_a_plain_mapping_is_refused(text, sentence):
    with pytest.raises(RecipeError, match=sentence.replace("(", r"\(")):
        documents.read(text, "f.yaml")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["quikstart"], "did you mean 'quickstart'?"),
        (["--model", "local:qwen"], "there are: qwen2.5-coder-1.5b, smollm2-135m"),
        (["--model", "opnai:x"], "did you mean 'openai'"),
        (["--model", "scripted:no.such:thing"], "cannot be imported"),
        (["--set", "cast.pack=everday"], "did you mean 'everyday'?"),
        (["--prompts", "none.csv"], "there is no prompt file none.csv"),
        (["--executor", "local", "--ray-address", "x:1"], "drop one of them"),
        (["--reuse", "nowhere"], "there is no ledger in it"),
        (["--personas", "many"], "is not a number of people; write 500, 10k or 1.5M"),
    ],
)
def test_a_wrong_command_ends_with_2_and_one_sentence_and_starts_nothing(
    tmp_path, arguments, sentence
):
    done = simforge(
        "generate",
        "--personas",
        3,
        "--model",
        "scripted:",
        "--out",
        tmp_path / "x",
        *arguments,
        cwd=tmp_path,
    )
    assert done.status == 2
    assert sentence in done.err
    assert "Traceback" not in done.err
    assert list(Path(tmp_path).iterdir()) == []
