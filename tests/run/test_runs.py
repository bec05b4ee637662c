"""Whole runs: the same bytes whatever made them, nothing lost at a kill, and data that loads as
it is."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import simforge

from simforge.dataset import tables
from simforge.identity import file_sha256
from simforge.run.executors.base import WorkerPool


def digests(out: Path) -> dict[str, str]:
    """The digest of every Parquet file of a run."""
    return {
        path.relative_to(out).as_posix(): file_sha256(path)
        for path in sorted(out.rglob("*.parquet"))
    }


def generate(
    out: Path, *arguments: object, people: int = 12, env: dict[str, str] | None = None
):
    done = simforge(
        "generate",
        "--personas",
        people,
        "--model",
        "scripted:",
        "--out",
        out,
        *arguments,
        env=env,
    )
    assert done.status == 0, done.err
    return done


def test_a_second_run_makes_the_same_bytes(scripted_run, tmp_path):
    generate(tmp_path / "again")
    assert digests(tmp_path / "again") == digests(scripted_run)
    assert (tmp_path / "again" / "manifest.json").read_bytes() == (
        scripted_run / "manifest.json"
    ).read_bytes()


def test_workers_and_concurrency_do_not_show_in_the_bytes(scripted_run, tmp_path):
    generate(tmp_path / "four", "--workers", 4, "--concurrency", 2)
    assert digests(tmp_path / "four") == digests(scripted_run)


def test_ray_makes_the_same_bytes_with_one_worker_and_with_four(scripted_run, tmp_path):
    for workers in (1, 4):
        generate(tmp_path / str(workers), "--executor", "ray", "--workers", workers)
        assert digests(tmp_path / str(workers)) == digests(scripted_run)


def test_another_seed_makes_other_people(scripted_run, tmp_path):
    generate(tmp_path / "other", "--seed", 1)
    assert digests(tmp_path / "other") != digests(scripted_run)


@pytest.mark.parametrize("die_at", [3, 40, 90])
def test_a_killed_run_goes_on_without_asking_again_and_ends_the_same(
    scripted_run, tmp_path, die_at
):
    out, calls = tmp_path / "out", tmp_path / "calls"
    env = {"CALLS": str(calls), "DIE_AT": str(die_at)}
    arguments = ("generate", "--personas", 12, "--out", out, "--concurrency", 4)
    died = simforge(*arguments, "--model", "scripted:scripts:dies_midway", env=env)
    assert died.status == 9
    assert not (out / "manifest.json").exists()
    done = simforge(
        *arguments,
        "--model",
        "scripted:scripts:dies_midway",
        env={**env, "DIE_AT": "-1"},
    )
    assert done.status == 0, done.err
    asked = calls.read_text().splitlines()
    assert len(asked) - len(set(asked)) <= 1  # the one that was under way
    mine, other = (
        pl.read_parquet(run / "data/preferences/*.parquet")
        for run in (out, scripted_run)
    )
    models = ["chosen_model", "rejected_model"]
    assert mine.drop(models).equals(other.drop(models))


def test_ctrl_c_keeps_what_was_answered_says_how_to_go_on_and_the_command_goes_on(
    tmp_path,
):
    out = tmp_path / "out"
    command = [
        "generate",
        "psoup",
        "--personas",
        "6000",
        "--model",
        "scripted:",
        "--out",
        str(out),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "simforge", *command], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(out.glob("work/parts/*.arrow")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert (
        f"simforge generate psoup --personas 6000 --model scripted: --out {out}" in said
    )
    assert "Traceback" not in said
    kept = len(list(out.glob("work/parts/*.arrow")))
    assert kept
    assert not (out / "manifest.json").exists()
    # It goes on from what is there: the kept shards are not played again.
    marks = {path: path.stat().st_mtime_ns for path in out.glob("work/parts/*.arrow")}
    process = subprocess.Popen(
        [sys.executable, "-m", "simforge", *command], stderr=subprocess.PIPE, text=True
    )
    while (
        len(list(out.glob("work/parts/*.arrow"))) <= kept
        and time.monotonic() < deadline + 60
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert "resuming:" in process.communicate(timeout=30)[1]
    assert {path: path.stat().st_mtime_ns for path in marks} == marks


def test_being_told_to_end_is_heard_at_any_moment(tmp_path):
    command = (
        "generate",
        "psoup",
        "--personas",
        2000,
        "--model",
        "scripted:scripts:stopped_in_a_finalizer",
    )
    done = simforge(
        *command,
        "--out",
        tmp_path / "out",
        env={"CALLS": str(tmp_path / "calls")},
        process=True,  # how a process hears signals depends on what has run in it before
    )
    assert (done.status, "To continue, run" in done.err) == (130, True)
    assert "Traceback" not in done.err


def test_a_finished_run_is_not_played_again(scripted_run):
    before = (scripted_run / "manifest.json").stat().st_mtime_ns
    done = generate(scripted_run)
    assert "preference pairs" in done.out
    assert (scripted_run / "manifest.json").stat().st_mtime_ns == before


def test_a_folder_of_another_run_is_refused_with_both_digests(scripted_run):
    done = simforge(
        "generate",
        "--personas",
        13,
        "--seed",
        2,
        "--model",
        "scripted:",
        "--out",
        scripted_run,
    )
    known = json.loads((scripted_run / "manifest.json").read_text())["digest"]
    assert done.status == 2
    assert known in done.err
    assert "(differences: personas, seed)" in done.err


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    done = simforge(
        "generate", "--personas", 2, "--model", "scripted:", "--out", tmp_path
    )
    assert (done.status, "is not a SimForge run" in done.err) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    done = simforge(
        "generate",
        "--personas",
        2,
        "--model",
        "scripted:",
        "--out",
        tmp_path / "file" / "out",
    )
    assert (done.status, "cannot be written: Not a directory" in done.err) == (2, True)
    assert "Traceback" not in done.err


def test_a_full_disk_is_a_sentence_and_leaves_nothing_that_a_resume_would_trust(
    scripted_run, tmp_path
):
    # A limit on file size stands in for the full disk: every write beyond it fails in the same
    # place.
    out = tmp_path / "out"
    command = (
        f"{sys.executable} -m simforge generate --personas 12 --model scripted: --out {out} "
        "--concurrency 1"
    )
    full = subprocess.run(
        ["bash", "-c", f"ulimit -f 16; trap '' XFSZ; {command}"],
        capture_output=True,
        text=True,
    )
    assert full.returncode == 2, full.stderr
    assert "File too large" in full.stderr
    assert "Traceback" not in full.stderr
    assert not (out / "manifest.json").exists()
    generate(out, "--concurrency", 1)
    assert digests(out) == digests(scripted_run)


def test_lost_dialogues_are_discards_the_run_ends_with_3_and_the_next_command_plays_them(
    tmp_path,
):
    out, broken = tmp_path / "out", tmp_path / "broken"
    broken.touch()
    arguments = (
        "generate",
        "--personas",
        12,
        "--out",
        out,
        "--model",
        "scripted:scripts:fails_for_some",
    )
    lost = simforge(*arguments, env={"BROKEN": str(broken)})
    assert (
        lost.status,
        "dialogues were lost" in lost.err,
        "Traceback" in lost.err,
    ) == (3, True, False)
    assert not (out / "manifest.json").exists()
    broken.unlink()
    done = simforge(*arguments, env={"BROKEN": str(broken)})
    assert done.status == 0, done.err
    assert "model_error" not in done.out


def test_lost_dialogues_within_the_allowance_are_written_as_discards(tmp_path):
    out, broken = tmp_path / "out", tmp_path / "broken"
    broken.touch()
    done = simforge(
        "generate", "--personas", 12, "--out", out, "--model", "scripted:scripts:fails_for_some", "--max-failures", 1,
        env={"BROKEN": str(broken)},
    )  # fmt: skip
    assert done.status == 0, done.err
    discards = pl.read_parquet(out / "data/discards/*.parquet").filter(
        pl.col("reason") == "model_error"
    )
    manifest = json.loads((out / "manifest.json").read_text())
    assert discards.height == manifest["dialogues"]["failed"] > 0
    assert set(discards["detail"]) == {"the line was cut"}


def test_a_changed_judge_pays_for_judging_only(tmp_path):
    calls = tmp_path / "calls"
    env = {"CALLS": str(calls)}
    base = ("--personas", 8, "--model", "scripted:scripts:counting")
    first = simforge(
        "generate", *base, "--out", tmp_path / "a", "--set", "judge.share=0", env=env
    )
    assert first.status == 0, first.err
    paid = len(calls.read_text().splitlines())
    again = simforge(
        "generate",
        *base,
        "--out",
        tmp_path / "b",
        "--set",
        "judge.share=1",
        "--reuse",
        tmp_path / "a",
        env=env,
    )
    assert again.status == 0, again.err
    judged = pl.read_parquet(tmp_path / "b/data/judgments/*.parquet").filter(
        pl.col("method") == "model"
    )
    assert len(calls.read_text().splitlines()) - paid == 2 * judged.height > 0


def test_opposite_people_share_pairs_with_opposite_labels(tmp_path):
    generate(
        tmp_path / "o", "--set", "judge=null", "psoup", "--set", "splits={}", people=10
    )
    pairs = pl.read_parquet(tmp_path / "o/data/preferences/*.parquet").with_columns(
        question=pl.col("prompt").list.first().struct.field("content"),
        good=pl.col("chosen").list.first().struct.field("content"),
        bad=pl.col("rejected").list.first().struct.field("content"),
    )
    flipped = pairs.join(
        pairs, left_on=["question", "good", "bad"], right_on=["question", "bad", "good"]
    )
    assert flipped.height == pairs.height > 80


def test_datasets_and_polars_read_every_table(scripted_run):
    manifest = json.loads((scripted_run / "manifest.json").read_text())
    pairs = datasets.load_dataset(str(scripted_run))["train"]
    assert pairs.num_rows == manifest["counts"]["preferences"]["train"] > 0
    for table in tables.TABLES:
        read = datasets.load_dataset(str(scripted_run), table)["train"].num_rows
        assert (
            read
            == pl.read_parquet(scripted_run / f"data/{table}/*.parquet").height
            == manifest["counts"][table]["train"]
        )


def test_a_run_of_the_same_folder_name_is_not_read_from_anothers_cache(
    scripted_run, tmp_path
):
    datasets.load_dataset(str(scripted_run))
    generate(tmp_path / scripted_run.name, "--seed", 5)
    assert datasets.load_dataset(str(tmp_path / scripted_run.name))[
        "train"
    ].to_list() == (
        pl.read_parquet(
            tmp_path / scripted_run.name / "data/preferences/*.parquet"
        ).to_dicts()
    )


def test_every_pair_is_two_different_answers_to_one_prompt_in_trls_form(scripted_run):
    for row in datasets.load_dataset(str(scripted_run))["train"]:
        assert [message["role"] for message in row["prompt"]] == [
            "user",
            "assistant",
        ] * row["turn"] + ["user"]
        assert [message["role"] for message in row["chosen"] + row["rejected"]] == [
            "assistant"
        ] * 2
        assert (
            row["chosen"][0]["content"].strip() != row["rejected"][0]["content"].strip()
        )


def test_rows_refer_to_rows_that_exist_and_texts_are_the_candidates_own(scripted_run):
    read = {
        name: pl.read_parquet(scripted_run / f"data/{name}/*.parquet")
        for name in tables.TABLES
    }
    texts = dict(zip(read["candidates"]["id"], read["candidates"]["text"], strict=True))
    for row in read["preferences"].to_dicts():
        assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == (
            texts[row["chosen_id"]],
            texts[row["rejected_id"]],
        )
    people, dialogues = set(read["personas"]["id"]), set(read["dialogues"]["id"])
    assert set(read["preferences"]["persona_id"]) <= people
    assert len(people) == 12
    for name in ("preferences", "candidates", "judgments", "discards"):
        assert set(read[name]["dialogue_id"]) <= dialogues


def test_the_files_have_the_declared_schemas_and_the_manifest_their_digests(
    scripted_run,
):
    manifest = json.loads((scripted_run / "manifest.json").read_text())
    for name, schema in tables.SCHEMAS.items():
        file = pq.ParquetFile(
            scripted_run / f"data/{name}/train-00000-of-00001.parquet"
        )
        assert file.schema_arrow.equals(schema)
        assert (
            file.schema_arrow.metadata[b"simforge.schema_version"]
            == tables.SCHEMA_VERSION.encode()
        )
    assert {
        path: about["sha256"] for path, about in manifest["files"].items()
    } == digests(scripted_run)


def test_the_card_names_models_licence_and_every_discard(scripted_run):
    card = (scripted_run / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert {config["config_name"] for config in front["configs"]} == set(tables.TABLES)
    assert [
        config["config_name"] for config in front["configs"] if config.get("default")
    ] == ["preferences"]
    assert front["license"] == "apache-2.0"
    assert "the texts have no meaning" in card
    for reason in json.loads((scripted_run / "manifest.json").read_text())["discards"]:
        assert f"| `{reason}` |" in card


def test_people_and_prompts_are_held_out_whole(tmp_path):
    out = tmp_path / "o"
    generate(
        out, "psoup", "--set", "judge=null", "--set", "splits.validation=0.2", people=60
    )
    splits = {
        path.name.split("-")[0]: pl.read_parquet(path)
        for path in out.glob("data/preferences/*.parquet")
    }
    assert set(splits) == {"train", "validation", "test_personas", "test_prompts"}
    people = {name: set(frame["persona_id"]) for name, frame in splits.items()}
    assert not people["test_personas"] & (
        people["train"] | people["validation"] | people["test_prompts"]
    )
    assert not people["validation"] & people["train"]
    answers = {
        name: {row[0]["content"] for row in frame["chosen"]}
        for name, frame in splits.items()
    }
    assert not answers["test_personas"] & answers["train"]
    prompts = {name: set(frame["prompt_id"]) for name, frame in splits.items()}
    assert not prompts["test_prompts"] & (prompts["train"] | prompts["validation"])


def test_two_processes_do_not_work_in_one_folder(tmp_path):
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "simforge",
        "generate",
        "psoup",
        "--personas",
        "6000",
        "--model",
        "scripted:",
    ]
    process = subprocess.Popen(
        [*command, "--out", str(out)],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not list(out.glob("work/parts/*.arrow")) and time.monotonic() < deadline:
            time.sleep(0.05)
        second = simforge(
            "generate",
            "psoup",
            "--personas",
            6000,
            "--model",
            "scripted:",
            "--out",
            out,
        )
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
    assert (second.status, "another simforge process is working in" in second.err) == (
        2,
        True,
    )
    assert process.returncode == 130
    assert (out / "work" / "run.json").exists()


def test_what_forgets_that_it_was_cancelled_ends_all_the_same():
    forgot = []

    async def forgetful() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            forgot.append(True)
        await asyncio.sleep(60)

    async def stopped() -> None:
        crew = WorkerPool(())
        crew.run_alongside(forgetful())
        await asyncio.sleep(0)
        await asyncio.wait_for(crew.stop(), 20)

    asyncio.run(stopped())
    assert forgot == [True]


def _parts(out: Path) -> list[Path]:
    return sorted(out.glob("work/parts/*.arrow"))


def _flip_text(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.rindex(b"?")] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "a bit of a reply": lambda out: _flip_text(next(out.glob("work/ledger/*.jsonl"))),
    "a bit of a part": lambda out: _flip_text(_parts(out)[0]),
    "a part cut short": lambda out: _cut(_parts(out)[0]),
    "an empty part": lambda out: _parts(out)[0].write_bytes(b""),
    "a part of zeros": lambda out: _parts(out)[0].write_bytes(b"\0" * 4096),
    "run.json cut short": lambda out: _cut(out / "work/run.json"),
    "run.json of zeros": lambda out: (out / "work/run.json").write_bytes(b"\0" * 99),
    "run.json of another form": lambda out: (out / "work/run.json").write_text("[1]"),
    "manifest cut short": lambda out: _cut(out / "manifest.json"),
    "manifest of zeros": lambda out: (out / "manifest.json").write_bytes(b"\0" * 99),
    "options cut short": lambda out: _cut(out / "work/options.json"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_work_is_noticed_and_played_again_from_the_ledger(
    damage, scripted_run, tmp_path
):
    out = tmp_path / "r"
    shutil.copytree(scripted_run, out)
    if "part" in damage:
        (out / "manifest.json").unlink()
    DAMAGE[damage](out)
    generate(out)
    assert digests(out) == digests(scripted_run)
    stored = json.loads((out / "manifest.json").read_text())
    assert stored == json.loads((scripted_run / "manifest.json").read_text())


def test_exchanged_parts_and_parts_of_another_run_are_played_again(
    scripted_run, tmp_path
):
    out, other = tmp_path / "r", tmp_path / "other"
    shutil.copytree(scripted_run, out)
    generate(other, "--seed", 7)
    (out / "manifest.json").unlink()
    first, second, third, *_ = _parts(out)
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    third.write_bytes(_parts(other)[2].read_bytes())
    done = generate(out)
    assert digests(out) == digests(scripted_run)
    assert done.err.count("is damaged or of another run") == 3
    assert len(list(out.glob("work/parts/*.damaged"))) == 3


def test_damaged_options_are_told(scripted_run, tmp_path):
    out = tmp_path / "r"
    shutil.copytree(scripted_run, out)
    for content in ("{", "[]", "{}", '{"folder": 3}'):
        (out / "work/options.json").write_text(content)
        (out / "manifest.json").unlink(missing_ok=True)
        done = simforge("retry", out)
        assert done.status == 2 and "options.json" in done.err, done.err


def test_what_a_run_keeps_for_itself_is_private(scripted_run):
    assert (scripted_run / "work").stat().st_mode & 0o777 == 0o700
    for name in ("run.json", "options.json"):
        assert (scripted_run / "work" / name).stat().st_mode & 0o077 == 0
    assert all(part.stat().st_mode & 0o077 == 0 for part in _parts(scripted_run))


def test_the_card_names_the_languages_of_the_dialogues(tmp_path):
    prompts = tmp_path / "p.csv"
    prompts.write_text(
        "text\n"
        + "".join(f"请用一句话解释第{n}个问题的答案。\n" for n in range(6))
        + "Why does the moon change its shape over a month?\n" * 1
    )
    done = simforge(
        *("generate", "psoup", "--personas", 9, "--model", "scripted:"),
        *("--prompts", prompts, "--out", tmp_path / "r"),
    )
    assert done.status == 0, done.err
    front = yaml.safe_load((tmp_path / "r/README.md").read_text().split("---\n")[1])
    assert front["language"][0] == "zh" and "en" in front["language"]


def test_the_card_counts_each_reply_once(tmp_path):
    out = tmp_path / "r"
    done = simforge(
        *("generate", "psoup", "--personas", 20, "--model", "scripted:", "--out", out)
    )
    assert done.status == 0, done.err
    manifest = json.loads((out / "manifest.json").read_text())
    held = int(simforge("ledger", out).out.split()[0].replace(",", ""))
    usage, used = (
        sum(role["calls"] for role in manifest[name].values())
        for name in ("usage", "used")
    )
    assert usage == held < used
    card = (out / "README.md").read_text()
    assert f"Usage: {held:,} model replies" in card
    assert f"dialogues that share answers used them {used:,} times" in card


def test_a_folder_whose_name_looks_like_a_pattern_is_that_folder(
    scripted_run, tmp_path
):
    import simforge as package

    plain, odd = tmp_path / "g1", tmp_path / "g[1]"
    generate(plain, "--seed", 5)
    generate(odd)
    assert digests(odd) == digests(scripted_run)
    ids = package.scan(odd).collect()["id"].to_list()
    assert ids == package.scan(scripted_run).collect()["id"].to_list()
    assert package.scan(f"file://{odd}").collect()["id"].to_list() == ids
    to = tmp_path / "p[1]" / "x.parquet"
    done = simforge("export", odd, "--view", "trl_preference", "--to", to)
    assert done.status == 0, done.err
    assert simforge("validate", odd).status == 0
    (tmp_path / "p1").mkdir()
    (tmp_path / "p1" / "q.csv").write_text("text\nfrom p1?\n")
    (tmp_path / "p[1]" / "q.csv").write_text("text\nfrom the other?\n")
    prompts = ("--prompts", tmp_path / "p[1]" / "q.csv")
    done = simforge(
        *("generate", "psoup", "--personas", 4, "--model", "scripted:", *prompts),
        *("--out", tmp_path / "q"),
    )
    assert done.status == 0, done.err
    assert {*package.scan(tmp_path / "q", "turns").collect()["text"]} == {
        "from the other?"
    }


def test_a_run_without_replies_of_its_own_says_where_they_are(tmp_path):
    again = ("generate", "psoup", "--personas", 6, "--model", "scripted:")
    first, second = tmp_path / "first", tmp_path / "second"
    assert simforge(*again, "--out", first).status == 0
    assert simforge(*again, "--out", second, "--reuse", first).status == 0
    for command in (
        ("ledger", second),
        (*again, "--out", tmp_path / "third", "--reuse", second),
    ):
        done = simforge(*command)
        assert done.status == 2 and "they all came from the runs" in done.err, done.err
