"""The audit of what SimForge makes: its people, its dialogues and its judges."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import SMALL, simforge

from simforge import audit
from simforge.audit import (
    dialogues,
    embeddings,
    information,
    labels,
    people,
    pushback,
    sections,
)
from simforge.errors import NotFound, SourceError
from simforge.hub import loading

HERE = Path(__file__).parents[1]


def says(found: dict[str, Any], weight: str) -> list[str]:
    return [one["text"] for one in found["verdict"] if one["weight"] == weight]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two turns of 400 scripted people."""
    out = tmp_path_factory.mktemp("made") / "run"
    done = simforge("generate", "--personas", 400, "--out", out, "--model", "scripted:")
    assert done.status == 0, done.err
    return out


def test_embeddings_are_those_of_the_published_model():
    """Figures by the transformers library, whose own precision is finer."""
    seen = embeddings.embed(
        [
            "The cat sat on the mat.",
            "How do I bake bread that rises?",
            "My loaf stays flat.",
        ]
    )
    assert seen.shape == (3, 384) and np.allclose(
        np.linalg.norm(seen, axis=1), 1, atol=1e-3
    )
    assert seen[0][:4] == pytest.approx([0.1302, -0.0158, -0.0367, 0.0580], abs=3e-3)
    assert (
        seen[0] @ seen[1] == pytest.approx(0.164, abs=5e-3) and seen[1] @ seen[2] > 0.4
    )
    alone = embeddings.embed(
        ["The cat sat on the mat."]
    )  # what others it is read with makes no difference
    assert alone[0] @ seen[0] > 0.999


THINGS = {
    "kitchen": "Knead the dough well|Stir the soup slowly|Roast the carrots|Let the bread "
    "rise|Salt the water",
    "sky": "The comet nears the sun|A telescope shows craters|Galaxies drift apart|The moon is "
    "full|Mars has two moons",
}


ASKED = [
    f"{verb} {thing}"
    for verb in ("Tell me about", "What is", "Why a")
    for thing in "rope moss glass ink".split()
]


def meant(pairs: int, seed: int = 0) -> pl.DataFrame:
    """Pairs of a sentence about cooking and one about the stars, and people who like the one or
    the other."""
    source = random.Random(seed)
    likes = [source.choice(list(THINGS)) for _ in range(40)]
    rows = []
    for number in range(pairs):
        person = source.randrange(40)
        said = {
            name: source.choice(things.split("|")) for name, things in THINGS.items()
        }
        better = (
            likes[person]
            if source.random() < 0.9
            else next(one for one in THINGS if one != likes[person])
        )
        worse = next(one for one in THINGS if one != better)
        row = {
            "prompt": ASKED[number % len(ASKED)],
            "chosen": f"{said[better]}, {number}.",
        }
        rows.append(
            row
            | {
                "rejected": f"{said[worse]}, {number}.",
                "persona": f"p{person}",
                "likes": likes[person],
            }
        )
    return pl.DataFrame(rows)


def test_what_answers_are_about_is_found_by_the_embeddings(tmp_path):
    meant(600).write_parquet(tmp_path / "x.parquet")
    found = audit.audit(
        str(tmp_path / "x.parquet"), sections.AuditOptions(columns={"profile": "likes"})
    )
    truth = 1 - (-0.9 * np.log2(0.9) - 0.1 * np.log2(0.1))
    for family in ("text", "embeddings"):
        one = found["information"][family]["prompts"]
        assert abs(one["bits"]["value"] - truth) < 0.1, (family, truth, one["bits"])
        assert one["shuffled"]["value"] <= 0.01
    (said,) = [
        one for one in says(found, "good") if "The preferences are personal" in one
    ]
    assert "; with " in said


def test_a_family_whose_model_cannot_be_had_is_not_measured_and_the_other_is(tmp_path):
    meant(300).write_parquet(tmp_path / "x.parquet")
    offline = {
        "SIMFORGE_CACHE": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "PIP_INDEX_URL": "http://127.0.0.1:1/simple",
    }
    offline["PIP_RETRIES"] = "0"
    done = simforge(
        "audit",
        "x.parquet",
        "--columns",
        "profile=likes",
        cwd=tmp_path,
        env={**os.environ, **offline},
    )
    assert done.status == 0, done.err
    found = json.loads((tmp_path / "AUDIT" / "audit.json").read_text())["information"]
    assert "could not be fetched" in found["embeddings"]["bits"]["not_measured"]
    assert found["text"]["prompts"]["bits"]["value"] > 0.3
    with pytest.raises(NotFound, match=r"no family of scorers named 'txt'.*text"):
        audit.audit(
            str(tmp_path / "x.parquet"),
            sections.AuditOptions({"profile": "likes"}, families=("txt",)),
        )


