"""Checks that sampled people match their pack.

Expected and observed values are compared as tables of shares: every draw on the candidates
(given the values that it is conditional on, before constraints and quotas reject any), and
every target on the people. A gap is measured as total variation (half the sum of absolute
differences), Jensen-Shannon divergence in bits, and for tables of several traits the
difference of Cramer's V. It is compared with sampling noise: the same table sampled many
times from a multinomial of the same size. A gap above the noise's mean plus six standard
deviations is a failure; for a quota, a gap above rounding to whole people.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from simforge.identity import derived_seed
from simforge.personas.cast import Rejections, cell_indices, sample_cast
from simforge.personas.dependencies import dependencies
from simforge.personas.pack import Pack, Target
from simforge.personas.pack_checks import NUMERIC
from simforge.personas.sampling import (
    Bernoulli,
    Columns,
    Conditional,
    ContinuousDistribution,
    Node,
    SampledColumn,
    Sampler,
    TableColumn,
    Undrawable,
    WeightedChoice,
)
from simforge.text.conditions import parse_condition

if TYPE_CHECKING:
    import polars as pl

    Array = np.ndarray[Any, Any]


NOISE_REPEATS = 200
"Number of tables sampled to measure the gap that noise alone gives."


LIMIT_DEVIATIONS = 6.0
"Standard deviations above the noise's mean at which a gap is a failure."


ROUNDING_REPEATS = 4
"Number of simulations that measure the effect of rounding on a correlation."


TOLERATED_PEOPLE = 4
"Difference in people that is allowed in any table, since rare values may or may not occur."


BINS = 10


@dataclass(frozen=True, slots=True)
class TraitComparison:
    """One table of shares, expected and observed."""

    of: str
    kind: str
    "`draw`, `target`, `quota`, `correlation`, `independence` (most dependent unrelated pair)."
    values: list[str]
    expected: list[float]
    observed: list[float]
    gap: float
    "Total variation (0..1); for a correlation the difference; for independence Cramer's V."
    js_bits: float | None
    v_expected: float | None
    "Cramer's V for several traits; the observed value is bias-corrected (Bergsma 2013)."
    v_observed: float | None
    noise: float
    "The mean gap that noise alone gives."
    limit: float
    "The largest gap that is not a failure."

    @property
    def within_limit(self) -> bool:
        return self.gap <= self.limit


@dataclass(frozen=True, slots=True)
class SamplingCheck:
    """All comparisons of a pack."""

    n: int
    seed: int
    rejections: Rejections
    comparisons: list[TraitComparison]
    not_compared: dict[str, str]
    "Traits without a table of shares, with the reason."
    independent: list[tuple[str, str]]
    "Pairs of traits that nothing in the pack connects."

    @property
    def all_within_limit(self) -> bool:
        return all(comparison.within_limit for comparison in self.comparisons)


def check_sampling(pack: Pack, n: int, seed: int) -> SamplingCheck:
    """Sample `n` people of a pack and compare them with it."""
    cast = sample_cast(pack, n, seed)
    sampler = Sampler(pack, seed)
    columns = sampler.batch(n)
    columns, n = _complete_candidates(columns, n, sampler.undrawable)
    noise = np.random.Generator(np.random.Philox(derived_seed(seed, "proof")))
    comparisons, uncompared = [], {}
    for name, node in sampler.nodes.items():
        leaf, leaves = _leaf_numbers(node, columns, np.arange(n))
        table = _count_table(name, pack.traits[name].type, columns, leaf, leaves)
        if isinstance(table, str):
            uncompared[name] = table
        else:
            comparisons.append(
                _compare_counts(_title(name, pack), "draw", *table, noise)
            )
    for name, trait in pack.traits.items():
        if trait.source is not None:
            uncompared[name] = "comes with the people"
        elif trait.draw is not None and trait.draw.writer is not None:
            uncompared[name] = "written by a model"
    comparisons += _compare_correlations(pack, sampler, columns, n)
    comparisons += [
        _compare_target(target, pack, cast.frame, noise) for target in pack.targets
    ]
    independent = list(_independent_pairs(pack))
    largest = _most_dependent_pair(pack, cast.frame, independent)
    if largest is not None:
        comparisons.append(largest)
    return SamplingCheck(
        len(cast), seed, cast.rejections, comparisons, uncompared, independent
    )


def _complete_candidates(
    columns: Columns, n: int, undrawable: Undrawable
) -> tuple[Columns, int]:
    """Keep only the candidates for whom every trait could be sampled."""
    kept = np.ones(n, dtype=bool)
    for rows, _ in undrawable.entries:
        kept[rows] = False
    return {
        name: SampledColumn(column.data[kept], column.vocabulary)
        for name, column in columns.items()
    }, int(kept.sum())


MAX_PRINTED_VALUES = 12
"Maximum number of values printed per table; of longer tables, those with the largest gaps."


def format_check(result: SamplingCheck, name: str) -> str:
    """Return the result as text."""
    rejections = result.rejections
    lines = [f"{name}: {result.n} people, seed {result.seed}"]
    if rejections.incomplete:
        lines.append(
            f"{rejections.incomplete} rows of the people's file lack a value and are left out"
        )
    if rejections.by_condition or rejections.quota_full:
        lines.append(
            f"{rejections.failed_conditions + rejections.quota_full} of {rejections.candidates} "
            "candidates were passed over:"
        )
        lines += [
            f"  {count} fail {text!r}"
            + ("" if count else " (nobody fails it; check the spelling of the values)")
            for text, count in rejections.by_condition.items()
        ]
        lines += (
            [f"  {rejections.quota_full} fell into a full quota"]
            if rejections.quota_full
            else []
        )
    if any(comparison.kind == "quota" for comparison in result.comparisons):
        lines.append("has quotas, so person i depends on the number of people")
    for comparison in result.comparisons:
        lines += ["", *_format_comparison(comparison)]
    if result.not_compared:
        lines += [
            "",
            "without a table of shares:",
            *(f"  {name}: {why}" for name, why in result.not_compared.items()),
        ]
    lines += ["", "assumed independent (nothing in the pack connects them):"]
    lines += [
        f"  {' and '.join(sides)}" for sides in _group_pairs(result.independent)
    ] or ["  no pair"]
    failed = [
        comparison.of
        for comparison in result.comparisons
        if not comparison.within_limit
    ]
    lines += [
        "",
        f"NOT AS EXPECTED: {', '.join(failed)}"
        if failed
        else "everything as expected, within noise",
    ]
    return "\n".join(lines)


def _group_pairs(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Merge pairs into pairs of groups: traits that are independent of the same others form
    a group."""
    partners: dict[str, set[str]] = {}
    for first, second in pairs:
        partners.setdefault(first, set()).add(second)
        partners.setdefault(second, set()).add(first)
    groups: list[list[str]] = []
    for name, others in partners.items():
        matching = next(
            (
                group
                for group in groups
                if partners[group[0]] - {name} == others - {group[0]}
            ),
            None,
        )
        if matching is None:
            groups.append([name])
        else:
            matching.append(name)
    grouped = [
        (", ".join(group), "each other")
        for group in groups
        if len(group) > 1 and group[1] in partners[group[0]]
    ]
    for first_group, second_group in combinations(groups, 2):
        if second_group[0] in partners[first_group[0]]:
            grouped.append(
                (f"[{', '.join(first_group)}]", f"[{', '.join(second_group)}]")
            )
    return grouped


