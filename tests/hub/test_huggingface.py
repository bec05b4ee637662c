"""Versions on the Hub, and loading: the real clients against a Hub of the tests' own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import StubHub, simforge

import simforge as package
from simforge.dataset import validation
from simforge.errors import NotFound, SourceError, UsageError
from simforge.hub.huggingface import is_version
from simforge.hub.releases import Version
from simforge.identity import file_sha256

REPO = "stub/soup"


def state(hub: StubHub) -> dict[str, Any]:
    """What the Hub holds."""
    with urllib.request.urlopen(
        hub.env["HF_ENDPOINT"] + "/_stub/state", timeout=10
    ) as answer:
        return json.load(answer)


def in_python(hub: StubHub, code: str) -> str:
    """Run code in a process of its own that sees the Hub."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **hub.env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two versions of a dataset: the second has two people more."""
    root = tmp_path_factory.mktemp("versions")
    for name, people in (("one", 12), ("two", 14)):
        done = simforge(
            "generate",
            "psoup",
            "--personas",
            people,
            "--out",
            root / name,
            "--model",
            "scripted:",
        )
        assert done.status == 0, done.err
    return root / "one", root / "two"


def test_a_push_is_one_commit_and_one_tag_and_the_same_bytes_are_none(hub, runs):
    first = simforge("push", runs[0], REPO, "--version", "1.0.0", env=hub.env)
    assert first.status == 0, first.err
    again = simforge("push", runs[0], REPO, "--version", "1.0.0", env=hub.env)
    assert again.status == 0 and "was there already, byte for byte" in again.out
    repo = state(hub)["repos"][REPO]
    assert (
        repo["private"] and [*repo["tags"]] == ["v1.0.0"] and len(repo["commits"]) == 2
    )
    (commit,) = [one for one in repo["commits"].values() if one["parent"]]
    assert commit["title"] == "Version 1.0.0" and {"README.md", "manifest.json"} < {
        *commit["files"]
    }
    assert not any(name.startswith("work") for name in commit["files"])
    later = simforge(
        "push", runs[0], REPO, "--version", "1.0.1", env=hub.env
    )  # the same data under its own card
    assert later.status == 0 and len(state(hub)["repos"][REPO]["commits"]) == 3
    listed = simforge("versions", REPO, env=hub.env).out.splitlines()
    assert [line.split()[0] for line in listed] == ["1.0.0", "1.0.1"]


def test_a_tag_does_not_move(hub, runs):
    assert (
        simforge("push", runs[0], REPO, "--version", "1.0.0", env=hub.env).status == 0
    )
    moved = simforge("push", runs[1], REPO, "--version", "1.0.0", env=hub.env)
    assert moved.status == 2 and "tags do not move: choose a higher number" in moved.err
    assert len(state(hub)["repos"][REPO]["commits"]) == 2


def test_the_second_version_says_what_changed_and_both_load_by_their_tags(
    hub, runs, tmp_path
):
    for run, version in zip(runs, ("1.0.0", "1.1.0"), strict=True):
        done = simforge("push", run, REPO, "--version", version, env=hub.env)
        assert done.status == 0, done.err
    assert "people: 12 -> 14" in done.out
    pulled = simforge(
        "pull", f"{REPO}@latest", "--out", tmp_path / "pulled", env=hub.env
    )
    assert pulled.status == 0, pulled.err
    card = (tmp_path / "pulled" / "README.md").read_text()
    assert (
        "1.1.0 against 1.0.0:" in card
        and "- people: 12 -> 14" in card
        and 'revision="v1.1.0"' in card
    )
    for path in sorted((runs[1] / "data").rglob("*.parquet")):
        assert file_sha256(path) == file_sha256(
            tmp_path / "pulled" / path.relative_to(runs[1])
        )
    code = f"""
import datasets, simforge
for tag in ("v1.0.0", "v1.1.0"):
    print(datasets.load_dataset("{REPO}", revision=tag, split="train").num_rows)
print(simforge.load("{REPO}@1.0.0", split=None).num_rows)
print(simforge.scan("{REPO}@1.1.0", "personas").collect().height)
"""
    counts = [
        json.loads((run / "manifest.json").read_text())["counts"]["preferences"]
        for run in runs
    ]
    said = in_python(hub, code).split()
    assert said == [
        str(counts[0]["train"]),
        str(counts[1]["train"]),
        str(sum(counts[0].values())),
        "14",
    ]
    told = simforge("diff", f"{REPO}@1.0.0", f"{REPO}@1.1.0", env=hub.env)
    assert (
        told.status == 0 and "people: 12 in both, 0 only in A, 2 only in B" in told.out
    )


