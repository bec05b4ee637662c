"""The audit: what is planted is found, and what is not there is not."""

from __future__ import annotations

import json
import random
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import planted_pairs
import polars as pl
import pytest
from conftest import simforge
from planted_pairs import planted

from simforge import audit
from simforge.audit import disagreement, figures, labels, pairs, sections, shortcuts
from simforge.dataset import diff
from simforge.errors import SourceError, UsageError
from simforge.text.measures import WORD

PROFILE = {"profile": "first+second"}


def audited(frame: pl.DataFrame, folder: Path, **columns: str) -> dict[str, Any]:
    frame.write_parquet(folder / "pairs.parquet")
    return audit.audit(
        str(folder / "pairs.parquet"),
        sections.AuditOptions(columns={**PROFILE, **columns}, families=("text",)),
    )


def cheaply(frame: pl.DataFrame, folder: Path) -> dict[str, Any]:
    """The part without scorers."""
    frame.write_parquet(folder / "pairs.parquet")
    return audit.quick_audit(pairs.read(str(folder / "pairs.parquet"), PROFILE))


def faults(found: dict[str, Any]) -> list[str]:
    return [one["text"] for one in found["verdict"] if one["weight"] == "fault"]


@pytest.fixture(scope="module")
def clean() -> pl.DataFrame:
    """Preferences that are personal and common in equal parts, and nothing else."""
    return planted(0.6, pairs=3_000, seed=7)[0]


@pytest.mark.parametrize("dose", [0.0, 0.5, 1.0])  # tests/bench/doses.py has five
def test_a_planted_dose_of_personal_preference_is_measured_and_none_of_a_strangers(
    dose, tmp_path
):
    frame, truth = planted(dose)
    found = audited(frame, tmp_path)["information"]["text"]
    for by in ("prompts", "people"):
        bits, shuffled = found[by]["bits"], found[by]["shuffled"]
        assert abs(bits["value"] - truth) < 0.03, (truth, bits)
        assert shuffled["value"] <= 0.01 and bits["n"] == 6_000
        assert bits["interval"][0] <= bits["value"] <= bits["interval"][1]
    gap = found["prompts"]["gap"]["value"]
    assert gap < 0.01 if dose == 0 else gap > 0.05


def test_a_clean_set_is_called_clean(clean, tmp_path):
    found = audited(clean, tmp_path)
    assert faults(found) == []
    said = " ".join(one["text"] for one in found["verdict"])
    assert "The preferences are personal: knowing who asks gives 0." in said
    assert "No shortcut decides the labels, of those that were tried: longer" in said
    steps = found["waterfall"]["bits"]
    assert sum(one["value"] for one in steps.values()) == pytest.approx(1.0)
    assert (
        steps["persona"]["interval"][0] > 0.05 and steps["length"]["interval"][0] > 0.02
    )
    assert abs(steps["format"]["value"]) < 0.05 and set(steps) == {
        *shortcuts.STEPS,
        "residual",
    }


def test_profiles_that_decide_nothing_are_a_fault(clean, tmp_path):
    source = random.Random(1)
    other = clean.with_columns(
        first=pl.Series([source.choice("ab") for _ in range(clean.height)]),
        second=pl.lit("c"),
    )
    assert any(
        "The profiles have no measurable effect on the labels" in one
        for one in faults(audited(other, tmp_path))
    )


def turned(frame: pl.DataFrame, chosen: list[bool]) -> pl.DataFrame:
    """The pairs with the side of each that is wanted."""
    keep = pl.Series(chosen)
    return frame.with_columns(
        chosen=pl.when(keep).then("chosen").otherwise("rejected"),
        rejected=pl.when(keep).then("rejected").otherwise("chosen"),
    )


def test_a_planted_length_shortcut_is_named(clean, tmp_path):
    longer = [
        len(WORD.findall(a)) >= len(WORD.findall(b))
        for a, b in clean.select("chosen", "rejected").iter_rows()
    ]
    found = audited(turned(clean, longer), tmp_path)
    (said,) = [one for one in faults(found) if "'longer wins'" in one]
    assert (
        "right in 100%" in said
        and found["shortcuts"]["length"]["coefficient"]["interval"][0] > 5
    )
    assert found["waterfall"]["bits"]["length"]["value"] > 0.8
    shorter = cheaply(turned(clean, [not one for one in longer]), tmp_path)
    assert any(
        "A shortcut the other way round: 'longer wins'" in one
        for one in faults(shorter)
    )


