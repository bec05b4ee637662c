"""Preference spaces: the axes on which people differ in what they want from an answer.

A space is a file (`personas/spaces/*.yaml`): dimensions, each with poles, and how profiles lie in it.

| kind | a profile is | after |
|---|---|---|
| `poles` | one of two opposite poles on every dimension | Personalized Soups (Jang et al. 2023, arXiv 2310.11564) |
| `bipolar` | one of two poles, or neutral, on every dimension | AlignX |
| `one_hot` | one dimension that matters, the others do not | VPL |
| `weights` | a weight for every dimension, from a Dirichlet distribution | PersonalLLM |
| `hierarchy` | one preference per dimension, out of subdimensions with described ones | Multifaceted Collection |

A pole says how an assistant is steered towards it, how a person who wants it puts it, and on which side of the
dimension's measure its answers fall. Profiles are independent of the persona unless the space has `tilts`; drawn
`mirrored`, persona 2k+1 is the exact opposite of persona 2k, so that people who share prompts want opposite things.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from simforge import catalog, documents, measures
from simforge.documents import Document, Strict
from simforge.errors import Mistake, RecipeError, SourceError, UsageError, nearest
from simforge.generators import compiled
from simforge.identity import derived_seed
from simforge.types import Profile

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from simforge.personas import Cast

    Array = np.ndarray[Any, Any]

REFERENCE = 20_000
"People drawn (with the seed 0) to know the mean and spread of a tilt in a pack."


class Pole(Strict):
    """One end of a dimension."""

    steer: str
    "What an assistant is told, as a sentence of a system message."
    wants: str
    "What a person who wants it likes, as it completes 'likes answers that are ...'."
    side: Literal["low", "high"] | None = None
    "The side of the measure on which answers of this pole fall."


class Dimension(Strict):
    """One axis."""

    poles: Annotated[dict[str, Pole | str], Field(min_length=1, max_length=2)] | None = None
    "Two poles (one for `one_hot` and `weights`). A plain phrase is put into the space's `steer` and `wants`."
    subdimensions: Annotated[dict[str, dict[str, Pole | str]], Field(min_length=1)] | None = None
    "For `hierarchy`, in place of poles: preferences by subdimension."
    measure: str | None = None
    "Programmatic measure of the axis, from `simforge.measures`."
    scorer: str | None = None
    "Name in a recipe's `models` of what gives a text a number on this axis, such as a reward model."
    mean: float | None = None
    "Of the measure's or the scorer's numbers over many answers; a recipe whose labels come from scorers subtracts it."
    sd: Annotated[float, Field(gt=0)] | None = None
    "Their standard deviation, which it divides by."
    gap: Annotated[float, Field(ge=0)] = 0.0
    "How far apart two answers must be for the measure to tell them apart, in its unit."

    @model_validator(mode="after")
    def _measured(self) -> Dimension:
        if (self.poles is None) == (self.subdimensions is None):
            raise ValueError("needs either `poles` or `subdimensions`")
        if self.measure is not None and self.scorer is not None:
            raise ValueError("has a `measure` and a `scorer`: one of them gives the number")
        if self.measure is not None or self.scorer is not None:
            if self.measure is not None and self.measure not in measures.MEASURES:
                raise ValueError(f"there is no measure {self.measure!r}; there are: {', '.join(measures.MEASURES)}")
            sides = [pole.side for pole in (self.poles or {}).values() if isinstance(pole, Pole)]
            if not sides or None in sides or len(set(sides)) < len(self.poles or {}):
                raise ValueError("a measured dimension needs `side: low` or `side: high` on every pole, each once")
        return self


class Tilts(Strict):
    """How traits move preferences."""

    share: Annotated[float, Field(ge=0, lt=1)]
    """Share of the variance of each tilted dimension's latent value that the traits explain. The latent value is
    sqrt(share) x the traits' score + sqrt(1 - share) x noise, both standard normal in scale; it decides the pole."""
    toward: Annotated[dict[str, dict[str, Annotated[list[str], Field(min_length=1)]]], Field(min_length=1)]
    """Dimension, pole, and SQL conditions over traits: each that holds moves the person one step towards that pole."""


