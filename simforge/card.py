"""The card: the dataset's `README.md`, which people read and the Hub and `datasets` parse.

Its front matter has a config for each table, so `datasets.load_dataset(DIR)` works without SimForge; a table
without rows has none, since `datasets` cannot load it. What a model wrote stands in it only in indented blocks, in
which nothing is markup.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from simforge import licences, records, reliability
from simforge.guards import GUARDS
from simforge.identity import digest
from simforge.reliability import DARK
from simforge.types import REASONS

if TYPE_CHECKING:
    import pyarrow as pa

LENGTHS = {"words": "words, median", "words_p90": "words, 90th percentile"}
"Figures that are lengths; the others are shares."
SHOWN = 400
"Most characters of a text among the sample pairs."
GROUPS = 20
"Most groups of people that are listed."
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)


@dataclass(frozen=True, slots=True)
class Release:
    """A version on the Hub that the card is for."""

    repo: str
    version: str
    before: str
    "The version before; empty for the first."
    changes: list[str]
    "What is different from it."

    @property
    def name(self) -> str:
        """Its name, without where it is."""
        return self.repo.rstrip("/").rpartition("/")[2] if "://" in self.repo else self.repo.replace("/", "-")


def render(manifest: dict[str, Any], release: Release | None = None, audit: dict[str, Any] | None = None) -> str:
    """The card of a sealed run; of a version on the Hub it says how to load that, and what has changed."""
    recipe = manifest["recipe"]
    loading = _loading(release)
    sections = [
        f"# {recipe['description'].strip()}",
        "Made with SimForge: simulated users with hidden preference profiles talked to assistants, and each pair holds "
        "the answer that the person prefers and one that they do not. Nobody in it is a real person, and no human "
        "checked the labels.",
        "## Loading",
        _block(loading),
        "For the forms that trainers other than TRL read: `simforge export`.",
        *(["## Changes", _changes(release)] if release else []),
        "## Tables",
        _counts(manifest),
        "## How it was made",
        _made(manifest),
        *(["## The simulated users", _users(manifest["fidelity"])] if manifest["fidelity"] else []),
        *(["## The judges", _judges(manifest["judges"])] if manifest["judges"] else []),
        *(["## The audit", section(audit)] if audit else []),
        *(["## A few pairs", _samples(manifest["samples"])] if manifest["samples"] else []),
        "## What was discarded",
        _discards(manifest["discards"]),
        *(["## Whom that leaves out", _dropped(manifest["dropped"])] if manifest["dropped"]["groups"] else []),
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
        place = f'"{release.repo}@{release.version}"'
        return f'import simforge\n\npairs = simforge.load({place})\npeople = simforge.load({place}, "personas")'
    source = f'"{release.repo}"' if release else '"."'
    version = f', revision="v{release.version}"' if release else "  # in this folder"
    return (
        "from datasets import load_dataset\n\n"
        f"pairs = load_dataset({source}{version})  # prompt, chosen, rejected\n"
        f'people = load_dataset({source}, "personas"{version})'
    ).replace("  # in this folder)", ")  # in this folder")


def _changes(release: Release) -> str:
    if not release.before:
        return f"{release.version} is the first version."
    lines = [f"- {change}" for change in release.changes] or ["- Nothing: the same data."]
    return "\n".join([f"{release.version} against {release.before}:", "", *lines])


def _front_matter(manifest: dict[str, Any]) -> str:
    rows = sum(manifest["counts"]["preferences"].values())
    size = next((label for bound, label in _SIZES if rows < bound), "10M<n<100M")
    configs, infos, schemas = [], [], records.published(manifest)
    for table in records.TABLES:
        counts = manifest["counts"][table]
        files = [
            {"split": split, "path": f"data/{table}/{split}-*.parquet"}
            for split in sorted(counts, key=_split_order)
            if counts[split]  # `datasets` cannot load a split without rows
        ]
        if not files:
            continue
        # `datasets` keys its cache by the folder's name and these configs, not by the files: without the digest here a
        # second run in a folder of the same name would silently load the first one's rows.
        content = [about["sha256"] for path, about in manifest["files"].items() if path.startswith(f"data/{table}/")]
        config = {"config_name": table, "description": f"content {digest(content)}", "data_files": files}
        configs.append({**config, **({"default": True} if table == "preferences" else {})})
        infos.append(_info(table, schemas[table], manifest))
    front = {
        "pretty_name": manifest["recipe"]["description"].strip().split(".")[0],
        "license": manifest["licence"]["row"],
        **({"license_name": "terms-of-its-sources"} if manifest["licence"]["row"] == "other" else {}),
        "language": ["en"],
        "tags": ["synthetic", "preference", "personalization", "simforge"],
        "size_categories": [size],
        "configs": configs,
        "dataset_info": infos,
    }
    return yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=120)


def _info(table: str, schema: pa.Schema, manifest: dict[str, Any]) -> dict[str, Any]:
    """A table's columns and splits as `datasets` writes them into cards, so that it need not look into the files."""
    files = {path: about for path, about in manifest["files"].items() if path.startswith(f"data/{table}/")}
    splits = [
        {
            "name": split,
            "num_bytes": sum(about["uncompressed"] for path, about in files.items() if _split_of(path) == split),
            "num_examples": rows,
        }
        for split, rows in sorted(manifest["counts"][table].items(), key=lambda one: _split_order(one[0]))
        if rows
    ]
    return {
        "config_name": table,
        "features": [{"name": column.name, **_feature(column.type)} for column in schema],
        "splits": splits,
        "download_size": sum(about["bytes"] for about in files.values()),
        "dataset_size": sum(split["num_bytes"] for split in splits),
    }


