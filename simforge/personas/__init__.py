"""Personas: who is talking.

A pack (`personas/*.yaml`) is a JSON Schema of the traits with, beside each trait, how it is drawn. Sampling is
columnar: every trait has a random stream of its own, one number per candidate, so person i is the same whatever the
number of people, and a cast of a million is drawn without a Python loop over rows. Texts and ids are made only for the
people that are looked at.

    cast = sample(load("everyday"), n=1000, seed=0)
    cast.traits(0)  ->  {"country": "Kenya", "age": 41, ...}

`pack` has the format, `reading` the checks, `drawing` the distributions, `proof` the comparison of what was asked for
with what was got, `tables` the files that packs name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator
from pydantic import ValidationError

from simforge.errors import SourceError, UsageError, nearest
from simforge.generators import compiled
from simforge.identity import cycled, digest
from simforge.personas.pack import Pack, Target, bounds, plain
from simforge.personas.reading import NUMERIC, condition, load, schema
from simforge.types import Profile

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

__all__ = ["Cast", "Pack", "Passed", "check_rows", "load", "persona_id", "read_cast", "sample", "write_cast"]

FORMATS = (".parquet", ".jsonl", ".csv")
"How people can be written."
PATIENCE = 200
"Candidates per person after which a pack's constraints and quotas are given up as impossible (and 200,000 besides)."
_META = "simforge.pack"
"Key of the pack in a cast file's metadata."


@dataclass(frozen=True, slots=True)
class Passed:
    """How many candidates were passed over, and why."""

    tried: int
    "Candidates up to the last person."
    by_condition: dict[str, int] = field(default_factory=dict)
    "Candidates that failed each condition of `where` (one can fail several)."
    impossible: int = 0
    "Candidates that failed any condition."
    full: int = 0
    "Candidates whose cell of a quota was full."


@dataclass(frozen=True, slots=True)
class Cast:
    """The personas of a run as a table: one row a person, one typed column a trait."""

    pack: Pack
    name: str
    "The pack's reference, or the file that the people came from."
    frame: pl.DataFrame
    "One column a trait."
    passed: Passed
    texts: pl.Series | None = None
    "Texts that are not the pack's template: written by a model, or read with the people."
    profiles: pl.Series | None = None
    "Profiles that were read with the people (struct: space, names, values, vector)."
    sha256: str | None = None
    "Digest of the file that the people came from."

    def __len__(self) -> int:
        return self.frame.height

    def traits(self, index: int) -> dict[str, Any]:
        return self.frame.row(index, named=True)

    def text(self, index: int) -> str:
        """The person in words."""
        if self.texts is not None:
            return str(self.texts[index])
        return " ".join(compiled(self.pack.text).render(self.traits(index)).split())

    def need(self, number: int, seed: int) -> str | None:
        """What the person of dialogue `number` of the run brings; none comes twice until all were used."""
        return cycled(self.pack.needs, number, seed, "needs") if self.pack.needs else None


def sample(pack: Pack, n: int, seed: int, name: str = "") -> Cast:
    """Draw `n` people: the first `n` candidates that satisfy the pack's constraints (and find room in its quotas).

    Row i depends on the pack, the seed and i alone, unless the pack has quotas. Raises `UsageError` where too few
    candidates pass.
    """
    import polars as pl

    from simforge.personas.drawing import BATCH, Sampler

    sampler = Sampler(pack, seed)
    gate = _Gate(pack, n)
    found: list[pl.DataFrame] = []
    count = 0
    while count < n:
        if sampler.drawn > PATIENCE * n + 200_000:
            raise UsageError(gate.stuck(n, count))
        rate = max(count / sampler.drawn, 0.02) if sampler.drawn else 1.0
        size = min(BATCH, max(1024, int((n - count) / rate * 1.05)))
        people = gate.admitted(sampler.frame(sampler.batch(size)), n - count)
        found.append(people)
        count += people.height
    return Cast(pack, name, pl.concat(found), gate.passed)


def persona_id(traits: dict[str, Any], profile: Profile, index: int) -> str:
    """Digest of who the person is; the row is part of it, since two people may be alike in every trait."""
    return digest(["persona", traits, list(profile.values), list(profile.vector), index])


def check_rows(cast: Cast, rows: int) -> None:
    """Hold the first `rows` people against the pack's own JSON Schema; a difference is a mistake in the pack."""
    validator = Draft202012Validator(cast.pack.json_schema(), format_checker=Draft202012Validator.FORMAT_CHECKER)
    for index in range(min(rows, len(cast))):
        problem = next(iter(validator.iter_errors(cast.traits(index))), None)
        if problem is not None:
            where = ".".join(map(str, problem.absolute_path))
            raise UsageError(
                f"{cast.name}: person {index} does not fit the pack's own schema: {where}: {problem.message}"
            )