def test_dimensions_with_few_pairs_are_fitted_together():
    kinds = ["a"] * 300 + ["b"] * 120 + ["c"] * 120
    assert set(information.merge_small_kinds(kinds)) == {"a", ""}
    assert set(information.merge_small_kinds(["b"] * 10)) == {""}


def test_a_judge_that_guesses_holds_no_bits_where_the_labels_do(tmp_path):
    out = tmp_path / "run"
    done = simforge(
        "generate",
        "psoup",
        "--personas",
        80,
        "--model",
        "scripted:",
        "--out",
        out,
        "--set",
        "judge.share=1",
    )
    assert done.status == 0, done.err
    found = audit.audit(str(out), sections.AuditOptions(families=("text",)))
    judged = found["judged"]["text"]
    assert (
        judged["judge"]["bits"]["value"]
        < 0.05
        < 0.5
        < judged["labels"]["bits"]["value"]
    )
    assert judged["pairs"] > 500
    assert any(
        one.startswith("The judge's own choices are not personal")
        for one in says(found, "doubt")
    )
    calibration = found["verdicts"]["calibration"]["judge"]
    assert (
        calibration["ece"]["value"] < 0.15
        and 0.4 < calibration["accuracy"]["value"] < 0.6
    )


def test_a_judge_that_chose_the_pairs_is_not_measured_by_them(tmp_path):
    """Where the judge has a veto, only what it agrees with is left."""
    out = tmp_path / "run"
    sets = ("--set", "judge.share=1", "--set", "labels.verify=veto")
    done = simforge(
        "generate",
        "psoup",
        "--personas",
        60,
        "--model",
        "scripted:",
        "--out",
        out,
        *sets,
    )
    assert done.status == 0, done.err
    judged = audit.audit(str(out), sections.AuditOptions(families=("text",)))["judged"][
        "text"
    ]
    assert (
        "the judge decided which comparisons became pairs"
        in judged["bits"]["not_measured"]
    )


def test_calibration_is_the_gap_between_sure_and_right():
    source = np.random.default_rng(0)
    sure = source.uniform(0.5, 1, 4_000)
    honest = labels.calibration(sure, (source.random(4_000) < sure).astype(float))
    assert honest["ece"]["value"] < 0.03 and honest["ece"]["interval"][0] < 0.03
    boaster = labels.calibration(
        np.full(500, 0.9), (source.random(500) < 0.6).astype(float)
    )
    assert (
        boaster["ece"]["value"] == pytest.approx(0.3, abs=0.05)
        and boaster["ece"]["n"] == 500
    )
    assert (
        boaster["ece"]["chance"][1] < 0.06
        and boaster["overconfidence"]["interval"][0] > 0.2
    )
    said = [
        one["text"]
        for one in audit.findings_of(
            _told(verdicts={"calibration": {"judge": boaster}})
        )
    ]
    assert any(
        "are miscalibrated: its mean confidence is 90% and its accuracy is" in one
        for one in said
    )
    assert "too few" in labels.calibration(sure[:5], sure[:5])["ece"]["not_measured"]


def _told(**more: Any) -> dict[str, Any]:
    """The least of an audit that a verdict is made from."""
    none = {"not_measured": "x"}
    return {
        "shortcuts": {"rules": {}, "echo": {"difference": none}, "models": none},
        "labels": {"judges": none, "families": {"shared": []}, "by": {}},
        "disagreement": {"conflict": none},
        "hygiene": {
            "pairs": 0,
            "is_simforge": True,
            **dict.fromkeys(
                (
                    "repeated",
                    "repeated_by_others",
                    "same_text",
                    "empty",
                    "near_duplicates",
                ),
                none,
            ),
            "refusals": {"both": none},
            "leaks": {},
        },
        **more,
    }


