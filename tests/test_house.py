"""The house: what imports what, what the wheel and the README hold, and how fast it answers."""

from __future__ import annotations

import ast
import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path

import imports
import pytest
from conftest import simforge

import simforge as package
from simforge import catalog, errors
from simforge.cli.arguments import parse_count
from simforge.cli.main import _parser

ROOT = Path(package.__file__).parent
CHECKOUT = ROOT.parent


def test_imports_point_down_the_table_of_the_architecture():
    order = imports.documented_order()
    edges = imports.package_graph()
    assert {*order} == {*edges}, "a new package belongs into docs/architecture.md"
    wrong = [
        f"{name} imports {used}"
        for name, targets in edges.items()
        for used in targets
        if order.index(used) < order.index(name)
    ]
    assert wrong == []
    assert max(imports.levels(edges).values()) + 1 <= 13


def test_no_two_modules_import_each_other():
    edges = {name: used for name, used in imports.graph().items() if name != "simforge"}
    assert imports.levels(edges)  # raises CycleError


def test_no_class_name_is_used_twice():
    names = [
        node.name
        for path in imports.modules().values()
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_docstrings_say_what_something_is_or_does():
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    odd = [
        f"{path.relative_to(ROOT.parent)}:{node.lineno}"
        for path in imports.modules().values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, kinds)
        and re.match(
            r"(Of|What|How|Whom?|Whose|Whether) ", ast.get_docstring(node) or ""
        )
    ]
    assert odd == []


def loaded(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )


HEAVY = """ray torch transformers datasets pyarrow polars numpy scipy openai aiohttp pydantic yaml
rich jinja2 openvino_genai faker sklearn matplotlib huggingface_hub krippendorff""".split()
CLIENTS = """ray torch transformers datasets openai aiohttp openvino_genai sklearn matplotlib
huggingface_hub scipy.stats""".split()
"What a scripted run in this process never needs."


@pytest.mark.parametrize(
    "statement",
    [
        "import simforge",
        "from simforge.cli.main import _parser; _parser()",
        "from simforge.cli.main import main; main(['show', 'pipelines'])",
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(statement):
    assert loaded(statement) & {*HEAVY} == set()


def test_a_scripted_run_loads_no_ray_no_client_and_no_engine(tmp_path):
    arguments = ["generate", "psoup", "--personas", "4", "--model", "scripted:"]
    arguments += ["--out", str(tmp_path / "out")]
    names = loaded(
        f"from simforge.cli.main import main; assert main({arguments!r}) == 0"
    )
    assert "simforge.run.executors.local" in names
    assert names & {*CLIENTS} == set()


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["generate"],
        ["personas"],
        ["personas", "sample"],
        ["personas", "show"],
        ["show"],
        ["copy"],
        ["estimate"],
        ["retry"],
        ["ledger"],
        ["personas", "check"],
        ["personas", "grow"],
        ["push"],
        ["validate"],
        ["export"],
        ["versions"],
        ["pull"],
        ["diff"],
    ],
)
def test_every_command_explains_itself(command):
    done = simforge(*command, "--help")
    assert (done.status, done.out.startswith("usage: simforge")) == (0, True)


def test_every_error_can_cross_processes():
    made = {
        errors.RecipeError: errors.RecipeError(
            [errors.Mistake("f", 1, "a.b", "is wrong")]
        ),
        errors.NotFound: errors.NotFound("pack", "evryday", ["everyday"], "See there."),
    }
    pending = [errors.SimForgeError]
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        problem = made.get(kind) or kind("a sentence")
        again = pickle.loads(pickle.dumps(problem))
        assert (type(again), str(again), again.exit_status) == (
            kind,
            str(problem),
            problem.exit_status,
        )


def test_the_tree_of_errors_is_the_one_that_is_drawn():
    drawn = re.findall(r"([A-Z]\w+)(?:  |\n)", errors.__doc__)
    kinds, pending = set(), [errors.SimForgeError]
    while pending:
        kind = pending.pop()
        kinds.add(kind.__name__)
        pending += kind.__subclasses__()
    assert kinds <= set(drawn)


@pytest.mark.parametrize(
    ("text", "number"),
    [("500", 500), ("10k", 10_000), ("1.5M", 1_500_000), ("2K", 2_000)],
)
def test_numbers_of_people_are_written_as_people_write_them(text, number):
    assert parse_count(text) == number