@pytest.mark.parametrize(
    "faults",
    [
        ("--fail", "0.2"),
        ("--cut-uploads", "2"),
        ("--fail", "0.1", "--cut-uploads", "2"),
    ],
)
def test_faults_and_cuts_leave_one_commit_a_version(hub_with, runs, faults):
    hub = hub_with(*faults)
    for run, version in zip(runs, ("0.1.0", "0.2.0"), strict=True):
        for _ in range(3):  # a push that was cut is pushed again
            done = simforge("push", run, REPO, "--version", version, env=hub.env)
            if done.status == 0:
                break
        assert done.status == 0, done.err
    repo = state(hub)["repos"][REPO]
    titles = [one["title"] for one in repo["commits"].values() if one["parent"]]
    assert sorted(titles) == ["Version 0.1.0", "Version 0.2.0"] and [*repo["tags"]] == [
        "v0.1.0",
        "v0.2.0",
    ]


@pytest.mark.parametrize(
    ("status", "message", "sentence"),
    [
        ("403", "Private storage limit reached for stub", "storage limit reached"),
        (
            "403",
            "Direct commits are disabled: open a pull request (create_pr=1)",
            "push to a repository of your own",
        ),
        ("403", "you may not write here", "a token with write access"),
        ("429", "Too many commits in the last hour", "try again in 15 minutes"),
    ],
)
def test_a_refusal_of_the_hub_is_told_with_what_to_do(
    hub_with, runs, status, message, sentence
):
    hub = hub_with(
        *("--refuse", status, "--refuse-times", "99", "--refuse-with", message),
        *("--retry-after", "900"),
    )
    done = simforge("push", runs[0], REPO, "--version", "1.0.0", env=hub.env)
    assert done.status == 2 and sentence in done.err, done.err
    assert ("hf auth login" in done.err) == ("write" in message)


def test_a_short_pause_that_the_hub_asks_for_is_kept(hub_with, runs):
    hub = hub_with(
        *("--refuse", "429", "--refuse-times", "2", "--refuse-with", "slowly"),
        *("--retry-after", "1"),
    )
    done = simforge("push", runs[0], REPO, "--version", "1.0.0", env=hub.env)
    assert done.status == 0, done.err
    assert [*state(hub)["repos"][REPO]["tags"]] == ["v1.0.0"]