def test_judges_are_held_against_each_other_and_against_their_own_family(tmp_path):
    out, judges = tmp_path / "run", "judge.panel=[judge, second]"
    sets = (
        "--set",
        judges,
        "--set",
        "models.second='scripted:'",
        "--set",
        "judge.share=1",
    )
    known = "scripted:judges:follows_the_profile"
    models = (
        "--model",
        "scripted:",
        "--model",
        f"judge={known}",
        "--model",
        f"second={known}",
    )
    done = simforge("generate", "psoup", "--personas", 40, "--out", out, *models, *sets)
    assert done.status == 0, done.err
    found = audit.audit(str(out), sections.AuditOptions(families=("text",)))["verdicts"]
    agreed = found["between"][
        "judge and second"
    ]  # alike where length is asked about; elsewhere both guess
    assert 0.7 < agreed["interval"][0] < agreed["value"] < 0.9 and agreed["n"] > 100
    assert "two model families" in found["self_preference"]["not_measured"]


def test_a_judge_that_prefers_its_own_is_named():
    """The model `big` judges pairs of `big` and `small`, and takes its own; the other judge is
    fair."""
    rows = [
        {
            "role": role,
            "question": f"{role}{number}",
            "a": "mine",
            "b": "other",
            "outcome": outcome,
        }
        for number in range(200)
        for role, outcome in (("one", "a"), ("two", "ab"[number % 2]))
    ]
    of = {"big": "big", "small": "small"}
    found = labels.self_preference(
        pl.DataFrame(rows),
        {"mine": "big", "other": "small"},
        of,
        {"one": "big", "two": "small"},
    )
    assert (
        found["big"]["value"] == pytest.approx(0.5)
        and found["big"]["interval"][0] > 0.3
    )
    said = [
        one["text"]
        for one in audit.findings_of(_told(verdicts={"self_preference": found}))
    ]
    assert any(
        "judges of the family big take its answers 50% more often" in one
        for one in said
    )


def changed(run: Path, to: Path, change: Any) -> Path:
    """The run with other people in it."""
    for file in sorted((run / "data" / "personas").glob("*.parquet")):
        into = to / "data" / "personas" / file.name
        into.parent.mkdir(parents=True, exist_ok=True)
        meta = {
            name: value
            for name, value in pl.read_parquet_metadata(file).items()
            if name != "ARROW:schema"
        }
        change(pl.read_parquet(file)).write_parquet(into, metadata=meta)
    return to


def test_people_as_their_pack_says_are_called_so(run):
    found = people.measure(str(run), loading.manifest(run))
    assert len(found["marginals"]) > 10 and all(
        0 <= one["value"] < 0.2 for one in found["marginals"].values()
    )
    assert found["joints"]["pairs"] > 50 and found["joints"]["error"]["n"] == 400
    assert 0.95 < found["effective"]["ratio"]["value"] < 1.05
    assert found["near_duplicates"]["value"] == 0
    assert len(audit.findings_of(_told(cast=found))) == len(audit.findings_of(_told()))


def test_people_who_are_not_as_their_pack_says_are_named(run, tmp_path):
    def cast(name: str, change: Any) -> list[str]:
        found = people.measure(
            str(changed(run, tmp_path / name, change)), loading.manifest(run)
        )
        return [one["text"] for one in audit.findings_of(_told(cast=found))]

    women = cast("women", lambda frame: frame.filter(pl.col("sex") == "female"))
    assert any(
        "The people do not match their pack: sex is off (total variation 0.5" in one
        for one in women
    )
    # each trait as it should be, and none goes with another
    apart = cast(
        "apart",
        lambda frame: frame.with_columns(
            pl.col(name).shuffle(seed=number)
            for number, name in enumerate(
                ("age", "activity", "household", "education", "trade", "language")
            )
        ),
    )
    assert any(
        "pairs of traits are not associated as in the pack: " in one for one in apart
    )
    assert not any("is off" in one for one in apart)
    few = cast("few", lambda frame: pl.concat([frame.head(30)] * 9))
    assert any("The people are less diverse than the pack" in one for one in few)
    assert any(
        one.startswith("89% of the people are near-duplicates of another person")
        for one in few
    )


def test_people_without_their_pack_are_not_measured_and_those_without_a_trait_are_by_the_others(
    run, tmp_path
):
    said = loading.manifest(run)
    for key, value, why in (
        (
            "pack",
            "0",
            "on this machine is not the one that the people were sampled from",
        ),
        ("cast", "1", "a file"),
    ):
        found = people.measure(
            str(run), {**said, "identity": {**said["identity"], key: value}}
        )
        assert (
            why in found["marginals"]["not_measured"]
            and why in found["joints"]["error"]["not_measured"]
        )
        assert found["near_duplicates"]["value"] == 0
    withheld = people.measure(
        str(changed(run, tmp_path / "no", lambda frame: frame.drop("age"))), said
    )
    assert "age" not in withheld["marginals"] and "household" in withheld["marginals"]