def _format_comparison(comparison: TraitComparison) -> list[str]:
    title = f"{comparison.of} ({comparison.kind})"
    gap = {"correlation": "difference", "independence": "Cramer's V"}.get(
        comparison.kind, "total variation"
    )
    text = (
        f"{gap} {comparison.gap:.4f}; noise alone {comparison.noise:.4f}, limit "
        f"{comparison.limit:.4f}"
    )
    text += (
        f"; Jensen-Shannon {comparison.js_bits:.6f} bits"
        if comparison.js_bits is not None
        else ""
    )
    if comparison.v_expected is not None and comparison.v_observed is not None:
        text += (
            f"; Cramer's V expected {comparison.v_expected:.3f}, observed "
            f"{comparison.v_observed:.3f} "
            f"({comparison.v_observed - comparison.v_expected:+.4f})"
        )
    lines = [
        f"{title}: {text}: {'as expected' if comparison.within_limit else 'NOT AS EXPECTED'}"
    ]
    rows = list(
        zip(comparison.values, comparison.expected, comparison.observed, strict=True)
    )
    shown = (
        sorted(rows, key=lambda row: -abs(row[1] - row[2]))[:MAX_PRINTED_VALUES]
        if len(rows) > MAX_PRINTED_VALUES
        else rows
    )
    width = max(len(value) for value, _, _ in shown)
    lines += [
        f"  {value:<{width}}  expected {asked:7.4f}  observed {got:7.4f}"
        for value, asked, got in shown
    ]
    return lines + (
        [f"  … and {len(rows) - MAX_PRINTED_VALUES} values with smaller gaps"]
        if len(rows) > MAX_PRINTED_VALUES
        else []
    )