def test_a_version_with_three_pairs_turned_is_told_apart_and_both_are_there_by_their_tags(
    hub_with, runs, tmp_path
):
    """The whole way of a dataset, over a bad line."""
    hub = hub_with("--fail", "0.1", "--cut-uploads", "2")
    other = tmp_path / "other"
    shutil.copytree(runs[0], other, ignore=shutil.ignore_patterns("work"))
    path = next((other / "data/preferences").glob("train-*.parquet"))
    pairs = pl.read_parquet(path)
    turned = (
        pairs.head(3)
        .rename({"chosen": "rejected", "rejected": "chosen"})
        .select(pairs.columns)
    )
    table = pl.concat([turned, pairs.slice(3)]).to_arrow().cast(pq.read_schema(path))
    pq.write_table(table.replace_schema_metadata(pq.read_schema(path).metadata), path)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["files"][path.relative_to(other).as_posix()] |= {
        "sha256": file_sha256(path),
        "bytes": path.stat().st_size,
    }
    (other / "manifest.json").write_text(json.dumps(manifest))
    assert simforge("validate", other).status == 0
    for run, version in ((runs[0], "1.0.0"), (other, "1.0.1")):
        done = next(
            done for _ in range(5)
            if (done := simforge("push", run, REPO, "--version", version, env=hub.env)).status == 0
        )  # fmt: skip
    assert "files: 1 new or changed, 0 removed" in done.out
    repo = state(hub)["repos"][REPO]
    titles = [one["title"] for one in repo["commits"].values() if one["parent"]]
    assert sorted(titles) == ["Version 1.0.0", "Version 1.0.1"] and [*repo["tags"]] == [
        "v1.0.0",
        "v1.0.1",
    ]
    hub.calm()  # the `datasets` client that reads below does not ask again after a 503
    told = simforge("diff", f"{REPO}@1.0.0", f"{REPO}@1.0.1", env=hub.env)
    assert (
        "in both, 3 of them with chosen and rejected swapped; 0 only in A, 0 only in B"
        in told.out
    ), told.err
    assert (
        simforge(
            "pull", f"{REPO}@1.0.1", "--out", tmp_path / "pulled", env=hub.env
        ).status
        == 0
    )
    assert simforge("validate", tmp_path / "pulled").status == 0
    code = f"""
import datasets, json
for tag in ("v1.0.0", "v1.0.1"):
    rows = datasets.load_dataset("{REPO}", revision=tag, split="train")
    print(json.dumps([one[0]["content"] for one in rows["chosen"]][:4]))
"""
    before, after = (
        json.loads(line)
        for line in in_python(hub, code).splitlines()
        if line.startswith("[")
    )
    assert [a != b for a, b in zip(before, after, strict=True)] == [
        True,
        True,
        True,
        False,
    ]


def test_a_lost_race_is_won_on_top_of_the_other_commit(hub_with, runs):
    """Somebody else commits a note while the files of a push are on their way."""
    hub = hub_with("--race", "1")
    done = simforge("push", runs[0], REPO, "--version", "1.0.0", env=hub.env)
    assert done.status == 0, done.err
    repo = state(hub)["repos"][REPO]
    titles = [one["title"] for one in repo["commits"].values() if one["parent"]]
    assert sorted(titles) == ["A note", "Version 1.0.0"]
    assert "NOTES.md" in repo["commits"][repo["tags"]["v1.0.0"]]["files"]


def test_what_a_pack_calls_sensitive_stays_at_home_unless_it_is_named(hub, tmp_path):
    run = tmp_path / "run"
    sets = ("--set", "cast.pack=acs")
    done = simforge(
        "generate",
        "psoup",
        "--personas",
        6,
        "--out",
        run,
        "--model",
        "scripted:",
        *sets,
    )
    assert done.status == 0, done.err
    assert simforge("audit", run, "--scorers", "text").status == 0
    told = simforge("push", run, REPO, "--version", "1.0.0", env=hub.env)
    assert told.status == 0 and "Left out as sensitive:" in told.out, told.err
    assert (
        simforge(
            "push", run, REPO, "--version", "1.1.0", "--publish-traits", env=hub.env
        ).status
        == 0
    )
    for version in ("1.0.0", "1.1.0"):
        done = simforge(
            "pull", f"{REPO}@{version}", "--out", tmp_path / version, env=hub.env
        )
        assert done.status == 0, done.err
    kept, whole = (
        pl.read_parquet(tmp_path / version / "data/personas/*.parquet")
        for version in ("1.0.0", "1.1.0")
    )
    missing = {*whole.columns} - {*kept.columns}
    assert len(missing) > 3 and {*whole.columns} == {
        *pl.read_parquet(run / "data/personas/*.parquet").columns
    }
    assert all(
        f"`{column}`" in (tmp_path / "1.0.0/README.md").read_text()
        for column in missing
    )
    audits = [
        json.loads((tmp_path / version / "audit.json").read_text())
        for version in ("1.0.0", "1.1.0")
    ]
    told_of = [{*one["cast"]["marginals"]} for one in audits]
    assert not told_of[0] & missing and told_of[1] & missing and told_of[0] < told_of[1]
    assert [
        (tmp_path / version / "report.html").is_file() for version in ("1.0.0", "1.1.0")
    ] == [False, True]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("push", "nowhere", REPO, "--version", "1.0.0"),
            "nowhere is not a finished run",
        ),
        (
            ("push", "RUN", REPO, "--version", "1.0"),
            "a version has three numbers, such as 1.2.0, and not '1.0'",
        ),
        (
            ("push", "RUN", "soup", "--version", "1.0.0"),
            "is written OWNER/NAME, not 'soup'",
        ),
        (
            ("push", "RUN", "other/soup", "--version", "1.0.0"),
            "the Hub refuses other/soup (403",
        ),
        (("versions", "stub/none"), "the Hub has no dataset stub/none"),
        (("pull", "stub/none", "--out", "x"), "is written OWNER/NAME@1.2.0"),
        (("pull", f"{REPO}@9.0.0", "--out", "x"), "there is no version named '9.0.0'"),
        (
            ("diff", "nowhere", "RUN"),
            "nowhere is not a dataset: there is no such folder",
        ),
    ],
)
def test_a_mistake_with_the_hub_is_a_sentence(
    hub_with, runs, tmp_path, words, sentence
):
    hub = hub_with("--owner", "stub")
    assert (
        simforge("push", runs[0], REPO, "--version", "1.0.0", env=hub.env).status == 0
    )
    done = simforge(
        *(runs[0] if word == "RUN" else word for word in words),
        cwd=tmp_path,
        env=hub.env,
    )
    assert done.status == 2 and sentence in done.err and "Traceback" not in done.err, (
        done.err
    )