def write_cast(cast: Cast, path: Path) -> None:
    """Write people as .parquet (with their pack inside, so that `--cast` needs nothing else), .jsonl or .csv."""
    frame = cast.frame
    if cast.texts is not None:
        frame = frame.with_columns(cast.texts.alias("text"))
    if cast.profiles is not None and path.suffix != ".csv":
        frame = frame.with_columns(cast.profiles.alias("profile"))
    if path.suffix == ".parquet":
        content = json.dumps({"name": cast.name, "pack": cast.pack.content()}, ensure_ascii=False)
        frame.write_parquet(path, metadata={_META: content})
    elif path.suffix == ".jsonl":
        frame.write_ndjson(path)
    elif path.suffix == ".csv":
        frame.write_csv(path)
    else:
        raise UsageError(f"{path}: people are written as {', '.join(FORMATS)}.")


def read_cast(path: Path, fallback: str, n: int | None) -> Cast:
    """The people of a cast file, or of a run folder's personas table; the first `n` of them where given.

    The pack is the one inside the file, else `fallback`, whose traits the table must then have. Raises `SourceError`.
    """
    import polars as pl

    from simforge.identity import file_sha256

    files = sorted(path.glob("data/personas/*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise SourceError(
            f"--cast {path}: there are no people; give a file of `personas sample --out`, or a run folder."
        )
    try:
        frame = pl.concat([pl.read_parquet(file) for file in files])
        meta = pl.read_parquet_metadata(files[0]).get(_META)
    except (OSError, pl.exceptions.PolarsError) as problem:
        raise SourceError(f"--cast {path} cannot be read: {str(problem).splitlines()[0]}.") from None
    frame = frame.sort("index") if "index" in frame.columns else frame
    n = frame.height if n is None else n
    if n > frame.height:
        raise SourceError(f"--cast {path} has {frame.height} people, and --personas asks for {n}.")
    name, pack = _pack_inside(path, meta) if meta else (fallback, load(fallback))
    kinds = schema(pack)
    for column in kinds:
        if column not in frame.columns:
            said = nearest(column, frame.columns)
            raise SourceError(
                f"--cast {path} has no column {column!r}{said}. Its pack is taken to be {name}; name another with "
                "--set cast.pack=PACK."
            )
    try:
        people = frame.select(pl.col(column).cast(kind) for column, kind in kinds.items())
    except pl.exceptions.PolarsError as problem:
        raise SourceError(f"--cast {path} does not fit {name}: {str(problem).splitlines()[0]}.") from None
    return Cast(
        pack=pack,
        name=name,
        frame=people.head(n),
        passed=Passed(n),
        texts=frame["text"].head(n) if "text" in frame.columns else None,
        profiles=frame["profile"].head(n) if "profile" in frame.columns else None,
        sha256=digest([file_sha256(file) for file in files]),
    )


def _pack_inside(path: Path, meta: str) -> tuple[str, Pack]:
    try:
        inside = json.loads(meta)
        return inside["name"], Pack.model_validate(inside["pack"])
    except (ValueError, KeyError, ValidationError) as problem:
        raise SourceError(
            f"--cast {path} was written by another version of SimForge ({str(problem).splitlines()[0]})."
        ) from None


class _Gate:
    """Lets candidates in who satisfy every condition and find room in every quota."""

    def __init__(self, pack: Pack, n: int) -> None:
        self._conditions = {text: condition(text) for text in pack.where}
        self._rooms = [_Room(target, pack, n) for target in pack.quotas]
        self.passed = Passed(0)

    def admitted(self, frame: pl.DataFrame, most: int) -> pl.DataFrame:
        """The first `most` candidates that may enter."""
        import numpy as np
        import polars as pl

        fails = {
            text: ~frame.select(one.fill_null(False).alias("ok"))["ok"].to_numpy()
            for text, one in self._conditions.items()
        }
        possible = np.ones(frame.height, dtype=bool)
        for failed in fails.values():
            possible &= ~failed
        inside = possible.copy()
        cells = [room.cells(frame) for room in self._rooms]
        for room, cell in zip(self._rooms, cells, strict=True):
            inside &= room.has(cell, inside)
        places = np.flatnonzero(inside)[:most]
        seen = int(places[-1]) + 1 if len(places) == most else frame.height
        for room, cell in zip(self._rooms, cells, strict=True):
            room.take(cell[places])
        before = self.passed
        self.passed = Passed(
            tried=before.tried + seen,
            by_condition={
                text: before.by_condition.get(text, 0) + int(failed[:seen].sum()) for text, failed in fails.items()
            },
            impossible=before.impossible + int((~possible[:seen]).sum()),
            full=before.full + int((possible[:seen] & ~inside[:seen]).sum()),
        )
        return frame[pl.Series(places)] if len(places) < frame.height else frame

    def stuck(self, wanted: int, found: int) -> str:
        passed = self.passed
        said = f"only {found} of {wanted} people were found among {passed.tried} candidates"
        worst = sorted(passed.by_condition.items(), key=lambda item: -item[1])[:3]
        said += "".join(f"; {count} fail {text!r}" for text, count in worst if count)
        open_cells = [text for room in self._rooms for text in room.open()]
        if open_cells:
            said += f"; quotas still lack {', '.join(open_cells[:5])}"
        return f"{said}. Such people are (almost) never drawn: change the draws, `where` or the quotas."


class _Room:
    """What is left of a quota."""

    def __init__(self, target: Target, pack: Pack, n: int) -> None:
        import numpy as np

        self._traits = target.traits
        self._kinds = [pack.traits[name].type for name in self._traits]
        shares = target.cells()
        self._keys = list(shares)
        exact = np.array([share * n for share in shares.values()])
        self._left = np.floor(exact).astype(np.int64)
        rest = np.argsort(-(exact - self._left), kind="stable")[: n - int(self._left.sum())]
        self._left[rest] += 1

    def cells(self, frame: pl.DataFrame) -> np.ndarray[Any, Any]:
        """The number of each candidate's cell; one more than the last for candidates in none."""
        return cell_numbers(frame, self._traits, self._kinds, self._keys)

    def has(self, cell: np.ndarray[Any, Any], waiting: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Whether each waiting candidate finds room, first come first served."""
        import numpy as np

        fits = np.zeros(len(cell), dtype=bool)
        for number, left in enumerate(self._left):
            fits[np.flatnonzero(waiting & (cell == number))[:left]] = True
        return fits

    def take(self, cell: np.ndarray[Any, Any]) -> None:
        import numpy as np

        self._left -= np.bincount(cell, minlength=len(self._keys))[: len(self._keys)]

    def open(self) -> Iterator[str]:
        for key, left in zip(self._keys, self._left, strict=True):
            if left:
                named = ", ".join(f"{name} = {value}" for name, value in zip(self._traits, key, strict=True))
                yield f"{left} of {named}"


def cell_numbers(
    frame: pl.DataFrame, traits: Sequence[str], kinds: Sequence[str], keys: list[tuple[str, ...]]
) -> np.ndarray[Any, Any]:
    """For each row the number of the first key that it belongs to; `len(keys)` where it belongs to none."""
    import numpy as np

    matches: list[dict[str, np.ndarray[Any, Any]]] = []
    for place, (name, kind) in enumerate(zip(traits, kinds, strict=True)):
        column = frame[name]
        found = {}
        for value in dict.fromkeys(key[place] for key in keys):
            interval = bounds(value, kind == "integer") if kind in NUMERIC else None
            if interval is not None:
                numbers = column.to_numpy()
                found[value] = (numbers >= interval[0]) & (numbers < interval[1])
            else:
                found[value] = (column == (value == plain(True) if kind == "boolean" else value)).to_numpy()
        matches.append(found)
    cells = np.full(frame.height, len(keys), dtype=np.int64)
    for number in range(len(keys) - 1, -1, -1):
        inside = np.logical_and.reduce([match[part] for match, part in zip(matches, keys[number], strict=True)])
        cells[inside] = number
    return cells