def _leaf_numbers(
    node: Node, columns: Columns, rows: Array
) -> tuple[Array, list[Node]]:
    """Return for each row the number of the unconditional draw that it ended in, and those
    draws."""
    if isinstance(node, TableColumn):
        return node.group_numbers(columns, rows).astype(np.int64), list(node.children)
    if not isinstance(node, Conditional):
        return np.zeros(len(rows), dtype=np.int64), [node]
    child = node.child_numbers(columns, rows)
    leaf_numbers = np.empty(len(rows), dtype=np.int64)
    leaves: list[Node] = []
    for number, subnode in enumerate(node.children):
        child_rows = np.flatnonzero(child == number)
        inner, more = _leaf_numbers(subnode, columns, rows[child_rows])
        leaf_numbers[child_rows] = inner + len(leaves)
        leaves += more
    return leaf_numbers, leaves


def _count_table(
    name: str, kind: str, columns: Columns, leaf: Array, leaves: list[Node]
) -> tuple[list[str], Array, Array] | str:
    """Return values, counts and expected shares (leaf by value), or the reason why there is
    no such table."""
    long_list = next(
        (
            node.long_list
            for node in leaves
            if isinstance(node, WeightedChoice) and node.long_list
        ),
        None,
    )
    if long_list:
        return f"drawn from {long_list}" + (" and others" if len(leaves) > 1 else "")
    data = columns[name].data
    if any(isinstance(node, ContinuousDistribution) for node in leaves):
        return _binned_table(kind, data, leaf, leaves)
    if all(isinstance(node, Bernoulli) for node in leaves):
        shares = np.array(
            [
                [node.share, 1 - node.share]
                for node in leaves
                if isinstance(node, Bernoulli)
            ]
        )
        return (
            ["true", "false"],
            _counts(leaf, np.where(data, 0, 1), len(leaves), 2),
            shares,
        )
    if not all(isinstance(node, WeightedChoice) for node in leaves):
        return "made from other traits"
    vocabulary = columns[name].vocabulary
    values = sorted(
        {
            code
            for node in leaves
            if isinstance(node, WeightedChoice)
            for code in node.codes.tolist()
        }
    )
    column_of_code = {code: number for number, code in enumerate(values)}
    shares = np.zeros((len(leaves), len(values)))
    for number, node in enumerate(leaves):
        if isinstance(node, WeightedChoice):
            for code, share in zip(node.codes.tolist(), node.shares, strict=True):
                shares[number, column_of_code[code]] += share
    counts = _counts(
        leaf, np.searchsorted(np.array(values), data), len(leaves), len(values)
    )
    labels = [
        vocabulary.words[code] if vocabulary and kind == "string" else f"{code:g}"
        for code in values
    ]
    return labels, counts, shares


def _binned_table(
    kind: str, data: Array, leaf: Array, leaves: list[Node]
) -> tuple[list[str], Array, Array]:
    """Build the table of a numeric trait, in bins of about equal size. An integer is the
    floor of the sampled number, so its bins end at integers."""
    edges = np.unique(np.quantile(data, np.linspace(0, 1, BINS + 1)[1:-1]))
    edges = np.unique(np.floor(edges)) if kind == "integer" else edges
    below = np.array([_share_below(node, edges) for node in leaves])
    ends = np.hstack([np.zeros((len(leaves), 1)), below, np.ones((len(leaves), 1))])
    shown = [f"{edge:.4g}" for edge in edges]
    labels = [
        f"below {shown[0]}",
        *(f"{a} to {b}" for a, b in pairwise(shown)),
        f"from {shown[-1]}",
    ]
    counts = _counts(
        leaf, np.searchsorted(edges, data, side="right"), len(leaves), len(edges) + 1
    )
    return labels, counts, np.clip(np.diff(ends), 0, 1)


