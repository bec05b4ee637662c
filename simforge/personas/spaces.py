"""Preference spaces: the dimensions on which people differ in what they want from an answer.

A space is a file (`personas/spaces/*.yaml`): dimensions, each with poles, and the form of its
profiles.

| kind | a profile is | source |
|---|---|---|
| `poles` | one pole per dimension | Personalized Soups (Jang et al. 2023, arXiv 2310.11564) |
| `bipolar` | one of two poles, or neutral, on every dimension | AlignX |
| `one_hot` | one dimension that matters; the others do not | VPL |
| `weights` | a weight for every dimension, from a Dirichlet distribution | PersonalLLM |
| `hierarchy` | one described preference per dimension, from subdimensions | Multifaceted
Collection |

A pole defines how an assistant is steered towards it, how a person who wants it says so, and
on which side of the dimension's measure its answers are. Profiles are independent of the
persona unless the space has `tilts`. If they are sampled `mirrored`, persona 2k+1 is the
exact opposite of persona 2k, so that people who share prompts want opposite things.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from simforge import catalog
from simforge.catalog import documents
from simforge.catalog.documents import Document, Strict
from simforge.catalog.sandbox import compile_template
from simforge.errors import Mistake, RecipeError, SourceError, UsageError, suggest
from simforge.identity import derived_seed
from simforge.text import measures
from simforge.text.conditions import parse_condition
from simforge.types import Profile

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from simforge.personas.cast import Cast

    Array = np.ndarray[Any, Any]


TILT_SAMPLE_SIZE = 20_000
"Number of people sampled (with seed 0) to estimate the mean and spread of a tilt in a pack."


class Pole(Strict):
    """One end of a dimension."""

    steer: str
    "The instruction for an assistant, as a sentence of a system message."
    wants: str
    "The wish of a person who wants this pole; completes 'likes answers that are ...'."
    side: Literal["low", "high"] | None = None
    "The side of the measure on which answers with this pole are."


class Dimension(Strict):
    """One dimension of a preference space."""

    poles: (
        Annotated[dict[str, Pole | str], Field(min_length=1, max_length=2)] | None
    ) = None
    "Two poles (`one_hot`, `weights`: one). Plain phrases go into the space's `steer`, `wants`."
    subdimensions: (
        Annotated[dict[str, dict[str, Pole | str]], Field(min_length=1)] | None
    ) = None
    "Replaces poles for `hierarchy`: preferences by subdimension."
    measure: str | None = None
    "Name of a programmatic measure of the dimension, from `simforge.text.measures`."
    scorer: str | None = None
    "Name in a recipe's `models` of the scorer of this dimension, such as a reward model."
    mean: float | None = None
    "Mean of the measure or scorer over many answers; labels from scorers are centred with it."
    sd: Annotated[float, Field(gt=0)] | None = None
    "Standard deviation of those numbers; labels from scorers are divided by it."
    gap: Annotated[float, Field(ge=0)] = 0.0
    "Smallest difference between two answers that the measure can distinguish, in its unit."

    @model_validator(mode="after")
    def _check_measure(self) -> Dimension:
        if (self.poles is None) == (self.subdimensions is None):
            raise ValueError("needs either `poles` or `subdimensions`")
        if self.measure is not None and self.scorer is not None:
            raise ValueError("has both a `measure` and a `scorer`: keep one of them")
        if self.measure is not None or self.scorer is not None:
            if self.measure is not None and self.measure not in measures.MEASURES:
                raise ValueError(
                    f"there is no measure {self.measure!r}; there are: "
                    f"{', '.join(measures.MEASURES)}"
                )
            sides = [
                pole.side
                for pole in (self.poles or {}).values()
                if isinstance(pole, Pole)
            ]
            if not sides or None in sides or len(set(sides)) < len(self.poles or {}):
                raise ValueError(
                    "a measured dimension needs `side: low` or `side: high` on its "
                    "poles, each used once"
                )
        return self


class Tilts(Strict):
    """The influence of traits on preferences."""

    share: Annotated[float, Field(ge=0, lt=1)]
    """Share of the variance of each tilted dimension's latent value that the traits explain.
    The latent value is sqrt(share) x the traits' score + sqrt(1 - share) x noise, both with
    mean 0 and variance 1; it determines the pole."""
    toward: Annotated[
        dict[str, dict[str, Annotated[list[str], Field(min_length=1)]]],
        Field(min_length=1),
    ]
    """Conditions over traits, by dimension and pole: each condition that holds moves the
    person one step towards that pole."""


class Space(Strict):
    """A preference space file."""

    description: str
    "Description of the space, in one or two lines."
    kind: Literal["poles", "bipolar", "one_hot", "weights", "hierarchy"]
    "The form of its profiles."
    source: str
    "Source of the space."
    steer: str = "{{ pole }}"
    "Template of the instruction for an assistant, for poles that are plain phrases."
    wants: str = "{{ pole }}"
    "Template of the person's wish, for poles that are plain phrases."
    neutral: Annotated[float, Field(ge=0, lt=1)] | None = None
    "For `bipolar`: probability of neutral on a dimension. Nobody is neutral on all dimensions."
    alpha: Annotated[float, Field(gt=0)] | None = None
    "For `weights`: concentration of the Dirichlet distribution; small: one weight dominates."
    dimensions: Annotated[dict[str, Dimension], Field(min_length=1)]
    "Dimensions, in the order of the profile's names and values."
    tilts: Tilts | None = None

    @model_validator(mode="after")
    def _check_kind(self) -> Space:
        wanted = {"poles": 2, "bipolar": 2, "one_hot": 1, "weights": 1}.get(self.kind)
        for name, dimension in self.dimensions.items():
            if (dimension.subdimensions is not None) != (self.kind == "hierarchy"):
                raise ValueError(
                    f"{name}: `subdimensions` belong to the kind `hierarchy`, `poles` to the others"
                )
            if wanted is not None and len(dimension.poles or {}) != wanted:
                raise ValueError(
                    f"{name}: the kind `{self.kind}` needs {wanted} pole(s) per dimension"
                )
        if (self.neutral is not None) != (self.kind == "bipolar"):
            raise ValueError(
                "`neutral` is needed for the kind `bipolar`, and only there"
            )
        if (self.alpha is not None) != (self.kind == "weights"):
            raise ValueError("`alpha` is needed for the kind `weights`, and only there")
        if wanted == 1 and len(self.dimensions) < 2:
            raise ValueError(f"the kind `{self.kind}` needs at least two dimensions")
        if self.tilts is not None and self.kind == "hierarchy":
            raise ValueError(
                "`tilts` need ordered preferences, and those of a `hierarchy` have no order"
            )
        return self

    @cached_property
    def poles(self) -> dict[str, dict[str, Pole]]:
        """Return all poles by dimension and name; in a hierarchy the name is
        `subdimension/preference`."""
        poles: dict[str, dict[str, Pole]] = {}
        for name, dimension in self.dimensions.items():
            described = dict(dimension.poles or {})
            for subdimension, preferences in (dimension.subdimensions or {}).items():
                described |= {
                    f"{subdimension}/{preference}": pole
                    for preference, pole in preferences.items()
                }
            poles[name] = {
                key: self._resolve_pole(pole) for key, pole in described.items()
            }
        return poles

    def wanted_dimensions(self, profile: Profile) -> list[str]:
        """Return the dimensions on which the person has a preference."""
        return [
            name
            for name, value in zip(profile.names, profile.values, strict=True)
            if value
        ]

    def measure_of(self, dimension: str) -> str | None:
        """Return the measure or scorer that tells the poles of a dimension apart, if any."""
        definition = self.dimensions.get(dimension)
        return getattr(definition, "measure", None) or getattr(
            definition, "scorer", None
        )

    def pole(self, profile: Profile, dimension: str | None) -> Pole | None:
        """Return the pole that the person wants on a dimension, if any."""
        value = (
            profile.pole(dimension)
            if dimension in profile.names and dimension is not None
            else ""
        )
        return self.poles[dimension][value] if value and dimension is not None else None

    def steering(self, profile: Profile, dimension: str | None) -> str:
        """Return the instruction that steers an assistant to the person's preferences: on one
        dimension, or (`None`) on all.

        If the person has no preference on that dimension, all of their preferences are used.
        """
        names = (
            [dimension]
            if dimension and self.pole(profile, dimension)
            else self.wanted_dimensions(profile)
        )
        return " ".join(
            pole.steer for name in names if (pole := self.pole(profile, name))
        )

    def liked(self, profile: Profile, dimension: str | None = None) -> list[str]:
        """Return what the person likes, one phrase per dimension (only for the given
        dimension if the person has a preference there)."""
        names = (
            [dimension]
            if dimension and self.pole(profile, dimension)
            else self.wanted_dimensions(profile)
        )
        return [pole.wants for name in names if (pole := self.pole(profile, name))]

    def other_steering(self, profile: Profile) -> list[tuple[str, str]]:
        """Return the dimensions on which the person has no preference but others do, with
        the instruction that steers an answer there."""
        missing = [
            name
            for name, value in zip(profile.names, profile.values, strict=True)
            if not value
        ]
        return [(name, next(iter(self.poles[name].values())).steer) for name in missing]

    def weights(self, profile: Profile) -> dict[str, float]:
        """Return the weight of each dimension for the person; the weights sum to 1. If the
        space has no weights, all dimensions on which the person has a preference have equal
        weight."""
        if self.kind == "weights":
            return dict(zip(profile.names, profile.vector, strict=True))
        wanted = self.wanted_dimensions(profile)
        return dict.fromkeys(wanted, 1 / len(wanted))

    def utility(self, profile: Profile, scores: Mapping[str, float]) -> float:
        """Return the utility of a text for the person: the weighted sum of its scores in
        standard deviations, each with the sign of the side that the person wants
        (PersonalLLM)."""
        total = 0.0
        for name, weight in self.weights(profile).items():
            axis = self.dimensions[name]
            pole = self.pole(profile, name) or next(iter(self.poles[name].values()))
            sign = -1.0 if pole.side == "low" else 1.0
            assert axis.mean is not None and axis.sd is not None
            total += weight * sign * (scores[name] - axis.mean) / axis.sd
        return total

    def opposite(self, profile: Profile) -> Profile:
        """Return the opposite profile.

        That is the other poles; for `one_hot` the dimension half-way round; for `weights`
        the weights in reversed order; for `hierarchy` the preferences half-way round each
        list (if a list has an odd length, the opposite of the opposite is a different
        profile).
        """
        names = list(self.dimensions)
        if self.kind == "one_hot":
            half = len(names) // 2
            return self.profile(
                profile.space, profile.vector[-half:] + profile.vector[:-half]
            )
        if self.kind == "weights":
            from_top = sorted(
                range(len(names)),
                key=lambda position: (-profile.vector[position], position),
            )
            vector = [0.0] * len(names)
            for position, opposite in zip(from_top, reversed(from_top), strict=True):
                vector[position] = profile.vector[opposite]
            return self.profile(profile.space, vector)
        if self.kind == "hierarchy":
            counts = [len(self.poles[name]) for name in names]
            moved = [
                (v + count // 2) % count
                for v, count in zip(profile.vector, counts, strict=True)
            ]
            return self.profile(profile.space, moved)
        return self.profile(profile.space, [1.0 - value for value in profile.vector])

    def profile(self, name: str, vector: Sequence[float]) -> Profile:
        """Return the profile at a point of the space.

        The numbers per dimension are: 1 for the first pole, 0 for the second, 0.5 for
        neutral; for `one_hot` 1 or 0; for `weights` the weight (the person wants those above
        average); for `hierarchy` the index of the preference.
        """
        values = []
        for dimension, number in zip(self.dimensions, vector, strict=True):
            poles = list(self.poles[dimension])
            if self.kind == "hierarchy":
                values.append(poles[int(number)])
            elif self.kind in ("one_hot", "weights"):
                values.append(poles[0] if number > 1 / len(self.dimensions) else "")
            else:
                values.append("" if number == 0.5 else poles[0 if number == 1.0 else 1])
        return Profile(
            name,
            tuple(self.dimensions),
            tuple(values),
            tuple(float(number) for number in vector),
        )

    def _resolve_pole(self, pole: Pole | str) -> Pole:
        if isinstance(pole, Pole):
            return pole
        steer, wants = (
            compile_template(template).render(pole=pole)
            for template in (self.steer, self.wants)
        )
        return Pole(steer=steer, wants=wants)


class Profiles(Sequence[Profile]):
    """The profiles of a cast, stored as an array of points; a profile is built when it is
    accessed."""

    def __init__(self, space: Space, name: str, points: Array) -> None:
        self.space, self.name, self.points = space, name, points

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: Any) -> Any:
        return self.space.profile(self.name, self.points[index].tolist())

    def distance(self, first: int, second: int) -> float:
        """Return the distance between two people's preferences: the L1 distance, or for a
        hierarchy the number of dimensions on which they differ."""
        a, b = self.points[first], self.points[second]
        return float(
            (a != b).sum() if self.space.kind == "hierarchy" else abs(a - b).sum()
        )

    def series(self) -> pl.Series:
        """Return all profiles as a column of structs."""
        import polars as pl

        rows = [
            {
                "space": profile.space,
                "names": list(profile.names),
                "values": list(profile.values),
                "vector": list(profile.vector),
            }
            for profile in self
        ]
        texts = pl.List(pl.String)
        kind = pl.Struct(
            {
                "space": pl.String,
                "names": texts,
                "values": texts,
                "vector": pl.List(pl.Float64),
            }
        )
        return pl.Series("profile", rows, dtype=kind)


def read_document(reference: str) -> Document:
    """Read the file of a space by name or path, with its lines. Raises `RecipeError`."""
    entry = catalog.entry(
        "personas", reference if catalog.is_path(reference) else f"spaces/{reference}"
    )
    return documents.read(entry.text, entry.label)


def load_space(reference: str) -> Space:
    """Read a space by name or path. Raises `RecipeError` with all its mistakes."""
    document = read_document(reference)
    if "traits" in document.value:
        message = "is a persona pack, and a preference space was asked for"
        raise RecipeError([document.mistake(("traits",), message)])
    space = documents.validated(document, Space)
    mistakes = list(_tilt_mistakes(document, space))
    if mistakes:
        raise RecipeError(mistakes)
    return space


def space_from_manifest(manifest: Mapping[str, Any]) -> Space:
    """Return the space stored in the manifest of a finished run."""
    return Space.model_validate(
        {name: value for name, value in manifest["space"].items() if name != "name"}
    )


def sample_profiles(
    space: Space, name: str, cast: Cast, seed: int, mirrored: bool
) -> Profiles:
    """Sample the profiles of a cast. Profile i depends only on the space, the seed, i and (with
    tilts) the person's traits.

    `name` is the name of the space in the data. With `mirrored`, persona 2k+1 is the
    opposite of persona 2k. If the cast was read with profiles of this space, they are kept.
    Raises `UsageError` for tilts that cannot be mirrored, or that use traits that the people
    do not have.
    """
    import numpy as np

    if cast.profiles is not None:
        return _profiles_of_cast(space, name, cast, mirrored)
    if mirrored and space.tilts is not None and space.tilts.share > 0:
        raise UsageError(
            f"the space {name} has tilts, and two opposite personas cannot both follow "
            "their traits: set cast.mirrored=false."
        )
    n = (len(cast) + 1) // 2 if mirrored else len(cast)
    latent = np.empty((n, len(space.dimensions)))
    for column, dimension in enumerate(space.dimensions):
        stream = np.random.Generator(
            np.random.Philox(derived_seed(seed, "profile", dimension))
        )
        latent[:, column] = stream.random(n)
    points = _points_from_uniform(space, _apply_tilts(space, latent, cast))
    if mirrored:
        opposite = [
            space.opposite(space.profile(name, row)).vector
            for row in _distinct_points(points)
        ]
        points = np.stack(
            [points, np.array(opposite)[_distinct_indices(points)]], axis=1
        ).reshape(-1, points.shape[1])
    return Profiles(space, name, points[: len(cast)])


def _points_from_uniform(space: Space, uniform: Array) -> Array:
    """Map uniform numbers, one per dimension, to points of the space; larger numbers mean
    the first pole."""
    import numpy as np
    from scipy import special

    if space.kind == "poles":
        return (uniform >= 0.5).astype(np.float64)
    if space.kind == "bipolar":
        edge = (1 - (space.neutral or 0.0)) / 2
        points: Array = np.where(
            uniform >= 1 - edge, 1.0, np.where(uniform < edge, 0.0, 0.5)
        )
        strongest = np.abs(uniform - 0.5).argmax(axis=1)
        all_neutral = np.flatnonzero(
            (points == 0.5).all(axis=1)
        )  # everybody wants something
        points[all_neutral, strongest[all_neutral]] = (
            uniform[all_neutral, strongest[all_neutral]] >= 0.5
        ).astype(np.float64)
        return points
    if space.kind == "one_hot":
        return np.asarray(np.eye(uniform.shape[1])[uniform.argmax(axis=1)])
    if space.kind == "weights":
        assert space.alpha is not None
        safe = np.maximum(uniform, 2.0**-54)
        gamma = special.gammaincinv(space.alpha, safe)
        tiny = (
            np.log(safe) + special.gammaln(space.alpha + 1)
        ) / space.alpha  # gamma underflows
        logs = np.where(gamma > 1e-200, np.log(np.maximum(gamma, 1e-300)), tiny)
        return np.asarray(special.softmax(logs, axis=1))
    counts = np.array([len(space.poles[name]) for name in space.dimensions])
    return np.asarray(np.minimum(np.floor(uniform * counts), counts - 1))


def _apply_tilts(space: Space, uniform: Array, cast: Cast) -> Array:
    """Shift uniform numbers by the traits' score on the tilted dimensions; over all people
    of the pack they stay uniform."""
    if space.tilts is None or space.tilts.share == 0:
        return uniform
    import numpy as np
    from scipy import special

    from simforge.personas.cast import sample_cast

    from_file = cast.sha256 is not None  # the pack's files may be missing
    reference = (
        cast.frame if from_file else sample_cast(cast.pack, TILT_SAMPLE_SIZE, 0).frame
    )
    share, names = space.tilts.share, list(space.dimensions)
    for dimension, toward in space.tilts.toward.items():
        reference_scores, scores = (
            _tilt_scores(space, dimension, toward, reference),
            _tilt_scores(space, dimension, toward, cast.frame),
        )
        if reference_scores.std() == 0:
            raise UsageError(
                f"the tilt of {dimension} moves everybody in {cast.name} equally, so "
                "it has no effect."
            )
        column = names.index(dimension)
        noise = special.ndtri(np.maximum(uniform[:, column], 2.0**-54))
        mean, spread = reference_scores.mean(), reference_scores.std()
        latent = np.sqrt(share) * (scores - mean) / spread + np.sqrt(1 - share) * noise
        # The score is not normal: the latent value's CDF, a mixture over scores, makes it uniform.
        steps, counts = np.unique(reference_scores, return_counts=True)
        uniform[:, column] = sum(
            count
            / len(reference_scores)
            * special.ndtr(
                (latent - np.sqrt(share) * (step - mean) / spread) / np.sqrt(1 - share)
            )
            for step, count in zip(steps, counts, strict=True)
        )
    return uniform


def _tilt_scores(
    space: Space, dimension: str, toward: dict[str, list[str]], frame: Any
) -> Array:
    """Return the number of steps that each person is moved towards the dimension's first
    pole."""
    import numpy as np
    import polars as pl

    score = np.zeros(frame.height)
    first = next(iter(space.poles[dimension]))
    for pole, texts in toward.items():
        for text in texts:
            unknown = [
                column
                for column in parse_condition(text).columns
                if column not in frame.columns
            ]
            if unknown:
                suggestion = suggest(unknown[0], frame.columns)
                raise UsageError(
                    f"the tilt of {dimension}: {text!r}: the people have no trait "
                    f"{unknown[0]!r}{suggestion}"
                )
            try:
                holds = frame.select(
                    parse_condition(text)
                    .expression.fill_null(False)
                    .cast(pl.Float64)
                    .alias("x")
                )["x"].to_numpy()
            except (pl.exceptions.PolarsError, ValueError) as problem:
                raise UsageError(
                    f"the tilt of {dimension}: {text!r}: {str(problem).splitlines()[0]}."
                ) from None
            if not 0 < holds.sum() < len(holds) and len(holds) >= TILT_SAMPLE_SIZE:
                group = "nobody" if not holds.any() else "everybody"
                raise UsageError(
                    f"the tilt of {dimension}: {text!r} holds for {group}. Check the "
                    "spelling of the values."
                )
            score += holds if pole == first else -holds
    return score


def _tilt_mistakes(document: Document, space: Space) -> list[Mistake]:
    """Return the mistakes in tilts: unknown dimensions or poles, and invalid conditions."""
    mistakes = []
    for dimension, toward in (space.tilts.toward if space.tilts else {}).items():
        path = ("tilts", "toward", dimension)
        if dimension not in space.dimensions:
            mistakes.append(
                document.mistake(
                    path,
                    f"there is no dimension {dimension!r}{suggest(dimension, space.dimensions)}",
                )
            )
            continue
        for pole, texts in toward.items():
            if pole not in space.poles[dimension]:
                message = f"{dimension} has no pole {pole!r}{suggest(pole, space.poles[dimension])}"
                mistakes.append(document.mistake((*path, pole), message))
            for text in texts:
                try:
                    parse_condition(text)
                except ValueError as problem:
                    mistakes.append(
                        document.mistake(
                            (*path, pole),
                            f"{text!r} is not a condition: {problem}",
                        )
                    )
    return mistakes


def _profiles_of_cast(space: Space, name: str, cast: Cast, mirrored: bool) -> Profiles:
    """Return the profiles read with the cast. Raises `SourceError` if they are not points of
    the space."""
    import numpy as np

    assert cast.profiles is not None
    rows = cast.profiles.to_list()
    prefix = f"{cast.name}: its column `profile` does not hold profiles of the space {name!r}: "
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or list(row.get("names") or ()) != list(
            space.dimensions
        ):
            of = row.get("space") if isinstance(row, dict) else row
            raise SourceError(
                f"{prefix}person {number} has a profile of {of!r}. Set cast.space to it, or "
                "draw new profiles for these people with cast.keep_profiles=false."
            )
        vector, values = row.get("vector") or (), row.get("values")
        try:
            fits = len(vector) == len(space.dimensions) and list(
                space.profile(name, vector).values
            ) == list(values or ())
        except (TypeError, ValueError, IndexError):
            fits = False
        if not fits:
            raise SourceError(
                f"{prefix}person {number} has the values {values} and the numbers {vector}."
            )
    profiles = Profiles(
        space, name, np.array([row["vector"] for row in rows], dtype=np.float64)
    )
    pairs = range(0, len(profiles) - 1, 2)
    if mirrored and not all(
        space.opposite(profiles[number]).values == profiles[number + 1].values
        for number in pairs
    ):
        raise SourceError(
            f"the people of {cast.name} are not pairs with opposite preferences: set "
            "cast.mirrored=false."
        )
    return profiles


def _distinct_points(points: Array) -> list[list[float]]:
    import numpy as np

    return np.unique(points, axis=0).tolist()  # type: ignore[no-any-return]


def _distinct_indices(points: Array) -> Array:
    import numpy as np

    return np.unique(points, axis=0, return_inverse=True)[1].reshape(-1)
