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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from simforge.errors import SourceError, UsageError, nearest
from simforge.generators import compiled
from simforge.identity import cycled, digest
from simforge.personas.pack import Pack, bounds, plain
from simforge.personas.reading import NUMERIC, condition, load, schema, unfit
from simforge.types import Profile

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from simforge.personas.drawing import Lacking

__all__ = ["Cast", "Pack", "Passed", "check_rows", "inside", "load", "persona_id", "read_cast", "sample", "write_cast"]

FORMATS = (".parquet", ".jsonl", ".csv")
"How people can be written."
LOT = 50_000
"Candidates that are looked at to know how often the joint cells of several quotas come up."
RAKES = 200
"Rounds of iterative proportional fitting."
PATIENCE = 200
"Candidates per person after which a pack's constraints and quotas are given up as impossible (and 200,000 besides)."
META = "simforge.pack"
"Key of the pack in the metadata of a cast file, and of a run's personas table."


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
    unwritten: int = 0
    "People whom the writer could not complete, and who are left out."
    incomplete: int = 0
    "Rows of other people's personas that lack a value of a trait, and are left out."


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
    brought: bool = False
    "Whether they came from a file that does not say by which pack they were made, so that its licence is not theirs."

    def __len__(self) -> int:
        return self.frame.height

    def traits(self, index: int) -> dict[str, Any]:
        return self.frame.row(index, named=True)

    def least_telling(self) -> list[str]:
        """Of each person, the trait that says least about who they are, in words: the one with the value that most
        others have too (numbers by their quarter of the people)."""
        import polars as pl

        told = [name for name in self.pack.traits if self.frame[name].null_count() == 0]
        if not told:
            return [""] * self.frame.height
        common = []
        for name in told:
            column = self.frame[name]
            if column.dtype.is_numeric() and column.n_unique() > 10:
                column = (column.rank("min") * 4 / self.frame.height).ceil()
            common.append(self.frame.select(column.alias("x")).select(pl.len().over("x").alias(name))[name])
        places = pl.DataFrame(common).select(pl.concat_list(pl.all()).list.arg_max())
        rows = zip(places.to_series(), self.frame.select(told).iter_rows(), strict=True)
        return [f"{told[place].replace('_', ' ')}: {row[place]}" for place, row in rows]

    def text(self, index: int) -> str:
        """The person in words."""
        if self.texts is not None:
            return str(self.texts[index])
        try:
            return " ".join(compiled(self.pack.text).render(self.traits(index)).split())
        except (TemplateError, ArithmeticError, TypeError, ValueError, LookupError) as problem:
            raise UsageError(f"{self.name}: `text` does not render for person {index}: {problem}.") from None

    def facts(self, index: int) -> tuple[str, ...]:
        """What there is to tell about the person, a phrase each; nothing where the pack does not say."""
        if not self.pack.facts:
            return ()
        traits = self.traits(index)
        try:
            phrases = (" ".join(compiled(fact).render(traits).split()) for fact in self.pack.facts)
            return tuple(phrase for phrase in phrases if phrase)
        except (TemplateError, ArithmeticError, TypeError, ValueError, LookupError) as problem:
            raise UsageError(f"{self.name}: `facts` do not render for person {index}: {problem}.") from None

    def need(self, number: int, seed: int) -> tuple[str | None, tuple[str, ...]]:
        """What the person of dialogue `number` of the run brings, and their goals behind it; no need comes twice until
        all were used."""
        if not self.pack.needs:
            return None, ()
        need = cycled(self.pack.needs, number, seed, "needs")
        return (need, ()) if isinstance(need, str) else next((name, tuple(goals)) for name, goals in need.items())


