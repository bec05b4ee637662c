"""What a version says of itself: licence, card, Croissant; and versions at a URL."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pyarrow as pa
import pytest
import yaml
from conftest import simforge

import simforge as package
from simforge import identity
from simforge.dataset import card, licences, tables
from simforge.dataset.parquet import TableWriter
from simforge.errors import NotFound, SourceError, UsageError
from simforge.hub import urls
from simforge.identity import file_sha256


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose people have sensitive traits, with all splits."""
    out = tmp_path_factory.mktemp("releases") / "run"
    sets = (
        "--set",
        "cast.pack=acs",
        "--set",
        "splits={validation: 0.2, test_personas: 0.2, test_prompts: 0.2}",
    )
    done = simforge(
        "generate",
        "psoup",
        "--personas",
        40,
        "--out",
        out,
        "--model",
        "scripted:",
        *sets,
    )
    assert done.status == 0, done.err
    return out


def manifest_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def front_matter(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(
        (folder / "README.md").read_text().split("---\n")[1]
    )
    return found


@pytest.mark.parametrize(
    ("sources", "row", "why"),
    [
        (
            {"people": "Apache-2.0", "prompts": "CC0-1.0"},
            "apache-2.0",
            "is the licence of people",
        ),
        (
            {"people": "Apache-2.0", "prompts": "CC-BY-4.0"},
            "cc-by-4.0",
            "is the licence of prompts",
        ),
        (
            {"people": "CC-BY-NC-SA-4.0", "a": "MIT", "b": "CC0-1.0"},
            "cc-by-nc-sa-4.0",
            "is the licence of people",
        ),
        (
            {"people": "CC-BY-NC-SA-4.0", "b": "CC-BY-SA-4.0"},
            "other",
            "each require that derived works",
        ),
        (
            {"people": "GPL-3.0", "b": "CC-BY-SA-4.0"},
            "other",
            "cc-by-sa-4.0 and gpl-3.0 each require",
        ),
        ({"people": "CC-BY-ND-4.0", "b": "MIT"}, "other", "allows no modified copies"),
        (
            {"people": "CC-BY-SA-4.0", "prompts": "CC-BY-NC-4.0"},
            "other",
            "none of these licences",
        ),
        (
            {"people": "CC0-1.0", "model": "unknown"},
            "other",
            "the terms of model are unknown",
        ),
        (
            {"people": "CC0-1.0", "model": "Our-Own-1.0"},
            "other",
            "the terms of model are unknown",
        ),
        ({"people": "CC0-1.0"}, "cc0-1.0", "is the licence of people"),
    ],
)
def test_rows_stand_under_the_strictest_licence_of_their_sources(sources, row, why):
    found = licences.licence_of_rows(sources)
    assert found["row"] == row and why in found["why"] and found["sources"] == sources


def test_the_card_says_the_licence_and_why_and_what_the_recipe_names_counts(
    run, tmp_path
):
    assert front_matter(run)["license"] == "apache-2.0"
    prompts = tmp_path / "mine.jsonl"
    prompts.write_text(
        "".join(json.dumps({"text": f"Prompt number {n}?"}) + "\n" for n in range(9))
    )
    command = [
        "generate",
        "psoup",
        "--personas",
        8,
        "--model",
        "scripted:",
        "--prompts",
        prompts,
        "--out",
        "out",
    ]
    assert simforge(*command, cwd=tmp_path).status == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert front_matter(tmp_path / "out")["license"] == "other"
    assert (
        "the terms of the prompts (mine.jsonl) are unknown: look them up, and set them under "
        "`licences` in the recipe" in text
    )
    parts = {
        path: path.stat().st_mtime_ns
        for path in (tmp_path / "out/work/parts").iterdir()
    }
    named = ["--set", "licences={prompts: CC-BY-NC-4.0}"]
    done = simforge(
        *command, *named, cwd=tmp_path
    )  # the same run, which says more of itself
    assert done.status == 0, done.err
    assert front_matter(tmp_path / "out")["license"] == "cc-by-nc-4.0"
    assert {
        path: path.stat().st_mtime_ns
        for path in (tmp_path / "out/work/parts").iterdir()
    } == parts
    assert (
        "| the prompts (mine.jsonl) | CC-BY-NC-4.0 |"
        in (tmp_path / "out" / "README.md").read_text()
    )


def test_the_cards_columns_and_counts_are_those_that_datasets_finds(run):
    infos = {info["config_name"]: info for info in front_matter(run)["dataset_info"]}
    manifest = manifest_of(run)
    for table, schema in tables.published_schemas(manifest).items():
        if not sum(manifest["counts"][table].values()):
            assert table not in infos
            continue
        assert (
            infos[table]["features"]
            == datasets.Features.from_arrow_schema(schema)._to_yaml_list()
        )
        loaded = datasets.load_dataset(str(run), table)
        counts = {
            split["name"]: split["num_examples"] for split in infos[table]["splits"]
        }
        assert counts == {split: rows.num_rows for split, rows in loaded.items()}
        on_disk = sum(path.stat().st_size for path in (run / "data" / table).iterdir())
        assert infos[table]["download_size"] == on_disk
    assert infos.keys() >= {
        "preferences",
        "personas",
        "dialogues",
        "candidates",
        "judgments",
    }


def test_what_a_model_wrote_is_no_markup_in_the_card(run):
    hostile = (
        "# Free\n---\n```\n<script>alert(1)</script>\u2028| a | b |\x1b[31m "
        + "x" * 900
    )
    row = {
        "prompt": [{"role": "user", "content": hostile}],
        "system": hostile,
        "dimension": "style",
        "label": "judge",
    }
    row |= {
        side: [{"role": "assistant", "content": hostile}]
        for side in ("chosen", "rejected")
    }
    manifest = manifest_of(run)
    text = card.render({**manifest, "samples": [row]})
    lines = [line for line in text.splitlines() if "alert(1)" in line]
    assert len(lines) == 4 and all(
        line.startswith("    ") and len(line) < 450 for line in lines
    )
    assert "\x1b" not in text and "\u2028" not in text
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "apache-2.0"
    assert [len(one["chosen"]) for one in manifest["samples"]] == [1, 1, 1]
    train = (
        pl.read_parquet(run / "data/preferences/train-*.parquet")["chosen"]
        .list.first()
        .struct.field("content")
    )
    assert all(one["chosen"][0]["content"] in set(train) for one in manifest["samples"])


def croissant(folder: Path) -> dict[str, list[str]]:
    """What `mlcroissant` reads: rows by table, and the columns of the first one. In a process
    of its own, since its dependencies warn."""
    code = (
        "import json, sys, mlcroissant\n"
        "data = mlcroissant.Dataset(jsonld=sys.argv[1])\n"
        "assert not data.metadata.ctx.issues.errors\n"
        "found = {}\n"
        "for table in data.metadata.record_sets:\n"
        "    rows = list(data.records(table.id))\n"
        "    found[table.id] = [len(rows), *rows[0]]\n"
        "print(json.dumps(found))\n"
    )
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        code,
        str(folder / "croissant.json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_mlcroissant_reads_every_table_also_of_a_version_without_what_is_sensitive(
    run, tmp_path
):
    counts = {
        name: sum(rows.values()) for name, rows in manifest_of(run)["counts"].items()
    }
    found = croissant(run)
    assert {name: rows for name, (rows, *_) in found.items()} == {
        name: n for name, n in counts.items() if n
    }
    assert found["preferences"][1:4] == [
        "preferences/id",
        "preferences/prompt",
        "preferences/chosen",
    ]
    done = simforge("push", run, f"file://{tmp_path}/store", "--version", "1.0.0")
    assert done.status == 0 and "Left out as sensitive:" in done.out, done.err
    less = croissant(tmp_path / "store" / "v1.0.0")
    withheld = {
        f"personas/{one}"
        for one in manifest_of(tmp_path / "store/v1.0.0")["withheld"]["personas"]
    }
    assert withheld and {*found["personas"]} - {*less["personas"]} == withheld


def test_versions_at_a_url_are_pushed_listed_compared_pulled_and_loaded(
    scripted_run, tmp_path
):
    url = f"file://{tmp_path}/store/soup"
    pushed = simforge("push", scripted_run, url, "--version", "1.0.0")
    assert (
        pushed.status == 0 and f"{url}@1.0.0 is there: {url}/v1.0.0." in pushed.out
    ), pushed.err
    before = {
        path: path.stat().st_mtime_ns
        for path in (tmp_path / "store").rglob("*")
        if path.is_file()
    }
    assert not any(
        path.name == urls.PUSH_MARKER or "work" in path.parts for path in before
    )
    again = simforge("push", scripted_run, url, "--version", "1.0.0")
    assert again.status == 0 and "was there already, byte for byte" in again.out
    assert before == {path: path.stat().st_mtime_ns for path in before}
    other = tmp_path / "other"
    assert (
        simforge(
            "generate", "--personas", 14, "--model", "scripted:", "--out", other
        ).status
        == 0
    )
    refused = simforge("push", other, url, "--version", "1.0.0")
    assert (
        refused.status == 2
        and "tags do not move: choose a higher number" in refused.err
    )
    later = simforge("push", other, url, "--version", "1.1.0")
    assert later.status == 0 and "people: 12 -> 14" in later.out
    assert (
        "1.1.0 against 1.0.0" in (tmp_path / "store/soup/v1.1.0/README.md").read_text()
    )
    assert [line.split()[0] for line in simforge("versions", url).out.splitlines()] == [
        "1.0.0",
        "1.1.0",
    ]
    told = simforge("diff", f"{url}@1.0.0", f"{url}@latest")
    assert (
        told.status == 0 and "people: 12 in both, 0 only in A, 2 only in B" in told.out
    ), told.err
    assert simforge("pull", f"{url}@1.0.0", "--out", tmp_path / "pulled").status == 0
    assert (
        simforge("validate", tmp_path / "pulled").out
        == f"{tmp_path / 'pulled'} is valid.\n"
    )
    assert package.scan(f"{url}@1.1.0", "personas").collect().height == 14
    mine, whole = package.load(f"{url}@1.0.0"), package.load(scripted_run)
    assert mine.num_rows == whole.num_rows and mine[0] == whole[0]


def test_a_push_to_a_url_that_was_cut_uploads_the_rest(scripted_run, tmp_path):
    url = f"file://{tmp_path}/soup"
    done = urls.push(scripted_run, url, "1.0.0").published
    place = tmp_path / "soup" / "v1.0.0"
    (place / "manifest.json").unlink()
    names = sorted(done.manifest["files"])
    (place / names[0]).write_bytes((place / names[0]).read_bytes()[:100])
    (place / names[1]).unlink()
    (place / urls.PUSH_MARKER).write_text(
        identity.digest([done.manifest["files"], done.manifest["optional_files"]])
    )
    assert urls.versions(url) == []  # not whole
    kept = {name: (place / name).stat().st_mtime_ns for name in names[2:]}
    assert urls.push(scripted_run, url, "1.0.0").committed
    assert {name: (place / name).stat().st_mtime_ns for name in kept} == kept
    for name, about in done.manifest["files"].items():
        assert file_sha256(place / name) == about["sha256"]
    (place / "manifest.json").unlink()
    (place / urls.PUSH_MARKER).write_text("another run")
    (place / "report.html").write_text("of another run")
    assert urls.push(
        scripted_run, url, "1.0.0"
    ).committed  # what lies there of another one is taken away
    assert {name: (place / name).stat().st_mtime_ns for name in kept} != kept
    there = {
        path.relative_to(place).as_posix()
        for path in place.rglob("*")
        if path.is_file()
    }
    assert there == {
        *names,
        "README.md",
        "manifest.json",
        "croissant.json",
        "audit.json",
    }


def test_what_is_spoilt_is_not_published(scripted_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(scripted_run, copy, ignore=shutil.ignore_patterns("work"))
    path = next(copy.glob("data/turns/*.parquet"))
    path.unlink()
    refused = simforge("push", copy, f"file://{tmp_path}/store", "--version", "1.0.0")
    assert (
        refused.status == 2
        and f"{path.name} is not what its manifest says" in refused.err
    )
    assert not (tmp_path / "store").exists()


def test_words_about_the_same_data_are_another_version(scripted_run, hub, tmp_path):
    """A licence that is named later reaches the Hub under a new number, with a card of its own."""
    first = simforge("push", scripted_run, "stub/x", "--version", "1.0.0", env=hub.env)
    assert first.status == 0, first.err
    copy = tmp_path / "copy"
    shutil.copytree(scripted_run, copy, ignore=shutil.ignore_patterns("work"))
    manifest = manifest_of(copy)
    manifest["licence"]["row"] = "cc-by-4.0"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    refused = simforge("push", copy, "stub/x", "--version", "1.0.0", env=hub.env)
    assert refused.status == 2 and "with different data or description" in refused.err
    assert (
        simforge("push", copy, "stub/x", "--version", "1.0.1", env=hub.env).status == 0
    )
    assert (
        simforge(
            "pull", "stub/x@1.0.1", "--out", tmp_path / "pulled", env=hub.env
        ).status
        == 0
    )
    assert front_matter(tmp_path / "pulled")["license"] == "cc-by-4.0"
    assert 'revision="v1.0.1"' in (tmp_path / "pulled" / "README.md").read_text()


def test_what_people_tell_of_sensitive_traits_stays_at_home_too(run, tmp_path):
    done = simforge("generate", "--personas", 12, "--set", "cast.pack=acs", "--set", "dialogue.disclosure=gradually",
                    "--model", "scripted:", "--out", tmp_path / "acs")  # fmt: skip
    assert done.status == 0, done.err
    assert "disclosed" in pl.read_parquet(tmp_path / "acs/data/turns/*.parquet").columns
    done = simforge(
        "push", tmp_path / "acs", f"file://{tmp_path}/store", "--version", "1.0.0"
    )
    assert done.status == 0 and "disclosed" in done.out and "reasons_ab" in done.out
    place = tmp_path / "store/v1.0.0"
    assert "disclosed" not in pl.read_parquet(place / "data/turns/*.parquet").columns
    assert "This is no guarantee of secrecy" in (place / "README.md").read_text()
    assert (
        simforge(
            "pull", f"file://{tmp_path}/store@1.0.0", "--out", tmp_path / "pulled"
        ).status
        == 0
    )
    assert simforge("validate", tmp_path / "pulled").status == 0


def test_a_mistake_with_a_url_is_a_sentence(scripted_run, tmp_path):
    url = f"file://{tmp_path}/soup"
    urls.push(scripted_run, url, "1.0.0")
    with pytest.raises(NotFound, match=r"no version named '2.0.0'"):
        package.scan(f"{url}@2.0.0")
    with pytest.raises(
        SourceError, match="has no versions: push one with simforge push DIR"
    ):
        package.scan(f"file://{tmp_path}/none@1.0.0")
    with pytest.raises(
        UsageError, match=r"is written s3://bucket/NAME@1.2.0 \(or @latest\)"
    ):
        urls.locate(url)
    with pytest.raises(SourceError, match=r"nothing://x cannot be used: .*nothing"):
        urls.push(scripted_run, "nothing://x", "1.0.0")
    refused = simforge("push", scripted_run, url, "--version", "1.1.0", "--public")
    assert refused.status == 2 and "--public works on the Hub only" in refused.err
    path = next((tmp_path / "soup/v1.0.0/data/personas").iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    spoilt = simforge("pull", f"{url}@1.0.0", "--out", tmp_path / "x")
    assert (
        spoilt.status == 2
        and f"{path.name} is not what its manifest says: it was damaged there"
        in spoilt.err
    )
    assert not (tmp_path / "x").exists()


def test_files_end_at_their_size_and_are_one_table(tmp_path):
    schema = tables.SCHEMAS["discards"]
    rows = [
        {"dialogue_id": f"d{number}", "persona_id": f"p{number * 7919 % 10_007}", "turn": number, "stage": "judging",
         "reason": "tie", "detail": file_sha256(Path(__file__)) + str(number**5)}
        for number in range(5_000)
    ]  # fmt: skip
    made = {}
    for lot in (37, 1_000):
        root = tmp_path / str(lot)
        writer = TableWriter(root, row_group=100, file_bytes=30_000)
        for start in range(0, len(rows), lot):
            part = rows[start : start + lot]
            writer.add(
                "discards",
                pa.Table.from_pylist(part, schema=schema),
                ["train"] * len(part),
            )
        assert writer.close({"discards": schema}) == {"discards": {"train": 5_000}}
        made[lot] = {
            path.name: path.read_bytes()
            for path in sorted((root / "discards").iterdir())
        }
    assert made[37] == made[1_000]  # however the rows came
    names = list(made[37])
    assert len(names) > 2 and names == [
        f"train-{n:05}-of-{len(names):05}.parquet" for n in range(len(names))
    ]
    assert all(
        27_000 < len(made[37][name]) < 50_000 for name in names[:-1]
    )  # 20 kB are the footer of many small groups
    assert pl.read_parquet(tmp_path / "37/discards/*.parquet")["turn"].to_list() == [
        *range(5_000)
    ]


def test_the_people_of_a_published_version_are_a_cast(scripted_run, hub, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(scripted_run, folder)
    store = f"file://{tmp_path}/store"
    for target, env in ((store, {}), ("stub/people", hub.env)):
        pushed = simforge("push", folder, target, "--version", "1.0.0", env=env)
        assert pushed.status == 0, pushed.err
    ids = {}
    for name, source in (
        ("folder", folder),
        ("url", f"{store}@1.0.0"),
        ("hub", "stub/people@1.0.0"),
    ):
        done = simforge(
            *("generate", "psoup", "--cast", source, "--model", "scripted:"),
            *("--out", tmp_path / name),
            env=hub.env,
        )
        assert done.status == 0, done.err
        ids[name] = package.scan(tmp_path / name, "personas").collect()["id"].to_list()
    original = package.scan(folder, "personas").collect()["id"].to_list()
    assert sorted(original) == sorted(ids["folder"])
    assert ids["folder"] == ids["url"] == ids["hub"]
    missing = simforge(
        *("generate", "psoup", "--cast", "stub/people@2.0.0", "--model", "scripted:"),
        *("--out", tmp_path / "no"),
        env=hub.env,
    )
    assert missing.status == 2 and "no version named '2.0.0'" in missing.err, (
        missing.err
    )


def test_people_without_their_sensitive_traits_are_no_cast(run, hub, tmp_path):
    pushed = simforge("push", run, "stub/kept", "--version", "1.0.0", env=hub.env)
    assert pushed.status == 0, pushed.err
    withheld = manifest_of(run).get("withheld")
    assert withheld is None  # only the published version lacks columns
    done = simforge(
        *("generate", "psoup", "--cast", "stub/kept@1.0.0", "--model", "scripted:"),
        *("--out", tmp_path / "no"),
        env=hub.env,
    )
    assert done.status == 2, done.err
    assert "was published without" in done.err and "--publish-traits" in done.err


def test_people_can_get_profiles_of_another_space(scripted_run, tmp_path):
    arguments = ("--cast", scripted_run, "--model", "scripted:", "--personas", 4)
    done = simforge(
        *("generate", "psoup", *arguments, "--out", tmp_path / "other"),
        *("--set", "cast.space=alignx", "--set", "cast.keep_profiles=false"),
    )
    assert done.status == 0, done.err
    old = package.scan(scripted_run, "personas").sort("index").collect().head(4)
    new = package.scan(tmp_path / "other", "personas").sort("index").collect()
    assert new["text"].to_list() == old["text"].to_list()
    assert {profile["space"] for profile in new["profile"]} == {"alignx"}