def _feature(kind: pa.DataType) -> dict[str, Any]:
    import pyarrow as pa

    if pa.types.is_list(kind):
        inner = _feature(kind.value_type)
        return {"list": inner.get("dtype") or inner["struct"]}
    if pa.types.is_struct(kind):
        return {"struct": [{"name": field.name, **_feature(field.type)} for field in kind]}
    return {"dtype": {"date32[day]": "date32", "double": "float64"}.get(str(kind), str(kind))}


def _split_of(path: str) -> str:
    return path.rpartition("/")[2].partition("-")[0]


def _split_order(split: str) -> int:
    return ("train", "validation", "test_personas", "test_prompts").index(split)


def _counts(manifest: dict[str, Any]) -> str:
    distinct, clusters = manifest["distinct"], manifest["clusters"]
    splits = sorted({split for table in manifest["counts"].values() for split in table}, key=_split_order)
    lines = [f"| table | {' | '.join(splits)} |", f"|---|{'---|' * len(splits)}"]
    for table, counts in manifest["counts"].items():
        lines.append(f"| `{table}` | {' | '.join(str(counts.get(split, 0)) for split in splits)} |")
    lines.append("")
    lines.append(
        f"The {distinct['pairs']} pairs are {distinct['triples']} different triples of prompt, chosen and rejected, "
        f"over {distinct['answers']} different pairs of answers: the same two can stand in pairs of several people."
    )
    lines += [
        "",
        "`validation` holds people to tune on, `test_personas` people whom training never saw, `test_prompts` prompts "
        "that it never saw, asked by people whom it did. A table without rows has no config.",
    ]
    for name, found in clusters.items():
        what = "people" if name == "personas" else "prompts"
        lines.append(
            f"Splits hold out whole {what}: {found['n']} in {found['clusters']} groups that are nearly the same or "
            f"share answers, the largest of {found['largest']}."
        )
    for table, columns in manifest.get("withheld", {}).items():
        named = ", ".join(f"`{column}`" for column in columns)
        lines.append(
            f"Of `{table}` these columns are sensitive and were left out: {named}. They are no secret: what people say "
            "in the dialogues may speak of them, and who has the pack and the seed can draw the same people again."
        )
    return "\n".join(lines)


def _made(manifest: dict[str, Any]) -> str:
    recipe, tried = manifest["recipe"], manifest["cast"]["tried"]
    passed_over = manifest["cast"]["impossible"] + manifest["cast"]["full"]
    lines = [
        f"- People: {manifest['personas']} of `{manifest['cast']['of']}`"
        + (f", out of {tried} candidates (the others fail its constraints or quotas). " if passed_over else ". ")
        + " ".join(manifest["persona_sources"]),
        f"- Preferences: the space `{manifest['space']['name']}`. {manifest['space']['source'].strip()}",
        f"- Openings: {_openings(recipe)}",
        f"- Labels: by {recipe['labels']['by']}"
        + (", held against programmatic measures." if recipe["labels"]["check"] == "measure" else "."),
    ]
    if recipe["paper"]:
        lines.append(f"- Reproduces: {recipe['paper'].strip()}")
    if recipe["departures"]:
        lines.append(f"- Departs from it: {recipe['departures'].strip()}")
    for role, model in manifest["models"].items():
        lines.append(f"- Model of the role `{role}`: `{model['reference']}` ({model['licence']}; {model['about']}).")
    used = [one["prompt_tokens"] + one["completion_tokens"] for one in manifest["usage"].values()]
    calls = sum(one["calls"] for one in manifest["usage"].values())
    spent = f", for {manifest['spent']:.2f} at the prices given" if manifest["spent"] is not None else ""
    lines.append(f"- Used: {calls:,} answers of models, {sum(used):,} tokens read and written{spent}.")
    lines.append(f"- Seed {manifest['seed']}, digest `{manifest['digest']}`, SimForge {manifest['simforge']}.")
    return "\n".join(lines)