def sample(pack: Pack, n: int, seed: int, name: str = "") -> Cast:
    """Draw `n` people: the first `n` candidates that satisfy the pack's constraints (and find room in its quotas).

    Row i depends on the pack, the seed and i alone, unless the pack has quotas. Raises `UsageError` where too few
    candidates pass.
    """
    import polars as pl

    from simforge.personas.drawing import BATCH, Sampler

    sampler = Sampler(pack, seed)
    gate = _Gate(pack, n, seed)
    found: list[pl.DataFrame] = []
    count = 0
    while count < n:
        if sampler.drawn > PATIENCE * n + 200_000:
            raise UsageError(gate.stuck(n, count))
        rate = max(count / sampler.drawn, 0.02) if sampler.drawn else 1.0
        size = min(BATCH, max(1024, int((n - count) / rate * 1.05)))
        people = gate.admitted(sampler.frame(sampler.batch(size)), n - count, sampler.lacking)
        found.append(people)
        count += people.height
    return Cast(pack, name, pl.concat(found), replace(gate.passed, incomplete=sampler.incomplete))


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
    if cast.profiles is not None:
        if path.suffix == ".csv":
            raise UsageError(f"{path}: a .csv cannot hold profiles; write .parquet or .jsonl.")
        frame = frame.with_columns(cast.profiles.alias("profile"))
    if path.suffix == ".parquet":
        frame.write_parquet(path, metadata={META: inside(cast)})
    elif path.suffix == ".jsonl":
        frame.write_ndjson(path)
    elif path.suffix == ".csv":
        frame.write_csv(path)
    else:
        raise UsageError(f"{path}: people are written as {', '.join(FORMATS)}.")


def inside(cast: Cast) -> str:
    """The pack and its name as JSON, so that people can be read again without its file."""
    return json.dumps({"name": cast.name, "pack": cast.pack.content()}, ensure_ascii=False)


