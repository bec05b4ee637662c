"""The proof that people are as their pack says.

What was asked for and what was got are compared as tables of shares: every draw on the candidates (given the values
that it is conditional on, before constraints and quotas take some away), every target on the people. A gap is told as
total variation (half the sum of absolute differences), Jensen-Shannon divergence in bits, and for tables of several
traits the difference of Cramer's V. Beside it stands what sampling noise alone would give: the same table drawn many
times by a multinomial of the same size. A gap beyond the noise's mean plus six standard deviations is a failure; for a
quota, a gap beyond rounding to whole people.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from simforge.identity import derived_seed
from simforge.personas import Passed, cell_numbers, sample
from simforge.personas.drawing import Branch, Chance, Columns, Drawn, Lacking, Node, Numbers, Rows, Sampler, Words
from simforge.personas.pack import Pack, Target
from simforge.personas.reading import NUMERIC, uses

if TYPE_CHECKING:
    import polars as pl

    Array = np.ndarray[Any, Any]

REPEATS = 200
"Tables drawn to know what noise alone gives."
DEVIATIONS = 6.0
"Standard deviations above the noise's mean from which a gap is a failure."
BLURS = 4
"Lots of normal numbers that are rounded to know what rounding does to a correlation."
FEW = 4
"People by whom any table may differ: rare values come up or not."
BINS = 10


@dataclass(frozen=True, slots=True)
class Comparison:
    """One table of shares, as asked for and as got."""

    of: str
    kind: str
    "`draw`, `target`, `quota`, `correlation`, or `independence` (the most dependent pair that nothing connects)."
    values: list[str]
    asked: list[float]
    got: list[float]
    gap: float
    "Total variation in 0..1; for a correlation the absolute difference; for independence Cramer's V."
    js_bits: float | None
    v_asked: float | None
    "Cramer's V of a table of several traits; as got, corrected for the bias of sparse tables (Bergsma 2013)."
    v_got: float | None
    noise: float
    "The gap that noise alone gives on average."
    limit: float
    "The gap from which it is a failure."

    @property
    def holds(self) -> bool:
        return self.gap <= self.limit


@dataclass(frozen=True, slots=True)
class Proof:
    """All comparisons of a pack."""

    n: int
    seed: int
    passed: Passed
    comparisons: list[Comparison]
    uncompared: dict[str, str]
    "Traits without a table of shares, and why."
    independent: list[tuple[str, str]]
    "Pairs that nothing in the pack connects."

    @property
    def holds(self) -> bool:
        return all(one.holds for one in self.comparisons)


def prove(pack: Pack, n: int, seed: int) -> Proof:
    """Draw `n` people and compare."""
    cast = sample(pack, n, seed)
    sampler = Sampler(pack, seed)
    columns = sampler.batch(n)
    columns, n = _whole(columns, n, sampler.lacking)
    noise = np.random.Generator(np.random.Philox(derived_seed(seed, "proof")))
    comparisons, uncompared = [], {}
    for name, node in sampler.nodes.items():
        leaf, leaves = _leaves(node, columns, np.arange(n))
        table = _table(name, pack.traits[name].type, columns, leaf, leaves)
        if isinstance(table, str):
            uncompared[name] = table
        else:
            comparisons.append(_compared(_title(name, pack), "draw", *table, noise))
    for name, trait in pack.traits.items():
        if trait.source is not None:
            uncompared[name] = "comes with the people"
        elif trait.draw is not None and trait.draw.writer is not None:
            uncompared[name] = "written by a model"
    comparisons += _correlations(pack, sampler, columns, n)
    comparisons += [_target(target, pack, cast.frame, noise) for target in pack.targets]
    independent = list(_independent(pack))
    largest = _largest(pack, cast.frame, independent)
    if largest is not None:
        comparisons.append(largest)
    return Proof(len(cast), seed, cast.passed, comparisons, uncompared, independent)


def _whole(columns: Columns, n: int, lacking: Lacking) -> tuple[Columns, int]:
    """The candidates for whom everything could be drawn."""
    kept = np.ones(n, dtype=bool)
    for rows, _ in lacking.reasons:
        kept[rows] = False
    return {name: Drawn(one.data[kept], one.vocabulary) for name, one in columns.items()}, int(kept.sum())


SHOWN = 12
"Values of a table that are printed; the largest gaps of longer ones."


def told(found: Proof, name: str) -> str:
    """The proof as a text for people."""
    passed = found.passed
    lines = [f"{name}: {found.n} people, seed {found.seed}"]
    if passed.incomplete:
        lines.append(f"{passed.incomplete} rows of the people's file lack a value and are left out")
    if passed.by_condition or passed.full:
        lines.append(f"{passed.impossible + passed.full} of {passed.tried} candidates were passed over:")
        lines += [
            f"  {count} fail {text!r}" + ("" if count else " (nobody: is it spelt as the traits' values?)")
            for text, count in passed.by_condition.items()
        ]
        lines += [f"  {passed.full} found their quota full"] if passed.full else []
    if any(one.kind == "quota" for one in found.comparisons):
        lines.append("has quotas: who person i is depends on the number of people")
    for one in found.comparisons:
        lines += ["", *_told(one)]
    if found.uncompared:
        lines += ["", "without a table of shares:", *(f"  {name}: {why}" for name, why in found.uncompared.items())]
    lines += ["", "assumed independent (nothing in the pack connects them):"]
    lines += [f"  {' and '.join(sides)}" for sides in _grouped(found.independent)] or ["  no pair"]
    failed = [one.of for one in found.comparisons if not one.holds]
    lines += ["", f"NOT AS ASKED: {', '.join(failed)}" if failed else "all as asked, within noise"]
    return "\n".join(lines)


def _grouped(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs as pairs of groups: traits that are independent of the same others stand together."""
    partners: dict[str, set[str]] = {}
    for first, second in pairs:
        partners.setdefault(first, set()).add(second)
        partners.setdefault(second, set()).add(first)
    groups: list[list[str]] = []
    for name, others in partners.items():
        like = next((group for group in groups if partners[group[0]] - {name} == others - {group[0]}), None)
        if like is None:
            groups.append([name])
        else:
            like.append(name)
    said = [(", ".join(group), "each other") for group in groups if len(group) > 1 and group[1] in partners[group[0]]]
    for one, other in combinations(groups, 2):
        if other[0] in partners[one[0]]:
            said.append((f"[{', '.join(one)}]", f"[{', '.join(other)}]"))
    return said


