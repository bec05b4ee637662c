"""Personas: the simulated people.

A pack (`personas/*.yaml`) is a JSON Schema of the traits that also defines how each trait is
sampled. Sampling is columnar: every trait has its own random stream and uses one number per
candidate. So person i does not depend on the number of people, and a cast of a million is
sampled without a Python loop over rows. Texts and ids are made on demand.

    cast = sample_cast(load_pack("everyday"), n=1000, seed=0)
    cast.traits(0)  ->  {"country": "Kenya", "age": 41, ...}

`pack` has the file format, `pack_checks` the checks, `sampling` the distributions, `check` the
comparison of expected and observed shares, and `tables` the files that packs name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError
from jsonschema import Draft202012Validator, ValidationError, validators

from simforge.catalog.sandbox import compile_template
from simforge.errors import SourceError, UsageError
from simforge.identity import digest, shuffled_item
from simforge.personas.pack import Pack, matches_pattern, parse_range, value_text
from simforge.personas.pack_checks import NUMERIC, column_problem
from simforge.text.conditions import parse_condition
from simforge.types import JsonObject, Profile

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from simforge.personas.sampling import Undrawable

    Array = NDArray[Any]


CAST_SUFFIXES = (".parquet", ".jsonl", ".csv")
"File types to which people can be written."


QUOTA_PILOT_SIZE = 50_000
"Number of candidates sampled to estimate how frequent the joint cells of several quotas are."


RAKING_ROUNDS = 200
"Number of rounds of iterative proportional fitting."


MAX_CANDIDATES_PER_PERSON = 200
"Candidates per person (plus 200,000) after which constraints and quotas count as impossible."


PACK_METADATA_KEY = "simforge.pack"
"Metadata key of the pack in a cast file and in a run's personas table."


@dataclass(frozen=True, slots=True)
class Rejections:
    """Numbers of rejected candidates, by reason."""

    candidates: int
    "Candidates tried, up to the last accepted person."
    by_condition: dict[str, int] = field(default_factory=dict)
    "Candidates that failed each condition of `where` (one candidate can fail several)."
    failed_conditions: int = 0
    "Candidates that failed at least one condition."
    quota_full: int = 0
    "Candidates whose quota cell was full."
    unwritten: int = 0
    "People whom the writer could not complete and who were left out."
    incomplete: int = 0
    "Rows of the `people` table that miss a trait and were left out."


@dataclass(frozen=True, slots=True)
class Cast:
    """The personas of a run as a table: one row per person, one typed column per trait."""

    pack: Pack
    name: str
    "The pack's reference, or the file that the people came from."
    frame: pl.DataFrame
    "One column per trait."
    rejections: Rejections
    texts: pl.Series | None = None
    "Texts that replace the pack's template: written by a model, or read from the cast file."
    profiles: pl.Series | None = None
    "Profiles read from the cast file (struct: space, names, values, vector)."
    sha256: str | None = None
    "Digest of the file that the people came from."
    external: bool = False
    "True if the people's file does not name its pack; then the pack's licence does not apply."

    def __len__(self) -> int:
        return self.frame.height

    def traits(self, index: int) -> JsonObject:
        return self.frame.row(index, named=True)

    def least_informative(self) -> list[str]:
        """Return each person's least informative trait as text: the one whose value most
        others share (for numbers, the quartile)."""
        import polars as pl

        complete = [
            name for name in self.pack.traits if self.frame[name].null_count() == 0
        ]
        if not complete:
            return [""] * self.frame.height
        counts = []
        for name in complete:
            column = self.frame[name]
            if column.dtype.is_numeric() and column.n_unique() > 10:
                column = (column.rank("min") * 4 / self.frame.height).ceil()
            counts.append(
                self.frame.select(column.alias("x")).select(
                    pl.len().over("x").alias(name)
                )[name]
            )
        positions = pl.DataFrame(counts).select(pl.concat_list(pl.all()).list.arg_max())
        rows = zip(
            positions.to_series(), self.frame.select(complete).iter_rows(), strict=True
        )
        return [
            f"{complete[position].replace('_', ' ')}: {row[position]}"
            for position, row in rows
        ]

    def text(self, index: int) -> str:
        """Return the description of a person."""
        if self.texts is not None:
            return str(self.texts[index])
        try:
            return " ".join(
                compile_template(self.pack.text).render(self.traits(index)).split()
            )
        except TemplateError as problem:
            raise UsageError(
                f"{self.name}: `text` does not render for person {index}: {problem}."
            ) from None

    def facts(self, index: int) -> tuple[str, ...]:
        """Return the facts that a person can reveal, one phrase each; empty if the pack
        defines none."""
        if not self.pack.facts:
            return ()
        traits = self.traits(index)
        try:
            phrases = (
                " ".join(compile_template(fact).render(traits).split())
                for fact in self.pack.facts
            )
            return tuple(phrase for phrase in phrases if phrase)
        except TemplateError as problem:
            raise UsageError(
                f"{self.name}: `facts` do not render for person {index}: {problem}."
            ) from None

    def need(
        self, number: int, person: int, seed: int
    ) -> tuple[str | None, tuple[str, ...]]:
        """Return the need of the person of dialogue `number` and the goals behind it, filled
        with the person's traits. Needs repeat only after all have been used."""
        if not self.pack.needs:
            return None, ()
        need = shuffled_item(self.pack.needs, number, seed, "needs")
        name, goals = (need, []) if isinstance(need, str) else next(iter(need.items()))
        return self.fill(name, person), tuple(self.fill(goal, person) for goal in goals)

    def fill(self, template: str, person: int) -> str:
        """Fill a template with the traits of a person; most have nothing to fill."""
        if "{" not in template:
            return template
        try:
            text = compile_template(template).render(self.traits(person))
        except TemplateError as problem:
            raise UsageError(
                f"{self.name}: {template!r} does not render for person {person}: {problem}."
            ) from None
        return " ".join(text.split())