def read_cast(path: Path, fallback: str, n: int | None) -> Cast:
    """The people of a cast file, or of a run folder's personas table; the first `n` of them where given.

    The pack is the one inside the file, else `fallback`, whose traits the table must then have. Raises `SourceError`.
    """
    import polars as pl

    from simforge.identity import file_sha256

    files = sorted(path.glob("data/personas/*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        what = "is no finished run" if path.is_dir() else "is not there"
        raise SourceError(f"--cast {path} {what}; give a file of `personas sample --out`, or a run folder.")
    try:
        frame = pl.concat([_readers()[file.suffix](file) for file in files])
        meta = pl.read_parquet_metadata(files[0]).get(META) if files[0].suffix == ".parquet" else None
    except KeyError:
        raise SourceError(f"--cast {path}: people are read from {', '.join(FORMATS)}, or from a run folder.") from None
    except (OSError, pl.exceptions.PolarsError) as problem:
        raise SourceError(f"--cast {path} cannot be read: {str(problem).splitlines()[0]}.") from None
    frame = frame.sort("index") if "index" in frame.columns else frame
    if not frame.height:
        raise SourceError(f"--cast {path} has no people.")
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
    cast = Cast(
        pack=pack,
        name=name,
        frame=people.head(n),
        passed=Passed(n),
        texts=frame["text"].head(n) if "text" in frame.columns else None,
        profiles=frame["profile"].head(n) if "profile" in frame.columns else None,
        sha256=digest([file_sha256(file) for file in files]),
        brought=meta is None,
    )
    _whole(cast, path)
    return cast


def pack_of(file: Path) -> Pack:
    """The pack that a Parquet file of people has inside. Raises `SourceError`."""
    import polars as pl

    meta = pl.read_parquet_metadata(file).get(META)
    if meta is None:
        raise SourceError(f"{file} does not say by which pack its people were made.")
    return _pack_inside(file, meta)[1]


def _whole(cast: Cast, path: Path) -> None:
    """Refuse people that lack a trait, or leave their pack's values."""
    columns = {name: cast.frame[name] for name in cast.pack.traits}
    if cast.texts is not None:
        columns["text"] = cast.texts
    for name, column in columns.items():
        if column.null_count():
            index = int(column.is_null().arg_max() or 0)
            raise SourceError(f"--cast {path}: person {index} has no {name!r}.")
        said = unfit(column, cast.pack.traits[name]) if name in cast.pack.traits else None
        if said:
            raise SourceError(f"--cast {path}: the column {name!r} {said}.")


def _pack_inside(path: Path, meta: str) -> tuple[str, Pack]:
    try:
        found = json.loads(meta)
        return found["name"], Pack.model_validate(found["pack"])
    except (ValueError, KeyError, ValidationError) as problem:
        raise SourceError(
            f"--cast {path} was written by another version of SimForge ({str(problem).splitlines()[0]})."
        ) from None


def _readers() -> dict[str, Callable[[Path], pl.DataFrame]]:
    import polars as pl

    return {
        ".parquet": pl.read_parquet,
        ".jsonl": lambda path: pl.read_ndjson(path, infer_schema_length=None),
        ".csv": lambda path: pl.read_csv(path, infer_schema_length=None),
    }


class _Gate:
    """Lets candidates in who satisfy every condition and find room in every quota."""

    def __init__(self, pack: Pack, n: int, seed: int) -> None:
        self._conditions = {text: condition(text) for text in pack.where}
        self._room = _Room(pack, n, seed) if pack.quotas else None
        self.passed = Passed(0)

    def possible(self, frame: pl.DataFrame) -> tuple[np.ndarray[Any, Any], dict[str, np.ndarray[Any, Any]]]:
        """Who satisfies every condition, and who fails each."""
        import numpy as np

        fails = {
            text: ~frame.select(one.fill_null(False).alias("ok"))["ok"].to_numpy()
            for text, one in self._conditions.items()
        }
        found = np.ones(frame.height, dtype=bool)
        for failed in fails.values():
            found &= ~failed
        return found, fails

    def admitted(self, frame: pl.DataFrame, most: int, lacking: Lacking) -> pl.DataFrame:
        """The first `most` candidates that may enter."""
        import numpy as np
        import polars as pl

        possible, fails = self.possible(frame)
        for rows, why in lacking.reasons:
            if possible[rows].any():
                raise UsageError(f"{why}: add one, or exclude such people with `where`.")
        inside = possible if self._room is None else self._room.has(frame, possible)
        places = np.flatnonzero(inside)[:most]
        seen = int(places[-1]) + 1 if len(places) == most else frame.height
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
        open_cells = list(self._room.open()) if self._room is not None else []
        if open_cells:
            said += f"; quotas still lack {', '.join(open_cells[:5])}"
        return f"{said}. Such people are (almost) never drawn: change the draws, `where` or the quotas."


class _Room:
    """What is left of the quotas.

    Several quotas are met through their joint cells: how often each comes up is counted over a first lot of
    candidates and raked to the quotas' shares (iterative proportional fitting, which changes the dependence between
    the traits as little as the shares allow), then rounded to whole people so that every quota is met exactly.
    """

    def __init__(self, pack: Pack, n: int, seed: int) -> None:
        import numpy as np

        from simforge.personas.drawing import Sampler

        self._pack = pack
        self._keys = [list(target.cells()) for target in pack.quotas]
        sampler = Sampler(pack, seed)
        frame = sampler.frame(sampler.batch(max(LOT, min(n, 4 * LOT))))
        possible, _ = _Gate(pack.model_copy(update={"targets": []}), n, seed).possible(frame)
        cells = self._cells(frame)[possible]
        cells = cells[(cells < [len(keys) for keys in self._keys]).all(axis=1)]
        self._joint, counts = np.unique(cells, axis=0, return_counts=True)
        self._left = self._rounded(n, counts)

    def has(self, frame: pl.DataFrame, waiting: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Which waiting candidates find room, first come first served; their room is taken."""
        import numpy as np

        cells = self._cells(frame)
        inside = np.zeros(frame.height, dtype=bool)
        for number in np.flatnonzero(self._left):
            here = np.flatnonzero(waiting & (cells == self._joint[number]).all(axis=1))[: self._left[number]]
            inside[here] = True
            self._left[number] -= len(here)
        return inside

    def open(self) -> Iterator[str]:
        for number, left in enumerate(self._left):
            if left:
                yield f"{left} of {self._named(number)}"

    def _named(self, number: int) -> str:
        pairs = zip(self._pack.quotas, self._keys, self._joint[number], strict=True)
        parts = {
            name: value for target, keys, cell in pairs for name, value in zip(target.traits, keys[cell], strict=True)
        }
        return ", ".join(f"{name} = {value}" for name, value in parts.items())

    def _cells(self, frame: pl.DataFrame) -> np.ndarray[Any, Any]:
        """The cell of each candidate in each quota, as columns; one more than the last for candidates in none."""
        import numpy as np

        kinds = {name: trait.type for name, trait in self._pack.traits.items()}
        columns = [
            cell_numbers(frame, target.traits, [kinds[name] for name in target.traits], keys)
            for target, keys in zip(self._pack.quotas, self._keys, strict=True)
        ]
        return np.stack(columns, axis=1)

    def _rounded(self, n: int, counts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Whole people per joint cell, near the raked shares and exactly as many as each quota asks for."""
        import numpy as np
        from scipy import optimize, sparse

        wanted = [_apportioned(target.cells(), n) for target in self._pack.quotas]
        people = counts / max(1, counts.sum()) * n
        for _ in range(RAKES):
            for place, asked in enumerate(wanted):
                got = np.bincount(self._joint[:, place], people, minlength=len(asked))
                people = people * np.divide(asked, got, out=np.zeros(len(asked)), where=got > 0)[self._joint[:, place]]
        rows = np.concatenate([self._joint[:, place] + sum(map(len, wanted[:place])) for place in range(len(wanted))])
        columns = np.tile(np.arange(len(people)), len(wanted))
        shape = (sum(map(len, wanted)), len(people))
        table = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
        exact = optimize.LinearConstraint(table, np.concatenate(wanted), np.concatenate(wanted))
        low = np.floor(people + 1e-9)
        for slack in (0, 1, 8, 64, n) if len(people) else ():
            bounds_ = optimize.Bounds(np.maximum(low - slack, 0), np.ceil(people - 1e-9) + slack)
            found = optimize.milp(low - people, integrality=np.ones(len(people)), bounds=bounds_, constraints=exact)
            if found.success:
                return np.asarray(np.rint(found.x), dtype=np.int64)
        raise UsageError(self._contradiction(wanted))

    def _contradiction(self, wanted: list[np.ndarray[Any, Any]]) -> str:
        """Which cell nobody falls into, or that the quotas do not go together."""
        import numpy as np

        for place, (target, keys, asked) in enumerate(zip(self._pack.quotas, self._keys, wanted, strict=True)):
            got = np.bincount(self._joint[:, place], minlength=len(keys)) if len(self._joint) else np.zeros(len(keys))
            for number in np.flatnonzero((asked > 0) & (got == 0)):
                named = ", ".join(f"{name} = {value}" for name, value in zip(target.traits, keys[number], strict=True))
                return f"a quota asks for {int(asked[number])} people with {named}, who are (almost) never drawn."
        return (
            "the quotas cannot all be met at once by the people that the pack draws: change their shares, or the draws."
        )


def _apportioned(shares: dict[tuple[str, ...], float], n: int) -> np.ndarray[Any, Any]:
    """`n` people by shares, to whole ones by largest remainder."""
    import numpy as np

    exact = np.array([share * n for share in shares.values()])
    found = np.floor(exact + 1e-9).astype(np.int64)
    rest = np.argsort(-(exact - found), kind="stable")[: n - int(found.sum())]
    found[rest] += 1
    return found


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
