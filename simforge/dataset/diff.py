"""Comparison of two versions of a dataset.

compare_manifests(old, new)  -> a line for each change: recipe, models, people, counts, judges ...
compare_labels(old, new)     -> pairs with the same person and answers, and how many changed sides
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from simforge.dataset.manifest import Manifest
from simforge.types import JsonObject

if TYPE_CHECKING:
    import polars as pl


IDENTITIES = {
    "pack": "the persona pack",
    "writers": "the generators that write people",
    "space": "the preference space",
    "writing": "the way of writing",
    "generators": "a generator",
    "prompts": "the prompts",
}
"Parts of a dataset's identity, as they are named in a comparison."


MAX_CHANGED_LINES = 20
"Most changed lines of one text that are listed."


MAX_VALUE_CHARS = 80
"Maximum length of a value in a message, in characters."


def compare_manifests(old: Manifest, new: Manifest) -> list[str]:
    """List the differences between two manifests, one line each; empty if recipe and result are
    the same."""
    lines = []
    for key, before, after in _differences(old["recipe"], new["recipe"]):
        lines.append(f"recipe: {key}: {_shorten(before)} -> {_shorten(after)}")
    old_models, new_models = (
        {role: about["reference"] for role, about in version["models"].items()}
        for version in (old, new)
    )
    lines += [
        f"models: {key}: {_shorten(a)} -> {_shorten(b)}"
        for key, a, b in _differences(old_models, new_models)
    ]
    for name, before, after in (
        ("seed", str(old["seed"]), str(new["seed"])),
        ("people", str(old["personas"]), str(new["personas"])),
        ("schema version", old["schema_version"], new["schema_version"]),
    ):
        if before != after:
            lines.append(f"{name}: {before} -> {after}")
    for key, name in IDENTITIES.items():
        if old["identity"].get(key) != new["identity"].get(key):
            lines.append(f"{name} changed")
    lines += text_changes(old.get("texts", {}), new.get("texts", {}))
    for table in new["counts"]:
        rows_before, rows_after = (
            sum(version["counts"].get(table, {}).values()) for version in (old, new)
        )
        if rows_before != rows_after:
            lines.append(f"rows of {table}: {rows_before} -> {rows_after}")
    splits = [
        {
            split
            for counts in version["counts"].values()
            for split, rows in counts.items()
            if rows
        }
        for version in (old, new)
    ]
    lines += [f"split {split} removed" for split in sorted(splits[0] - splits[1])]
    lines += [f"split {split} added" for split in sorted(splits[1] - splits[0])]
    for reason in sorted({*old["discards"], *new["discards"]}):
        dropped, drops = (version["discards"].get(reason, 0) for version in (old, new))
        if dropped != drops:
            lines.append(f"discards for {reason}: {dropped} -> {drops}")
    lines += [f"{role}: {change}" for role, change in _changed_kappas(old, new)]
    files = (
        {name: about["sha256"] for name, about in version["files"].items()}
        for version in (old, new)
    )
    before_files, after_files = files
    changed = sum(before_files.get(name) != sha for name, sha in after_files.items())
    gone = sum(name not in after_files for name in before_files)
    if changed or gone:
        lines.append(f"files: {changed} new or changed, {gone} removed")
    return lines


def text_changes(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """List the changed lines of the texts that decide the content: prompts of roles, ways of
    writing."""
    lines = []
    for name in sorted({*old, *new}):
        if old.get(name) == new.get(name):
            continue
        if name not in old or name not in new:
            lines.append(f"{name} {'added' if name in new else 'removed'}")
            continue
        changes = [
            change
            for change in difflib.unified_diff(
                old[name].splitlines(), new[name].splitlines(), n=0, lineterm=""
            )
            if not change.startswith(("---", "+++", "@@"))
        ]
        shown = changes[:MAX_CHANGED_LINES]
        lines += [f"{name}: {_shorten(change)}" for change in shown]
        if len(changes) > len(shown):
            lines.append(f"{name}: {len(changes) - len(shown)} more changed lines")
    return lines


def _changed_kappas(old: Manifest, new: Manifest) -> list[tuple[str, str]]:
    """List the judges whose kappa between the two orders changed."""
    changes = []
    before, after = (
        (version.get("judges") or {}).get("judges", {}) for version in (old, new)
    )
    for role in sorted({*before, *after}):
        a, b = (
            judges.get(role, {}).get("corrected", {}).get("kappa")
            for judges in (before, after)
        )
        if a != b:
            kappas = (
                "not measured" if kappa is None else f"{kappa:.2f}" for kappa in (a, b)
            )
            changes.append(
                (
                    role,
                    "agreement of both orders beyond chance {} -> {}".format(*kappas),
                )
            )
    return changes


def compare_audits(old: JsonObject | None, new: JsonObject | None) -> list[str]:
    """List the figures of two audits whose intervals do not overlap, one line each; empty if
    either audit is missing."""
    if old is None or new is None:
        return []
    before, after = _figures(old), _figures(new)
    lines = []
    for name in before.keys() & after.keys():
        a, b = before[name], after[name]
        if (
            a["interval"]
            and b["interval"]
            and (
                a["interval"][1] < b["interval"][0]
                or b["interval"][1] < a["interval"][0]
            )
        ):
            lines.append(f"audit: {name} {a['value']:.3f} before, {b['value']:.3f} now")
    return sorted(lines)


def _figures(node: Any, path: str = "") -> dict[str, JsonObject]:
    """Collect all figures of an audit, by their path in it."""
    if not isinstance(node, dict):
        return {}
    if "value" in node and "interval" in node:
        return {path: node}
    below = (
        _figures(value, f"{path}.{key}" if path else key) for key, value in node.items()
    )
    return {name: figure for part in below for name, figure in part.items()}


def compare_labels(old: pl.LazyFrame, new: pl.LazyFrame) -> dict[str, int]:
    """Count the pairs that both versions have (same person, dimension, prompt and two answers),
    how many of them changed sides, and how many exist in one version only."""
    import polars as pl

    joined = _winners(old).join(_winners(new), on=["key"], how="full", suffix="_new")
    counted = joined.select(
        shared=(
            pl.col("chosen").is_not_null() & pl.col("chosen_new").is_not_null()
        ).sum(),
        flipped=(pl.col("chosen") != pl.col("chosen_new")).sum(),
        only_old=pl.col("chosen_new").is_null().sum(),
        only_new=pl.col("chosen").is_null().sum(),
    )
    return {name: int(count) for name, count in counted.collect().to_dicts()[0].items()}


def compare_people(old: pl.LazyFrame, new: pl.LazyFrame) -> dict[str, int]:
    """Count the people in both versions, and in one only, by id."""
    before, after = ({*people.select("id").collect()["id"]} for people in (old, new))
    return {
        "shared": len(before & after),
        "only_old": len(before - after),
        "only_new": len(after - before),
    }


def _winners(pairs: pl.LazyFrame) -> pl.LazyFrame:
    """Reduce each pair to a key that ignores which side won, and the winning text."""
    import polars as pl

    def said(name: str) -> pl.Expr:
        return (
            pl.col(name)
            .list.eval(pl.element().struct.field("content"))
            .list.join("\n\n")
        )

    pairs = pairs.select(
        "persona_id",
        pl.col("dimension").fill_null(""),
        prompt=said("prompt"),
        chosen=said("chosen"),
        rejected=said("rejected"),
    )
    sides = pl.concat_list(pl.col("chosen", "rejected")).list.sort().list.join("\x00")
    key = pl.concat_str(
        "persona_id", "dimension", "prompt", sides, separator="\x00"
    ).hash()
    return pairs.select(key=key, chosen=pl.col("chosen").hash()).unique(
        "key", keep="first", maintain_order=True
    )


def _differences(old: Any, new: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """List the keys (as `a.b`) whose values differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        return [
            difference
            for key in keys
            for difference in _differences(
                old.get(key), new.get(key), f"{path}.{key}" if path else key
            )
        ]
    return [] if old == new else [(path, old, new)]


def _shorten(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[:MAX_VALUE_CHARS]}..."
