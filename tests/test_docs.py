"""The docs: their commands and examples run, and their names exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from conftest import simforge

import simforge as package
from simforge.recipe.schema import Recipe

ROOT = Path(package.__file__).parent


def test_the_readmes_tree_tells_the_truth():
    readme = (ROOT.parent / "README.md").read_text()
    named = re.findall(r"^(\w+)/ ", readme, re.MULTILINE)
    assert {
        "personas",
        "generators",
        "pipelines",
        "schemas",
        "simforge",
        "tests",
        "docs",
    } <= set(named)
    assert all((ROOT.parent / name).is_dir() for name in named)


def test_the_commands_of_readme_and_docs_run_in_their_order(tmp_path, hub):
    """Every line of a shell block that needs neither the big model nor a cluster is run as it
    stands there, with a Hub of the tests' own."""
    guides = "recipes users datasets train audit cluster".split()
    names = ("README.md", *(f"docs/{name}.md" for name in guides), "personas/README.md")
    texts = [(ROOT.parent / name).read_text() for name in names]
    blocks = re.findall(r"```sh\n(.*?)```", "\n".join(texts), re.DOTALL)
    lines = [
        line
        for block in blocks
        for line in block.splitlines()
        if line.startswith("uv run simforge")
    ]
    lines = [line for line in lines if "generate" not in line or "scripted:" in line]
    assert len(lines) >= 7
    for line in lines:
        words = shlex.split(line, comments=True)[3:]
        done = simforge(*words, cwd=tmp_path, env=hub.env)
        assert done.status == 0, f"{line}\n{done.err}"


def test_the_yaml_and_generator_examples_of_the_docs_are_valid(tmp_path):
    people, hub, wishes = re.findall(
        r"```yaml\n(.*?)```",
        (ROOT.parent / "personas/README.md").read_text(),
        re.DOTALL,
    )
    text = (ROOT.parent / "docs" / "recipes.md").read_text()
    (generator,) = re.findall(r"```\n(---.*?)```", text, re.DOTALL)
    for name, content in (
        ("people.yaml", people),
        ("wishes.yaml", wishes),
        ("words.md", generator),
    ):
        (tmp_path / name).write_text(content)
    done = simforge(
        "generate", "--personas", 6, "--model", "scripted:", "--out", "out", "--set", "cast.pack=./people.yaml",
        "--set", "cast.space=./wishes.yaml", "--set", "candidates.generator=./words.md", "--set", "cast.mirrored=false",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.status == 0, done.err
    (rated,) = re.findall(
        r"```yaml\n(.*?)```", (ROOT.parent / "docs/users.md").read_text(), re.DOTALL
    )
    (tmp_path / "rated.yaml").write_text(rated)
    done = simforge(
        "generate", "./rated.yaml", "--personas", 4, "--out", "rated", cwd=tmp_path
    )
    assert done.status == 0, done.err
    assert simforge("personas", "check", "./people.yaml", cwd=tmp_path).status == 0
    (tmp_path / "persona.jsonl").write_text(
        '{"persona": "A baker."}\n{"persona": "A nurse."}\n'
    )
    (tmp_path / "hub.yaml").write_text(hub)
    assert (
        "A nurse."
        in simforge("personas", "sample", "./hub.yaml", "-n", 2, cwd=tmp_path).out
    )


def test_the_recipe_keys_of_the_docs_are_those_of_the_schema():
    """Tables whose first column is headed "key of `SECTION`" name keys of that section."""
    tables = [
        found
        for guide in sorted((ROOT.parent / "docs").glob("*.md"))
        for found in re.findall(
            r"^\| key of `(\w+)` \|.*\n\|[-|]+\n((?:\|.*\n)+)",
            guide.read_text(),
            re.MULTILINE,
        )
    ]
    assert {section for section, _ in tables} >= {"dialogue", "pairing"}
    for section, rows in tables:
        model = Recipe.model_fields[section].annotation
        assert model is not None
        named = {
            key
            for row in rows.splitlines()
            for key in re.findall(r"`(\w+)`", row.split("|")[1])
        }
        assert named and named <= set(model.model_fields), section