def test_without_a_token_or_a_hub_the_user_is_told_what_to_do(hub, runs):
    refused = simforge(
        "push",
        runs[0],
        REPO,
        "--version",
        "1.0.0",
        env={**hub.env, "HF_TOKEN": "wrong"},
    )
    assert (
        refused.status == 2
        and "log in with `hf auth login`, or set HF_TOKEN" in refused.err
    )


def spoilt(runs: tuple[Path, Path], to: Path, table: str, change: Any) -> Path:
    """A copy of a run with another table, of which the manifest knows."""
    shutil.copytree(runs[0], to, ignore=shutil.ignore_patterns("work"))
    path = sorted((to / "data" / table).glob("train-*.parquet"))[0]
    schema = pq.read_schema(path)
    frame = change(pl.read_parquet(path)).to_arrow()
    frame = (
        frame.cast(
            pa.schema(
                [
                    schema.field(name)
                    for name in frame.schema.names
                    if name in schema.names
                ]
            )
        )
        if {*frame.schema.names} <= {*schema.names}
        else frame
    )
    pq.write_table(frame.replace_schema_metadata(schema.metadata), path)
    manifest = json.loads((to / "manifest.json").read_text())
    about = {
        "sha256": file_sha256(path),
        "bytes": path.stat().st_size,
        "rows": frame.num_rows,
    }
    manifest["files"][path.relative_to(to).as_posix()] = about
    (to / "manifest.json").write_text(json.dumps(manifest))
    return to


@pytest.mark.parametrize(
    ("table", "change", "sentence"),
    [
        (
            "personas",
            lambda t: t.tail(t.height - 1),
            "preferences.persona_id: 1 values are in no row of personas",
        ),
        (
            "candidates",
            lambda t: pl.concat([t, t.head(2)]),
            "candidates: 2 ids occur in more than one row",
        ),
        (
            "preferences",
            lambda t: t.with_columns(rejected="chosen"),
            "pairs have the same chosen and rejected",
        ),
        (
            "preferences",
            lambda t: t.with_columns(label=pl.lit("taste")),
            "preferences.label: 'taste' is none of: construction",
        ),
        ("preferences", lambda t: t.drop("margin"), "the column 'margin' is missing"),
        (
            "preferences",
            lambda t: t.rename({"margin": "margins"}),
            "no column 'margins' in preferences; did you mean 'margin'",
        ),
        ("dialogues", lambda t: t.with_columns(prompt_id=pl.lit(None, pl.String)), ""),
    ],
)
def test_what_is_wrong_with_a_dataset_is_listed(
    runs, tmp_path, table, change, sentence
):
    found = validation.problems(spoilt(runs, tmp_path / "run", table, change))
    assert any(sentence in one for one in found) if sentence else found == [], found