class Space(Strict):
    """A preference space file."""

    description: str
    "What the space is, in a line or two."
    kind: Literal["poles", "bipolar", "one_hot", "weights", "hierarchy"]
    "The form of its profiles."
    source: str
    "Where it comes from."
    steer: str = "{{ pole }}"
    "For poles that are plain phrases: the template of what an assistant is told."
    wants: str = "{{ pole }}"
    "For poles that are plain phrases: the template of how the person puts it."
    neutral: Annotated[float, Field(ge=0, lt=1)] | None = None
    "For `bipolar`: the chance of being neutral on a dimension. Nobody is neutral on all."
    alpha: Annotated[float, Field(gt=0)] | None = None
    "For `weights`: concentration of the Dirichlet distribution; small values make people who care for one thing."
    dimensions: Annotated[dict[str, Dimension], Field(min_length=1)]
    "In the order of the profile's names and values."
    tilts: Tilts | None = None

    @model_validator(mode="after")
    def _form(self) -> Space:
        wanted = {"poles": 2, "bipolar": 2, "one_hot": 1, "weights": 1}.get(self.kind)
        for name, dimension in self.dimensions.items():
            if (dimension.subdimensions is not None) != (self.kind == "hierarchy"):
                raise ValueError(f"{name}: `subdimensions` belong to the kind `hierarchy`, `poles` to the others")
            if wanted is not None and len(dimension.poles or {}) != wanted:
                raise ValueError(f"{name}: the kind `{self.kind}` needs {wanted} pole(s) per dimension")
        if (self.neutral is not None) != (self.kind == "bipolar"):
            raise ValueError("`neutral` is needed for the kind `bipolar`, and only there")
        if (self.alpha is not None) != (self.kind == "weights"):
            raise ValueError("`alpha` is needed for the kind `weights`, and only there")
        if wanted == 1 and len(self.dimensions) < 2:
            raise ValueError(f"the kind `{self.kind}` needs at least two dimensions")
        if self.tilts is not None and self.kind == "hierarchy":
            raise ValueError("`tilts` need an order between preferences, which `hierarchy` has not")
        return self

    @cached_property
    def poles(self) -> dict[str, dict[str, Pole]]:
        """All poles by dimension and name; in a hierarchy the name is `subdimension/preference`."""
        found: dict[str, dict[str, Pole]] = {}
        for name, dimension in self.dimensions.items():
            given = dict(dimension.poles or {})
            for subdimension, preferences in (dimension.subdimensions or {}).items():
                given |= {f"{subdimension}/{one}": pole for one, pole in preferences.items()}
            found[name] = {one: self._pole(pole) for one, pole in given.items()}
        return found

    def wanted(self, profile: Profile) -> list[str]:
        """The dimensions on which the person wants something."""
        return [name for name, value in zip(profile.names, profile.values, strict=True) if value]

    def pole(self, profile: Profile, dimension: str | None) -> Pole | None:
        """What the person wants on a dimension, if anything."""
        value = profile.pole(dimension) if dimension in profile.names and dimension is not None else ""
        return self.poles[dimension][value] if value and dimension is not None else None

    def steering(self, profile: Profile, dimension: str | None) -> str:
        """What an assistant is told to answer as the person wants: on one dimension, or (`None`) on all of them.

        A person who wants nothing on that dimension is served by all that they want.
        """
        names = [dimension] if dimension and self.pole(profile, dimension) else self.wanted(profile)
        return " ".join(pole.steer for name in names if (pole := self.pole(profile, name)))

    def wishes(self, profile: Profile, dimension: str | None = None) -> list[str]:
        """What the person likes, one phrase per dimension (of one dimension, where given and wanted)."""
        names = [dimension] if dimension and self.pole(profile, dimension) else self.wanted(profile)
        return [pole.wants for name in names if (pole := self.pole(profile, name))]

    def others(self, profile: Profile) -> list[tuple[str, str]]:
        """Dimensions on which the person wants nothing and somebody else does, and how an answer is steered there."""
        missing = [name for name, value in zip(profile.names, profile.values, strict=True) if not value]
        return [(name, next(iter(self.poles[name].values())).steer) for name in missing]

    def weights(self, profile: Profile) -> dict[str, float]:
        """How much each dimension counts for the person; adds up to 1. Where the space has no weights, all that they
        want counts alike."""
        if self.kind == "weights":
            return dict(zip(profile.names, profile.vector, strict=True))
        wanted = self.wanted(profile)
        return dict.fromkeys(wanted, 1 / len(wanted))

    def value(self, profile: Profile, scores: Mapping[str, float]) -> float:
        """What a text is worth to the person: the weighted sum of its scores in standard deviations, each with the sign
        of the side that the person wants (PersonalLLM)."""
        total = 0.0
        for name, weight in self.weights(profile).items():
            axis = self.dimensions[name]
            pole = self.pole(profile, name) or next(iter(self.poles[name].values()))
            sign = -1.0 if pole.side == "low" else 1.0
            assert axis.mean is not None and axis.sd is not None
            total += weight * sign * (scores[name] - axis.mean) / axis.sd
        return total

    def opposite(self, profile: Profile) -> Profile:
        """Who wants the opposite: the other poles; the dimension half-way round; the weights in reversed order;
        preferences half-way round a hierarchy's lists (the opposite's opposite is somebody else where a list is odd).
        """
        names = list(self.dimensions)
        if self.kind == "one_hot":
            half = len(names) // 2
            return self.profile(profile.space, profile.vector[-half:] + profile.vector[:-half])
        if self.kind == "weights":
            from_top = sorted(range(len(names)), key=lambda place: (-profile.vector[place], place))
            vector = [0.0] * len(names)
            for place, other in zip(from_top, reversed(from_top), strict=True):
                vector[place] = profile.vector[other]
            return self.profile(profile.space, vector)
        if self.kind == "hierarchy":
            counts = [len(self.poles[name]) for name in names]
            moved = [(v + count // 2) % count for v, count in zip(profile.vector, counts, strict=True)]
            return self.profile(profile.space, moved)
        return self.profile(profile.space, [1.0 - value for value in profile.vector])

    def profile(self, name: str, vector: Sequence[float]) -> Profile:
        """The profile at a point of the space.

        Per dimension: 1 for the first pole, 0 for the second, 0.5 for neutral; 1 or 0 (`one_hot`); the weight
        (`weights`; those above average are what the person wants); the number of the preference (`hierarchy`).
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
        return Profile(name, tuple(self.dimensions), tuple(values), tuple(float(number) for number in vector))

    def _pole(self, given: Pole | str) -> Pole:
        if isinstance(given, Pole):
            return given
        steer, wants = (compiled(template).render(pole=given) for template in (self.steer, self.wants))
        return Pole(steer=steer, wants=wants)


class Profiles(Sequence[Profile]):
    """The profiles of a cast, as an array of points; a profile is made when it is looked at."""

    def __init__(self, space: Space, name: str, points: Array) -> None:
        self.space, self.name, self.points = space, name, points

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: Any) -> Any:
        return self.space.profile(self.name, self.points[index].tolist())

    def distance(self, one: int, other: int) -> float:
        """How far two people's wishes are apart: in a hierarchy, on how many dimensions they differ."""
        a, b = self.points[one], self.points[other]
        return float((a != b).sum() if self.space.kind == "hierarchy" else abs(a - b).sum())

    def series(self) -> pl.Series:
        """All profiles as a column of structs."""
        import polars as pl

        rows = [
            {"space": one.space, "names": list(one.names), "values": list(one.values), "vector": list(one.vector)}
            for one in self
        ]
        texts = pl.List(pl.String)
        kind = pl.Struct({"space": pl.String, "names": texts, "values": texts, "vector": pl.List(pl.Float64)})
        return pl.Series("profile", rows, dtype=kind)


def load(reference: str) -> Space:
    """Read a space by name or path; raises `RecipeError` with all its mistakes."""
    found = catalog.entry("personas", reference if catalog.is_path(reference) else f"spaces/{reference}")
    document = documents.read(found.text, found.label)
    if "traits" in document.value:
        raise RecipeError([document.mistake(("traits",), "is a persona pack, and a preference space was asked for")])
    space = documents.validated(document, Space)
    mistakes = list(_tilted_wrong(document, space))
    if mistakes:
        raise RecipeError(mistakes)
    return space


def of_manifest(manifest: Mapping[str, Any]) -> Space:
    """The space of a finished run, as its manifest has it."""
    return Space.model_validate({name: value for name, value in manifest["space"].items() if name != "name"})


def draw(space: Space, name: str, cast: Cast, seed: int, mirrored: bool) -> Profiles:
    """The profiles of a cast. Profile i depends on space, seed, i and (with tilts) the person's traits.

    `name` is what the data call the space. `mirrored`: persona 2k+1 is the opposite of persona 2k. A cast that was read
    with profiles of this space keeps them.
    Raises `UsageError` for tilts that cannot be mirrored, or over traits that the people do not have.
    """
    import numpy as np

    if cast.profiles is not None:
        return _kept(space, name, cast, mirrored)
    if mirrored and space.tilts is not None and space.tilts.share > 0:
        raise UsageError(
            f"the space {name} is tilted by traits, and opposite twins cannot both follow theirs: "
            "set cast.mirrored=false."
        )
    n = (len(cast) + 1) // 2 if mirrored else len(cast)
    latent = np.empty((n, len(space.dimensions)))
    for place, dimension in enumerate(space.dimensions):
        stream = np.random.Generator(np.random.Philox(derived_seed(seed, "profile", dimension)))
        latent[:, place] = stream.random(n)
    points = _points(space, _tilted(space, latent, cast))
    if mirrored:
        opposite = [space.opposite(space.profile(name, row)).vector for row in _distinct(points)]
        points = np.stack([points, np.array(opposite)[_places(points)]], axis=1).reshape(-1, points.shape[1])
    return Profiles(space, name, points[: len(cast)])


def _points(space: Space, uniform: Array) -> Array:
    """Points of the space from uniform numbers, one a dimension; larger numbers mean the first pole."""
    import numpy as np
    from scipy import special

    if space.kind == "poles":
        return (uniform >= 0.5).astype(np.float64)
    if space.kind == "bipolar":
        edge = (1 - (space.neutral or 0.0)) / 2
        points: Array = np.where(uniform >= 1 - edge, 1.0, np.where(uniform < edge, 0.0, 0.5))
        strongest = np.abs(uniform - 0.5).argmax(axis=1)
        idle = np.flatnonzero((points == 0.5).all(axis=1))  # nobody wants nothing
        points[idle, strongest[idle]] = (uniform[idle, strongest[idle]] >= 0.5).astype(np.float64)
        return points
    if space.kind == "one_hot":
        return np.asarray(np.eye(uniform.shape[1])[uniform.argmax(axis=1)])
    if space.kind == "weights":
        assert space.alpha is not None
        safe = np.maximum(uniform, 2.0**-54)
        gamma = special.gammaincinv(space.alpha, safe)
        tiny = (np.log(safe) + special.gammaln(space.alpha + 1)) / space.alpha  # where gamma is too small for a float
        logs = np.where(gamma > 1e-200, np.log(np.maximum(gamma, 1e-300)), tiny)
        return np.asarray(special.softmax(logs, axis=1))
    counts = np.array([len(space.poles[name]) for name in space.dimensions])
    return np.asarray(np.minimum(np.floor(uniform * counts), counts - 1))


def _tilted(space: Space, uniform: Array, cast: Cast) -> Array:
    """Uniform numbers, moved by the traits' score on the tilted dimensions; over the pack's people still uniform."""
    if space.tilts is None or space.tilts.share == 0:
        return uniform
    import numpy as np
    from scipy import special

    from simforge.personas import sample

    read = cast.sha256 is not None  # then the pack's files may be elsewhere, and the people are all there are
    reference = cast.frame if read else sample(cast.pack, REFERENCE, 0).frame
    share, names = space.tilts.share, list(space.dimensions)
    for dimension, toward in space.tilts.toward.items():
        usual, here = _score(space, dimension, toward, reference), _score(space, dimension, toward, cast.frame)
        if usual.std() == 0:
            raise UsageError(f"the tilt of {dimension} moves everybody of {cast.name} alike, so it explains nothing.")
        place = names.index(dimension)
        own = special.ndtri(np.maximum(uniform[:, place], 2.0**-54))
        mean, spread = usual.mean(), usual.std()
        latent = np.sqrt(share) * (here - mean) / spread + np.sqrt(1 - share) * own
        # The score is not normal: the latent value's own distribution, a mixture over scores, makes it uniform again.
        steps, counts = np.unique(usual, return_counts=True)
        uniform[:, place] = sum(
            count / len(usual) * special.ndtr((latent - np.sqrt(share) * (step - mean) / spread) / np.sqrt(1 - share))
            for step, count in zip(steps, counts, strict=True)
        )
    return uniform


def _score(space: Space, dimension: str, toward: dict[str, list[str]], frame: Any) -> Array:
    """How many steps each person is moved towards the dimension's first pole."""
    import numpy as np
    import polars as pl

    from simforge.personas.reading import condition

    score = np.zeros(frame.height)
    first = next(iter(space.poles[dimension]))
    for pole, texts in toward.items():
        for text in texts:
            unknown = [one for one in condition(text).meta.root_names() if one not in frame.columns]
            if unknown:
                said = nearest(unknown[0], frame.columns)
                raise UsageError(f"the tilt of {dimension}: {text!r}: the people have no trait {unknown[0]!r}{said}")
            try:
                holds = frame.select(condition(text).fill_null(False).cast(pl.Float64).alias("x"))["x"].to_numpy()
            except (pl.exceptions.PolarsError, ValueError) as problem:
                raise UsageError(f"the tilt of {dimension}: {text!r}: {str(problem).splitlines()[0]}.") from None
            if not 0 < holds.sum() < len(holds) and len(holds) >= REFERENCE:
                whom = "nobody" if not holds.any() else "everybody"
                raise UsageError(
                    f"the tilt of {dimension}: {text!r} holds for {whom}. Is it spelt as the traits' values?"
                )
            score += holds if pole == first else -holds
    return score


def _tilted_wrong(document: Document, space: Space) -> list[Mistake]:
    """Tilts of dimensions or poles that are not there, or that are no conditions."""
    from simforge.personas.reading import condition

    mistakes = []
    for dimension, toward in (space.tilts.toward if space.tilts else {}).items():
        path = ("tilts", "toward", dimension)
        if dimension not in space.dimensions:
            mistakes.append(
                document.mistake(path, f"there is no dimension {dimension!r}{nearest(dimension, space.dimensions)}")
            )
            continue
        for pole, texts in toward.items():
            if pole not in space.poles[dimension]:
                said = f"{dimension} has no pole {pole!r}{nearest(pole, space.poles[dimension])}"
                mistakes.append(document.mistake((*path, pole), said))
            for text in texts:
                try:
                    condition(text)
                except ValueError as problem:
                    mistakes.append(document.mistake((*path, pole), f"{text!r} is not an SQL condition: {problem}"))
    return mistakes


def _kept(space: Space, name: str, cast: Cast, mirrored: bool) -> Profiles:
    """The profiles that came with the people; raises `SourceError` where they are not points of the space."""
    import numpy as np

    assert cast.profiles is not None
    rows = cast.profiles.to_list()
    strange = f"{cast.name}: its column `profile` does not hold profiles of the space {name!r}: "
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or list(row.get("names") or ()) != list(space.dimensions):
            of = row.get("space") if isinstance(row, dict) else row
            raise SourceError(f"{strange}person {number} has one of {of!r}. Set cast.space, or leave the column out.")
        vector, values = row.get("vector") or (), row.get("values")
        try:
            fits = len(vector) == len(space.dimensions) and list(space.profile(name, vector).values) == list(
                values or ()
            )
        except (TypeError, ValueError, IndexError):
            fits = False
        if not fits:
            raise SourceError(f"{strange}person {number} has the values {values} and the numbers {vector}.")
    found = Profiles(space, name, np.array([row["vector"] for row in rows], dtype=np.float64))
    pairs = range(0, len(found) - 1, 2)
    if mirrored and not all(space.opposite(found[number]).values == found[number + 1].values for number in pairs):
        raise SourceError(
            f"the people of {cast.name} do not come as twins who want opposite things: set cast.mirrored=false."
        )
    return found


def _distinct(points: Array) -> list[list[float]]:
    import numpy as np

    return np.unique(points, axis=0).tolist()  # type: ignore[no-any-return]


def _places(points: Array) -> Array:
    import numpy as np

    return np.unique(points, axis=0, return_inverse=True)[1].reshape(-1)
