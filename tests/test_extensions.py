"""Extensions: one object adds one of anything, from outside, and everything built on it knows it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from conftest import simforge

from simforge.audit.sections import SECTIONS
from simforge.catalog.registry import Registry, module_of_file
from simforge.errors import NotFound, UsageError
from simforge.judging.forms import FORMS
from simforge.models.providers import PROVIDERS
from simforge.recipe.conditions import CONDITIONS
from simforge.text.measures import measure

TOYS = Path(__file__).parent / "toys.py"


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of toys."""
    folder = tmp_path_factory.mktemp("toys")
    done = subprocess.run(
        [sys.executable, str(TOYS), str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


def table(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / "RUN" / "data" / name / "*.parquet")


def test_a_toy_of_every_kind_is_used_by_a_run_without_a_change_to_simforge(toys):
    candidates, turns = table(toys, "candidates"), table(toys, "turns")
    judgments = table(toys, "judgments").filter(method="model")
    people = table(toys, "personas")
    manifest = json.loads((toys / "RUN" / "manifest.json").read_text())
    audit = json.loads((toys / "RUN" / "audit.json").read_text())
    exported = (toys / "x.jsonl").read_text().splitlines()
    assert {
        "provider": {model["reference"] for model in manifest["models"].values()},
        "condition": "loud" in candidates["condition"].to_list(),
        "distribution": people["age"].is_between(0, 90).all(),
        "form": {*judgments["verdict_ab"]} <= {"first", "second"}
        and len(judgments) > 12,
        "guard": (turns["anchor"] == turns["text"].str.contains("ANCHOR")).all(),
        "column": (turns["loudness"] > 10).all(),
        "measure": manifest["space"]["dimensions"]["volume"]["measure"],
        "section": "It is loud." in [finding["text"] for finding in audit["verdict"]],
        "view": {*json.loads(exported[0])},
    } == {
        "provider": {"loud:"},
        "condition": True,
        "distribution": True,
        "form": True,
        "guard": True,
        "column": True,
        "measure": "capitals",
        "section": True,
        "view": {"prompt", "loud"},
    }


@pytest.mark.parametrize("registry", [PROVIDERS, FORMS, CONDITIONS, SECTIONS])
def test_a_registry_knows_its_names_and_says_the_nearest(registry):
    assert len(registry) == len(registry.names()) >= 5
    name = registry.names()[0]
    with pytest.raises(NotFound, match=f"did you mean '{name}'"):
        registry.find(f"{name}x")
    with pytest.raises(UsageError, match="choose another name"):
        registry.add(name, registry.find(name))


@pytest.mark.parametrize("registry", [PROVIDERS, FORMS, CONDITIONS])
def test_every_extension_says_what_it_is(registry):
    assert all(extension.about for extension in registry.values())


def test_what_is_no_extension_is_a_sentence(tmp_path):
    registry = Registry("number", int, package="simforge.views", variable="NUMBER")
    with pytest.raises(
        UsageError,
        match="is not a number: it needs `NUMBER`, an object of the type int",
    ):
        registry.find("trl_sft")
    registry.add("seven", 7)
    with pytest.raises(UsageError, match="there is a number named 'seven' already"):
        registry.add("seven", 8)
    with pytest.raises(UsageError, match="there is a measure named 'words' already"):

        @measure
        def words(text: str) -> float:
            return 0.0

    path = tmp_path / "own.py"
    with pytest.raises(UsageError, match="there is no file"):
        module_of_file(path)
    path.write_text("1 / 0\n")
    with pytest.raises(UsageError, match="ZeroDivisionError"):
        module_of_file(path)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("models", "openai:"),
        ("forms", "pairwise"),
        ("conditions", "opposite"),
        ("distributions", "lognormal"),
        ("measures", "reading_grade"),
        ("guards", "leak"),
        ("views", "trl_preference"),
    ],
)
def test_show_lists_every_extension_of_a_kind_with_a_sentence(kind, name):
    lines = simforge("show", kind).out.splitlines()
    (line,) = [line for line in lines if line.split()[:1] == [name]]
    assert len(line.split()) > 3
