"""Persona packs: the format, its mistakes, the draws, sources of people, the proof."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import jsonschema
import numpy as np
import polars as pl
import pytest
import yaml
from conftest import simforge
from hypothesis import given, settings
from hypothesis import strategies as st

from simforge import catalog
from simforge.errors import RecipeError, SourceError, UsageError
from simforge.personas import check
from simforge.personas.cast import check_against_schema, sample_cast
from simforge.personas.faker_words import faker_words
from simforge.personas.files import read_cast
from simforge.personas.loader import load_pack
from simforge.personas.pack import Pack
from simforge.personas.sampling import Sampler

SHIPPED = [name for name in catalog.names("personas") if "/" not in name]
HEAD = "description: made for this test\nlicence: CC0-1.0\nsources: [written for this test]\n"
PACK = (
    HEAD
    + """\
traits:
  team: {type: string, draw: {categories: {red: 0.25, blue: 0.75}}}
  age: {type: integer, minimum: 20, maximum: 39, draw: {given: team, table: {
    red: {histogram: {edges: [20, 30], weights: [1]}}, blue: {histogram: {edges: [30, 40], weights: [1]}}}}}
  fit: {type: boolean, draw: {given: age, table: {20-29: {chance: 0.5}, 30-40: {chance: 0.1}}}}