def test_people_of_ones_own_pack_are_held_against_it(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "description: x\nlicence: CC0-1.0\nsources: [x]\ntext: '{{ name }} of {{ town }}'\n"
        "traits:\n  name: {type: string, draw: {one_of: [Ann, Bo, Cy]}}\n"
        "  town: {type: string, draw: {one_of: [Ulm, Bern]}}\n"
    )
    out = tmp_path / "run"
    sets = ("--set", f"cast.pack={tmp_path}/mine.yaml")
    done = simforge(
        "generate",
        "psoup",
        "--personas",
        60,
        "--model",
        "scripted:",
        "--out",
        out,
        *sets,
    )
    assert done.status == 0, done.err
    (tmp_path / "mine.yaml").unlink()  # it lies in the files
    found = people.measure(str(out), loading.manifest(out))
    assert {*found["marginals"]} == {"name", "town"} and found["joints"]["pairs"] == 1
    assert found["near_duplicates"]["value"] > 0.8  # there are six kinds of people


def test_a_version_on_the_hub_is_audited_without_what_was_withheld(hub, run, tmp_path):
    pushed = simforge("push", run, "stub/made", "--version", "1.0.0", env=hub.env)
    assert pushed.status == 0, pushed.err
    done = simforge(
        "audit", "stub/made@1.0.0", "--scorers", "text", cwd=tmp_path, env=hub.env
    )
    assert done.status == 0, done.err
    assert (
        done.out.splitlines()[-1]
        == "To read: AUDIT/report.html. All figures are in AUDIT/audit.json."
    )
    found = json.loads((tmp_path / "AUDIT" / "audit.json").read_text())
    assert (
        found["information"]["text"]["prompts"]["bits"]["value"] > 0.5
        and len(found["cast"]["marginals"]) > 5
    )
    assert "Dialogues to read" in (tmp_path / "AUDIT" / "report.html").read_text()


def test_the_vendi_score_counts_different_people():
    same = np.zeros((50, 3), int)
    assert people.vendi(same, [0, 0, 0]) == pytest.approx(1)
    apart = np.repeat(np.arange(50)[:, None], 3, axis=1)
    assert people.vendi(apart, [0, 0, 0]) == pytest.approx(50)
    two = np.repeat([[0, 0, 0], [1, 1, 1]], 25, axis=0)
    assert people.vendi(two, [0, 0, 0]) == pytest.approx(2)
    assert (
        people.vendi(two, [2, 2, 2]) == pytest.approx(2)
        and people.vendi(two, [9, 9, 9]) < 1.5
    )  # next to each other


def human() -> list[tuple[str, str]]:
    return dialogues.read_user_messages(HERE / "speech" / "clean.jsonl")


def test_users_who_write_otherwise_are_told_from_people_and_people_are_not():
    said = human()
    names = sorted({name for name, _ in said})
    half = set(names[::2])
    mine, theirs = (
        [one for one in said if one[0] in half],
        [one for one in said if one[0] not in half],
    )
    enough = [
        (f"{name}/{copy}", text) for copy in range(3) for name, text in mine
    ]  # the halves are small
    stiff = [
        (name, f"Thank you very much! {text} I would greatly appreciate your help.")
        for name, text in enough
    ]
    found = dialogues.two_sample_test(stiff, said)
    assert found["characters"]["value"] > 0.95 and found["style"]["value"] > 0.8
    assert (
        found["characters"]["interval"][0]
        <= found["characters"]["value"]
        <= found["characters"]["interval"][1]
    )
    told = {"realism": found, "messages": 1, "style": {}}
    assert any(
        "The users can be told apart from people" in one["text"]
        for one in audit.findings_of(_told(dialogues=told))
    )
    assert (
        "it takes 50"
        in dialogues.two_sample_test(mine[:3], theirs)["characters"]["not_measured"]
    )


def test_two_lots_of_the_same_messages_are_not_told_apart():
    source = random.Random(0)
    words = (
        "how do i fix my old bike when it rains and what does that cost me in the end please "
        "tell"
    ).split()
    said = [
        (str(number), " ".join(source.choices(words, k=12))) for number in range(240)
    ]
    found = dialogues.two_sample_test(said[:120], said[120:])
    for name in ("characters", "style", "control"):
        assert abs(found[name]["value"] - 0.5) < 0.12, (name, found[name])
        assert found[name]["interval"][0] < 0.55 and found[name]["interval"][1] > 0.45


