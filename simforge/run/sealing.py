"""Sealing: a finished run becomes a dataset version, with tables, manifest and card."""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from simforge import __version__, catalog
from simforge.catalog import templates
from simforge.dataset import card, croissant, licences, selection, tables
from simforge.dataset.audit_files import AUDIT
from simforge.dataset.duplicates import DuplicateFilter
from simforge.dataset.manifest import FileEntry, Manifest, ModelEntry
from simforge.dataset.parquet import TableWriter
from simforge.dataset.writing import disk_errors, write_atomically
from simforge.dialogue import style
from simforge.identity import file_sha256
from simforge.judging import reliability
from simforge.judging.forms import FORMS
from simforge.models.contract import ModelSpec
from simforge.personas.cast import PACK_METADATA_KEY
from simforge.personas.files import pack_metadata
from simforge.recipe import prompts
from simforge.recipe.schema import Recipe, references, without_locations
from simforge.run.folder import RunFolder
from simforge.run.plan import Plan
from simforge.run.shards import Tally
from simforge.types import JsonObject, Role, Usage

SAMPLES, SAMPLE_POOL = 3, 100
"Number of pairs shown in the card, and number of first pairs that they are chosen from."


PERSONA_BATCH = 1_000
"Number of personas written at a time."


def seal(
    folder: RunFolder,
    plan: Plan,
    models: Mapping[Role, ModelEntry],
    totals: Tally,
    paid: Mapping[Role, Usage],
    spent: float | None,
) -> Manifest:
    """Merge the parts into tables, write card and manifest, and return the manifest. `paid` are
    the replies in the ledger, `spent` is the cost of the run, if it was counted."""
    with disk_errors(folder.path):
        staging = folder.work / "sealing"
        shutil.rmtree(staging, ignore_errors=True)
        sealed = _write_tables(folder, plan, staging)
        manifest = _manifest(folder, plan, models, totals, sealed, staging) | {
            "usage": _counts_by_role(paid),
            "used": _counts_by_role(totals.usage),
            "spent": spent,
        }
        for name in ("manifest.json", "README.md", croissant.FILE_NAME, AUDIT):
            (folder.path / name).unlink(missing_ok=True)
        shutil.rmtree(folder.path / "data", ignore_errors=True)
        (staging / "data").replace(folder.path / "data")
        write_atomically(folder.path / "README.md", card.render(manifest))
        write_atomically(folder.path / croissant.FILE_NAME, croissant.render(manifest))
        write_atomically(
            folder.path / "manifest.json",
            json.dumps(manifest, indent=2, ensure_ascii=False),
        )
        shutil.rmtree(staging, ignore_errors=True)
    return manifest


DIALOGUE_KEYS = ("id", "parent", "prompt_id")


@dataclass(slots=True)
class _SealingResult:
    """Results of sealing a run's tables."""

    counts: dict[str, dict[str, int]]
    "Rows by table and split."
    judges: JsonObject | None
    distinct: dict[str, int]
    "Counts of pairs and of distinct triples and answer pairs; see `Duplicates.distinct`."
    duplicates: int
    "Pairs dropped because the same person has a nearly identical one."