def sample_cast(pack: Pack, n: int, seed: int, name: str = "") -> Cast:
    """Sample `n` people: the first `n` candidates that satisfy the pack's constraints and fit
    into its quotas.

    Row i depends only on the pack, the seed and i, unless the pack has quotas. Raises
    `UsageError` if too few candidates are accepted.
    """
    import polars as pl

    from simforge.personas.sampling import MAX_BATCH, Sampler

    sampler = Sampler(pack, seed)
    candidate_filter = _CandidateFilter(pack, n, seed)
    batches: list[pl.DataFrame] = []
    count = 0
    while count < n:
        if sampler.candidate_count > MAX_CANDIDATES_PER_PERSON * n + 200_000:
            raise UsageError(candidate_filter.failure_message(n, count))
        rate = (
            max(count / sampler.candidate_count, 0.02)
            if sampler.candidate_count
            else 1.0
        )
        size = min(MAX_BATCH, max(1024, int((n - count) / rate * 1.05)))
        people = candidate_filter.accept(
            sampler.frame(sampler.batch(size)), n - count, sampler.undrawable
        )
        batches.append(people)
        count += people.height
    return Cast(
        pack,
        name,
        pl.concat(batches),
        replace(candidate_filter.rejections, incomplete=sampler.incomplete),
    )


def persona_id(traits: JsonObject, profile: Profile, index: int) -> str:
    """Return a digest of the person. It includes the row index, since two people can have
    equal traits."""
    return digest(
        ["persona", traits, list(profile.values), list(profile.vector), index]
    )


def _check_pattern(
    validator: Any, pattern: str, value: Any, schema: Any
) -> Iterator[ValidationError]:
    if isinstance(value, str) and not matches_pattern(pattern, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


_LinearTimeValidator: Any = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {"pattern": _check_pattern}
)


def check_against_schema(cast: Cast, rows: int) -> None:
    """Validate the first `rows` people against the pack's own JSON Schema; a violation is a
    mistake in the pack. Raises `UsageError`."""
    validator = _LinearTimeValidator(
        cast.pack.json_schema(), format_checker=Draft202012Validator.FORMAT_CHECKER
    )
    for index in range(min(rows, len(cast))):
        problem = next(iter(validator.iter_errors(cast.traits(index))), None)
        if problem is not None:
            where = ".".join(map(str, problem.absolute_path))
            raise UsageError(
                f"{cast.name}: person {index} does not fit the pack's own schema: "
                f"{where}: {problem.message}"
            )


def _check_complete(cast: Cast, label: str) -> None:
    """Check that no person misses a trait or has a value that the pack does not allow."""
    columns = {name: cast.frame[name] for name in cast.pack.traits}
    if cast.texts is not None:
        columns["text"] = cast.texts
    for name, column in columns.items():
        if column.null_count():
            index = int(column.is_null().arg_max() or 0)
            raise SourceError(f"--cast {label}: person {index} has no {name!r}.")
        problem = (
            column_problem(column, cast.pack.traits[name])
            if name in cast.pack.traits
            else None
        )
        if problem:
            raise SourceError(f"--cast {label}: the column {name!r} {problem}.")


