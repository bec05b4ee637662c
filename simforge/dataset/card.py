"""The dataset card: `README.md`, read by people and parsed by the Hub and `datasets`.

Its front matter has a config for each table, so `datasets.load_dataset(DIR)` works without
SimForge. A table without rows has no config, since `datasets` cannot load it. Text written by
models appears only in indented code blocks, where nothing is interpreted as markup.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from simforge.dataset import columns, licences, tables
from simforge.dataset.manifest import (
    DropRates,
    LicenceEntry,
    Manifest,
    lost_dimensions,
    unchecked_dimensions,
)
from simforge.dialogue.guards import GUARDS
from simforge.identity import digest
from simforge.judging import reliability
from simforge.judging.reliability import BLIND_CONTROLS
from simforge.models import providers
from simforge.types import REASONS, JsonObject

if TYPE_CHECKING:
    import pyarrow as pa


LENGTH_LABELS = {"words": "words, median", "words_p90": "words, 90th percentile"}
"Figures that are lengths; all others are shares."


MAX_SAMPLE_CHARS = 400
"Maximum length of a text in the sample pairs, in characters."


MAX_GROUPS = 20
"Maximum number of groups of people listed."


_SIZE_CATEGORIES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)


@dataclass(frozen=True, slots=True)
class Release:
    """A version on the Hub that the card describes."""

    repo: str
    version: str
    previous: str
    "The previous version; empty for the first."
    changes: list[str]
    "Differences from the previous version, one line each."

    @property
    def name(self) -> str:
        """Name of the dataset, without its location."""
        return (
            self.repo.rstrip("/").rpartition("/")[2]
            if "://" in self.repo
            else self.repo.replace("/", "-")
        )


def render(
    manifest: Manifest,
    release: Release | None = None,
    audit: JsonObject | None = None,
) -> str:
    """Render the card of a sealed run. For a version on the Hub it also says how to load that
    version and what has changed."""
    recipe = manifest["recipe"]
    loading = _loading(release)
    sections = [
        f"# {recipe['description'].strip()}",
        "Made with SimForge: simulated users with hidden preference profiles talked "
        "to assistants, and each pair holds the answer that the person prefers and "
        "one that they do not. Nobody in it is a real person, and no human checked "
        "the labels.",
        "## Loading",
        _block(loading),
        "For the formats of trainers other than TRL: `simforge export`.",
        *(["## Changes", _changes(release)] if release else []),
        "## Tables",
        _counts(manifest),
        "## How it was made",
        _provenance(manifest),
        *(
            ["## The simulated users", _users(manifest["fidelity"])]
            if manifest["fidelity"]
            else []
        ),
        *(["## The judges", _judges(manifest["judges"])] if manifest["judges"] else []),
        *(["## The audit", audit_section(audit)] if audit else []),
        *(
            ["## A few pairs", _samples(manifest["samples"])]
            if manifest["samples"]
            else []
        ),
        "## Discards",
        _discards(manifest["discards"]),
        *(
            ["## Groups affected by discards", _drop_rates(manifest["dropped"])]
            if manifest["dropped"]["groups"]
            else []
        ),
        "## Columns of `preferences`",
        _columns("preferences"),
        "## Licence",
        _licence(manifest["licence"]),
        "## Limits",
        _limits(manifest),
    ]
    return f"---\n{_front_matter(manifest)}---\n\n" + "\n\n".join(sections) + "\n"


def _loading(release: Release | None) -> str:
    if release and "://" in release.repo:
        location = f'"{release.repo}@{release.version}"'
        return (
            f"import simforge\n\npairs = simforge.load({location})\npeople = "
            f'simforge.load({location}, "personas")'
        )
    source = f'"{release.repo}"' if release else '"."'
    version = f', revision="v{release.version}"' if release else "  # in this folder"
    return (
        "from datasets import load_dataset\n\n"
        f"pairs = load_dataset({source}{version})  # prompt, chosen, rejected\n"
        f'people = load_dataset({source}, "personas"{version})'
    ).replace("  # in this folder)", ")  # in this folder")


def _changes(release: Release) -> str:
    if not release.previous:
        return f"{release.version} is the first version."
    lines = [f"- {change}" for change in release.changes] or [
        "- Nothing: the same data."
    ]
    return "\n".join([f"{release.version} against {release.previous}:", "", *lines])


def _front_matter(manifest: Manifest) -> str:
    rows = sum(manifest["counts"]["preferences"].values())
    size = next(
        (label for bound, label in _SIZE_CATEGORIES if rows < bound), "10M<n<100M"
    )
    configs, infos, schemas = [], [], tables.published_schemas(manifest)
    for table in tables.TABLES:
        counts = manifest["counts"][table]
        files = [
            {"split": split, "path": f"data/{table}/{split}-*.parquet"}
            for split in sorted(counts, key=_split_order)
            if counts[split]  # `datasets` cannot load a split without rows
        ]
        if not files:
            continue
        # `datasets` keys its cache by folder name and configs, not by files: without the digest
        # here a second run in a folder of the same name would silently load the rows of the first.
        content = [
            about["sha256"]
            for path, about in manifest["files"].items()
            if path.startswith(f"data/{table}/")
        ]
        config = {
            "config_name": table,
            "description": f"content {digest(content)}",
            "data_files": files,
        }
        configs.append(
            {**config, **({"default": True} if table == "preferences" else {})}
        )
        infos.append(_dataset_info(table, schemas[table], manifest))
    front = {
        "pretty_name": manifest["recipe"]["description"].strip().split(".")[0],
        "license": manifest["licence"]["row"],
        **(
            {"license_name": "terms-of-its-sources"}
            if manifest["licence"]["row"] == "other"
            else {}
        ),
        "language": manifest.get("languages") or ["en"],
        "tags": ["synthetic", "preference", "personalization", "simforge"],
        "size_categories": [size],
        "configs": configs,
        "dataset_info": infos,
    }
    return yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=120)


def _dataset_info(table: str, schema: pa.Schema, manifest: Manifest) -> JsonObject:
    """Describe a table's columns and splits in the format of `datasets` cards, so that it need
    not open the files."""
    files = {
        path: about
        for path, about in manifest["files"].items()
        if path.startswith(f"data/{table}/")
    }
    splits = [
        {
            "name": split,
            "num_bytes": sum(
                about["uncompressed"]
                for path, about in files.items()
                if _split_of(path) == split
            ),
            "num_examples": rows,
        }
        for split, rows in sorted(
            manifest["counts"][table].items(), key=lambda item: _split_order(item[0])
        )
        if rows
    ]
    return {
        "config_name": table,
        "features": [
            {"name": column.name, **_feature(column.type)} for column in schema
        ],
        "splits": splits,
        "download_size": sum(about["bytes"] for about in files.values()),
        "dataset_size": sum(split["num_bytes"] for split in splits),
    }


def _feature(kind: pa.DataType) -> JsonObject:
    import pyarrow as pa

    if pa.types.is_list(kind):
        inner = _feature(kind.value_type)
        return {"list": inner.get("dtype") or inner["struct"]}
    if pa.types.is_struct(kind):
        return {
            "struct": [{"name": field.name, **_feature(field.type)} for field in kind]
        }
    return {
        "dtype": {"date32[day]": "date32", "double": "float64"}.get(
            str(kind), str(kind)
        )
    }


def _split_of(path: str) -> str:
    return path.rpartition("/")[2].partition("-")[0]


def _split_order(split: str) -> int:
    return ("train", "validation", "test_personas", "test_prompts").index(split)


def _counts(manifest: Manifest) -> str:
    distinct, clusters = manifest["distinct"], manifest["clusters"]
    splits = sorted(
        {split for table in manifest["counts"].values() for split in table},
        key=_split_order,
    )
    lines = [f"| table | {' | '.join(splits)} |", f"|---|{'---|' * len(splits)}"]
    for table, counts in manifest["counts"].items():
        lines.append(
            f"| `{table}` | {' | '.join(str(counts.get(split, 0)) for split in splits)} |"
        )
    lines.append("")
    lines.append(
        f"The {distinct['pairs']} pairs are {distinct['triples']} different triples of "
        f"prompt, chosen and rejected, over {distinct['answers']} different pairs of "
        "answers: the same two can appear in pairs of several people."
    )
    lines += [
        "",
        "`validation` holds people to tune on, `test_personas` people who are not in "
        "training, `test_prompts` prompts that are not in training, asked by people "
        "who are. A table without rows has no config.",
    ]
    for name, cluster_stats in clusters.items():
        noun = "people" if name == "personas" else "prompts"
        lines.append(
            f"Splits hold out whole {noun}: {cluster_stats['n']} in "
            f"{cluster_stats['clusters']} groups that are nearly identical or share "
            f"answers, the largest with {cluster_stats['largest']} members."
        )
    for table, names in manifest.get("withheld", {}).items():
        column_list = ", ".join(f"`{column}`" for column in names)
        lines.append(
            f"Sensitive names of `{table}` were left out: {column_list}. This is no "
            "guarantee of secrecy: what people say in the dialogues may mention them, "
            "and anyone with the pack and the seed can sample the same people."
        )
    return "\n".join(lines)


def _provenance(manifest: Manifest) -> str:
    recipe, tried = manifest["recipe"], manifest["cast"]["candidates"]
    passed_over = manifest["cast"]["failed_conditions"] + manifest["cast"]["quota_full"]
    lines = [
        f"- People: {manifest['personas']} of `{manifest['cast']['of']}`"
        + (
            f", out of {tried} candidates (the others fail its constraints or quotas). "
            if passed_over
            else ". "
        )
        + " ".join(manifest["persona_sources"]),
        f"- Preferences: the space `{manifest['space']['name']}`. "
        f"{manifest['space']['source'].strip()}",
        f"- Openings: {_openings(recipe)}",
        f"- Labels: by {recipe['labels']['by']}"
        + (
            ", checked against programmatic measures."
            if recipe["labels"]["check"] == "measure"
            else "."
        ),
    ]
    lines += [f"- **{sentence}**" for sentence in lost_dimensions(manifest)]
    unchecked = unchecked_dimensions(manifest)
    if unchecked:
        lines.append(f"- Unchecked, since no measure exists: {', '.join(unchecked)}.")
    if recipe["paper"]:
        lines.append(f"- Reproduces: {recipe['paper'].strip()}")
    if recipe["departures"]:
        lines.append(f"- Differences from the paper: {recipe['departures'].strip()}")
    for role, model in manifest["models"].items():
        lines.append(
            f"- Model of the role `{role}`: `{model['reference']}` "
            f"({model['licence']}; {model['about']})."
        )
    tokens = [
        usage["prompt_tokens"] + usage["completion_tokens"]
        for usage in manifest["usage"].values()
    ]
    calls = sum(usage["calls"] for usage in manifest["usage"].values())
    spent = (
        f", for {manifest['spent']:.2f} at the prices given"
        if manifest["spent"] is not None
        else ""
    )
    used = sum(usage["calls"] for usage in manifest["used"].values())
    shared = (
        f"; dialogues that share answers used them {used:,} times"
        if used > calls
        else ""
    )
    lines.append(
        f"- Usage: {calls:,} model replies, {sum(tokens):,} tokens read and "
        f"written{spent}{shared}."
    )
    lines.append(
        f"- Seed {manifest['seed']}, digest `{manifest['digest']}`, SimForge "
        f"{manifest['simforge']}."
    )
    return "\n".join(lines)


def _openings(recipe: JsonObject) -> str:
    source = recipe["prompts"]["source"]
    return (
        "each persona writes its own."
        if source == "persona"
        else f"shared prompts from `{source}`."
    )


def _users(fidelity: JsonObject) -> str:
    """Describe endings, guards and style, with reference figures for comparison."""
    endings = ", ".join(
        f"{ending} {count}" for ending, count in fidelity["endings"].items()
    )
    lines = [
        f"{fidelity['messages']} messages were written by the user model. Dialogues "
        f"ended: {endings}."
    ]
    if fidelity["goals_met"] is not None:
        lines.append(
            f"{fidelity['goals_met']:.0%} of the goals behind their needs were raised and met."
        )
    if fidelity["disclosure"]:
        shares = ", ".join(f"{share:.0%}" for share in fidelity["disclosure"])
        lines.append(
            "Mean share of their facts that people still in the dialogue had "
            f"disclosed by each turn: {shares}."
        )
    guards = [
        "| guard | meaning | repaired | left in | ended | final objections |",
        "|---|---|---|---|---|---|",
    ]
    for name, guard in fidelity["guards"].items():
        low, high = guard["interval"]
        counts = (
            f"{guard['repaired']} | {guard['kept']} | {guard['ended']} | "
            f"{guard['share']:.1%} ({low:.1%} to {high:.1%})"
        )
        guards.append(f"| `{name}` | {GUARDS[name].meaning} | {counts} |")
    style = [
        "| property of the messages | this run | human chats | |",
        "|---|---|---|---|",
    ]
    for name, guard in fidelity["style"].items():
        value, (low, high) = guard["simulated"], guard["human"]
        form = ".0f" if name in LENGTH_LABELS else ".1%"
        outside = (
            ""
            if low <= value <= high
            else "below the human range"
            if value < low
            else "above the human range"
        )
        label = LENGTH_LABELS.get(name, name.replace("_", " "))
        style.append(
            f"| {label} | {value:{form}} | {low:{form}} to {high:{form}} | {outside} |"
        )
    sections = (
        ["\n".join(guards)]
        if fidelity["guards"]
        else ["No guard objected to anything."]
    )
    return "\n\n".join([" ".join(lines), *sections, "\n".join(style)])


def _judges(summary: JsonObject) -> str:
    """Describe the reliability of the judges; each figure has its sample size and interval."""
    lines = []
    for name, about in summary["judges"].items():
        outcomes = ", ".join(
            f"{outcome} {count}" for outcome, count in about["outcomes"].items()
        )
        lines.append(f"- {reliability.describe(f'`{name}`', about)}")
        lines.append(
            f"  {about['judgments']} judgments come from {about['questions']} distinct "
            "questions; outcomes (`a` is the answer that the recipe names first): "
            f"{outcomes}."
        )
        if about["repaired"]:
            lines.append(
                f"  {about['repaired']} verdicts could be parsed only after asking again."
            )
        if "stability" in about:
            lines.append(
                "  Asked again in the same order, it repeated its verdict in "
                f"{about['stability']:.0%}."
            )
    panel = summary["panel"]
    if panel:
        alpha = (
            "not measured, since all verdicts are the same"
            if panel["alpha"] is None
            else f"{panel['alpha']:.2f}"
        )
        lines.append(
            f"- Krippendorff's alpha of {', '.join(panel['judges'])}, over "
            f"{panel['questions']} questions: {alpha}."
        )
    if summary["blind_agreement"]:
        lines += [
            "",
            "| profile shown | judgments | same outcome as with the person's profile |",
            "|---|---|---|",
        ]
        for profile_shown, agreement in summary["blind_agreement"].items():
            low, high = agreement["interval"]
            lines.append(
                f"| {BLIND_CONTROLS[profile_shown]} | {agreement['n']} | "
                f"{agreement['share']:.0%} ({low:.0%} to {high:.0%}) |"
            )
        lines += [
            "",
            "If a judge agrees with its blind controls as often as its two orders "
            "agree, the profile has no effect.",
        ]
    return "\n".join(lines)


def _drop_rates(selection: DropRates) -> str:
    """List the groups whose comparisons were dropped more or less often than average."""
    lines = [
        f"Of {selection['comparisons']} comparisons {selection['share']:.1%} gave no "
        "pair. These groups differ from that by more than chance (binomial tests, "
        "corrected for the number of groups; shares with 95 % intervals):",
        "",
        "| group | comparisons | dropped |",
        "|---|---|---|",
    ]
    for group in selection["groups"][:MAX_GROUPS]:
        low, high = group["interval"]
        lines.append(
            f"| {group['group']}: {group['value']} | {group['n']} | "
            f"{group['share']:.1%} ({low:.1%} to {high:.1%}) |"
        )
    return "\n".join(lines)


def audit_section(audit: JsonObject) -> str:
    """Render the card's section about an audit: its findings, and the figures behind them."""
    marks = {"fault": "**Fault.**", "doubt": "*Doubt.*", "good": "Good."}
    lines = [
        f"- {marks[finding['weight']]} {finding['text']}"
        for finding in audit["verdict"]
    ]
    rows: JsonObject = {}
    for family, by in audit.get("information", {}).items():
        for held_out, figure in by.items() if "bits" not in by else {"": by}.items():
            rows[
                "bits per pair from the profile "
                f"({family}{f', {held_out} held out' if held_out else ''})"
            ] = figure["bits"]
            if "shuffled" in figure:
                rows[
                    f"the same with profiles shuffled ({family}, {held_out} held out)"
                ] = figure["shuffled"]
    rules = audit["shortcuts"]["rules"]
    rows |= {
        f"'{name.replace('_', ' ')} wins' is right in": figure
        for name, figure in rules.items()
    }
    rows["two people disagree on the same two answers"] = audit["disagreement"][
        "conflict"
    ]
    rows["best possible without knowing the person"] = audit["disagreement"]["ceiling"]
    lines += ["", "| measure | value | 95 % interval | n |", "|---|---|---|---|"]
    lines += [_figure_row(name, figure) for name, figure in rows.items()]
    lines += ["", "All figures are in `audit.json`."]
    return "\n".join(lines)