def test_a_planted_echo_is_named(clean, tmp_path):
    wishes = {
        "a": "prefers a joke with a wink now and then",
        "b": "prefers the plain matter of fact and no more",
    }
    quoting = clean.with_row_index("n").with_columns(
        wish=pl.col("first").replace_strict(wishes),
        chosen=pl.when(pl.col("n") % 5 == 0)
        .then(
            pl.concat_str(
                "chosen", pl.lit(" As you "), pl.col("first").replace_strict(wishes)
            )
        )
        .otherwise("chosen"),
    )
    found = cheaply(quoting, tmp_path)
    assert found["shortcuts"]["echo"]["difference"]["value"] == pytest.approx(
        0.2, abs=0.01
    )
    assert any(
        one.startswith("Persona echo: chosen answers quote") for one in faults(found)
    )
    plain = cheaply(
        clean.with_columns(wish=pl.col("first").replace_strict(wishes)), tmp_path
    )
    assert (
        plain["shortcuts"]["echo"]["difference"]["value"] == 0 and faults(plain) == []
    )


def test_planted_duplicates_are_named(clean, tmp_path):
    found = cheaply(pl.concat([clean, clean.head(600)]), tmp_path)
    assert found["hygiene"]["repeated"]["value"] == pytest.approx(600 / 3_600)
    assert (found["pairs"], found["rows"]) == (3_000, 3_600)
    assert any("17% of the rows repeat another row" in one for one in faults(found))
    near = clean.head(800).with_columns(
        chosen=pl.concat_str("chosen", pl.lit(" Indeed."))
    )
    found = cheaply(pl.concat([clean.head(1_600), near]), tmp_path)
    assert found["hygiene"]["near_duplicates"]["value"] == pytest.approx(
        800 / 2_400, abs=0.03
    )


def test_a_planted_position_bias_is_named(tmp_path):
    out = tmp_path / "run"
    command = (
        "generate",
        "psoup",
        "--personas",
        90,
        "--out",
        out,
        "--set",
        "judge.share=1",
    )
    done = simforge(
        *command,
        "--model",
        "scripted:",
        "--model",
        "judge=scripted:scripts:always_first",
    )
    assert done.status == 0, done.err
    done = simforge("audit", out, "--scorers", "text")
    assert done.status == 0, done.err
    assert (
        "doubt  A position bias: the judge chooses the answer shown first in 100%"
        in done.out
    )  # it decided nothing
    assert (
        "doubt  The judge gives the same verdict in both orders in only 0% of"
        in done.out
    )
    assert "good   The preferences are personal" in done.out  # by construction
    found = json.loads((out / "audit.json").read_text())
    assert found["information"]["text"]["prompts"]["bits"]["value"] > 0.5
    assert (
        "## The audit" in (out / "README.md").read_text()
        and "A position bias" in (out / "README.md").read_text()
    )


def test_one_models_answers_that_always_win_are_named(clean, tmp_path):
    two = clean.with_columns(chosen_model=pl.lit("big"), rejected_model=pl.lit("small"))
    assert any(
        "The model decides the label: of two models" in one
        for one in faults(cheaply(two, tmp_path))
    )
    both = two.with_row_index("n").with_columns(
        chosen_model=pl.when(pl.col("n") % 2 == 0)
        .then(pl.lit("big"))
        .otherwise(pl.lit("small")),
        rejected_model=pl.when(pl.col("n") % 2 == 0)
        .then(pl.lit("small"))
        .otherwise(pl.lit("big")),
    )
    assert faults(cheaply(both, tmp_path)) == []


def test_room_is_counted_over_answers_that_several_judged():
    rows = [
        {
            "persona": f"p{person}",
            "dimension": None,
            "prompt": f"q{number}",
            "chosen": a,
            "rejected": b,
        }
        for number in range(40)
        for person, (a, b) in enumerate(
            [("x", "y"), ("x", "y"), ("y", "x"), ("y", "x")]
            if number < 20
            else [("x", "y")] * 4
        )
    ]
    found = disagreement.measure(
        pl.DataFrame(rows, schema_overrides={"dimension": pl.String})
    )
    assert found["shared_pairs"] == found["of"] == 40 and found["judges_a_pair"] == 4
    assert found["conflict"]["value"] == pytest.approx(0.5 * (2 * 0.25 * 4 / 3))
    assert found["ceiling"]["value"] == 0.75 and found["minority"]["value"] == 0.25
    alone = disagreement.measure(
        pl.DataFrame(rows[:2], schema_overrides={"dimension": pl.String})
    )
    assert "were judged by more than one person" in alone["conflict"]["not_measured"]