class _CandidateFilter:
    """Accepts candidates that satisfy every condition and fit into every quota."""

    def __init__(self, pack: Pack, n: int, seed: int) -> None:
        self._conditions = {
            text: parse_condition(text).expression for text in pack.where
        }
        self._quotas = _RemainingQuotas(pack, n, seed) if pack.quotas else None
        self.rejections = Rejections(0)

    def check_conditions(self, frame: pl.DataFrame) -> tuple[Array, dict[str, Array]]:
        """Return a mask of the candidates that satisfy every condition, and a mask of
        failures per condition."""
        import numpy as np

        fails = {
            text: ~frame.select(expression.fill_null(False).alias("ok"))[
                "ok"
            ].to_numpy()
            for text, expression in self._conditions.items()
        }
        passing = np.ones(frame.height, dtype=bool)
        for failed in fails.values():
            passing &= ~failed
        return passing, fails

    def accept(
        self, frame: pl.DataFrame, limit: int, undrawable: Undrawable
    ) -> pl.DataFrame:
        """Return the first accepted candidates, up to a limit."""
        import numpy as np
        import polars as pl

        possible, fails = self.check_conditions(frame)
        for rows, why in undrawable.entries:
            if possible[rows].any():
                raise UsageError(f"{why}: add it, or exclude such people with `where`.")
        accepted = (
            possible if self._quotas is None else self._quotas.take(frame, possible)
        )
        positions = np.flatnonzero(accepted)[:limit]
        seen = int(positions[-1]) + 1 if len(positions) == limit else frame.height
        before = self.rejections
        self.rejections = Rejections(
            candidates=before.candidates + seen,
            by_condition={
                text: before.by_condition.get(text, 0) + int(failed[:seen].sum())
                for text, failed in fails.items()
            },
            failed_conditions=before.failed_conditions + int((~possible[:seen]).sum()),
            quota_full=before.quota_full
            + int((possible[:seen] & ~accepted[:seen]).sum()),
        )
        return frame[pl.Series(positions)] if len(positions) < frame.height else frame

    def failure_message(self, wanted: int, accepted: int) -> str:
        rejections = self.rejections
        message = (
            f"only {accepted} of {wanted} people were found among "
            f"{rejections.candidates} candidates"
        )
        worst = sorted(rejections.by_condition.items(), key=lambda item: -item[1])[:3]
        message += "".join(f"; {count} fail {text!r}" for text, count in worst if count)
        open_cells = list(self._quotas.unfilled()) if self._quotas is not None else []
        if open_cells:
            message += f"; quotas still lack {', '.join(open_cells[:5])}"
        return (
            f"{message}. Such people are (almost) never drawn: change the draws, "
            "`where` or the quotas."
        )