def _told(one: Comparison) -> list[str]:
    head = f"{one.of} ({one.kind})"
    gap = {"correlation": "difference", "independence": "Cramer's V"}.get(one.kind, "total variation")
    said = f"{gap} {one.gap:.4f}; noise alone {one.noise:.4f}, at most {one.limit:.4f}"
    said += f"; Jensen-Shannon {one.js_bits:.6f} bits" if one.js_bits is not None else ""
    if one.v_asked is not None and one.v_got is not None:
        said += f"; Cramer's V asked {one.v_asked:.3f}, got {one.v_got:.3f} ({one.v_got - one.v_asked:+.4f})"
    lines = [f"{head}: {said}: {'as asked' if one.holds else 'NOT AS ASKED'}"]
    rows = list(zip(one.values, one.asked, one.got, strict=True))
    shown = sorted(rows, key=lambda row: -abs(row[1] - row[2]))[:SHOWN] if len(rows) > SHOWN else rows
    width = max(len(value) for value, _, _ in shown)
    lines += [f"  {value:<{width}}  asked {asked:7.4f}  got {got:7.4f}" for value, asked, got in shown]
    return lines + ([f"  … and {len(rows) - SHOWN} values with smaller gaps"] if len(rows) > SHOWN else [])


def _leaves(node: Node, columns: Columns, rows: Array) -> tuple[Array, list[Node]]:
    """The number of the draw that each row ended in, and those draws."""
    if isinstance(node, Rows):
        return node.route(columns, rows).astype(np.int64), list(node.children)
    if not isinstance(node, Branch):
        return np.zeros(len(rows), dtype=np.int64), [node]
    child = node.child(columns, rows)
    found = np.empty(len(rows), dtype=np.int64)
    leaves: list[Node] = []
    for number, one in enumerate(node.children):
        here = np.flatnonzero(child == number)
        inner, more = _leaves(one, columns, rows[here])
        found[here] = inner + len(leaves)
        leaves += more
    return found, leaves


