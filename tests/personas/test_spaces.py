"""Preference spaces: how profiles lie in them, what they steer to, and how traits tilt them."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import polars as pl
import pytest
import yaml
from conftest import simforge

from simforge import catalog
from simforge.errors import RecipeError, UsageError
from simforge.personas import spaces
from simforge.personas.cast import sample_cast
from simforge.personas.loader import load_pack

EVERY = [
    name.removeprefix("spaces/")
    for name in catalog.names("personas")
    if name.startswith("spaces/")
]
SPACES = [name for name in EVERY if spaces.load_space(name).tilts is None]
"Those that twins can be drawn in."


@pytest.fixture(scope="module")
def cast():
    return sample_cast(load_pack("everyday"), 2_001, 0)


@pytest.fixture
def space_of(tmp_path):
    def write(text: str) -> spaces.Space:
        (tmp_path / "space.yaml").write_text("description: x\nsource: x\n" + text)
        return spaces.load_space(str(tmp_path / "space.yaml"))

    return write


POLES = """\
kind: poles
dimensions:
  length: {poles: {long: {steer: L, wants: long}, short: {steer: S, wants: short}}}
  tone: {poles: {warm: {steer: W, wants: warm}, cold: {steer: C, wants: cold}}}
"""


@pytest.mark.parametrize("name", SPACES)
def test_every_shipped_space_gives_everybody_a_wish_and_twins_opposite_ones(cast, name):
    space = spaces.load_space(name)
    profiles = spaces.sample_profiles(space, name, cast, seed=0, mirrored=True)
    assert len(profiles) == len(cast)
    for number in range(0, 200, 2):
        one, other = profiles[number], profiles[number + 1]
        assert space.opposite(one) == other
        assert set(space.liked(one)) != set(space.liked(other)) and space.steering(
            one, None
        )
        # Of an odd number of weights the middle one stays where it is, whichever way they are
        # turned.
        odd = space.kind == "weights" and len(one.names) % 2
        for dimension in {*space.wanted_dimensions(one)} - (
            {*space.wanted_dimensions(other)} if odd else set()
        ):
            assert space.steering(one, dimension) != space.steering(other, dimension)


@pytest.mark.parametrize("name", SPACES)
def test_the_first_profiles_of_many_are_those_of_few(cast, name):
    space = spaces.load_space(name)
    few = sample_cast(load_pack("everyday"), 9, 0)
    many, some = (
        spaces.sample_profiles(space, name, people, 3, mirrored=True)
        for people in (cast, few)
    )
    assert [many[i] for i in range(9)] == list(some)
    assert (
        spaces.sample_profiles(space, name, few, 4, mirrored=True)[0] != some[0]
        or name == "ultrafeedback"
    )


def test_mirrored_poles_are_balanced_to_the_person(cast):
    space = spaces.load_space("psoup")
    points = spaces.sample_profiles(space, "psoup", cast, 0, mirrored=True).points[
        :2000
    ]
    assert points.mean(axis=0).tolist() == [0.5, 0.5, 0.5]


def test_bipolar_people_are_neutral_as_often_as_the_space_says(cast):
    space = spaces.load_space("alignx")
    points = spaces.sample_profiles(space, "alignx", cast, 0, mirrored=False).points
    assert len(space.dimensions) == 90 and set(np.unique(points)) == {0.0, 0.5, 1.0}
    assert (points == 0.5).mean() == pytest.approx(0.9, abs=0.005)
    assert ((points != 0.5).sum(axis=1) >= 1).all()


@pytest.mark.parametrize("alpha", [0.01, 0.5, 20])
def test_weights_are_dirichlet(space_of, cast, alpha):
    dims = "".join(
        f"  d{i}: {{poles: {{wanted: {{steer: s, wants: w}}}}}}\n" for i in range(4)
    )
    space = space_of(f"kind: weights\nalpha: {alpha}\ndimensions:\n{dims}")
    points = spaces.sample_profiles(space, "x", cast, 0, mirrored=False).points
    assert points.sum(axis=1) == pytest.approx(1)
    variance = (3 / 16) / (
        4 * alpha + 1
    )  # of a symmetric Dirichlet distribution over four
    assert (points.mean(), points.var(axis=0).mean()) == (
        pytest.approx(0.25),
        pytest.approx(variance, rel=0.1),
    )


def test_one_hot_people_care_for_one_thing(cast):
    space = spaces.load_space("ultrafeedback")
    profiles = spaces.sample_profiles(space, "ultrafeedback", cast, 0, mirrored=False)
    assert {sum(profile.vector) for profile in profiles} == {1.0}
    assert np.bincount(profiles.points.argmax(axis=1)) / len(cast) == pytest.approx(
        [0.25] * 4, abs=0.04
    )


def test_every_wish_is_equally_common_among_twins(cast):
    for name in ("ultrafeedback", "psoup", "alignx"):
        points = spaces.sample_profiles(
            spaces.load_space(name), name, cast, 0, mirrored=True
        ).points
        shares = points.mean(axis=0)
        assert shares == pytest.approx(
            np.full(len(shares), shares.mean()), abs=0.035
        ), name


def test_a_hierarchy_gives_one_described_preference_per_dimension(cast):
    space = spaces.load_space("multifaceted")
    profile = spaces.sample_profiles(space, "multifaceted", cast, 0, mirrored=False)[0]
    assert profile.names == (
        "style",
        "background_knowledge",
        "informativeness",
        "harmlessness",
    )
    assert all("/" in value for value in profile.values)
    assert (
        space.steering(profile, "style").startswith("Prefers ")
        and len(space.liked(profile)) == 4
    )
    assert (
        sum(len(dimension.subdimensions) for dimension in space.dimensions.values())
        == 18
    )


def test_a_tilt_explains_the_share_of_variance_that_it_states(space_of):
    space = space_of(
        POLES
        + "tilts: {share: 0.3, toward: {length: {long: [\"education = 'university'\"]}}}\n"
    )
    people = sample_cast(load_pack("everyday"), 60_000, 1)
    points = spaces.sample_profiles(space, "x", people, 0, mirrored=False).points
    at_university = (people.frame["education"] == "university").to_numpy()
    share = at_university.mean()
    moved = {
        True: np.sqrt(0.3 * (1 - share) / share),
        False: -np.sqrt(0.3 * share / (1 - share)),
    }

    def above(edge: float, yes: bool) -> float:
        return 1 - NormalDist().cdf((edge - moved[yes]) / np.sqrt(0.7))

    edges = np.linspace(-1, 1, 2001)
    median = min(
        edges,
        key=lambda edge: abs(
            share * above(edge, True) + (1 - share) * above(edge, False) - 0.5
        ),
    )
    for here, yes in ((at_university, True), (~at_university, False)):
        assert points[here, 0].mean() == pytest.approx(above(median, yes), abs=0.012)
    assert points[:, 0].mean() == pytest.approx(0.5, abs=0.01)
    assert points[:, 1].mean() == pytest.approx(
        points[at_university, 1].mean(), abs=0.015
    )


def test_a_tilted_space_cannot_be_mirrored_and_needs_its_traits(space_of, cast):
    tilted = space_of(
        POLES + 'tilts: {share: 0.3, toward: {length: {long: ["age >= 60"]}}}\n'
    )
    with pytest.raises(UsageError, match=r"set cast\.mirrored=false"):
        spaces.sample_profiles(tilted, "x", cast, 0, mirrored=True)
    unknown = space_of(
        POLES + 'tilts: {share: 0.3, toward: {length: {long: ["agge >= 60"]}}}\n'
    )
    with pytest.raises(
        UsageError,
        match="the tilt of length: 'agge >= 60': the people have no trait 'agge'; did you",
    ):
        spaces.sample_profiles(unknown, "x", cast, 0, mirrored=False)
    always = space_of(
        POLES + 'tilts: {share: 0.3, toward: {length: {long: ["age >= 0"]}}}\n'
    )
    with pytest.raises(UsageError, match="'age >= 0' holds for everybody"):
        spaces.sample_profiles(
            always,
            "x",
            cast.__class__(cast.pack, "everyday", cast.frame, cast.rejections),
            0,
            mirrored=False,
        )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            POLES.replace("kind: poles", "kind: pole"),
            "'pole' is not allowed; did you mean 'poles'",
        ),
        (
            POLES.replace("kind: poles", "kind: bipolar"),
            "`neutral` is needed for the kind `bipolar`",
        ),
        (POLES.replace("kind: poles", "kind: one_hot"), "needs 1 pole"),
        (POLES + "alpha: 1\n", "`alpha` is needed for the kind `weights`"),
        (
            POLES.replace("length: {", "length: {measure: wrds, "),
            "there is no measure 'wrds'",
        ),
        (
            POLES.replace("length: {", "length: {measure: words, "),
            "on its poles, each used once",
        ),
        (
            POLES + "tilts: {share: 0.2, toward: {lenth: {long: [a]}}}\n",
            "no dimension 'lenth'; did you mean 'length'",
        ),
        (
            POLES + "tilts: {share: 0.2, toward: {length: {lng: [a]}}}\n",
            "length has no pole 'lng'; did you mean 'long'",
        ),
        (
            POLES + "tilts: {share: 0.2, toward: {length: {long: ['a >']}}}\n",
            "'a >' is not a condition",
        ),
        (POLES + "tilts: {share: 1, toward: {length: {long: [a]}}}\n", "less than 1"),
        (
            "kind: hierarchy\ndimensions: {d: {poles: {a: x, b: y}}}\n",
            "`subdimensions` belong to the kind `hierarchy`",
        ),
        ("traits: {}\n", "is a persona pack, and a preference space was asked for"),
    ],
)
def test_a_broken_space_is_refused_with_its_own_sentence(space_of, text, sentence):
    with pytest.raises(RecipeError, match=sentence):
        space_of(text)


@pytest.mark.parametrize("name", SPACES)
def test_a_run_works_in_every_shipped_space(tmp_path, name):
    done = simforge(
        "generate",
        "--personas",
        6,
        "--model",
        "scripted:",
        "--set",
        f"cast.space={name}",
        "--out",
        tmp_path / "r",
    )
    assert done.status == 0, done.err
    people = pl.read_parquet(tmp_path / "r/data/personas/*.parquet")
    assert people["profile"].struct.field("space").unique().to_list() == [name]
    assert (
        pl.read_parquet(tmp_path / "r/data/candidates/*.parquet")
        .filter(pl.col("condition") == "own")["steering"]
        .min()
    )


def test_a_model_grows_a_hierarchy_and_the_grown_file_is_a_space(tmp_path):
    done = simforge(
        "personas",
        "grow",
        "multifaceted",
        "--to",
        6,
        "--model",
        "scripted:",
        "--out",
        "big.yaml",
        cwd=tmp_path,
    )
    assert done.status == 0, done.err
    space = spaces.load_space(str(tmp_path / "big.yaml"))
    sizes = [
        len(one)
        for dimension in space.dimensions.values()
        for one in dimension.subdimensions.values()
    ]
    assert sizes == [6] * 18
    old = yaml.safe_load(catalog.entry("personas", "spaces/multifaceted").text)[
        "dimensions"
    ]["style"]["subdimensions"]
    new = yaml.safe_load((tmp_path / "big.yaml").read_text())["dimensions"]["style"][
        "subdimensions"
    ]
    assert all(old[name].items() <= new[name].items() for name in old)
    stuck = simforge("personas", "grow", "multifaceted", "--to", 6, "--model", "scripted:scripts:writes_at_second_try",
                     "--out", "same.yaml", cwd=tmp_path)  # fmt: skip
    assert (stuck.status, stuck.out.startswith("0 preferences were added")) == (0, True)
    assert (
        simforge(
            "personas",
            "grow",
            "psoup",
            "--to",
            6,
            "--model",
            "scripted:",
            "--out",
            "x.yaml",
            cwd=tmp_path,
        ).status
        == 2
    )


def test_sampled_people_are_shown_with_what_they_want():
    done = simforge("personas", "sample", "everyday", "-n", 2, "--space", "psoup")
    assert done.status == 0, done.err
    assert sum("expertise: " in line for line in done.out.splitlines()) == 2