def _openings(recipe: dict[str, Any]) -> str:
    source = recipe["prompts"]["source"]
    return "each persona writes its own." if source == "persona" else f"shared prompts from `{source}`."


def _users(found: dict[str, Any]) -> str:
    """Endings, guards and style, each with what there is to hold it against."""
    endings = ", ".join(f"{ending} {count}" for ending, count in found["endings"].items())
    lines = [f"{found['messages']} messages were written by the user's model. Dialogues ended: {endings}."]
    if found["goals_met"] is not None:
        lines.append(f"Of the goals behind their needs, {found['goals_met']:.0%} were brought up and taken up.")
    if found["disclosure"]:
        told = ", ".join(f"{share:.0%}" for share in found["disclosure"])
        lines.append(
            f"By each turn, those who were still there had told this share of what there is to tell about them: {told}."
        )
    guards = ["| guard | means | mended | left in | ended it | objections in the end |", "|---|---|---|---|---|---|"]
    for name, one in found["guards"].items():
        low, high = one["interval"]
        counts = f"{one['mended']} | {one['left']} | {one['ended']} | {one['share']:.1%} ({low:.1%} to {high:.1%})"
        guards.append(f"| `{name}` | {GUARDS[name].about} | {counts} |")
    style = ["| of the messages | here | human chats | |", "|---|---|---|---|"]
    for name, one in found["style"].items():
        here, (low, high) = one["here"], one["human"]
        form = ".0f" if name in LENGTHS else ".1%"
        outside = "" if low <= here <= high else "below people's" if here < low else "above people's"
        what = LENGTHS.get(name, name.replace("_", " "))
        style.append(f"| {what} | {here:{form}} | {low:{form}} to {high:{form}} | {outside} |")
    tables = ["\n".join(guards)] if found["guards"] else ["No guard objected to anything."]
    return "\n\n".join([" ".join(lines), *tables, "\n".join(style)])


def _judges(found: dict[str, Any]) -> str:
    """What the judges' verdicts are worth, each figure with its number and interval."""
    lines = []
    for name, about in found["judges"].items():
        outcomes = ", ".join(f"{outcome} {count}" for outcome, count in about["outcomes"].items())
        lines.append(f"- {reliability.said_of(f'`{name}`', about)}")
        lines.append(
            f"  {about['judgments']} judgments come from {about['questions']} different questions; their outcomes (`a` "
            f"is the answer that the recipe names first): {outcomes}."
        )
        if about["repaired"]:
            lines.append(f"  {about['repaired']} verdicts could only be read when they were asked for again.")
        if "stability" in about:
            lines.append(f"  Asked again in the same order it said the same in {about['stability']:.0%}.")
    panel = found["panel"]
    if panel:
        alpha = "not measured, since all say the same" if panel["alpha"] is None else f"{panel['alpha']:.2f}"
        lines.append(
            f"- Krippendorff's alpha of {', '.join(panel['judges'])}, over {panel['questions']} questions: {alpha}."
        )
    if found["same_in_the_dark"]:
        lines += ["", "| told | judgments | same outcome as with the person's profile |", "|---|---|---|"]
        for told, one in found["same_in_the_dark"].items():
            low, high = one["interval"]
            lines.append(f"| {DARK[told]} | {one['n']} | {one['share']:.0%} ({low:.0%} to {high:.0%}) |")
        lines += [
            "",
            "Where a judge says the same in the dark as often as in its two orders, the profile decides nothing.",
        ]
    return "\n".join(lines)


def _dropped(found: dict[str, Any]) -> str:
    """Groups whose comparisons were dropped more or less often than those of all."""
    lines = [
        f"Of {found['comparisons']} comparisons {found['share']:.1%} became no pair. These groups lie off that by "
        "more than chance (binomial tests, corrected for the number of groups; shares with 95 % intervals):",
        "",
        "| group | comparisons | dropped |",
        "|---|---|---|",
    ]
    for one in found["groups"][:GROUPS]:
        low, high = one["interval"]
        lines.append(f"| {one['group']}: {one['value']} | {one['n']} | {one['share']:.1%} ({low:.1%} to {high:.1%}) |")
    return "\n".join(lines)