def _table(
    name: str, kind: str, columns: Columns, leaf: Array, leaves: list[Node]
) -> tuple[list[str], Array, Array] | str:
    """Values, counts and asked shares (leaf by value), or why there is no such table."""
    long_list = next((one.about for one in leaves if isinstance(one, Words) and one.about), None)
    if long_list:
        return f"drawn from {long_list}" + (" and others" if len(leaves) > 1 else "")
    data = columns[name].data
    if any(isinstance(one, Numbers) for one in leaves):
        return _binned(kind, data, leaf, leaves)
    if all(isinstance(one, Chance) for one in leaves):
        shares = np.array([[one.share, 1 - one.share] for one in leaves if isinstance(one, Chance)])
        return ["true", "false"], _counts(leaf, np.where(data, 0, 1), len(leaves), 2), shares
    if not all(isinstance(one, Words) for one in leaves):
        return "made from other traits"
    vocabulary = columns[name].vocabulary
    values = sorted({code for one in leaves if isinstance(one, Words) for code in one.codes.tolist()})
    place = {code: number for number, code in enumerate(values)}
    shares = np.zeros((len(leaves), len(values)))
    for number, one in enumerate(leaves):
        if isinstance(one, Words):
            for code, share in zip(one.codes.tolist(), one.shares, strict=True):
                shares[number, place[code]] += share
    counts = _counts(leaf, np.searchsorted(np.array(values), data), len(leaves), len(values))
    said = [vocabulary.words[code] if vocabulary and kind == "string" else f"{code:g}" for code in values]
    return said, counts, shares


def _binned(kind: str, data: Array, leaf: Array, leaves: list[Node]) -> tuple[list[str], Array, Array]:
    """Numbers in bins of about equal size; an integer is the floor of what was drawn, so its bins end at integers."""
    edges = np.unique(np.quantile(data, np.linspace(0, 1, BINS + 1)[1:-1]))
    edges = np.unique(np.floor(edges)) if kind == "integer" else edges
    below = np.array([_share_below(one, edges) for one in leaves])
    ends = np.hstack([np.zeros((len(leaves), 1)), below, np.ones((len(leaves), 1))])
    shown = [f"{edge:.4g}" for edge in edges]
    said = [f"below {shown[0]}", *(f"{a} to {b}" for a, b in pairwise(shown)), f"from {shown[-1]}"]
    counts = _counts(leaf, np.searchsorted(edges, data, side="right"), len(leaves), len(edges) + 1)
    return said, counts, np.clip(np.diff(ends), 0, 1)


def _share_below(leaf: Node, edges: Array) -> Array:
    if isinstance(leaf, Words):  # numbers without a density
        return np.array([leaf.shares[leaf.codes < edge].sum() for edge in edges])
    assert isinstance(leaf, Numbers)
    return leaf.below(edges)


def _counts(leaf: Array, value: Array, leaves: int, values: int) -> Array:
    return np.bincount(leaf * values + value, minlength=leaves * values).reshape(leaves, values)