def test_a_sound_dataset_is_called_so_and_a_spoilt_file_is_named(runs, tmp_path):
    for run in runs:
        done = simforge("validate", run)
        assert (done.status, done.out.split()[-1]) == (0, "valid."), done.out
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    path = next((copy / "data/turns").glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-1])
    (copy / "data/turns/more.parquet").write_bytes(b"")
    done = simforge("validate", copy)
    assert (
        done.status == 1
        and "another sha256" in done.out
        and "more.parquet is not in the manifest" in done.out
    )
    assert simforge("validate", tmp_path).status == 2


def test_people_of_two_splits_are_found(runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs[1], copy, ignore=shutil.ignore_patterns("work"))
    manifest = json.loads((copy / "manifest.json").read_text())
    for table in ("preferences", "dialogues"):
        path = copy / f"data/{table}/train-00000-of-00001.parquet"
        other = path.with_name("validation-00000-of-00001.parquet")
        other.unlink(missing_ok=True)
        pq.write_table(pq.read_table(path).slice(0, 4), other)
        about = {"sha256": file_sha256(other), "bytes": other.stat().st_size, "rows": 4}
        manifest["files"][other.relative_to(copy).as_posix()] = about
    (copy / "manifest.json").write_text(json.dumps(manifest))
    found = validation.problems(copy)
    assert any(
        "preferences:" in one and "people of validation are in train too" in one
        for one in found
    )
    assert any("preferences: 4 ids occur in more than one row" in one for one in found)


def test_versions_are_ordered_by_their_numbers():
    assert (
        max(Version.parse(one) for one in ("1.9.0", "1.10.0", "0.99.9")).tag
        == "v1.10.0"
    )
    assert (
        is_version("a/b@1.0.0")
        and is_version("a/b@latest")
        and not is_version("a/b")
        and not is_version("s3://a@b/c")
    )
    with pytest.raises(UsageError, match=r"three numbers"):
        Version.parse("1.02.0")


def test_diff_counts_labels_that_changed_sides(runs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(runs[0], other, ignore=shutil.ignore_patterns("work"))
    path = sorted((other / "data/preferences").glob("train-*.parquet"))[0]
    pairs = pl.read_parquet(path)
    turned = (
        pairs.head(3)
        .rename({"chosen": "rejected", "rejected": "chosen"})
        .select(pairs.columns)
    )
    pl.concat([turned, pairs.slice(3, pairs.height - 4)]).write_parquet(path)
    told = simforge("diff", runs[0], other)
    assert told.status == 0, told.err
    everything = sum(
        json.loads((runs[0] / "manifest.json").read_text())["counts"][
            "preferences"
        ].values()
    )
    assert (
        f"pairs: {everything - 1} in both, 3 of them with chosen and rejected swapped; 1 only in "
        "A, 0 only in B"
    )


def test_tables_are_scanned_and_loaded_from_a_folder_and_a_url(runs):
    everything = package.scan(runs[0]).collect()
    assert everything.height == sum(
        json.loads((runs[0] / "manifest.json").read_text())["counts"][
            "preferences"
        ].values()
    )
    assert package.scan(f"file://{runs[0]}", "personas").collect().height == 12
    concise = package.load(
        runs[0], split=None, where="dimension = 'style' AND turn = 0"
    )
    assert {*concise["dimension"]} == {
        "style"
    } and concise.num_rows == everything.filter(dimension="style").height
    assert concise[0]["chosen"][0]["role"] == "assistant"


@pytest.mark.parametrize(
    ("call", "kind", "sentence"),
    [
        (
            lambda run: package.scan(run, "preference"),
            NotFound,
            "did you mean 'preferences'",
        ),
        (
            lambda run: package.scan(run, split="test"),
            NotFound,
            "there is no split named 'test'",
        ),
        (lambda run: package.scan(run / "work"), SourceError, "is not a dataset"),
        (
            lambda run: package.load(run, where="dimensoin = 'x'"),
            UsageError,
            "the columns are: id, prompt",
        ),
        (lambda run: package.scan("nowhere://x"), SourceError, "cannot be read"),
    ],
)
def test_what_cannot_be_loaded_is_a_sentence(runs, call, kind, sentence):
    with pytest.raises(kind, match=sentence):
        call(runs[0])