def _figure_row(name: str, figure: JsonObject) -> str:
    if "value" not in figure:
        return f"| {name} | not measured | {figure['not_measured']} | |"
    low, high = figure["interval"]
    return (
        f"| {name} | {figure['value']:.3f} | {low:.3f} to {high:.3f} | {figure['n']} |"
    )


def _samples(samples: list[JsonObject]) -> str:
    """Render sample pairs, shortened, in code blocks."""
    blocks = []
    for row in samples:
        messages = [
            ("person", row["prompt"][-1]),
            ("chosen", row["chosen"][0]),
            ("rejected", row["rejected"][0]),
        ]
        texts = (
            [f"wish      {_single_line(row['system'] or '')}"] if row["system"] else []
        )
        texts += [
            f"{name:9} {_single_line(message['content'])}" for name, message in messages
        ]
        about = f"{row['dimension'] or 'overall'}, by {row['label']}"
        blocks.append(f"{about}:\n\n{_block(chr(10).join(texts))}")
    return "\n\n".join(blocks)


def _single_line(text: str) -> str:
    """Put a text on one line, without unprintable characters."""
    line = " ".join(
        "".join(sign if sign.isprintable() else " " for sign in text).split()
    )
    return line if len(line) <= MAX_SAMPLE_CHARS else f"{line[:MAX_SAMPLE_CHARS]} ..."