text: "{{ team }} {{ age }}"
"""
)


TEAM = "{categories: {red: 0.25, blue: 0.75}}"


@pytest.fixture
def written(tmp_path):
    """Writes a pack (a text, or the traits as a text) and loads it."""

    def write(text: str, name: str = "pack.yaml") -> Pack:
        text = textwrap.dedent(text)
        whole = text if "description:" in text else f'{HEAD}text: "x"\n{text}'
        (tmp_path / name).write_text(whole)
        return load_pack(str(tmp_path / name))

    return write


# Sampling


@pytest.mark.parametrize("pack", ["everyday", "students"])
def test_the_first_people_of_many_are_the_people_of_a_small_run(pack):
    loaded = load_pack(pack)  # students has constraints, so people are passed over
    few, many = (
        sample_cast(loaded, 300, seed=4),
        sample_cast(loaded, 20_000, seed=4),
    )
    assert few.frame.equals(many.frame.head(300))
    assert not few.frame.equals(sample_cast(loaded, 300, seed=5).frame)


def test_candidates_do_not_depend_on_the_size_of_the_batches():
    pack = load_pack("everyday")
    at_once, in_two = Sampler(pack, 3), Sampler(pack, 3)
    whole = at_once.frame(at_once.batch(500))
    assert pl.concat([in_two.frame(in_two.batch(size)) for size in (123, 377)]).equals(
        whole
    )


@pytest.mark.parametrize("pack", SHIPPED)
def test_shipped_people_are_adults_who_fit_their_own_schema_and_have_something_to_ask(
    pack,
):
    loaded = load_pack(pack)
    cast = sample_cast(loaded, 500, seed=0)
    written = {name for names in loaded.traits_by_writer.values() for name in names}
    schema = loaded.json_schema()
    schema["required"] = [name for name in schema["required"] if name not in written]
    validator = jsonschema.Draft202012Validator(schema)
    rows = [
        {k: v for k, v in cast.traits(i).items() if k not in written}
        for i in range(len(cast))
    ]
    assert [error.message for row in rows for error in validator.iter_errors(row)] == []
    assert cast.frame["age"].dtype == pl.String or cast.frame["age"].min() >= 18
    needs = [
        need if isinstance(need, str) else next(iter(need)) for need in loaded.needs
    ]
    assert len(set(needs)) == len(needs) >= 20
    assert all(
        goals and len(set(goals)) == len(goals)
        for need in loaded.needs
        if isinstance(need, dict)
        for goals in need.values()
    )
    assert not loaded.facts or len(cast.facts(0)) >= 3


def test_shares_and_conditions_are_those_of_the_pack(written):
    frame = sample_cast(written(PACK), 40_000, seed=1).frame
    assert abs((frame["team"] == "red").mean() - 0.25) < 0.01  # four standard errors
    assert frame.filter(pl.col("team") == "red")["age"].max() == 29
    assert frame.filter(pl.col("team") == "blue")["age"].min() == 30
    assert abs(frame.filter(pl.col("age") >= 30)["fit"].mean() - 0.1) < 0.01


def test_numbers_have_the_distributions_that_they_name(written):
    pack = written(
        """
        traits:
          a: {type: number, draw: {normal: {mean: 10, sd: 2}}}
          b: {type: number, draw: {normal: {mean: 0, sd: 1, low: 0}}}
          c: {type: number, draw: {lognormal: {median: 30, sigma: 0.5}}}
          d: {type: number, draw: {beta: {a: 2, b: 6, low: 0, high: 100}}}
          e: {type: number, draw: {uniform: {low: -1, high: 3}}}
          f: {type: integer, draw: {uniform: {low: 1, high: 7}}}
          g: {type: integer, draw: {categories: {1: 0.5, 4: 0.5}}}
        """
    )
    frame = sample_cast(pack, 100_000, seed=2).frame
    got = [frame[name].mean() for name in "abcdefg"]
    assert got == pytest.approx(
        [10, np.sqrt(2 / np.pi), 30 * np.exp(0.125), 25, 1, 3.5, 2.5], rel=0.02
    )
    assert (frame["a"].std(), frame["c"].median()) == pytest.approx((2, 30), rel=0.02)
    assert (
        frame["b"].min() >= 0,
        sorted(frame["f"].unique()),
        sorted(frame["g"].unique()),
    ) == (
        True,
        [1, 2, 3, 4, 5, 6],
        [1, 4],
    )


def test_correlated_traits_correlate_and_keep_their_own_distributions(written):
    pack = written(
        """
        traits:
          a: {type: number, draw: {normal: {mean: 50, sd: 10}}}
          b: {type: integer, draw: {normal: {mean: 50, sd: 10}}}
          c: {type: number, draw: {uniform: {low: 0, high: 1}}}
        correlated:
          - traits: [a, b, c]
            correlations: [[1], [0.6, 1], [-0.3, 0, 1]]
        """
    )
    frame = sample_cast(pack, 50_000, seed=0).frame
    assert np.corrcoef(frame["a"], frame["b"])[0, 1] == pytest.approx(0.6, abs=0.02)
    assert np.corrcoef(frame["a"], frame["c"])[0, 1] < -0.25
    assert frame["c"].mean() == pytest.approx(0.5, abs=0.01)
    assert [
        one.within_limit for one in check.check_sampling(pack, 50_000, 0).comparisons
    ] == [True] * 6


def test_names_follow_the_locale_and_the_sex_and_nobody_is_called_doe(written):
    pack = written(
        """
        traits:
          land: {type: string, draw: {one_of: [Poland, Vietnam]}}
          sex: {type: string, draw: {one_of: [female, male]}}
          first:
            type: string
            draw: {faker: {provider: first_name, locale: &l {Poland: pl_PL, Vietnam: vi_VN}, by: land, sex: sex}}
          last: {type: string, draw: {faker: {provider: last_name, locale: *l, by: land}}}
          town: {type: string, draw: {faker: {provider: city, locale: fr_FR}}}
        """
    )
    frame = sample_cast(pack, 2_000, seed=0).frame
    women = set(frame.filter(land="Poland", sex="female")["first"])
    assert women <= set(faker_words("pl_PL", "first_name", "female")[0])
    assert not women & set(faker_words("pl_PL", "first_name", "male")[0])
    assert set(frame.filter(land="Vietnam")["last"]) <= set(
        faker_words("vi_VN", "last_name", "")[0]
    )
    assert "Doe" not in set(frame["last"]) and frame["town"].n_unique() > 100


def test_the_far_tail_of_a_normal_distribution_is_drawn_and_birthdays_on_leap_days_are_right(
    written,
):
    pack = written(
        """
        traits:
          x: {type: number, draw: {normal: {mean: 0, sd: 1, low: 9, high: 12}}}
          age: {type: integer, draw: {one_of: [1, 4, 30]}}
          born: {type: string, draw: {date: {age: age, on: 2024-02-29}}}
        """
    )
    frame = sample_cast(pack, 20_000, seed=0).frame
    assert (
        9 <= frame["x"].min() < frame["x"].max() <= 12
        and frame["x"].n_unique() > 19_000
    )
    assert frame["x"].mean() == pytest.approx(
        9.109, abs=0.01
    )  # the hazard of the normal tail
    one = frame.filter(age=1)["born"]
    assert (one.min(), one.max()) == ("2022-03-01", "2023-02-28")


def test_birthdays_fit_the_age_and_days_lie_between_their_ends(written):
    pack = written(
        """
        traits:
          age: {type: integer, draw: {uniform: {low: 18, high: 90}}}
          born: {type: string, draw: {date: {age: age, on: 2026-02-28}}}
          joined: {type: string, draw: {date: {first: 2024-01-01, last: 2024-12-31}}}
        """
    )
    frame = sample_cast(pack, 5_000, seed=0).frame.with_columns(
        pl.col("born").str.to_date()
    )
    had_birthday = (
        pl.col("born").dt.month().cast(int) * 100 + pl.col("born").dt.day()
    ) <= 228
    age = 2026 - pl.col("born").dt.year() - pl.when(had_birthday).then(0).otherwise(1)
    assert frame.select((age == pl.col("age")).all()).item()
    assert (
        frame["joined"].min(),
        frame["joined"].max(),
        frame["joined"].n_unique(),
    ) == (
        "2024-01-01",
        "2024-12-31",
        366,
    )
    assert pack.json_schema()["properties"]["joined"]["format"] == "date"


def test_templates_are_filled_alike_with_and_without_logic(written):
    pack = written(
        """
        traits:
          who: {type: string, draw: {template: "{{ name | upper }}, {{ age }}"}}
          how: {type: string, draw: {template: "{% if age > 40 %}older{% else %}younger{% endif %} {{ name }}"}}
          name: {type: string, draw: {one_of: [Ann, Bo]}}
          age: {type: integer, draw: {uniform: {low: 30, high: 50}}}
        """
    )
    for row in sample_cast(pack, 200, seed=0).frame.iter_rows(named=True):
        assert row["who"] == f"{row['name'].upper()}, {row['age']}"
        assert (
            row["how"] == f"{'older' if row['age'] > 40 else 'younger'} {row['name']}"
        )


def test_tables_from_files_are_conditions_lists_and_joined_columns(written, tmp_path):
    (tmp_path / "schooling.csv").write_text(
        "# a comment\nland,age,value,weight\n"
        + "".join(f"{land},{age},{v},{w}\n" for land in "AB" for age in ("18-39", "40+") for v, w in
                  (("low", 3 if land == "A" else 0), ("high", 1)))
    )  # fmt: skip
    (tmp_path / "ages.csv").write_text(
        "land,value,weight\nA,18-29,30\nA,30-49,70\nB,50-79,5\n"
    )
    (tmp_path / "words.txt").write_text("reading\n\n# no\nsailing\n")
    pl.DataFrame(
        {
            "land": ["A", "A", "B"],
            "city": ["x", "y", "z"],
            "people": [1, 9, 5],
            "rain": [1.5, 2.5, 3.5],
        }
    ).write_parquet(tmp_path / "cities.parquet")
    pack = written(
        """
        traits:
          land: {type: string, draw: {column: {file: ./cities.parquet, name: land, weight: people}}}
          age: {type: integer, minimum: 18, maximum: 79, draw: {given: land, csv: ./ages.csv}}
          school: {type: string, draw: {given: [land, age], csv: ./schooling.csv}}
          hobby: {type: string, draw: {file: ./words.txt}}
          city: {type: string, draw: {column: {file: ./cities.parquet, name: city, key: {land: land}, weight: people}}}
          rain: {type: number, draw: {column: {file: ./cities.parquet, name: rain, key: {city: city}}}}
        """
    )
    frame = sample_cast(pack, 20_000, seed=0).frame
    assert abs((frame["land"] == "A").mean() - 10 / 15) < 0.015
    a = frame.filter(land="A")
    assert abs((a["age"] < 30).mean() - 0.3) < 0.02 and a["age"].max() == 49
    assert abs((a["school"] == "low").mean() - 0.75) < 0.02
    assert set(frame.filter(land="B")["school"]) == {"high"}
    assert set(frame["hobby"]) == {"reading", "sailing"}
    assert abs((a["city"] == "y").mean() - 0.9) < 0.02 and set(
        frame.filter(land="B")["city"]
    ) == {"z"}
    assert set(frame.select("city", "rain").unique().rows()) == {
        ("x", 1.5),
        ("y", 2.5),
        ("z", 3.5),
    }


def test_a_pack_is_the_same_pack_wherever_its_files_lie(tmp_path):
    contents = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "w.csv").write_text("v\na\nb\n")
        (tmp_path / place / "p.yaml").write_text(
            HEAD
            + 'text: "{{ v }}"\ntraits: {v: {type: string, draw: {column: {file: ./w.csv, '
            "name: v}}}}\n"
        )
        contents.append(load_pack(str(tmp_path / place / "p.yaml")).content())
    assert contents[0] == contents[1] and str(tmp_path) not in json.dumps(contents)
    (tmp_path / "there" / "w.csv").write_text("v\na\nc\n")
    assert load_pack(str(tmp_path / "there" / "p.yaml")).content() != contents[0]


def test_words_that_look_like_truth_values_or_dates_stay_words(written):
    pack = written("traits: {a: {type: string, draw: {one_of: [no, on, 2024-01-01]}}}")
    assert set(sample_cast(pack, 100, 0).frame["a"]) == {"no", "on", "2024-01-01"}


# Constraints, quotas, targets


def test_people_who_fail_a_constraint_are_passed_over_and_counted(written):
    pack = written(
        """
        traits:
          age: {type: integer, draw: {uniform: {low: 18, high: 28}}}
          job: {type: string, draw: {one_of: [judge, clerk]}}
        where: ["NOT (job = 'judge' AND age < 23)"]
        """
    )
    cast = sample_cast(pack, 10_000, seed=0)
    assert cast.frame.filter(pl.col("job") == "judge")["age"].min() == 23
    assert (
        cast.rejections.candidates - len(cast)
        == cast.rejections.failed_conditions
        == cast.rejections.by_condition[pack.where[0]]
    )
    assert (
        cast.rejections.failed_conditions / cast.rejections.candidates
        == pytest.approx(0.25, abs=0.015)
    )


@pytest.mark.parametrize("n", [7, 1000, 40_000])
def test_quotas_are_met_to_the_nearest_person(written, n):
    pack = written(
        """
        traits:
          age: {type: integer, minimum: 18, maximum: 79, draw: {uniform: {low: 18, high: 80}}}
          sex: {type: string, draw: {categories: {f: 0.9, m: 0.1}}}
        targets:
          - {of: age, shares: {18-39: 0.5, 40+: 0.5}, quota: true}
          - {of: sex, shares: {f: 0.3, m: 0.7}, quota: true}
        """
    )
    frame = sample_cast(pack, n, seed=0).frame
    assert (
        abs((frame["age"] < 40).sum() - n / 2) < 1
        and abs((frame["sex"] == "f").sum() - 0.3 * n) < 1
    )


def test_several_quotas_leave_the_traits_as_independent_as_they_are(written):
    pack = written(
        """
        traits:
          age: {type: integer, minimum: 18, maximum: 79, draw: {uniform: {low: 18, high: 80}}}
          sex: {type: string, draw: {categories: {f: 0.9, m: 0.1}}}
        targets:
          - {of: age, shares: {18-39: 0.5, 40+: 0.5}, quota: true}
          - {of: sex, shares: {f: 0.3, m: 0.7}, quota: true}
        """
    )
    frame = sample_cast(pack, 10_000, seed=0).frame
    young = [(frame.filter(sex=sex)["age"] < 40).mean() for sex in "fm"]
    assert young == [pytest.approx(0.5, abs=0.03)] * 2


def test_quotas_that_only_one_mixture_of_people_can_meet_are_met(written):
    pack = written(
        """
        traits:
          a: {type: string, draw: {categories: {x: 0.9, y: 0.1}}}
          b: {type: string, draw: {given: a, table: {x: {one_of: [p, q]}, y: {one_of: [p]}}}}
        targets:
          - {of: a, shares: {x: 0.5, y: 0.5}, quota: true}
          - {of: b, shares: {p: 0.5, q: 0.5}, quota: true}
        """
    )
    counts = (
        sample_cast(pack, 200, seed=0)
        .frame.group_by("a", "b")
        .len()
        .sort("a", "b")
        .rows()
    )
    assert counts == [("x", "q", 100), ("y", "p", 100)]


def test_what_can_never_be_met_ends_with_the_reason(written):
    traits = (
        "traits: {a: {type: string, draw: {one_of: [x, y]}}, b: {type: integer, draw: "
        "{uniform: {low: 0, high: 9}}}}\n"
    )
    with pytest.raises(
        UsageError, match=r"only 0 of 5 people were found .* fail 'b > 20'"
    ):
        sample_cast(written(traits + 'where: ["b > 20"]'), 5, 0)
    quota = "where: [\"a = 'x'\"]\ntargets: [{of: a, shares: {x: 0.5, y: 0.5}, quota: true}]"
    with pytest.raises(
        UsageError,
        match=r"a quota asks for 2 people with a = y, who are \(almost\) never drawn",
    ):
        sample_cast(written(traits + quota), 5, 0)


@pytest.mark.parametrize("pack", SHIPPED)
def test_the_proof_of_every_shipped_pack_holds(pack):
    found = check.check_sampling(load_pack(pack), 30_000, 0)
    assert [one.of for one in found.comparisons if not one.within_limit] == []


def test_the_check_prints_asked_and_got_and_fails_on_wrong_targets(tmp_path):
    right = PACK + (
        "targets:\n- {of: [team, fit], shares: {red: {true: 0.125, false: 0.125}, blue: {true: "
        "0.075, false: 0.675}}}\n"
    )
    for name, text in (
        ("right", right),
        ("wrong", right.replace("0.075", "0.095").replace("0.675", "0.655")),
    ):
        (tmp_path / f"{name}.yaml").write_text(text)
    good = simforge("personas", "check", "./right.yaml", "-n", "50k", cwd=tmp_path)
    bad = simforge("personas", "check", "./wrong.yaml", "-n", "50k", cwd=tmp_path)
    assert (good.status, bad.status) == (0, 1)
    assert (
        "everything as expected, within noise" in good.out
        and "NOT AS EXPECTED: team x fit" in bad.out
    )
    assert "blue · true  " in bad.out and "expected  0.0950" in bad.out
    told = json.loads(
        simforge("personas", "check", "./wrong.yaml", "--json", cwd=tmp_path).out
    )
    target = told["comparisons"][-1]
    assert (target["kind"], told["holds"], target["gap"] > target["limit"]) == (
        "target",
        False,
        True,
    )
    assert target["v_expected"] != pytest.approx(target["v_observed"], abs=0.01)


def test_the_proof_sees_a_draw_that_is_not_what_it_says(written):
    pack = written(PACK)
    other = written(
        PACK.replace("red: 0.25, blue: 0.75", "red: 0.27, blue: 0.73"), "other.yaml"
    )
    honest, columns = Sampler(pack, 0), Sampler(other, 0).batch(50_000)
    leaf, leaves = check._leaf_numbers(honest.nodes["team"], columns, np.arange(50_000))
    table = check._count_table("team", "string", columns, leaf, leaves)
    assert not check._compare_counts(
        "team", "draw", *table, np.random.default_rng(0)
    ).within_limit


def test_pairs_that_nothing_connects_are_named_independent(written):
    pack = written(PACK + 'where: ["age < 90"]\n'.replace("age < 90", "age < 90"))
    pack = written(
        """
        traits:
          a: {type: string, draw: {one_of: [x, y]}}
          b: {type: string, draw: {given: a, table: {x: {one_of: [p]}, y: {one_of: [q]}}}}
          c: {type: string, draw: {given: a, table: {x: {one_of: [p]}, y: {one_of: [q]}}}}
          d: {type: integer, draw: {uniform: {low: 0, high: 9}}}
          e: {type: integer, draw: {uniform: {low: 0, high: 9}}}
          f: {type: integer, draw: {uniform: {low: 0, high: 9}}}
        where: ["e + f < 12"]
        """
    )
    found = check.check_sampling(pack, 20_000, 0)
    pairs = {frozenset(pair) for pair in found.independent}
    assert (
        frozenset("bc") not in pairs
        and frozenset("ab") not in pairs
        and frozenset("ef") not in pairs
    )
    assert {frozenset("ad"), frozenset("bd"), frozenset("de"), frozenset("ae")} <= pairs
    assert (found.comparisons[-1].kind, found.all_within_limit) == (
        "independence",
        True,
    )


# A pack by chance

values = st.lists(
    st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=4, unique=True
)


@st.composite
def packs(draw: st.DrawFn) -> dict:
    """Any small valid pack: words, numbers and truth values, some of them conditional on what
    is there."""

    def leaf(kind: str) -> dict:
        if kind == "string":
            words = draw(values)
            if draw(st.booleans()):
                return {"one_of": words}
            weights = [draw(st.integers(1, 9)) for _ in words]
            return {
                "categories": {
                    word: weight / sum(weights)
                    for word, weight in zip(words, weights, strict=True)
                }
            }
        if kind == "boolean":
            return {"chance": draw(st.floats(0, 1))}
        low, span = draw(st.integers(-20, 20)), draw(st.integers(1, 30))
        ways = [
            {"uniform": {"low": low, "high": low + span}},
            {"normal": {"mean": low, "sd": span, "low": low - 3, "high": low + span}},
            {
                "histogram": {
                    "edges": [low, low + span, low + 2 * span],
                    "weights": [0.25, 0.75],
                }
            },
            {"beta": {"a": 0.5, "b": 2, "low": low, "high": low + span}},
            {"one_of": [low, low + span]},
        ]
        return draw(st.sampled_from(ways))

    traits: dict[str, dict] = {}
    for name in ["t0", "t1", "t2", "t3"][: draw(st.integers(1, 4))]:
        kind = draw(st.sampled_from(["string", "integer", "number", "boolean"]))
        earlier = [
            one
            for one, trait in traits.items()
            if trait["type"] == "boolean" or "one_of" in trait["draw"]
        ]
        earlier = [
            one for one in earlier if traits[one]["type"] in ("boolean", "string")
        ]
        way = leaf(kind)
        if earlier and draw(st.booleans()):
            given_ = draw(st.sampled_from(earlier))
            keys = (
                ["true", "false"]
                if traits[given_]["type"] == "boolean"
                else traits[given_]["draw"]["one_of"]
            )
            way = {
                "given": given_,
                "table": {key: leaf(kind) for key in keys[:1]},
                "default": way,
            }
        traits[name] = {"type": kind, "draw": way}
    return {
        "description": "x", "licence": "CC0-1.0", "sources": ["x"], "traits": traits, "text": "{{ t0 }}"
    }  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(packs(), st.integers(0, 1000))
def test_any_valid_pack_draws_people_who_fit_its_own_schema(
    tmp_path_factory, pack, seed
):
    path = tmp_path_factory.mktemp("any") / "pack.yaml"
    path.write_text(yaml.safe_dump(pack))
    loaded = load_pack(str(path))
    cast = sample_cast(loaded, 40, seed)
    check_against_schema(cast, 40)
    assert cast.frame.null_count().sum_horizontal().item() == 0


# Mistakes


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("red: 0.25", "red: 0.5", r"yaml:5: traits\.team\.draw: the shares sum to 1.25, not 1"),
        ("given: team", "given: tem", r"yaml:6: traits\.age\.draw: there is no trait 'tem'; did you mean 'team'"),
        ("blue: {histogram", "green: {histogram", "has no row for team = 'blue' and no default"),
        ("blue: {histogram", "green: {histogram", "team is never 'green'"),
        ("edges: [20, 30]", "edges: [20, 30, 40]", "1 weights need 2 edges, not 3"),
        ("edges: [20, 30]", "edges: [30, 20]", "edges must ascend"),
        ("type: integer", "type: int", "'int' is not allowed; did you mean 'integer'"),
        ("{{ age }}", "{{ agee }}", "there is no trait 'agee'; did you mean 'age'"),
        ("{{ age }}", "{{ age", "the template does not render"),
        (TEAM, "{one_of: [red], chance: 0.5}", "needs exactly one of"),
        (TEAM, "{chance: 0.5}", "of type string cannot be drawn by `chance`; use one of cat"),
        (
            TEAM,
            "{faker: {provider: last_name, locale: xx_XX}}",
            "Faker has no locale 'xx_XX'",
        ),
        (
            TEAM,
            "{faker: {provider: sity, locale: en_GB}}",
            "Faker has no provider 'sity' that needs no arguments",
        ),
        ("  team:", "  id:", "cannot be one of id, index"),
        ("licence: CC0-1.0\n", "", "licence: is missing"),
        (TEAM, "{file: ./hobbies.txt}", "there is no file ./hobbies.txt beside the pack"),
        (TEAM, "{file: tables/contries}", "no shipped list or table is named"),
        (TEAM, "{given: fit, table: {true: {one_of: [red]}, false: {one_of: [blue]}}}",
         "depends on itself through a cycle: (team → fit → age → team|fit → age → team → fit|age → team → "
         "fit → age)"),
        ("30-40:", "31-40:", "does not cover age from 20 to 39, and has no default"),
        ("30-40:", "25-40:", "the ranges 20-29 and 25-40 overlap"),
        ("30-40:", "thirties:", "age is a number: write ranges such as 18-24"),
        ("edges: [30, "
         "40]", "edges: [30, 60]", "from 30 to 60, which leave the trait's bounds .20 to 39."),
        ('text: "', 'where: ["age >"]\ntext: "', r"'age >' is not a condition"),
        ('text: "', 'where: ["agge > 3"]\ntext: "', "there is no trait 'agge'; did you mean 'age'"),
        ('text: "', 'where: ["age > AVG(age)"]\ntext: "', "looks at one row only"),
        ('text: "', 'where: ["team != \'rde\'"]\ntext: "', "team is never 'rde'; did you mean "
                                                           "'red'"),
        ('text: "', 'where: ["age + 1"]\ntext: "', "is not a condition: it returns Int64, not "
                                                   "true or false"),
        ('text: "', 'where: ["team > 1"]\ntext: "', "is not a condition: cannot compare "
                                                    "string"),
        ('text: "', 'targets: [{of: team, shares: {red: 0.5, bleu: 0.5}}]\ntext: "', "team is never 'bleu'; did "
                                                                                     "you"),
        ('text: "', 'targets: [{of: team, shares: {red: 0.5, blue: 0.2}}]\ntext: "', "the shares sum to 0.7, not 1"),
        ('text: "', 'targets: [{of: [team, age], shares: {red: 1}}]\ntext: "', "must have one level of nesting for each trait of `of`"),
        ('text: "', 'correlated: [{traits: [age, team], correlations: [[1], [0, 1]]}]\ntext: "', "'team' must be drawn by one of"),
        ('text: "', 'correlated: [{traits: [age, age], correlations: [[1], [2, 1]]}]\ntext: "', "or equal to 1"),
        ("  fit:", "  note: {type: string, from: a}\n  "
                   "fit:", "needs `people`, and the pack has none"),
        ("  fit:", "  note: {type: string, draw: {writer: user/default}}\n  fit:",
         "has the role 'user', not `writer`"),
        ("20-29: {chance: 0.5}", "20-29: {chance: 1.5}", "less than or equal to 1"),
        (TEAM, '{template: "{{ fit "}', "the template does not render"),
        (TEAM, '{template: "{{ ft }}"}', "there is no trait 'ft'; did you mean 'fit'"),
        (TEAM, "{faker: {provider: date_this_year, locale: "
               "en_GB}}", "no provider 'date_this_year'"),
        ("edges: [20, 30]", "edges: [20, .inf]", "should be a finite number"),
        ("minimum: 20", "minimum: 50", "`minimum` .50. is above `maximum` .39."),
        ("  team:", "  teem:", "there is no trait 'team'; did you mean 'teem'"),
        ("text:", "txt: a\ntext:", "txt: unknown key 'txt'; did you mean 'text'"),
        ("traits:", "extends: "
                    "evryday\ntraits:", "no persona pack named 'evryday'; did you mean 'everyday'"),
    ],
)  # fmt: skip
def test_a_broken_pack_is_refused_with_its_own_sentence(tmp_path, old, new, sentence):
    assert old in PACK
    path = tmp_path / "pack.yaml"
    path.write_text(PACK.replace(old, new))
    with pytest.raises(RecipeError, match=sentence):
        load_pack(str(path))


def test_all_mistakes_of_a_pack_come_at_once_with_their_lines(tmp_path):
    text = (
        PACK.replace("red: 0.25", "red: 0.5")
        .replace("30-40:", "31-40:")
        .replace("{{ age }}", "{{ agee }}")
    )
    text += "where: ['age + 1']\nlicense: MIT\n"
    (tmp_path / "pack.yaml").write_text(text)
    done = simforge("personas", "sample", "./pack.yaml", cwd=tmp_path)
    assert done.status == 2
    lines = [line.strip().split(": ", 2)[:2] for line in done.err.splitlines()[1:]]
    places = ["traits.team.draw", "traits.fit.draw.table", "text", "where.0", "license"]
    assert lines == [
        [f"./pack.yaml:{line}", place]
        for line, place in zip((5, 8, 9, 10, 11), places, strict=True)
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("land,value,weight\nA,x,-1\n", "line 2: the weight '-1' is not a number"),
        (
            "land,worth,weight\nA,x,1\n",
            "no column 'value'; its columns are: land, worth, weight",
        ),
        ("land,value,weight\nA,x,0\n", "the weights of a row are all 0"),
        (
            "land,school,value,weight\nA,s,x,1\n",
            "has an unused column 'school'",
        ),
        ("land,value,weight\nA,x,1\n", "has no row for land = 'B' and no default"),
    ],
)
def test_a_conditional_table_that_cannot_be_used_says_why(
    written, tmp_path, content, sentence
):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(RecipeError, match=sentence):
        written(
            "traits:\n  land: {type: string, draw: {one_of: [A, B]}}\n"
            "  v: {type: string, draw: {given: land, csv: ./t.csv}}\n"
        )


def test_a_join_without_a_row_names_the_person_it_has_no_row_for_unless_they_are_excluded(
    written, tmp_path
):
    (tmp_path / "t.csv").write_text("land,city\nA,x\n")
    traits = """
        traits:
          land: {type: string, draw: {one_of: [A, B]}}
          city: {type: string, draw: {column: {file: ./t.csv, name: city, key: {land: land}}}}
        """
    assert set(
        sample_cast(written(traits + "where: [\"land = 'A'\"]\n"), 50, 0).frame["city"]
    ) == {"x"}
    pack = written(traits)
    with pytest.raises(UsageError, match=r"'city' of t\.csv has no row for land = 'B'"):
        sample_cast(pack, 50, 0)


# Extending


def test_a_pack_extends_another_by_trait(written):
    written(PACK, "base.yaml")
    pack = written(
        f"""
        {HEAD.splitlines()[0]}
        licence: MIT
        sources: [more]
        extends: ./base.yaml
        traits:
          fit: null
          team: {{draw: {{one_of: [green]}}}}
          age: {{draw: {{uniform: {{low: 20, high: 40}}}}}}
          pet: {{type: string, draw: {{given: team, table: {{green: {{one_of: [cat]}}}}}}}}
        text: "{{{{ team }}}} {{{{ age }}}} {{{{ pet }}}}"
        """
    )
    assert list(pack.traits) == ["team", "age", "pet"]
    assert (pack.licence, pack.sources) == ("MIT", ["written for this test", "more"])
    assert pack.traits["age"].maximum == 39
    assert sample_cast(pack, 1, 0).frame.select("team", "pet").row(0) == (
        "green",
        "cat",
    )


def test_mistakes_of_an_extended_pack_are_told_in_its_own_file(tmp_path):
    (tmp_path / "base.yaml").write_text(PACK.replace("red: 0.25", "red: 0.5"))
    (tmp_path / "top.yaml").write_text(
        HEAD + "extends: ./base.yaml\ntraits: {age: {drw: 1}}\ntext: x\n"
    )
    with pytest.raises(RecipeError) as caught:
        load_pack(str(tmp_path / "top.yaml"))
    assert {(Path(one.file).name, one.line) for one in caught.value.mistakes} == {
        ("base.yaml", 5),
        ("top.yaml", 5),
    }


def test_packs_that_extend_each_other_are_refused(tmp_path):
    for one, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"{one}.yaml").write_text(
            HEAD + f"extends: ./{other}.yaml\ntext: x\n"
        )
    with pytest.raises(RecipeError, match="depends on itself through a cycle"):
        load_pack(str(tmp_path / "a.yaml"))


# Other people's personas


def test_people_come_from_lists_tables_and_folders_and_nobody_twice_too_soon(
    written, tmp_path
):
    people = [
        {"persona": f"person {i}", "facts": {"age": 20 + i, "likes": ["tea", "rain"]}}
        for i in range(10)
    ]
    (tmp_path / "list.jsonl").write_text(
        "".join(json.dumps(one) + "\n" for one in people)
    )
    pl.DataFrame(people).write_parquet(tmp_path / "table.parquet")
    (tmp_path / "folder").mkdir()
    for number, one in enumerate(people):
        (tmp_path / "folder" / f"{number}.json").write_text(json.dumps(one))
    frames = []
    for file in ("./list.jsonl", "./table.parquet", "./folder/"):
        pack = written(
            f"""
            people: {{file: {file}}}
            traits:
              who: {{type: string, from: persona}}
              age: {{type: integer, minimum: 20, maximum: 29, from: facts.age}}
              likes: {{type: string, from: facts.likes}}
              old: {{type: boolean, draw: {{given: age, table: {{20-24: {{chance: 0}}, 25-29: {{chance: 1}}}}}}}}
            """
        )
        frames.append(sample_cast(pack, 25, seed=1).frame)
    assert frames[0].equals(frames[1]) and frames[0].equals(frames[2])
    assert (
        frames[0]["who"].head(10).n_unique() == frames[0]["who"][10:20].n_unique() == 10
    )
    assert frames[0].select(((pl.col("age") >= 25) == pl.col("old")).all()).item()
    assert set(frames[0]["likes"]) == {"tea; rain"}


@pytest.mark.parametrize(
    ("people", "column", "sentence"),
    [
        (
            "{file: ./nobody.jsonl}",
            "persona",
            "there is no file ./nobody.jsonl beside the pack",
        ),
        ("{file: ./p.jsonl}", "persna", "no column 'persna'; did you mean 'persona'"),
        ("{file: ./p.jsonl}", "inner.x", "has no 'inner.x'"),
        ("{file: ./p.jsonl, sha256: abc}", "persona", "and the pack asks for abc"),
    ],
)
def test_people_that_cannot_be_used_are_refused_when_the_pack_is_read(
    written, tmp_path, people, column, sentence
):
    (tmp_path / "p.jsonl").write_text('{"persona": "a", "inner": {"y": 1}}\n')
    with pytest.raises(RecipeError, match=sentence):
        written(f"people: {people}\ntraits: {{who: {{type: string, from: {column}}}}}")


def test_rows_that_lack_a_value_are_counted_and_values_outside_the_bounds_refused(
    written, tmp_path
):
    (tmp_path / "p.csv").write_text("who,age\nAnn,30\nBo,\nCy,95\n")
    traits = (
        "people: {file: ./p.csv}\ntraits:\n  who: {type: string, from: who}\n  age: {type: "
        "integer, from: age%s}\n"
    )
    cast = sample_cast(written(traits % ""), 4, 0)
    assert (set(cast.frame["who"]), cast.rejections.incomplete) == ({"Ann", "Cy"}, 1)
    with pytest.raises(
        RecipeError,
        match=r"holds numbers from 30 to 95, which leave the trait's bounds \(any number to 90",
    ):
        written(traits % ", maximum: 90")
    with pytest.raises(RecipeError, match="the column 'who' holds texts, not numbers"):
        written(traits % "" + "  n: {type: number, from: who}\n")


def test_people_come_from_a_dataset_on_the_hub(written, tmp_path, hub):
    pl.DataFrame({"persona": ["a baker", "a nurse"]}).write_parquet(
        tmp_path / "p.parquet"
    )
    hub.upload("someone/people", {"data/train-0.parquet": tmp_path / "p.parquet"})
    text = (
        'people: {hf: someone/people, file: "data/*.parquet"}\ntraits: {who: {type: string, '
        "from: persona}}\n"
    )
    (tmp_path / "pack.yaml").write_text(HEAD + 'text: "{{ who }}"\n' + text)
    done = simforge(
        "personas", "sample", "./pack.yaml", "-n", 2, cwd=tmp_path, env=hub.env
    )
    assert sorted(done.out.splitlines()) == ["a baker", "a nurse"], done.err
    (tmp_path / "pack.yaml").write_text(
        HEAD
        + 'text: "{{ who }}"\n'
        + text.replace('*.parquet"', '*.parquet", sha256: ab')
    )
    pinned = simforge("personas", "sample", "./pack.yaml", cwd=tmp_path, env=hub.env)
    assert (pinned.status, "and the pack asks for ab" in pinned.err) == (2, True), (
        pinned.err
    )
    (tmp_path / "pack.yaml").write_text(
        HEAD + 'text: "{{ who }}"\n' + text.replace("*.parquet", "*.csv")
    )
    assert (
        "has no file that matches 'data/*.csv'"
        in simforge("personas", "sample", "./pack.yaml", cwd=tmp_path, env=hub.env).err
    )


# Casts


def test_two_runs_with_one_cast_are_on_the_same_people(tmp_path):
    assert (
        simforge(
            "personas",
            "sample",
            "everyday",
            "-n",
            12,
            "--seed",
            5,
            "--space",
            "psoup",
            "--out",
            tmp_path / "c.parquet",
        ).status
        == 0
    )
    tables = []
    for number in (1, 2):
        done = simforge("generate", "psoup", "--cast", tmp_path / "c.parquet", "--seed", number, "--model", "scripted:",
                        "--out", tmp_path / f"r{number}")  # fmt: skip
        assert done.status == 0, done.err
        people = pl.read_parquet(
            tmp_path / f"r{number}" / "data" / "personas" / "*.parquet"
        )
        tables.append(people.sort("index"))
    assert tables[0].equals(tables[1]) and len(tables[0]) == 12
    again = simforge(
        *("generate", "psoup", "--cast", tmp_path / "r1", "--personas", 8, "--seed", 9),
        *("--model", "scripted:", "--out", tmp_path / "r3"),
    )
    assert again.status == 0, again.err
    students = [
        "generate",
        "--personas",
        4,
        "--set",
        "cast.pack=students",
        "--model",
        "scripted:",
        "--out",
        "s",
    ]
    assert simforge(*students, cwd=tmp_path).status == 0
    same = simforge(
        "generate", "--cast", "s", "--model", "scripted:", "--out", "t", cwd=tmp_path
    )
    assert same.status == 0, same.err  # a run's people know their pack
    third = pl.read_parquet(tmp_path / "r3" / "data" / "personas" / "*.parquet").sort(
        "index"
    )
    assert third.select("id", "text").equals(tables[0].select("id", "text").head(8))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--cast", "none.parquet"], "--cast none.parquet is not there"),
        (["--cast", "."], "--cast . is not a finished run"),
        (
            ["--cast", "c.parquet", "--personas", "9"],
            "has 3 people, and --personas asks for 9",
        ),
        (["--cast", "other.parquet"], "has no column 'country'"),
        (
            ["--cast", "c.parquet", "--set", "cast.space=alignx"],
            "person 0 has a profile of 'psoup'. Set cast.space to it",
        ),
        ([], "say how many people with --personas N"),
    ],
)
def test_a_cast_that_cannot_be_used_says_why(tmp_path, arguments, sentence):
    assert (
        simforge(
            "personas",
            "sample",
            "everyday",
            "-n",
            3,
            "--space",
            "psoup",
            "--out",
            "c.parquet",
            cwd=tmp_path,
        ).status
        == 0
    )
    pl.DataFrame({"age": [30]}).write_parquet(tmp_path / "other.parquet")
    done = simforge(
        "generate", *arguments, "--model", "scripted:", "--out", "out", cwd=tmp_path
    )
    assert (done.status, sentence in done.err) == (2, True), done.err


def test_a_cast_of_another_version_or_no_cast_at_all_is_told(tmp_path):
    (tmp_path / "x.parquet").write_text("no parquet")
    with pytest.raises(SourceError, match="cannot be read"):
        read_cast(tmp_path / "x.parquet", "everyday", None, "x.parquet")


# What a model writes

WRITTEN = (
    HEAD
    + """\