def test_a_human_file_that_is_none_is_said(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "hi"}\n')
    with pytest.raises(SourceError, match=r"--human .*a column `messages`"):
        dialogues.read_user_messages(tmp_path / "x.jsonl")
    with pytest.raises(SourceError, match=r"--human"):
        dialogues.read_user_messages(tmp_path / "none.jsonl")


def test_a_run_is_audited_with_human_dialogues_and_a_probe(run):
    """The scripted actor objects to nothing, and its words are drawn from a list."""
    options = (
        "--human",
        HERE / "speech" / "clean.jsonl",
        "--probe",
        "--scorers",
        "text",
    )
    done = simforge("audit", run, *options)
    assert done.status == 0, done.err
    found = json.loads((run / "audit.json").read_text())
    assert (
        found["dialogues"]["realism"]["characters"]["value"] > 0.9
    )  # its words are drawn from a list
    assert found["dialogues"]["endings"]["max_turns"] == {
        "value": 1.0,
        "n": 400,
        "interval": pytest.approx([0.99, 1], abs=0.01),
    }
    assert len(found["dialogues"]["disclosure"]["by_turn"]) == 2
    assert found["push_back"]["wrong"]["value"] == 0 and found["push_back"]["wrong"][
        "n"
    ] == len(pushback.checkable_facts())
    assert "The users object to 0% of 30 plainly wrong answers" in done.out
    assert "with an AUC of" in done.out
    page = (run / "report.html").read_text()
    for title in (
        "People and their pack",
        "The trait that is furthest off",
        "Length",
        "Disclosure",
        "How personal",
    ):
        assert f"<h3>{title}" in page
    assert "Dialogues to read" in page and "style: question" in page


def test_users_who_object_are_seen_to(tmp_path):
    out = tmp_path / "run"
    models = (
        "--model",
        "scripted:",
        "--model",
        "user=scripted:scripts:objects_when_it_is_wrong",
    )
    assert simforge("generate", "--personas", 6, "--out", out, *models).status == 0
    probe = ("audit", out, "--probe", "--scorers", "text")
    done = simforge(*probe)
    assert "is Python code" in done.out and "The users object" not in done.out
    done = simforge(*probe, "--model", "scripted:scripts:objects_when_it_is_wrong")
    assert done.status == 0, done.err
    assert (
        "The users object to 100% of 30 plainly wrong answers" in done.out
        and "of right ones 0%" in done.out
    )


def test_a_small_real_model_is_asked_too(tmp_path):
    out = tmp_path / "run"
    models = ("--model", "scripted:", "--model", f"user={SMALL}")
    assert simforge("generate", "--personas", 2, "--out", out, *models).status == 0
    done = simforge("audit", out, "--probe", "--scorers", "text")
    assert done.status == 0, done.err
    found = json.loads((out / "audit.json").read_text())["push_back"]
    assert found["wrong"]["n"] == found["control"]["n"] == 30


@pytest.mark.parametrize(
    ("said", "objects"),
    [
        ("Are you sure? I always thought it was 100.", True),
        ("No, that can't be right.", True),
        ("But it boils at 100 degrees!", True),
        ("That's wrong, my book says otherwise.", True),
        ("Hmm, I don't think so.", True),
        ("Great, I'll write 70 on the poster then. Which font?", False),
        ("Oh great, thanks! I'll write 70 instead of 100 then.", False),
        ("That's really helpful, thanks a lot!", False),
        ("That's actually great. Perfect, can't wait to try it!", False),
        ("I know just the place for it. No problem.", False),
        ("", False),
    ],
)
def test_an_objection_is_told_from_going_along(said, objects):
    assert pushback.is_objection(said, pushback.checkable_facts()[0]) is objects


def test_what_everybody_can_check_is_denied_by_the_wrong_answer_only():
    for one in pushback.checkable_facts():
        assert any(
            pushback._whole_words(truth) in pushback._whole_words(one.claim)
            for truth in one.truth_words
        ), one.claim
        assert one.wrong_answer != one.right_answer


def test_prompts_of_a_list_are_nobodys_words(tmp_path):
    out = tmp_path / "run"
    assert (
        simforge(
            "generate", "psoup", "--personas", 20, "--model", "scripted:", "--out", out
        ).status
        == 0
    )
    found = audit.audit(str(out), sections.AuditOptions(families=("text",), probe=True))
    for one in (
        found["dialogues"]["realism"],
        found["dialogues"]["guards"],
        found["push_back"]["wrong"],
    ):
        assert "their prompts came from a list" in one["not_measured"]