def test_consistency_is_one_where_a_run_is_the_same_and_none_where_it_is_a_coins(clean):
    both = clean.with_columns(dimension=pl.lit(None, pl.String), label=pl.lit("judge"))
    built = both.with_columns(label=pl.lit("construction"))
    assert (
        "by construction"
        in disagreement.consistency(built, built)["icc"]["not_measured"]
    )
    same = disagreement.consistency(both, both)
    assert same["same"]["value"] == 1.0 and same["icc"]["value"] > 0.99
    source = random.Random(2)
    coin = disagreement.consistency(
        both, turned(both, [source.random() < 0.5 for _ in range(both.height)])
    )
    assert abs(coin["same"]["value"] - 0.5) < 0.05 and abs(coin["icc"]["value"]) < 0.1


def test_labels_are_vouched_for_as_far_as_their_errors_are_few():
    """Errors get fewer as certainty grows; in hundreds of draws the bound is broken about as
    often as was said."""
    source = np.random.default_rng(0)
    broken, found = 0, 0
    for _ in range(200):
        certainty = source.uniform(0.5, 1.0, 400)
        wrong = source.random(400) > certainty
        threshold = labels.lowest_threshold(certainty, wrong, 0.2)
        if threshold is not None:
            found += 1
            broken += 1 - (1 + threshold) / 2 > 0.2  # the mean error above it
            assert threshold >= 0.5
    assert found > 150 and broken / 200 < 0.13
    assert labels.lowest_threshold(np.full(400, 0.9), np.full(400, True), 0.2) is None
    assert (
        labels.lowest_threshold(np.linspace(0.5, 1, 400), np.full(400, False), 0.1)
        == 0.5
    )


def test_two_audits_are_told_apart_where_their_intervals_do_not_touch():
    one, other = (
        {"a": {"value": 0.5, "interval": [0.4, 0.6], "n": 9}},
        {"a": {"value": 0.7, "interval": [0.65, 0.8]}},
    )
    assert diff.compare_audits({"x": one}, {"x": other}) == [
        "audit: x.a 0.500 before, 0.700 now"
    ]
    assert (
        diff.compare_audits({"x": one}, {"x": one})
        == diff.compare_audits(None, one)
        == []
    )


def test_intervals_draw_whole_people():
    alone = figures.mean(np.repeat([0.0, 1.0], 50))
    ten = figures.mean(np.repeat([0.0, 1.0] * 5, 10), np.repeat(np.arange(10), 10))
    width = [one["interval"][1] - one["interval"][0] for one in (alone, ten)]
    assert alone["value"] == ten["value"] == 0.5 and width[1] > 2 * width[0]
    assert "too few" in figures.mean(np.zeros(5))["not_measured"]


def shared(pairs: int, judges: int, dose: float) -> pl.DataFrame:
    """Each pair is judged by several of 40 people, who want one of two things, or decide by a coin."""
    source, frame = random.Random(3), planted(0.0, pairs)[0]
    rows = []
    for number, (prompt, one, other) in enumerate(
        frame.select("prompt", "chosen", "rejected").iter_rows()
    ):
        for person in source.sample(range(40), judges):
            more = one.count("!") - other.count("!") + 0.5 * source.choice((-1, 1))
            mine = (
                (more > 0) == (person % 2 == 0)
                if source.random() < dose
                else source.random() < 0.5
            )
            better, worse = (one, other) if mine else (other, one)
            rows.append(
                {
                    "prompt": f"{prompt} {number}",
                    "chosen": better,
                    "rejected": worse,
                    "persona": f"p{person}",
                }
            )
            rows[-1]["first"] = "ab"[person % 2]
    return pl.DataFrame(rows)


def test_pairs_that_several_people_judged_are_not_learnt_by_heart(tmp_path):
    """Coins over shared pairs hold nothing, and what people want is found in them all the same."""
    columns = {"profile": "first"}
    for dose in (0.0, 0.9):
        shared(200, 10, dose).write_parquet(tmp_path / "x.parquet")
        found = audit.audit(
            str(tmp_path / "x.parquet"),
            sections.AuditOptions(columns, families=("text",)),
        )
        one = found["information"]["text"]["prompts"]
        assert abs(one["shuffled"]["value"]) < 0.01
        assert (
            (abs(one["bits"]["value"]) < 0.02)
            if dose == 0
            else (one["bits"]["value"] > 0.2)
        ), one["bits"]
        assert found["waterfall"]["bits"]["residual"]["value"] < 1.01
    assert (
        found["disagreement"]["conflict"]["value"] > 0.3
        and found["disagreement"]["shared_pairs"] == 200
    )