def _compared(of: str, kind: str, values: list[str], counts: Array, shares: Array, noise: Any) -> Comparison:
    """Counts against asked shares, leaf by leaf, with the number of people in each leaf as it came out."""
    counts, shares = counts[counts.sum(axis=1) > 0], shares[counts.sum(axis=1) > 0]
    people = counts.sum(axis=1, keepdims=True)
    n = counts.sum()
    shares = shares / shares.sum(axis=1, keepdims=True)
    expected = people * shares
    gap = _tv(counts, expected, n)
    repeats = max(20, min(REPEATS, 4_000_000 // max(1, counts.size)))
    drawn = [_tv(noise.multinomial(people[:, 0], shares), expected, n) for _ in range(repeats)]
    several = len(counts) > 1
    return Comparison(
        of=of,
        kind=kind,
        values=values,
        asked=(expected.sum(axis=0) / n).tolist(),
        got=(counts.sum(axis=0) / n).tolist(),
        gap=gap,
        js_bits=_js(counts / n, expected / n),
        v_asked=cramers_v(expected) if several else None,
        v_got=cramers_v(counts, corrected=True) if several else None,
        noise=float(np.mean(drawn)),
        limit=max(float(np.mean(drawn) + DEVIATIONS * np.std(drawn)), FEW / n) + 1e-9,
    )


def _target(target: Target, pack: Pack, frame: pl.DataFrame, noise: Any) -> Comparison:
    """A target against the people; those outside its table are a cell with the share 0."""
    cells = target.cells()
    keys = list(cells)
    kinds = [pack.traits[name].type for name in target.traits]
    counts = np.bincount(cell_numbers(frame, target.traits, kinds, keys), minlength=len(keys) + 1)
    shares = np.array([*cells.values(), 0.0])
    values = [" · ".join(key) for key in keys] + ["anything else"]
    kind = "quota" if target.quota else "target"
    found = _compared(" x ".join(target.traits), kind, values, counts[None, :], shares[None, :], noise)
    v: tuple[float | None, float | None] = (None, None)
    if len(target.traits) == 2:
        v = cramers_v(_crossed(keys, shares * len(frame))), cramers_v(_crossed(keys, counts), corrected=True)
    rounding = len(keys) / (2 * len(frame)) + 1e-9
    return Comparison(
        **{name: getattr(found, name) for name in ("of", "kind", "values", "asked", "got", "gap", "js_bits")},
        v_asked=v[0],
        v_got=v[1],
        noise=0.0 if target.quota else found.noise,
        limit=rounding if target.quota else found.limit,
    )


def _crossed(keys: list[tuple[str, ...]], counts: Array) -> Array:
    """Counts of pairs of values as a matrix."""
    rows, columns = (list(dict.fromkeys(key[place] for key in keys)) for place in (0, 1))
    table = np.zeros((len(rows), len(columns)))
    for key, count in zip(keys, counts, strict=False):
        table[rows.index(key[0]), columns.index(key[1])] = count
    return table


def _correlations(pack: Pack, sampler: Sampler, columns: Columns, n: int) -> Iterator[Comparison]:
    """The copula's correlations, on normal scores (each value seen back through its own distribution).

    Whole numbers blur a correlation, so what was got is compared with what the same blur leaves of normal numbers with
    the asked correlations.
    """
    for group in pack.correlated:
        margins = []
        for name in group.traits:
            leaf, leaves = _leaves(sampler.nodes[name], columns, np.arange(n))
            found = [one for one in leaves if isinstance(one, Numbers)]
            margins.append((leaf, found, pack.traits[name].type == "integer"))
        data = [columns[name].data for name in group.traits]
        got = np.corrcoef([_scores(one, *margin) for one, margin in zip(data, margins, strict=True)])
        blurred = _blurred(np.array(group.matrix()), margins)
        for first, second in combinations(range(len(group.traits)), 2):
            asked = group.matrix()[first][second]
            deviation = np.sqrt(1 + 1 / BLURS) * (1 - asked**2) / np.sqrt(n)
            yield Comparison(
                of=f"{group.traits[first]} ~ {group.traits[second]}",
                kind="correlation",
                values=["correlation"],
                asked=[asked],
                got=[float(got[first, second])],
                gap=float(abs(got[first, second] - blurred[first, second])),
                js_bits=None,
                v_asked=None,
                v_got=None,
                noise=float(deviation * np.sqrt(2 / np.pi)),
                limit=float(DEVIATIONS * deviation),
            )


def _scores(data: Array, leaf: Array, leaves: list[Numbers], whole: bool) -> Array:
    """Normal scores of numbers, each within the draw that it came from; a whole number by the middle of its step."""
    below = np.empty(len(data))
    for number, one in enumerate(leaves):
        here = leaf == number
        low = one.below(data[here])
        below[here] = (low + one.below(data[here] + 1)) / 2 if whole else low
    return np.asarray(special.ndtri(np.clip(below, 1e-12, 1 - 1e-12)))


def _blurred(matrix: Array, margins: list[tuple[Array, list[Numbers], bool]]) -> Array:
    """The correlations that normal numbers with these correlations have after the same rounding."""
    source = np.random.Generator(np.random.Philox(0))
    found = []
    for _ in range(BLURS):
        normal = source.standard_normal((len(margins[0][0]), len(margins))) @ np.linalg.cholesky(matrix).T
        scores = []
        for place, (leaf, leaves, whole) in enumerate(margins):
            uniform, which = special.ndtr(normal[:, place]), source.permutation(leaf)
            data = np.empty(len(which))
            for number, one in enumerate(leaves):
                here = which == number
                data[here] = one.quantile(np.clip(uniform[here], 2.0**-54, 1 - 2.0**-53))
            scores.append(_scores(np.floor(data) if whole else data, which, leaves, whole))
        found.append(np.corrcoef(scores))
    return np.asarray(np.mean(found, axis=0))


def _independent(pack: Pack) -> Iterator[tuple[str, str]]:
    """Pairs without a common ancestor, a common copula or a common constraint: independent if the pack is right."""
    from simforge.personas.reading import condition

    parents = {name: uses(draw) for name, draw in pack.drawn.items()}
    ties = [*(set(group.traits) for group in pack.correlated), {n for target in pack.quotas for n in target.traits}]
    ties += [set(condition(text).meta.root_names()) for text in pack.where]
    if pack.people is not None:
        ties.append({name for name, trait in pack.traits.items() if trait.source is not None})
    roots = {name: _ancestors(name, parents) for name in pack.traits}
    for number, tie in enumerate(ties):
        above = set().union(*(roots[name] for name in tie)) if tie else set()
        for name, found in roots.items():
            if found & above:
                roots[name] = found | {f"tie {number}"}
    written = {name for names in pack.written.values() for name in names}
    for first, second in combinations([name for name in pack.traits if name not in written], 2):
        if not roots[first] & roots[second]:
            yield first, second


def _ancestors(name: str, parents: dict[str, set[str]]) -> set[str]:
    found = {name}
    for parent in parents.get(name, ()):
        found |= _ancestors(parent, parents)
    return found


def _largest(pack: Pack, frame: pl.DataFrame, pairs: list[tuple[str, str]]) -> Comparison | None:
    """The most dependent of pairs that should be independent, by the p-value of its chi-square."""
    codes: dict[str, Array] = {}
    for name in {name for pair in pairs for name in pair}:
        column = frame[name]
        if pack.traits[name].type in NUMERIC:
            edges = np.unique(np.quantile(column.to_numpy(), np.linspace(0, 1, 6)[1:-1]))
            codes[name] = np.searchsorted(edges, column.to_numpy(), side="right")
        elif column.n_unique() <= 100:
            codes[name] = column.cast(str).rank("dense").to_numpy() - 1
    found = []
    for a, b in pairs:
        if a in codes and b in codes:
            table = _counts(codes[a], codes[b], int(codes[a].max()) + 1, int(codes[b].max()) + 1)
            rows, columns_ = (int((table.sum(axis=axis) > 0).sum()) for axis in (1, 0))
            if min(rows, columns_) > 1:
                v, df, smaller = cramers_v(table), (rows - 1) * (columns_ - 1), min(rows, columns_) - 1
                found.append((special.chdtrc(df, v**2 * smaller * len(frame)), v, df, smaller, a, b))
    if not found:
        return None
    _, v, df, smaller, a, b = min(found)
    # Sparse tables have a longer tail than chi-square: twice its quantile at one in a million is far beyond it.
    edge = 2 * special.chdtri(df, 1e-6 / len(found))
    return Comparison(
        of=f"{a} and {b}, the most dependent of {len(found)} pairs that nothing connects",
        kind="independence",
        values=["Cramer's V"],
        asked=[0.0],
        got=[v],
        gap=v,
        js_bits=None,
        v_asked=None,
        v_got=None,
        noise=float(np.sqrt(df / smaller / len(frame))),
        limit=float(np.sqrt(edge / smaller / len(frame))),
    )


def _title(name: str, pack: Pack) -> str:
    given = sorted(uses(pack.drawn[name]))
    return f"{name} given {', '.join(given)}" if given else name


def _tv(counts: Array, expected: Array, n: int) -> float:
    return float(np.abs(counts - expected).sum() / 2 / n)


def _js(p: Array, q: Array) -> float:
    """Jensen-Shannon divergence in bits."""
    middle = (p + q) / 2
    return float((special.rel_entr(p, middle).sum() + special.rel_entr(q, middle).sum()) / 2 / np.log(2))


def cramers_v(table: Array, corrected: bool = False) -> float:
    """Cramer's V of a table of counts; 0 where a side has one value."""
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
    rows, columns = rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)
    return float(np.sqrt(phi2 / max(1e-12, min(rows, columns) - 1)))