def section(found: dict[str, Any]) -> str:
    """What a card says of an audit: the verdict, and the figures that it stands on."""
    marks = {"fault": "**Fault.**", "doubt": "*Doubt.*", "good": "Good."}
    lines = [f"- {marks[one['weight']]} {one['says']}" for one in found["verdict"]]
    rows: dict[str, Any] = {}
    for family, by in found.get("information", {}).items():
        for held, one in by.items() if "bits" not in by else {"": by}.items():
            rows[f"bits a pair that the profile tells ({family}{f', {held} held out' if held else ''})"] = one["bits"]
            if "shuffled" in one:
                rows[f"the same with profiles dealt at random ({family}, {held} held out)"] = one["shuffled"]
    rules = found["shortcuts"]["rules"]
    rows |= {f"'{name.replace('_', ' ')} wins' is right in": one for name, one in rules.items()}
    rows["two people disagree on the same two answers"] = found["room"]["conflict"]
    rows["best without knowing who asks"] = found["room"]["ceiling"]
    lines += ["", "| measure | value | 95 % interval | n |", "|---|---|---|---|"]
    lines += [_figure(name, one) for name, one in rows.items()]
    lines += ["", "All figures are in `audit.json`."]
    return "\n".join(lines)


def _figure(name: str, one: dict[str, Any]) -> str:
    if "value" not in one:
        return f"| {name} | not measured | {one['not_measured']} | |"
    low, high = one["interval"]
    return f"| {name} | {one['value']:.3f} | {low:.3f} to {high:.3f} | {one['n']} |"


def _samples(samples: list[dict[str, Any]]) -> str:
    """Pairs as they are, cut, in blocks in which nothing is markup."""
    blocks = []
    for row in samples:
        said = [("person", row["prompt"][-1]), ("chosen", row["chosen"][0]), ("rejected", row["rejected"][0])]
        texts = [f"wish      {_plain(row['system'] or '')}"] if row["system"] else []
        texts += [f"{name:9} {_plain(message['content'])}" for name, message in said]
        about = f"{row['dimension'] or 'overall'}, by {row['label']}"
        blocks.append(f"{about}:\n\n{_block(chr(10).join(texts))}")
    return "\n\n".join(blocks)


def _plain(text: str) -> str:
    """A text in one line, without signs that are not to be seen."""
    said = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return said if len(said) <= SHOWN else f"{said[:SHOWN]} ..."


def _licence(found: dict[str, Any]) -> str:
    asked = ", ".join(licences.CONDITIONS[one] for one in found["asks"]) or "nothing"
    lines = [f"`{found['row']}`: {found['why']}. Together the sources ask for: {asked}.", ""]
    lines += ["| source | licence |", "|---|---|"]
    lines += [f"| {what} | {licence} |" for what, licence in found["sources"].items()]
    return "\n".join(lines)


def _discards(discards: dict[str, int]) -> str:
    if not discards:
        return "Nothing."
    lines = ["| reason | count | meaning |", "|---|---|---|"]
    lines += [f"| `{reason}` | {count} | {REASONS[reason]} |" for reason, count in discards.items()]
    return "\n".join(lines)


def _columns(table: str) -> str:
    lines = ["| column | type | meaning |", "|---|---|---|"]
    for column in records.SCHEMAS[table]:
        about = column.metadata[b"description"].decode()
        kind = (
            "messages"
            if column.type == records.MESSAGES
            else "profile"
            if column.type == records.PROFILE
            else column.type
        )
        lines.append(f"| `{column.name}` | {kind} | {about} |")
    return "\n".join(lines)


def _limits(manifest: dict[str, Any]) -> str:
    lines = [
        "- The people, their words and their preferences are simulated; agreement with real people is not measured."
    ]
    if manifest["recipe"]["labels"]["by"] == "construction":
        lines.append(
            "- A label by construction says how an answer was asked for. Where the dimension has a measure, the "
            "text was checked to show it; nobody checked that the answer is right."
        )
    if any(model["reference"].startswith("local:") for model in manifest["models"].values()):
        lines.append(
            "- The texts come from a small model that runs on a laptop: many answers are factually wrong, and one "
            "answer can stand in several pairs. Good for trying a training set-up, not for training a model to use."
        )
    if any(model["reference"].startswith("scripted:") for model in manifest["models"].values()):
        lines.append("- **A scripted model wrote this: the texts mean nothing and are for rehearsal only.**")
    return "\n".join(lines)


def _block(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