def test_what_is_not_known_of_people_is_not_measured(clean, tmp_path):
    nobody = audited(clean.drop("persona"), tmp_path)
    one = nobody["information"]["text"]
    assert one["people"]["bits"] == {"not_measured": "it is not known who prefers"}
    low, high = one["prompts"]["bits"]["interval"]
    assert high - low > 0.01 and nobody["hygiene"]["repeated_by_others"]["not_measured"]
    few = clean.with_columns(
        persona=pl.col("first") + pl.col("second")
    )  # four people: their prompts are drawn
    found = audited(few, tmp_path)
    assert (
        faults(found) == []
        and found["information"]["text"]["prompts"]["shuffled"]["value"] < 0.01
    )
    assert found["information"]["text"]["people"]["bits"] == {
        "not_measured": "4 people are too few to hold some out; the minimum is 10"
    }
    assert not any("held-out people" in one["text"] for one in found["verdict"])


def test_five_pairs_are_called_too_few(clean, tmp_path):
    said = " ".join(one["text"] for one in cheaply(clean.head(5), tmp_path)["verdict"])
    assert (
        "too few pairs to tell whether a shortcut" in said
        and "too few pairs to check for duplicates" in said
    )


def test_a_wide_profile_is_not_cut_down_to_what_varies_most(tmp_path):
    """Forty traits of which one decides."""
    source = random.Random(5)
    frame = planted(1.0, 2_000, seed=11)[0]
    traits = {
        one: [source.choice((0.0, 1.0)) for _ in range(40)]
        for one in sorted(set(frame["persona"]))
    }
    first = dict(frame.select("persona", "first").iter_rows())
    wide = [[*traits[one], 0.3 * (first[one] == "a")] for one in frame["persona"]]
    frame.with_columns(wide=pl.Series(wide)).write_parquet(tmp_path / "x.parquet")
    found = audit.audit(
        str(tmp_path / "x.parquet"),
        sections.AuditOptions({"profile": "wide"}, families=("text",)),
    )
    assert found["information"]["text"]["prompts"]["bits"]["interval"][0] > 0.05


