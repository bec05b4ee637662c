"""Comparing: what is different between two versions of a dataset.

manifests(old, new)     -> a line for each thing that changed: recipe, models, people, counts, discards, judges
labels(old, new)        -> pairs of the same person over the same two answers, and how many are the other way round
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

WORDS = 80
"Most characters of a value that is told."


def manifests(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What changed, a line each; nothing where the two were made alike and came out alike."""
    lines = []
    for key, before, after in _different(old["recipe"], new["recipe"]):
        lines.append(f"recipe: {key} was {_short(before)} and is {_short(after)}")
    then, now = ({role: about["reference"] for role, about in one["models"].items()} for one in (old, new))
    lines += [f"models: {key} was {_short(a)} and is {_short(b)}" for key, a, b in _different(then, now)]
    for key, name in (("seed", "seed"), ("personas", "people"), ("schema_version", "schema version")):
        if old[key] != new[key]:
            lines.append(f"{name}: {old[key]} before, {new[key]} now")
    for table in new["counts"]:
        before, after = (sum(one["counts"].get(table, {}).values()) for one in (old, new))
        if before != after:
            lines.append(f"rows of {table}: {before} before, {after} now")
    splits = [
        {split for counts in one["counts"].values() for split, rows in counts.items() if rows} for one in (old, new)
    ]
    lines += [f"the split {split} is gone" for split in sorted(splits[0] - splits[1])]
    lines += [f"the split {split} is new" for split in sorted(splits[1] - splits[0])]
    for reason in sorted({*old["discards"], *new["discards"]}):
        before, after = (one["discards"].get(reason, 0) for one in (old, new))
        if before != after:
            lines.append(f"discards for {reason}: {before} before, {after} now")
    lines += [f"judge {role}: {said}" for role, said in _judges(old, new)]
    files = ({name: about["sha256"] for name, about in one["files"].items()} for one in (old, new))
    before_files, after_files = files
    changed = sum(before_files.get(name) != sha for name, sha in after_files.items())
    gone = sum(name not in after_files for name in before_files)
    if changed or gone:
        lines.append(f"files: {changed} new or changed, {gone} gone")
    return lines


def _judges(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, str]]:
    """Kappa of the two orders, where it changed."""
    found = []
    before, after = ((one.get("judges") or {}).get("judges", {}) for one in (old, new))
    for role in sorted({*before, *after}):
        a, b = (one.get(role, {}).get("corrected", {}).get("kappa") for one in (before, after))
        if a != b:
            said = ("not measured" if one is None else f"{one:.2f}" for one in (a, b))
            found.append((role, "agreement of both orders beyond chance {} before, {} now".format(*said)))
    return found


def audits(old: dict[str, Any] | None, new: dict[str, Any] | None) -> list[str]:
    """The figures of two audits whose intervals do not touch, a line each; nothing where there are not two."""
    if old is None or new is None:
        return []
    before, after = _figures(old), _figures(new)
    lines = []
    for name in before.keys() & after.keys():
        a, b = before[name], after[name]
        if (
            a["interval"]
            and b["interval"]
            and (a["interval"][1] < b["interval"][0] or b["interval"][1] < a["interval"][0])
        ):
            lines.append(f"audit: {name} {a['value']:.3f} before, {b['value']:.3f} now")
    return sorted(lines)


def _figures(found: Any, path: str = "") -> dict[str, dict[str, Any]]:
    """All figures in an audit, by where they stand."""
    if not isinstance(found, dict):
        return {}
    if "value" in found and "interval" in found:
        return {path: found}
    below = (_figures(value, f"{path}.{key}" if path else key) for key, value in found.items())
    return {name: one for part in below for name, one in part.items()}


def labels(old: pl.LazyFrame, new: pl.LazyFrame) -> dict[str, int]:
    """Of the pairs of the same person on the same dimension over the same two answers to the same prompt: how many
    there are, and how many changed sides; and how many stand in one version only."""
    import polars as pl

    both = _sides(old).join(_sides(new), on=["key"], how="full", suffix="_new")
    counted = both.select(
        shared=(pl.col("chosen").is_not_null() & pl.col("chosen_new").is_not_null()).sum(),
        flipped=(pl.col("chosen") != pl.col("chosen_new")).sum(),
        only_old=pl.col("chosen_new").is_null().sum(),
        only_new=pl.col("chosen").is_null().sum(),
    )
    return {name: int(count) for name, count in counted.collect().to_dicts()[0].items()}


def people(old: pl.LazyFrame, new: pl.LazyFrame) -> dict[str, int]:
    """People who are in both versions, and in one only, by their ids."""
    before, after = ({*one.select("id").collect()["id"]} for one in (old, new))
    return {"shared": len(before & after), "only_old": len(before - after), "only_new": len(after - before)}


def _sides(pairs: pl.LazyFrame) -> pl.LazyFrame:
    """Each pair by a key that does not know which side won, and the text that did."""
    import polars as pl

    def said(name: str) -> pl.Expr:
        return pl.col(name).list.eval(pl.element().struct.field("content")).list.join("\n\n")

    pairs = pairs.select(
        "persona_id", pl.col("dimension").fill_null(""), prompt=said("prompt"), chosen=said("chosen"),
        rejected=said("rejected"),
    )  # fmt: skip
    sides = pl.concat_list(pl.col("chosen", "rejected")).list.sort().list.join("\x00")
    key = pl.concat_str("persona_id", "dimension", "prompt", sides, separator="\x00").hash()
    return pairs.select(key=key, chosen=pl.col("chosen").hash()).unique("key", keep="first", maintain_order=True)


def _different(old: Any, new: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Keys (as `a.b`) whose values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        return [
            found for key in keys for found in _different(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if old == new else [(path, old, new)]


def _short(value: Any) -> str:
    said = " ".join(str(value).split())
    return said if len(said) <= WORDS else f"{said[:WORDS]}..."