traits:
  age: {type: integer, minimum: 18, maximum: 80, draw: {uniform: {low: 18, high: 81}}}
  quirk: {type: string, description: a habit, draw: {writer: writer/details}}
  pets: {type: integer, minimum: 0, maximum: 5, description: how many, draw: {writer: writer/details}}
portrait: writer/portrait
text: "{{ age }}, {{ quirk }}, {{ pets }} pets"
needs: [a walk]
"""
)


def test_a_model_writes_traits_and_portraits_and_what_it_adds_stays_in_the_text(
    tmp_path,
):
    (tmp_path / "pack.yaml").write_text(WRITTEN)
    command = [
        "generate",
        "--personas",
        6,
        "--set",
        "cast.pack=./pack.yaml",
        "--model",
        "scripted:",
        "--out",
        "r",
    ]
    done = simforge(*command, cwd=tmp_path)
    assert done.status == 0, done.err
    people = pl.read_parquet(tmp_path / "r/data/personas/*.parquet").sort("index")
    assert people["quirk"].null_count() == 0 and people["pets"].is_between(0, 5).all()
    assert not any(
        text.startswith(str(age)) for text, age in people.select("text", "age").rows()
    )
    manifest = json.loads((tmp_path / "r/manifest.json").read_text())
    assert manifest["usage"]["writer"]["calls"] == 12
    assert {"age", "quirk", "pets"} < set(people.columns)


def test_an_answer_that_does_not_fit_is_shown_its_mistake_and_a_person_who_stays_wrong_is_left_out(
    tmp_path,
):
    (tmp_path / "pack.yaml").write_text(WRITTEN)
    command = ["personas", "sample", "./pack.yaml", "-n", 8, "--out", "c.parquet"]
    done = simforge(
        *command, "--model", "scripted:scripts:writes_at_second_try", cwd=tmp_path
    )
    assert done.status == 0, done.err
    people = pl.read_parquet(tmp_path / "c.parquet")
    assert len(people) == 8 and set(people["quirk"]) == {"hums"}
    left = simforge(
        *command[:-1],
        "d.parquet",
        "--model",
        "scripted:scripts:never_writes_for_the_young",
        cwd=tmp_path,
    )
    written = pl.read_parquet(tmp_path / "d.parquet")
    assert 0 < len(written) < 8 and written["age"].min() >= 50
    assert left.err.count(
        "is left out: after 3 answers the writer's JSON still does not fit: 'quirk' is a required"
    ) == 8 - len(written)


def test_a_run_that_goes_on_has_the_same_written_people_whoever_could_not_be_written(
    tmp_path,
):
    (tmp_path / "pack.yaml").write_text(WRITTEN)
    (tmp_path / "details.md").write_text(
        catalog.entry("generators", "writer/details").text
    )
    (tmp_path / "pack.yaml").write_text(
        WRITTEN.replace("writer/details", "./details.md")
    )
    env = {
        "CALLS": str(tmp_path / "calls"),
        "DIE_AT": "90",
        "BROKEN": str(tmp_path / "broken"),
    }
    (tmp_path / "broken").touch()
    command = [
        "generate",
        "--personas",
        20,
        "--set",
        "cast.pack=./pack.yaml",
        "--max-failures",
        0.5,
        "--out",
        "r",
    ]
    command += [
        "--model",
        "scripted:scripts:dies_midway",
        "--model",
        "writer=scripted:scripts:fails_for_some",
    ]
    assert simforge(*command, cwd=tmp_path, env=env).status == 9
    (tmp_path / "broken").unlink()
    done = simforge(*command, cwd=tmp_path, env={**env, "DIE_AT": "0"})
    assert done.status == 0, done.err
    people = pl.read_parquet(tmp_path / "r/data/personas/*.parquet")
    dialogues = pl.read_parquet(tmp_path / "r/data/dialogues/*.parquet")
    assert 0 < len(people) < 20 and set(dialogues["persona_id"]) == set(people["id"])
    manifest = json.loads((tmp_path / "r/manifest.json").read_text())
    assert manifest["cast"]["unwritten"] == 20 - len(people) and str(
        tmp_path
    ) not in json.dumps(manifest)
    (tmp_path / "details.md").write_text(
        (tmp_path / "details.md").read_text().replace("believable", "odd")
    )
    other = simforge(*command, cwd=tmp_path, env={**env, "DIE_AT": "0"})
    assert (other.status, "writers" in other.err) == (2, True), other.err


def test_answers_that_are_json_but_no_value_are_mistakes():
    from simforge.personas.written import _parse_json

    schema = {
        "type": "object",
        "properties": {"x": {"type": ["string", "number"], "minLength": 1}},
        "required": ["x"],
    }
    for text in (
        '{"x": NaN}',
        '{"x": "\\ud800"}',
        '{"x": "  "}',
        "[" * 100_000,
        '{"y": 1}',
    ):
        assert _parse_json(schema, text, "stop")[1], text[:20]
    assert _parse_json(schema, '{"x": " a "}', "stop") == ({"x": "a"}, "")


def test_written_people_need_a_writer(tmp_path):
    (tmp_path / "pack.yaml").write_text(WRITTEN)
    done = simforge("personas", "sample", "./pack.yaml", cwd=tmp_path)
    assert (
        done.status,
        "a model writes quirk, pets, text of the people" in done.err,
    ) == (2, True)
    recipe = catalog.entry("pipelines", "quickstart").text
    (tmp_path / "mine.yaml").write_text(
        "".join(line for line in recipe.splitlines(True) if "writer:" not in line)
    )
    run = simforge(
        "generate",
        "./mine.yaml",
        "--personas",
        2,
        "--set",
        "cast.pack=./pack.yaml",
        "--out",
        "r",
        cwd=tmp_path,
    )
    assert (run.status, "give --model writer=REF" in run.err) == (2, True), run.err


def _integer_pack(tmp_path: Path, high: int, needs: str = "") -> Path:
    path = tmp_path / "ends.yaml"
    path.write_text(
        "description: x\nlicence: MIT\nsources: [ours]\ntraits:\n  n: {type: integer, minimum: 5, maximum: 12, draw: "
        f"{{uniform: {{low: 5, high: {high}}}}}}}\ntext: '{{{{ n }}}} years'\n{needs}"
    )
    return path


def test_an_integer_whose_largest_value_is_never_drawn_is_refused_with_the_fix(
    tmp_path,
):
    refused = simforge("personas", "check", _integer_pack(tmp_path, 12))
    assert refused.status == 2
    assert (
        "12 is never drawn" in refused.err
        and "Write 13 as the upper end" in refused.err
    )
    pack = load_pack(str(_integer_pack(tmp_path, 13)))
    assert {*sample_cast(pack, 500, 0).frame["n"]} == {*range(5, 13)}


def test_needs_and_goals_are_filled_with_the_persons_traits(tmp_path):
    needs = "needs:\n- 'help for {{ n }} hours':\n  - 'asks at {{ n }}'\n- a tap that drips\n"
    cast = sample_cast(load_pack(str(_integer_pack(tmp_path, 13, needs))), 20, 0)
    filled = {cast.need(number, number, 0) for number in range(20)}
    ages = {f"help for {age} hours" for age in cast.frame["n"]}
    assert any(need in ages and goals for need, goals in filled)
    assert ("a tap that drips", ()) in filled
    wrong = _integer_pack(
        tmp_path, 13, "needs: ['help for {{ m }}']\nfacts: ['{{ k }}']\n"
    )
    done = simforge("personas", "check", wrong)
    assert done.status == 2 and "needs.0: there is no trait 'm'" in done.err
    assert "facts.0: there is no trait 'k'" in done.err