def _write_tables(folder: RunFolder, plan: Plan, staging: Path) -> _SealingResult:
    """Stream all rows into the files of the tables. All judgments are read first, since the
    noise of a judge decides the value of its labels."""
    judge_statistics = reliability.JudgeStatistics()
    for part in folder.parts():
        judge_statistics.add(tables.judge_rows(part))
    noise, uninformed, duplicates = (
        judge_statistics.noise,
        judge_statistics.uninformative,
        DuplicateFilter(plan.recipe.filters.near_duplicates),
    )
    writer = TableWriter(staging / "data")
    number, per_persona = -1, plan.recipe.prompts.per_persona
    for part in folder.parts():
        part_tables = {
            name: tables.table_from_part(part, name) for name in tables.SCHEMAS
        }
        split_by_dialogue = {}
        for key, parent, prompt in zip(
            *(part_tables["dialogues"][name].to_pylist() for name in DIALOGUE_KEYS),
            strict=True,
        ):
            # a branch follows its parent and goes into the same split
            number += parent is None
            split_by_dialogue[key] = plan.dialogue_split(number // per_persona, prompt)
        pairs, duplicate_discards = duplicates.filter(
            tables.with_calibrated_labels(
                part_tables["preferences"], part_tables["judgments"], noise, uninformed
            )
        )
        part_tables |= {
            "preferences": pairs,
            "discards": pa.concat_tables([part_tables["discards"], duplicate_discards]),
        }
        for name, table in part_tables.items():
            owners = table["id" if name == "dialogues" else "dialogue_id"].to_pylist()
            writer.add(name, table, [split_by_dialogue[owner] for owner in owners])
    schema = tables.personas_schema(plan.cast.pack)
    schema = schema.with_metadata(
        {
            **schema.metadata,
            PACK_METADATA_KEY: pack_metadata(plan.cast),
        }
    )
    for start in range(0, len(plan.cast), PERSONA_BATCH):
        people = [
            plan.persona(index)
            for index in range(start, min(start + PERSONA_BATCH, len(plan.cast)))
        ]
        rows = [
            tables.persona_row(person, plan.cast.name, plan.cast.pack.licence)
            for person in people
        ]
        table = pa.Table.from_pylist(rows, schema=schema)
        writer.add(
            "personas", table, [plan.person_split(person.index) for person in people]
        )
    counts = writer.close({**tables.SCHEMAS, "personas": schema})
    return _SealingResult(
        counts, judge_statistics.summary(), duplicates.distinct, duplicates.dropped
    )


def _manifest(
    folder: RunFolder,
    plan: Plan,
    models: Mapping[Role, ModelEntry],
    totals: Tally,
    sealed: _SealingResult,
    staging: Path,
) -> Manifest:
    files: dict[str, FileEntry] = {}
    for path in sorted((staging / "data").rglob("*.parquet")):
        metadata = pq.read_metadata(path)
        groups = map(metadata.row_group, range(metadata.num_row_groups))
        files[path.relative_to(staging).as_posix()] = {
            "sha256": file_sha256(path),
            "bytes": path.stat().st_size,
            "rows": metadata.num_rows,
            "uncompressed": sum(group.total_byte_size for group in groups),
        }
    return {
        "simforge": __version__,
        "schema_version": tables.SCHEMA_VERSION,
        "digest": folder.digest,
        "identity": folder.identity,
        "texts": _texts(plan.recipe),
        "recipe": without_locations(plan.recipe),
        "seed": plan.seed,
        "personas": len(plan.cast),
        "cast": {"of": plan.cast.name, **asdict(plan.cast.rejections)},
        "persona_sources": plan.cast.pack.sources,
        "traits": {
            name: {"type": trait.type, "about": trait.description or name}
            for name, trait in plan.cast.pack.traits.items()
        },
        "licence": licences.licence_of_rows(_licences(plan, models)),
        "space": {
            "name": catalog.label(plan.recipe.cast.space),
            **plan.space.model_dump(mode="json", exclude_none=True),
        },
        "models": dict(models),
        "counts": sealed.counts,
        "clusters": plan.cluster_summary,
        "distinct": sealed.distinct,
        "dialogues": {
            "played": totals.dialogues,
            "failed": totals.failed,
            "commonest_problem": totals.commonest_problem,
            "turns": totals.turns,
        },
        "discards": dict(
            sorted((totals.discards + Counter(duplicate=sealed.duplicates)).items())
        ),
        "dropped": selection.drop_rates(staging, plan.cast.pack, plan.space),
        "dimensions": selection.by_dimension(staging, plan.space),
        "languages": selection.languages(staging),
        "judges": sealed.judges,
        **_rating_scale(plan),
        "fidelity": style.summary(staging),
        "samples": _samples(staging / "data" / "preferences"),
        "files": files,
        "environment": _environment(),
    }


def _texts(recipe: Recipe) -> dict[str, str]:
    """The texts of the recipe's generators, by name, so that two versions can be compared."""
    content = recipe.model_dump(mode="json")
    texts: dict[str, str] = {}
    for path, reference in references():
        value: Any = content
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        if reference.kind == "generators" and isinstance(value, str):
            name = f"generator {catalog.label(value)}"
            texts[name] = catalog.entry("generators", value).text
    return texts


def _rating_scale(plan: Plan) -> Manifest:
    """The scale on which a judge rates answers; empty if none does."""
    judge = plan.recipe.judge
    if judge is None:
        return {}
    front = templates.load(judge.generator).front
    return {"rating_scale": list(front.scale)} if FORMS.find(front.form).rates else {}


def _counts_by_role(usage: Mapping[Role, Usage]) -> dict[str, dict[str, int]]:
    return {role: asdict(used) for role, used in sorted(usage.items())}


def _samples(folder: Path) -> list[JsonObject]:
    """Choose a few example pairs with different wishes, from the training split only."""
    samples: dict[Any, JsonObject] = {}
    for path in sorted(folder.glob("train-*.parquet")):
        columns = [
            "dialogue_id",
            "prompt",
            "system",
            "chosen",
            "rejected",
            "dimension",
            "label",
        ]
        for batch in pq.ParquetFile(path).iter_batches(SAMPLE_POOL, columns=columns):
            for row in batch.to_pylist():
                row.pop("dialogue_id")
                samples.setdefault((row["dimension"], row["system"]), row)
            return list(samples.values())[:SAMPLES]
    return []


def _licences(plan: Plan, models: Mapping[Role, ModelEntry]) -> dict[str, str]:
    """Licence of each source of the rows: people, prompts and models."""
    people = plan.recipe.licence("people") or (
        "unknown" if plan.cast.external else plan.cast.pack.licence
    )
    licence_by_source = {f"the people ({plan.cast.name})": people}
    source = plan.recipe.prompts.source
    if plan.prompts:
        licence = plan.recipe.licence("prompts") or (
            "unknown" if catalog.is_path(source) else prompts.LICENCE
        )
        licence_by_source[f"the prompts ({Path(source).name})"] = licence
    return licence_by_source | {
        f"`{about['reference']}`": about["licence"] for about in models.values()
    }


def _environment() -> dict[str, str]:
    environment = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
    for name in (
        "faker",
        "jinja2",
        "krippendorff",
        "numpy",
        "openvino-genai",
        "polars",
        "pyarrow",
        "ray",
        "rensa",
    ):
        with contextlib.suppress(PackageNotFoundError):
            environment[name] = version(name)
    return environment


def model_summaries(
    specs: Mapping[Role, ModelSpec], recipe: Recipe
) -> dict[Role, ModelEntry]:
    """Describe each role's model for the manifest."""
    return {
        role: {
            "reference": spec.reference,
            "fingerprint": spec.fingerprint,
            "licence": recipe.licence(spec.reference) or spec.licence,
            "about": spec.about,
        }
        for role, spec in specs.items()
    }