@pytest.mark.parametrize("kind", catalog.SUFFIXES)
def test_show_lists_and_prints_the_catalogue(kind):
    names = simforge("show", kind).out.split()
    assert names == [f"{kind}/{name}" for name in catalog.names(kind)]
    assert (
        simforge("show", names[0]).out
        == catalog.entry(kind, catalog.names(kind)[0]).text
    )


def test_a_copied_pack_can_be_changed_and_used(tmp_path):
    assert simforge("copy", "personas/everyday", cwd=tmp_path).status == 0
    path = tmp_path / "everyday.yaml"
    path.write_text(
        path.read_text().replace("one_of: [tired, cheerful,", "one_of: [bored,")
    )
    done = simforge("personas", "sample", "./everyday.yaml", "-n", 40, cwd=tmp_path)
    assert (done.status, len(done.out.splitlines()), "bored today" in done.out) == (
        0,
        40,
        True,
    )
    assert simforge("copy", "personas/everyday", cwd=tmp_path).status == 2


def test_people_are_sampled_into_a_file(tmp_path):
    done = simforge(
        "personas", "sample", "everyday", "-n", "2k", "--out", tmp_path / "cast.parquet"
    )
    assert (done.status, done.out) == (
        0,
        f"2000 people are in {tmp_path / 'cast.parquet'}\n",
    )


def test_only_one_module_reads_tables_since_readers_take_paths_for_patterns():
    calls = re.compile(
        r"\b(?:scan_parquet|read_parquet|read_csv|scan_csv|read_ndjson|scan_ndjson)\("
        r"|\bpl\.sql_expr\("
    )
    found = [
        f"{name}: {match[0]}"
        for name, path in imports.modules().items()
        for match in calls.finditer(path.read_text(encoding="utf-8"))
        if name != "simforge.catalog.records"
        and "records." not in _line_of(path, match)
    ]
    assert found == []


def _line_of(path: Path, match: re.Match[str]) -> str:
    text = path.read_text(encoding="utf-8")
    start = text.rfind("\n", 0, match.start()) + 1
    return text[start : match.end()]


def test_commands_print_through_one_function_and_python_is_started_in_isolation():
    for name, path in imports.modules().items():
        text = path.read_text(encoding="utf-8")
        if name.startswith("simforge.cli.") and name != "simforge.cli.output":
            assert not re.search(r"(?<![\w.])print\(", text), name
        if name != "simforge.install":
            assert "sys.executable" not in text, name


SCRIPTS = [
    *(CHECKOUT / "tests").glob("*/run"),
    CHECKOUT / "tests" / "all",
    CHECKOUT / ".ci" / "run",
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.parent.name))
def test_every_script_beside_the_tests_parses_and_names_commands_that_exist(script):
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    text = script.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"uv run simforge ([^\n>|]+)", text):
        words = [word for word in shlex.split(line) if word != '"$@"']
        _parser().parse_args([re.sub(r"\$\{?\w+\}?", "x", word) for word in words])


def test_one_command_runs_every_script_and_benchmark():
    text = (CHECKOUT / "tests" / "all").read_text(encoding="utf-8")
    scripts = [path.parent.name for path in (CHECKOUT / "tests").glob("*/run")]
    benchmarks = [path.name for path in (CHECKOUT / "tests" / "bench").glob("*.py")]
    assert [name for name in (*scripts, *benchmarks) if name not in text] == []


def test_the_tests_of_served_models_can_be_collected_without_the_options_of_the_others():
    command = [*"-p no:xdist -o addopts=--strict-markers --collect-only".split()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *command, "tests/served"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 5), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["genrate"], "did you mean 'generate'"),
        (["personas", "smaple"], "did you mean 'sample'"),
        (["run"], "did you mean 'generate'"),
        (["generate", "-o", "x"], "did you mean --out"),
        (["generate", "--modle", "x"], "did you mean '--model'"),
        (["generate", "--out", "x", "--executor", "lokal"], "did you mean 'local'"),
    ],
)
def test_a_wrong_command_or_option_is_answered_with_the_nearest(words, hint):
    done = simforge(*words)
    assert done.status == 2 and hint in done.err, done.err
    assert len(done.err.strip().splitlines()) == 1
