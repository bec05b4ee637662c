"""Extensions: one object adds one of anything, from outside, and everything built on it knows it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from simforge.audit.sections import SECTIONS
from simforge.catalog.registry import Registry
from simforge.errors import NotFound, UsageError
from simforge.judging.forms import FORMS
from simforge.models.providers import PROVIDERS
from simforge.recipe.conditions import CONDITIONS

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


def test_an_extension_of_ones_own_is_a_file_or_an_object_and_else_a_sentence(tmp_path):
    registry = Registry("number", int, package="simforge.views", variable="NUMBER")
    path = tmp_path / "own.py"
    path.write_text("NUMBER = 7\n")
    assert registry.load(str(path)) == 7
    path.write_text("NUMBER = 'seven'\n")
    for reference, sentence in (
        (str(path), "is no number: it needs `NUMBER`, an object of the type int"),
        (str(tmp_path / "none.py"), "there is no file"),
        ("seven", "names no number: give a file such as ./mine.py"),
        ("no.such.module:x", "cannot be imported"),
        ("simforge.errors:nothing", "it needs `nothing`"),
    ):
        with pytest.raises(UsageError, match=sentence):
            registry.load(reference)
    path.write_text("1 / 0\n")
    with pytest.raises(UsageError, match="ZeroDivisionError"):
        registry.load(str(path))