def _share_below(leaf: Node, edges: Array) -> Array:
    if isinstance(leaf, WeightedChoice):  # numbers without a density
        return np.array([leaf.shares[leaf.codes < edge].sum() for edge in edges])
    assert isinstance(leaf, ContinuousDistribution)
    return leaf.distribution.cdf(edges)


def _counts(leaf: Array, value: Array, leaves: int, values: int) -> Array:
    return np.bincount(leaf * values + value, minlength=leaves * values).reshape(
        leaves, values
    )


def _compare_counts(
    title: str, kind: str, values: list[str], counts: Array, shares: Array, noise: Any
) -> TraitComparison:
    """Compare counts with expected shares leaf by leaf, given the observed number of people
    in each leaf."""
    counts, shares = counts[counts.sum(axis=1) > 0], shares[counts.sum(axis=1) > 0]
    people = counts.sum(axis=1, keepdims=True)
    n = counts.sum()
    shares = shares / shares.sum(axis=1, keepdims=True)
    expected = people * shares
    gap = _total_variation(counts, expected, n)
    repeats = max(20, min(NOISE_REPEATS, 4_000_000 // max(1, counts.size)))
    drawn = [
        _total_variation(noise.multinomial(people[:, 0], shares), expected, n)
        for _ in range(repeats)
    ]
    conditional = len(counts) > 1
    return TraitComparison(
        of=title,
        kind=kind,
        values=values,
        expected=(expected.sum(axis=0) / n).tolist(),
        observed=(counts.sum(axis=0) / n).tolist(),
        gap=gap,
        js_bits=_jensen_shannon_bits(counts / n, expected / n),
        v_expected=cramers_v(expected) if conditional else None,
        v_observed=cramers_v(counts, corrected=True) if conditional else None,
        noise=float(np.mean(drawn)),
        limit=max(
            float(np.mean(drawn) + LIMIT_DEVIATIONS * np.std(drawn)),
            TOLERATED_PEOPLE / n,
        )
        + 1e-9,
    )


def _compare_target(
    target: Target, pack: Pack, frame: pl.DataFrame, noise: Any
) -> TraitComparison:
    """Compare a target with the people; people outside its table are a cell with the share
    0."""
    cells = target.cells()
    keys = list(cells)
    kinds = [pack.traits[name].type for name in target.traits]
    counts = np.bincount(
        cell_indices(frame, target.traits, kinds, keys), minlength=len(keys) + 1
    )
    shares = np.array([*cells.values(), 0.0])
    values = [" · ".join(key) for key in keys] + ["anything else"]
    kind = "quota" if target.quota else "target"
    comparison = _compare_counts(
        " x ".join(target.traits), kind, values, counts[None, :], shares[None, :], noise
    )
    v: tuple[float | None, float | None] = (None, None)
    if len(target.traits) == 2:
        v = (
            cramers_v(_cross_table(keys, shares * len(frame))),
            cramers_v(_cross_table(keys, counts), corrected=True),
        )
    rounding = len(keys) / (2 * len(frame)) + 1e-9
    return TraitComparison(
        **{
            name: getattr(comparison, name)
            for name in (
                "of",
                "kind",
                "values",
                "expected",
                "observed",
                "gap",
                "js_bits",
            )
        },
        v_expected=v[0],
        v_observed=v[1],
        noise=0.0 if target.quota else comparison.noise,
        limit=rounding if target.quota else comparison.limit,
    )


def _cross_table(keys: list[tuple[str, ...]], counts: Array) -> Array:
    """Return counts of pairs of values as a matrix."""
    rows, columns = (list(dict.fromkeys(key[axis] for key in keys)) for axis in (0, 1))
    table = np.zeros((len(rows), len(columns)))
    for key, count in zip(keys, counts, strict=False):
        table[rows.index(key[0]), columns.index(key[1])] = count
    return table


def _compare_correlations(
    pack: Pack, sampler: Sampler, columns: Columns, n: int
) -> Iterator[TraitComparison]:
    """Compare the copula's correlations on normal scores (each value mapped back through its
    own distribution).

    Rounding to whole numbers weakens a correlation. So the observed value is compared with
    the correlation that remains when normal numbers with the expected correlations are
    rounded in the same way.
    """
    for group in pack.correlated:
        margins = []
        for name in group.traits:
            leaf, leaves = _leaf_numbers(sampler.nodes[name], columns, np.arange(n))
            distributions = [
                node for node in leaves if isinstance(node, ContinuousDistribution)
            ]
            margins.append((leaf, distributions, pack.traits[name].type == "integer"))
        data = [columns[name].data for name in group.traits]
        got = np.corrcoef(
            [
                _normal_scores(values, *margin)
                for values, margin in zip(data, margins, strict=True)
            ]
        )
        blurred = _rounded_correlations(np.array(group.matrix()), margins)
        for first, second in combinations(range(len(group.traits)), 2):
            asked = group.matrix()[first][second]
            deviation = np.sqrt(1 + 1 / ROUNDING_REPEATS) * (1 - asked**2) / np.sqrt(n)
            yield TraitComparison(
                of=f"{group.traits[first]} ~ {group.traits[second]}",
                kind="correlation",
                values=["correlation"],
                expected=[asked],
                observed=[float(got[first, second])],
                gap=float(abs(got[first, second] - blurred[first, second])),
                js_bits=None,
                v_expected=None,
                v_observed=None,
                noise=float(deviation * np.sqrt(2 / np.pi)),
                limit=float(LIMIT_DEVIATIONS * deviation),
            )


def _normal_scores(
    data: Array, leaf: Array, leaves: list[ContinuousDistribution], integer: bool
) -> Array:
    """Return the normal scores of numbers, each within the draw that it came from; for a
    whole number, the middle of its step."""
    below = np.empty(len(data))
    for number, distribution in enumerate(leaves):
        mask = leaf == number
        low = distribution.distribution.cdf(data[mask])
        below[mask] = (
            (low + distribution.distribution.cdf(data[mask] + 1)) / 2
            if integer
            else low
        )
    return np.asarray(special.ndtri(np.clip(below, 1e-12, 1 - 1e-12)))


def _rounded_correlations(
    matrix: Array, margins: list[tuple[Array, list[ContinuousDistribution], bool]]
) -> Array:
    """Return the correlations of normal numbers with the given correlations after the same
    rounding."""
    random = np.random.Generator(np.random.Philox(0))
    estimates = []
    for _ in range(ROUNDING_REPEATS):
        normal = (
            random.standard_normal((len(margins[0][0]), len(margins)))
            @ np.linalg.cholesky(matrix).T
        )
        scores = []
        for column, (leaf, leaves, whole) in enumerate(margins):
            uniform, leaf_of_row = (
                special.ndtr(normal[:, column]),
                random.permutation(leaf),
            )
            data = np.empty(len(leaf_of_row))
            for number, distribution in enumerate(leaves):
                mask = leaf_of_row == number
                data[mask] = distribution.distribution.quantile(
                    np.clip(uniform[mask], 2.0**-54, 1 - 2.0**-53)
                )
            scores.append(
                _normal_scores(
                    np.floor(data) if whole else data, leaf_of_row, leaves, whole
                )
            )
        estimates.append(np.corrcoef(scores))
    return np.asarray(np.mean(estimates, axis=0))


def _independent_pairs(pack: Pack) -> Iterator[tuple[str, str]]:
    """Yield pairs without a common ancestor, copula, quota or constraint: they are
    independent if sampling is correct."""
    parents = {name: dependencies(draw) for name, draw in pack.draws.items()}
    ties = [
        *(set(group.traits) for group in pack.correlated),
        {n for target in pack.quotas for n in target.traits},
    ]
    ties += [set(parse_condition(text).columns) for text in pack.where]
    if pack.people is not None:
        ties.append(
            {name for name, trait in pack.traits.items() if trait.source is not None}
        )
    roots = {name: _ancestors(name, parents) for name in pack.traits}
    for number, tie in enumerate(ties):
        tied_roots = set().union(*(roots[name] for name in tie)) if tie else set()
        for name, trait_roots in roots.items():
            if trait_roots & tied_roots:
                roots[name] = trait_roots | {f"tie {number}"}
    written = {name for names in pack.traits_by_writer.values() for name in names}
    for first, second in combinations(
        [name for name in pack.traits if name not in written], 2
    ):
        if not roots[first] & roots[second]:
            yield first, second


def _ancestors(name: str, parents: dict[str, set[str]]) -> set[str]:
    ancestors = {name}
    for parent in parents.get(name, ()):
        ancestors |= _ancestors(parent, parents)
    return ancestors


def _most_dependent_pair(
    pack: Pack, frame: pl.DataFrame, pairs: list[tuple[str, str]]
) -> TraitComparison | None:
    """Compare the most dependent of the pairs that should be independent, by the p-value of
    its chi-square."""
    codes: dict[str, Array] = {}
    for name in {name for pair in pairs for name in pair}:
        column = frame[name]
        if pack.traits[name].type in NUMERIC:
            edges = np.unique(
                np.quantile(column.to_numpy(), np.linspace(0, 1, 6)[1:-1])
            )
            codes[name] = np.searchsorted(edges, column.to_numpy(), side="right")
        elif column.n_unique() <= 100:
            codes[name] = column.cast(str).rank("dense").to_numpy() - 1
    tests = []
    for a, b in pairs:
        if a in codes and b in codes:
            table = _counts(
                codes[a], codes[b], int(codes[a].max()) + 1, int(codes[b].max()) + 1
            )
            rows, columns = (int((table.sum(axis=axis) > 0).sum()) for axis in (1, 0))
            if min(rows, columns) > 1:
                v, df, v_scale = (
                    cramers_v(table),
                    (rows - 1) * (columns - 1),
                    min(rows, columns) - 1,
                )
                tests.append(
                    (
                        special.chdtrc(df, v**2 * v_scale * len(frame)),
                        v,
                        df,
                        v_scale,
                        a,
                        b,
                    )
                )
    if not tests:
        return None
    _, v, df, v_scale, a, b = min(tests)
    # Sparse tables have a longer tail than chi-square: twice its 1e-6 quantile is far beyond it.
    limit_statistic = 2 * special.chdtri(df, 1e-6 / len(tests))
    return TraitComparison(
        of=f"{a} and {b}, the most dependent of {len(tests)} pairs that nothing connects",
        kind="independence",
        values=["Cramer's V"],
        expected=[0.0],
        observed=[v],
        gap=v,
        js_bits=None,
        v_expected=None,
        v_observed=None,
        noise=float(np.sqrt(df / v_scale / len(frame))),
        limit=float(np.sqrt(limit_statistic / v_scale / len(frame))),
    )


def _title(name: str, pack: Pack) -> str:
    given = sorted(dependencies(pack.draws[name]))
    return f"{name} given {', '.join(given)}" if given else name


def _total_variation(counts: Array, expected: Array, n: int) -> float:
    return float(np.abs(counts - expected).sum() / 2 / n)


def _jensen_shannon_bits(p: Array, q: Array) -> float:
    """Return the Jensen-Shannon divergence in bits."""
    middle = (p + q) / 2
    return float(
        (special.rel_entr(p, middle).sum() + special.rel_entr(q, middle).sum())
        / 2
        / np.log(2)
    )


def cramers_v(table: Array, corrected: bool = False) -> float:
    """Return Cramer's V of a table of counts; 0 if a side has only one value."""
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    if min(table.shape) < 2:
        return 0.0
    n = table.sum()
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / n
    phi2 = float(((table - expected) ** 2 / expected).sum() / n)
    rows, columns = table.shape
    if not corrected:
        return float(np.sqrt(phi2 / (min(rows, columns) - 1)))
    phi2 = max(0.0, phi2 - (rows - 1) * (columns - 1) / (n - 1))
    rows, columns = (
        rows - (rows - 1) ** 2 / (n - 1),
        columns - (columns - 1) ** 2 / (n - 1),
    )
    return float(np.sqrt(phi2 / max(1e-12, min(rows, columns) - 1)))