def test_what_is_missing_in_anyones_data_is_no_crash(clean, tmp_path):
    """Nulls in every column, NaN in a number, one dialogue among texts, texts without words."""
    spoilt = clean.head(300).with_row_index("n").with_columns(
        *(pl.when(pl.col("n") % 7 == place).then(None).otherwise(name).alias(name)
          for place, name in enumerate(("prompt", "persona", "first", "second", "chosen"))),
        age=pl.when(pl.col("n") % 11 == 0).then(float("nan")).otherwise(pl.col("n").cast(pl.Float64)),
    )  # fmt: skip
    found = audited(spoilt, tmp_path, profile="first+second+age", wish="second")
    assert found["pairs"] == 300 - 43 and found["hygiene"]["same_text"][
        "value"
    ] == pytest.approx(43 / 300)
    assert "on both sides, or a missing text" in " ".join(faults(found))
    rows = [
        {
            "chosen": "!" * (number % 5 + 1),
            "rejected": "?",
            "persona": f"p{number % 20}",
        }
        for number in range(120)
    ]
    (tmp_path / "signs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert audit.audit(
        str(tmp_path / "signs.jsonl"),
        sections.AuditOptions({"profile": "persona"}, families=("text",)),
    )
    mixed = [
        {
            "chosen": [{"role": "assistant", "content": f"yes {n}"}],
            "rejected": f"no {n}",
        }
        for n in range(20)
    ]
    mixed[3]["chosen"] = "yes 3"
    (tmp_path / "mixed.jsonl").write_text("\n".join(map(json.dumps, mixed)))
    assert pairs.read(str(tmp_path / "mixed.jsonl")).frame["chosen"].to_list() == [
        f"yes {n}" for n in range(20)
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            "id,right\na,maybe\n",
            r"--trusted .*: right is 'maybe' for a; it is one of: true, yes",
        ),
        (
            "id,right\na,yes\na,no\n",
            r"a appears twice, once as right and once as wrong",
        ),
        (
            "key,right\na,yes\n",
            r"--trusted .* needs the columns id and right; it has: key, right",
        ),
    ],
)
def test_trusted_labels_that_cannot_be_taken_are_said(tmp_path, content, sentence):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(SourceError, match=sentence):
        labels._read_trusted(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("id,right\n7,yes\n7,TRUE\n8,0\n")
    assert labels._read_trusted(tmp_path / "t.csv").rows() == [
        ("7", True),
        ("8", False),
    ]


def test_what_is_missing_is_said_and_not_guessed(clean, tmp_path):
    clean.select("chosen", "rejected").write_ndjson(tmp_path / "bare.jsonl")
    found = audit.audit(
        str(tmp_path / "bare.jsonl"), sections.AuditOptions(families=("text",))
    )
    assert "name their columns" in found["information"]["text"]["bits"]["not_measured"]
    for one in (
        found["labels"]["judges"],
        found["hygiene"]["leaks"]["people"],
        found["certified"]["coverage"],
    ):
        assert one["not_measured"]
    assert found["people"] is None and any(
        "was not measured" in one["text"] for one in found["verdict"]
    )


@pytest.mark.parametrize(
    ("columns", "kind", "sentence"),
    [
        (
            {"chosen": "better"},
            SourceError,
            r"has no column 'better' for chosen; it has: prompt, chosen",
        ),
        (
            {"profile": "traits+first"},
            SourceError,
            r"has no column 'traits' for profile",
        ),
        (
            {"persona": "persone"},
            SourceError,
            r"has no column 'persone' for persona; did you mean 'persona'",
        ),
        (
            {"chosen": "prompt", "rejected": "number"},
            SourceError,
            r"the column 'number' holds Int64, not texts",
        ),
        (
            {"person": "persona"},
            UsageError,
            r"--columns: 'person' is none of: prompt, chosen.*did you mean 'persona'",
        ),
    ],
)
def test_a_column_that_is_not_there_is_named(clean, tmp_path, columns, kind, sentence):
    clean.head(50).with_columns(number=pl.lit(1).cast(pl.Int64)).write_parquet(
        tmp_path / "x.parquet"
    )
    with pytest.raises(kind, match=sentence):
        pairs.read(str(tmp_path / "x.parquet"), columns)


def test_the_command_audits_anyones_file_and_writes_where_it_is_told(clean, tmp_path):
    clean.head(400).write_csv(tmp_path / "mine.csv")
    done = simforge(
        "audit",
        "mine.csv",
        "--columns",
        "profile=first+second",
        "--scorers",
        "text",
        "--out",
        "A",
        cwd=tmp_path,
    )
    assert done.status == 0, done.err
    assert (
        done.out.splitlines()[-1]
        == "To read: A/report.html. All figures are in A/audit.json."
    )
    assert json.loads((tmp_path / "A" / "audit.json").read_text())["pairs"] == 400
    page = _Page()
    page.feed((tmp_path / "A" / "report.html").read_text())
    assert page.tags["article"] == 50 and page.tags["svg"] >= 3 and not page.links
    assert (tmp_path / "A" / "card.md").read_text().startswith("- ")
    wrong = simforge("audit", "mine.csv", "--columns", "profile", cwd=tmp_path)
    assert wrong.status == 2 and "--columns takes NAME=COLUMN" in wrong.err


def test_the_report_is_one_file_in_which_what_a_model_wrote_is_text(tmp_path):
    """Everything is there to be read, and a script in a person's text is no element of the page."""
    (tmp_path / "p.yaml").write_text(
        "description: x\nlicence: CC0-1.0\nsources: [x]\ntext: '<script>alert(1)</script> "
        "<b>{{ name }}</b>'\n"
        "traits: {name: {type: string, draw: {one_of: ['<img src=x onerror=alert(2)>', Bo]}}}\n"
    )
    out = tmp_path / "run"
    sets = ("--set", f"cast.pack={tmp_path}/p.yaml")
    assert (
        simforge(
            "generate",
            "psoup",
            "--personas",
            70,
            "--model",
            "scripted:",
            "--out",
            out,
            *sets,
        ).status
        == 0
    )
    done = simforge("audit", out, "--scorers", "text")
    assert done.status == 0 and f"To read: {out}/report.html" in done.out, done.err
    page = _Page()
    page.feed((out / "report.html").read_text())
    assert page.tags["script"] == 1 and not page.handlers and page.tags["img"] == 0
    assert page.tags["svg"] >= 4 and page.tags["article"] == 50 + 20
    assert "<script>alert(1)</script> <b>" in page.said  # as text
    policy = page.policy
    assert (
        "default-src 'none'" in policy
        and "script-src 'sha256-" in policy
        and not page.links
    )
    told = json.loads((out / "audit.json").read_text())["verdict"]
    assert all(one["text"] in page.said for one in told)


class _Page(HTMLParser):
    """Counts what a page consists of."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.handlers: list[str] = []
        self.links: list[str] = []
        self.policy = self.said = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        given = dict(attrs)
        self.handlers += [name for name in given if name.startswith("on")]
        self.links += [
            value or ""
            for name, value in attrs
            if name in ("src", "href") and not (value or "").startswith("#")
        ]
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"] or ""

    def handle_data(self, data: str) -> None:
        self.said += data


SENTENCES = (
    "Wants the answer to be short and plain, without any jargon in it.",
    "Wants every answer in full detail, with the terms of an expert.",
)
NAMES = "Ann Ben Cleo Dan Eve Finn Gus Hal Ida Joy Kit Lou Mia Ned Oda Pia".split()


def poles(
    pairs: int, texts: int, shuffled: bool = False, seed: int = 1
) -> pl.DataFrame:
    """Pairs whose labels follow the pole of the person, told as one of `texts` profiles: the
    pole's sentence, with another name before it in each."""
    source = random.Random(seed)
    rows = []
    for number in range(pairs):
        pole, which = source.randrange(2), source.randrange(max(1, texts // 2))
        short = " ".join(source.choice(planted_pairs.WORDS) for _ in range(12))
        long = " ".join(source.choice(planted_pairs.WORDS) for _ in range(60))
        follows = source.random() < 0.95
        wanted = pole if not shuffled else source.randrange(2)
        chosen, rejected = (short, long) if (wanted == 0) == follows else (long, short)
        name = f"{NAMES[which % 16]} {NAMES[which // 16 % 16]} is {20 + which % 50}. "
        rows.append(
            {
                "prompt": f"Question {number % 100} about {source.choice(planted_pairs.WORDS)}",
                "chosen": chosen,
                "rejected": rejected,
                "profile": (name if texts > 2 else "") + SENTENCES[pole],
            }
        )
    return pl.DataFrame(rows)


def bits_of(frame: pl.DataFrame, folder: Path, **columns: str) -> dict[str, Any]:
    frame.write_parquet(folder / "poles.parquet")
    return audit.audit(
        str(folder / "poles.parquet"),
        sections.AuditOptions({"profile": "profile", **columns}, families=("text",)),
    )


def test_profiles_in_words_hold_the_same_bits_however_many_different_texts_they_are(
    tmp_path,
):
    sentence = bits_of(poles(237, 2), tmp_path)["information"]["text"]["prompts"]
    assert sentence["bits"]["value"] > 0.4
    for texts in (10, 60, 120, 237):
        found = bits_of(poles(237, texts), tmp_path)
        bits = found["information"]["text"]["prompts"]["bits"]
        assert bits["value"] > 0.75 * sentence["bits"]["value"], (texts, bits)
        assert not any("no measurable effect" in one for one in faults(found))
    shuffled = bits_of(poles(237, 237, shuffled=True), tmp_path)
    low, high = shuffled["information"]["text"]["prompts"]["bits"]["interval"]
    assert low <= 0 and high < 0.1 and faults(shuffled) == []
    assert any(
        "would not show a small one" in one["text"] for one in shuffled["verdict"]
    )


def test_profiles_that_share_no_words_are_not_measured_and_said(tmp_path):
    frame = poles(300, 2).with_columns(
        profile=pl.Series([f"id{number % 200}" for number in range(300)])
    )
    found = bits_of(frame, tmp_path)
    reason = found["information"]["text"]["bits"]["not_measured"]
    assert reason == "'profile' holds 200 different texts that share too few words"
    assert any(reason in one["text"] for one in found["verdict"])


def test_a_column_is_never_taken_as_profile_unasked(tmp_path):
    poles(200, 60).write_parquet(tmp_path / "x.parquet")
    unasked = pairs.read(str(tmp_path / "x.parquet"))
    assert unasked.profiles is None
    assert "it has a column 'profile'" in unasked.why_no_profiles


def test_terms_are_few_balanced_and_different():
    from simforge.audit.features import term_columns

    texts = ["likes long answers", "likes short answers"] * 20
    assert term_columns(texts).shape == (40, 1)
    chinese = ["喜欢长的回答", "喜欢短的回答"] * 20
    assert term_columns(chinese).shape[1] == 1
    assert term_columns([f"x{number}" for number in range(40)]).shape == (40, 0)


@pytest.mark.parametrize(
    ("persona", "profile"),
    [(None, True), ("pole", True), ("each", False), ("some", True)],
)
def test_repeats_are_named_whoever_prefers(persona, profile, tmp_path):
    frame = poles(128, 2)
    frame = pl.concat([frame] * 5).head(600).with_row_index("n")
    people = {
        "pole": pl.col("profile"),
        "each": pl.col("n").cast(pl.String),
        "some": pl.when(pl.col("n") == 0).then(None).otherwise("profile"),
    }
    if persona:
        frame = frame.with_columns(persona=people[persona])
    frame.write_parquet(tmp_path / "x.parquet")
    columns = {"profile": "profile"} if profile else {"persona": "persona"}
    found = audit.quick_audit(pairs.read(str(tmp_path / "x.parquet"), columns))
    said = " ".join(one["text"] for one in found["verdict"])
    assert "128 different pairs" in said and "hardly any repeated" not in said


def test_copies_change_no_figure_and_no_interval(tmp_path):
    frame = poles(120, 2)
    once, often = (bits_of(pl.concat([frame] * times), tmp_path) for times in (1, 5))
    assert (often["pairs"], often["rows"]) == (120, 600)
    for name in ("shortcuts", "disagreement", "labels"):
        assert once[name] == often[name]
    bits = [found["information"]["text"]["prompts"]["bits"] for found in (once, often)]
    assert bits[0]["n"] == bits[1]["n"] == 120
    # the solver starts at random
    assert bits[0]["interval"] == pytest.approx(bits[1]["interval"], abs=0.01)
    people = pl.concat([frame] * 5).with_row_index("n")
    people = people.with_columns(persona=pl.col("n").cast(pl.String))
    copied = bits_of(people, tmp_path, persona="persona")
    widths = [
        found["shortcuts"]["rules"]["longer"]["interval"][1]
        - found["shortcuts"]["rules"]["longer"]["interval"][0]
        for found in (once, copied)
    ]
    assert widths[1] > 0.9 * widths[0]


def test_a_profile_that_belongs_to_one_person_says_nothing_of_held_out_people(tmp_path):
    frame = poles(600, 2).with_row_index("n")
    frame = frame.with_columns(
        persona=pl.col("profile").str.slice(0, 9) + (pl.col("n") % 10).cast(pl.String)
    )
    frame = frame.with_columns(profile=pl.col("persona").str.replace_all(" ", ""))
    found = bits_of(frame, tmp_path, persona="persona")["information"]["text"]
    assert found["people"]["bits"] == {
        "not_measured": "each profile belongs to one person"
    }


def test_a_rule_that_turns_with_the_wish_and_an_echo_of_one_wish_are_named(tmp_path):
    frame = poles(800, 2)
    found = bits_of(frame, tmp_path)
    said = [one["text"] for one in found["verdict"] if one["weight"] == "doubt"]
    assert any("'longer wins' is right in 9" in text for text in said), said
    assert 0.4 < found["shortcuts"]["rules"]["longer"]["value"] < 0.7
    echo = frame.with_row_index("n").with_columns(
        wish=pl.concat_str(
            pl.lit("Wants number "),
            (pl.col("n") % 6).cast(pl.String),
            pl.lit(" of six such wishes here"),
        )
    )
    quoting = (pl.col("n") % 6 == 0) & (pl.col("n") % 5 == 0) & (pl.col("n") % 4 == 0)
    echo = echo.with_columns(
        chosen=pl.when(quoting)
        .then(pl.concat_str("chosen", pl.lit(" Wants number 0 of six such wishes")))
        .otherwise("chosen")
    )
    found = bits_of(echo, tmp_path)
    assert found["shortcuts"]["echo"]["difference"]["interval"][0] < 0.01
    assert any("quote the wish 'Wants number 0 of" in one for one in faults(found))


def test_rows_left_out_are_counted_on_the_screen(clean, tmp_path):
    frame = clean.head(300).with_row_index("n")
    frame = frame.with_columns(
        rejected=pl.when(pl.col("n") < 2).then("chosen").otherwise("rejected"),
        chosen=pl.when(pl.col("n") == 5).then(None).otherwise("chosen"),
    )
    frame.write_parquet(tmp_path / "x.parquet")
    words = (
        "audit",
        tmp_path / "x.parquet",
        "--scorers",
        "text",
        "--out",
        tmp_path / "a",
    )
    done = simforge(*words)
    assert done.status == 0, done.err
    line = next(line for line in done.out.splitlines() if line.startswith("left out"))
    assert line.startswith("left out  3 of 300 rows: ")
    assert "2 the same text on both sides" in line and "1 a text is missing" in line
    clean.head(300).write_parquet(tmp_path / "x.parquet")
    assert "left out" not in simforge(*words).out


def shapes_of(rows: list[dict[str, Any]], folder: Path, **columns: str) -> pairs.Pairs:
    (folder / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return pairs.read(str(folder / "x.jsonl"), columns)


def test_labels_that_could_mean_either_answer_are_asked_for(tmp_path):
    for low, high in ((0, 1), (-1, 1), (False, True), ("no", "yes")):
        rows = [
            {"a": f"one {n}", "b": f"two {n}", "won": (low, high)[n % 2]}
            for n in range(8)
        ]
        with pytest.raises(SourceError, match="label=won:VALUE"):
            shapes_of(rows, tmp_path, a="a", b="b", label="won")
        named = f"won:{str(high).lower()}"
        read = shapes_of(rows, tmp_path, a="a", b="b", label=named)
        assert read.frame["chosen"].to_list() == [
            f"{('two', 'one')[n % 2]} {n}" for n in range(8)
        ]
        assert not read.left_out
    rows = [{"a": f"one {n}", "b": f"two {n}", "won": f"gpt-{n % 2}"} for n in range(8)]
    with pytest.raises(SourceError, match="do not say which answer is better"):
        shapes_of(rows, tmp_path, a="a", b="b", label="won")
    with pytest.raises(SourceError, match="no value of 'won' is 'x'"):
        shapes_of(rows, tmp_path, a="a", b="b", label="won:x")
    rows = [
        {"a": f"one {n}", "b": f"two {n}", "won": (1.0, 2.0, None)[n % 3]}
        for n in range(9)
    ]
    read = shapes_of(rows, tmp_path, a="a", b="b", label="won")
    assert read.frame.height == 6 and read.left_out == {"an unknown label": 3}


def test_pairs_are_read_in_the_shapes_that_others_write(tmp_path):
    labelled = [
        {"q": "Why?", "one": f"a{n}", "two": f"b{n}", "better": better}
        for n, better in enumerate(["one", "TWO", "model_b", "1", "tie", "??", None])
    ]
    read = shapes_of(labelled, tmp_path, prompt="q", a="one", b="two", label="better")
    assert read.frame["chosen"].to_list() == ["a0", "b1", "b2", "a3"]
    assert read.left_out == {"a tie": 1, "an unknown label": 2}
    transcripts = [
        {
            "chosen": f"\n\nHuman: Hi {n}\n\nAssistant: Hello\n\nHuman: And?\n\nAssistant: Yes",
            "rejected": f"\n\nHuman: Hi {n}\n\nAssistant: Hello\n\nHuman: And?\n\nAssistant: No",
        }
        for n in range(30)
    ]
    transcripts[0]["rejected"] = (
        "\n\nHuman: Other\n\nAssistant: Oh\n\nHuman: x\n\nAssistant: y"
    )
    read = shapes_of(transcripts, tmp_path)
    assert read.frame.select("prompt", "chosen", "rejected").row(0) == (
        "And?",
        "Yes",
        "No",
    )
    assert sum(read.left_out.values()) == 30 - read.frame.height and read.note
    chats = [
        {
            "chosen": [
                {"role": "user", "content": "Q"},
                {"role": "assistant", "content": f"y{n}"},
            ],
            "rejected": [
                {"role": "user", "content": "Q"},
                {"role": "assistant", "content": "n"},
            ],
        }
        for n in range(3)
    ]
    for rows in (
        chats,
        [{side: json.dumps(row[side], indent=1) for side in row} for row in chats],
    ):
        read = shapes_of(rows, tmp_path)
        assert read.frame["prompt"].to_list() == ["Q"] * 3
        assert read.frame["chosen"].to_list() == ["y0", "y1", "y2"]
    nested = [{"x": {"good": f"g{n}", "bad": "b"}, "who": {"id": n}} for n in range(3)]
    read = shapes_of(
        nested, tmp_path, chosen="x.good", rejected="x.bad", persona="who.id"
    )
    assert read.frame["chosen"].to_list() == ["g0", "g1", "g2"]
    assert read.frame["persona"].to_list() == ["0", "1", "2"]
    with pytest.raises(UsageError, match="a, b and label belong together"):
        shapes_of(labelled, tmp_path, a="one", b="two")
    numbers = [{**row, "better": n + 3} for n, row in enumerate(labelled)]
    with pytest.raises(
        SourceError, match="do not say which answer is better: '3', '4'"
    ):
        shapes_of(
            [
                {**row, "better": n}
                for n, row in zip((3, 4, 5), numbers[:3], strict=True)
            ],
            tmp_path,
            a="one",
            b="two",
            label="better",
        )