def _licence(summary: LicenceEntry) -> str:
    asked = (
        ", ".join(licences.CONDITIONS[condition] for condition in summary["conditions"])
        or "nothing"
    )
    lines = [
        f"`{summary['row']}`: {summary['why']}. Together the sources require: {asked}.",
        "",
    ]
    lines += ["| source | licence |", "|---|---|"]
    lines += [
        f"| {source} | {licence} |" for source, licence in summary["sources"].items()
    ]
    return "\n".join(lines)


def _discards(discards: dict[str, int]) -> str:
    if not discards:
        return "Nothing."
    lines = ["| reason | count | meaning |", "|---|---|---|"]
    lines += [
        f"| `{reason}` | {count} | {REASONS[reason]} |"
        for reason, count in discards.items()
    ]
    return "\n".join(lines)


def _columns(table: str) -> str:
    lines = ["| column | type | meaning |", "|---|---|---|"]
    for column in tables.SCHEMAS[table]:
        about = column.metadata[b"description"].decode()
        kind = (
            "messages"
            if column.type == columns.MESSAGES
            else "profile"
            if column.type == columns.PROFILE
            else column.type
        )
        lines.append(f"| `{column.name}` | {kind} | {about} |")
    return "\n".join(lines)


def _limits(manifest: Manifest) -> str:
    lines = [
        "- The people, their words and their preferences are simulated; agreement "
        "with real people is not measured."
    ]
    if manifest["recipe"]["labels"]["by"] == "construction":
        lines.append(
            "- A label by construction says how an answer was requested. If the "
            "dimension has a measure, the text was checked against it; nobody checked "
            "that the answer is correct."
        )
    references = [model["reference"] for model in manifest["models"].values()]
    lines += [f"- {note}" for note in providers.card_notes(references)]
    return "\n".join(lines)


def _block(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