class _RemainingQuotas:
    """The unfilled part of the quotas.

    Several quotas are met through their joint cells. The frequency of each cell is counted
    in a pilot sample and raked to the quotas' shares (iterative proportional fitting, which
    changes the dependence between the traits as little as the shares allow). The result is
    rounded to whole people so that every quota is met exactly.
    """

    def __init__(self, pack: Pack, n: int, seed: int) -> None:
        import numpy as np

        from simforge.personas.sampling import Sampler

        self._pack = pack
        self._keys = [list(target.cells()) for target in pack.quotas]
        sampler = Sampler(pack, seed)
        frame = sampler.frame(
            sampler.batch(max(QUOTA_PILOT_SIZE, min(n, 4 * QUOTA_PILOT_SIZE)))
        )
        possible, _ = _CandidateFilter(
            pack.model_copy(update={"targets": []}), n, seed
        ).check_conditions(frame)
        cells = self._cells_of_candidates(frame)[possible]
        cells = cells[(cells < [len(keys) for keys in self._keys]).all(axis=1)]
        self._joint, counts = np.unique(cells, axis=0, return_counts=True)
        self._remaining = self._whole_people(n, counts)

    def take(self, frame: pl.DataFrame, candidates: Array) -> Array:
        """Return a mask of the candidates that fit into the quotas, in order, and count them
        as filled."""
        import numpy as np

        cells = self._cells_of_candidates(frame)
        accepted = np.zeros(frame.height, dtype=bool)
        for number in np.flatnonzero(self._remaining):
            in_cell = np.flatnonzero(
                candidates & (cells == self._joint[number]).all(axis=1)
            )[: self._remaining[number]]
            accepted[in_cell] = True
            self._remaining[number] -= len(in_cell)
        return accepted

    def unfilled(self) -> Iterator[str]:
        for number, left in enumerate(self._remaining):
            if left:
                yield f"{left} of {self._describe_cell(number)}"

    def _describe_cell(self, number: int) -> str:
        pairs = zip(self._pack.quotas, self._keys, self._joint[number], strict=True)
        parts = {
            name: value
            for target, keys, cell in pairs
            for name, value in zip(target.traits, keys[cell], strict=True)
        }
        return ", ".join(f"{name} = {value}" for name, value in parts.items())

    def _cells_of_candidates(self, frame: pl.DataFrame) -> Array:
        """Return each candidate's cell in each quota as columns; `len(keys)` if it is in no
        cell."""
        import numpy as np

        kinds = {name: trait.type for name, trait in self._pack.traits.items()}
        columns = [
            cell_indices(
                frame, target.traits, [kinds[name] for name in target.traits], keys
            )
            for target, keys in zip(self._pack.quotas, self._keys, strict=True)
        ]
        return np.stack(columns, axis=1)

    def _whole_people(self, n: int, counts: Array) -> Array:
        """Return the number of people per joint cell: close to the raked shares, and exactly
        as many as each quota asks for."""
        import numpy as np
        from scipy import optimize, sparse

        wanted = [_apportion(target.cells(), n) for target in self._pack.quotas]
        people = counts / max(1, counts.sum()) * n
        for _ in range(RAKING_ROUNDS):
            for axis, asked in enumerate(wanted):
                got = np.bincount(self._joint[:, axis], people, minlength=len(asked))
                people = (
                    people
                    * np.divide(asked, got, out=np.zeros(len(asked)), where=got > 0)[
                        self._joint[:, axis]
                    ]
                )
        rows = np.concatenate(
            [
                self._joint[:, axis] + sum(map(len, wanted[:axis]))
                for axis in range(len(wanted))
            ]
        )
        columns = np.tile(np.arange(len(people)), len(wanted))
        shape = (sum(map(len, wanted)), len(people))
        table = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
        exact = optimize.LinearConstraint(
            table, np.concatenate(wanted), np.concatenate(wanted)
        )
        low = np.floor(people + 1e-9)
        for slack in (0, 1, 8, 64, n) if len(people) else ():
            limits = optimize.Bounds(
                np.maximum(low - slack, 0), np.ceil(people - 1e-9) + slack
            )
            solution = optimize.milp(
                low - people,
                integrality=np.ones(len(people)),
                bounds=limits,
                constraints=exact,
            )
            if solution.success:
                return np.asarray(np.rint(solution.x), dtype=np.int64)
        raise UsageError(self._infeasible_message(wanted))

    def _infeasible_message(self, wanted: list[Array]) -> str:
        """Return a message that names an unreachable cell, or says that the quotas are
        incompatible."""
        import numpy as np

        for axis, (target, keys, asked) in enumerate(
            zip(self._pack.quotas, self._keys, wanted, strict=True)
        ):
            got = (
                np.bincount(self._joint[:, axis], minlength=len(keys))
                if len(self._joint)
                else np.zeros(len(keys))
            )
            for number in np.flatnonzero((asked > 0) & (got == 0)):
                named = ", ".join(
                    f"{name} = {value}"
                    for name, value in zip(target.traits, keys[number], strict=True)
                )
                return (
                    f"a quota asks for {int(asked[number])} people with {named}, who "
                    "are (almost) never drawn."
                )
        return (
            "the people that the pack draws cannot meet all quotas at once: change "
            "the quotas' shares, or the draws."
        )


def _apportion(shares: dict[tuple[str, ...], float], n: int) -> Array:
    """Distribute `n` people by shares, rounded to whole people by largest remainder."""
    import numpy as np

    exact = np.array([share * n for share in shares.values()])
    counts = np.floor(exact + 1e-9).astype(np.int64)
    largest_remainders = np.argsort(-(exact - counts), kind="stable")[
        : n - int(counts.sum())
    ]
    counts[largest_remainders] += 1
    return counts


def cell_indices(
    frame: pl.DataFrame,
    traits: Sequence[str],
    kinds: Sequence[str],
    keys: list[tuple[str, ...]],
) -> Array:
    """Return for each row the index of the first key that matches it, or `len(keys)` if none
    does."""
    import numpy as np

    matches: list[dict[str, Array]] = []
    for position, (name, kind) in enumerate(zip(traits, kinds, strict=True)):
        column = frame[name]
        masks = {}
        for value in dict.fromkeys(key[position] for key in keys):
            interval = (
                parse_range(value, kind == "integer") if kind in NUMERIC else None
            )
            if interval is not None:
                numbers = column.to_numpy()
                masks[value] = (numbers >= interval[0]) & (numbers < interval[1])
            else:
                masks[value] = (
                    column
                    == (value == value_text(True) if kind == "boolean" else value)
                ).to_numpy()
        matches.append(masks)
    cells = np.full(frame.height, len(keys), dtype=np.int64)
    for number in range(len(keys) - 1, -1, -1):
        members = np.logical_and.reduce(
            [match[part] for match, part in zip(matches, keys[number], strict=True)]
        )
        cells[members] = number
    return cells
