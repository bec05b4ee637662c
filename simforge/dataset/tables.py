"""Arrow schemas of a run's tables, and the conversion of an episode into their rows.

Schemas are declared, never inferred: a column that is empty in one run has the same type as in
the next. Nested values are Arrow lists and structs, never JSON text. Nothing that depends on
time, machine or attempt enters a table, so the same replies give the same bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from simforge.catalog.sandbox import variables_of
from simforge.dataset import columns
from simforge.dataset.columns import (
    BranchRow,
    CandidateRow,
    Column,
    DialogueRow,
    DiscardRow,
    JudgmentRow,
    PairRow,
    PersonRow,
    TurnRow,
    continued_answer,
)
from simforge.dataset.manifest import Manifest
from simforge.dialogue.guards import GUARDS, Guard
from simforge.judging import reliability
from simforge.judging.reliability import Noise, logit
from simforge.personas.spaces import Space
from simforge.types import Branch, Episode, JsonObject, Message, Persona

if TYPE_CHECKING:
    from simforge.personas.pack import Pack


SCHEMA_VERSION = "1"
"Raised when the name, type or meaning of a column changes."


def _schema(fields: Iterable[tuple[str, pa.DataType, str]]) -> pa.Schema:
    return pa.schema(
        [
            pa.field(name, data_type, metadata={"description": description})
            for name, data_type, description in fields
        ],
        metadata={"simforge.schema_version": SCHEMA_VERSION},
    )


def _fields(table: Iterable[Column[Any]]) -> list[tuple[str, pa.DataType, str]]:
    return [(column.name, column.type, column.description) for column in table]


COLUMNS: dict[str, list[Column[Any]]] = {
    "preferences": columns.PAIRS,
    "dialogues": columns.DIALOGUES,
    "turns": columns.TURNS,
    "candidates": columns.CANDIDATES,
    "judgments": columns.JUDGMENTS,
    "discards": columns.DISCARDS,
}
"Columns of the tables that episodes fill."


SCHEMAS: dict[str, pa.Schema] = {
    name: _schema(_fields(table)) for name, table in COLUMNS.items()
}
"Arrow schemas of the tables that episodes fill; `personas_schema` gives that of `personas`."


TABLES = (*SCHEMAS, "personas")
"All tables, the default one first."


def add_column(table: str, column: Column[Any]) -> None:
    """Add a column to a table that episodes fill, for this process."""
    COLUMNS[table].append(column)
    SCHEMAS[table] = _schema(_fields(COLUMNS[table]))


def add_guard(name: str, guard: Guard) -> None:
    """Add a guard, with its column in `turns`, for this process."""
    GUARDS[name] = guard
    add_column("turns", columns.guard_column(name))


def _part_schema() -> pa.Schema:
    """Schema of a shard's part file: one row, in which each table is a list of its rows."""
    return pa.schema(
        [(name, pa.list_(pa.struct(list(schema)))) for name, schema in SCHEMAS.items()]
    )


def personas_schema(pack: Pack) -> pa.Schema:
    """Build the schema of a pack's personas table, with traits as typed columns. Sensitive
    columns are marked in their metadata, and so is `text` when it may mention a sensitive
    trait."""
    schema = _schema_with_traits(
        [
            (name, trait.type, trait.description or name)
            for name, trait in pack.traits.items()
        ]
    )
    sensitive = {name for name, trait in pack.traits.items() if trait.sensitive}
    spoken = bool(sensitive) and (
        pack.portrait is not None or bool(sensitive & variables_of(pack.text))
    )
    for index, column in enumerate(schema):
        if column.name in sensitive or (column.name == "text" and spoken):
            schema = schema.set(
                index, column.with_metadata({**column.metadata, "sensitive": "true"})
            )
    return schema


def published_schemas(manifest: Manifest) -> dict[str, pa.Schema]:
    """Return the schema of each table of a dataset, from its manifest, without withheld
    columns."""
    people = _schema_with_traits(
        [
            (name, trait["type"], trait["about"])
            for name, trait in manifest["traits"].items()
        ]
    )
    withheld = manifest.get("withheld", {})
    return {
        table: pa.schema(
            [column for column in schema if column.name not in withheld.get(table, ())]
        )
        for table, schema in {**SCHEMAS, "personas": people}.items()
    }


_TRAIT_TYPES = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
}


def _schema_with_traits(traits: Sequence[tuple[str, str, str]]) -> pa.Schema:
    return _schema(
        [
            *_fields(columns.PERSONAS_BEFORE_TRAITS),
            *((name, _TRAIT_TYPES[kind], about) for name, kind, about in traits),
            *_fields(columns.PERSONAS_AFTER_TRAITS),
        ]
    )


Rows = dict[str, list[dict[str, object]]]
"Rows of several tables, by table."


def rows(episode: Episode, space: Space, user_model: str | None) -> Rows:
    """Convert an episode into rows, by table: those of a branch follow those of its parent."""
    found: Rows = {name: [] for name in COLUMNS}
    for branch in episode.branches:
        for name, sources in _sources(episode, branch, space, user_model).items():
            table = COLUMNS[name]
            found[name] += [
                {column.name: column.value(source) for column in table}
                for source in sources
            ]
    return found


def _sources(
    episode: Episode, branch: Branch, space: Space, user_model: str | None
) -> dict[str, list[BranchRow]]:
    """Collect the sources of a branch's rows, by table."""
    prefixes, parents = _prefixes(branch), _parents(branch)
    turns = [(turn, parents[turn.number]) for turn in branch.own_turns]
    return {
        "preferences": [PairRow(episode, branch, pair, space) for pair in branch.pairs],
        "dialogues": [DialogueRow(episode, branch, user_model)],
        "turns": [TurnRow(episode, branch, turn, parent) for turn, parent in turns],
        "candidates": [
            CandidateRow(
                episode, branch, turn, parent, candidate, prefixes[turn.number]
            )
            for turn, parent in turns
            for candidate in turn.candidates
        ],
        "judgments": [
            JudgmentRow(episode, branch, judgment) for judgment in branch.judgments
        ],
        "discards": [
            DiscardRow(episode, branch, discard) for discard in branch.discards
        ],
    }


def persona_row(persona: Persona, source: str, licence: str) -> dict[str, object]:
    """Convert a person into a row of `personas`."""
    row = PersonRow(persona, source, licence)
    before, after = (
        {column.name: column.value(row) for column in part}
        for part in (columns.PERSONAS_BEFORE_TRAITS, columns.PERSONAS_AFTER_TRAITS)
    )
    return {**before, **persona.traits, **after}


def to_part(rows_by_table: Rows) -> pa.Table:
    """Pack the rows of a shard into its one-row part table."""
    schema = _part_schema()
    return pa.table(
        {
            name: pa.array([rows_by_table[name]], schema.field(name).type)
            for name in SCHEMAS
        },
        schema=schema,
    )


def table_from_part(part_table: pa.Table, name: str) -> pa.Table:
    """Extract one table from a part."""
    rows_array = part_table[name].combine_chunks().flatten()
    return pa.Table.from_struct_array(rows_array).cast(SCHEMAS[name])


RELIABILITY_METHODS = ["model", "rating", "weighted", "construction"]
"Methods whose judgments are used to estimate how reliable judges are."


def judge_rows(part_table: pa.Table) -> list[JsonObject]:
    """Return the judgments of a part that are needed to measure judges: those made by models
    and, for comparison, the labels by construction. The judges' reasons are left out."""
    table = table_from_part(part_table, "judgments").drop_columns(
        ["reasons_ab", "reasons_ba", "id"]
    )
    judgment_rows: list[JsonObject] = table.filter(
        pc.is_in(table["method"], pa.array(RELIABILITY_METHODS))
    ).to_pylist()
    return judgment_rows


def margin(p_chosen: float | None) -> float | None:
    """Log-odds, limited to ±4 (p from 0.018 to 0.982): a margin for trainers, not a claim of
    certainty."""
    return None if p_chosen is None else min(4.0, max(-4.0, logit(p_chosen)))


def with_calibrated_labels(
    pairs: pa.Table,
    judgments: pa.Table,
    noise: Mapping[str, Noise],
    uninformed: Collection[str] = (),
) -> pa.Table:
    """Add calibrated soft labels to pairs, corrected for the noise of their judges, and the
    margins that follow from them. A judge without information whose labels are probabilities
    gives a margin of 0."""
    by_model = pc.is_in(judgments["method"], pa.array(["model", "panel"]))
    rows = {row["id"]: row for row in judgments.filter(by_model).to_pylist()}
    members: dict[tuple[Any, ...], list[JsonObject]] = {}
    for row in rows.values():
        if row["method"] == "model":
            members.setdefault(tuple(row[name] for name in _COMPARISON_KEY), []).append(
                row
            )
    probabilities, margins = [], []
    for pair in pairs.select(
        ["judgment_id", "chosen_id", "p_chosen", "label"]
    ).to_pylist():
        row = rows.get(pair["judgment_id"])
        p_a = row and reliability.calibrated_label(
            row, members.get(tuple(row[name] for name in _COMPARISON_KEY), []), noise
        )
        p = (
            None
            if row is None or p_a is None
            else p_a
            if row["a"] == pair["chosen_id"]
            else 1 - p_a
        )
        probabilities.append(p)
        graded = row is not None and row["p_ab"] is not None
        graded_margin = (
            0.0
            if row is not None and row["role"] in uninformed
            else margin(pair["p_chosen"])
        )
        margins.append(
            0.0
            if pair["label"] == "tie"
            else graded_margin
            if p is None and graded
            else margin(p)
        )
    for name, values in (("p_calibrated", probabilities), ("margin", margins)):
        index = pairs.schema.get_field_index(name)
        pairs = pairs.set_column(
            index, pairs.schema.field(index), pa.array(values, pa.float64())
        )
    return pairs


_COMPARISON_KEY = ("a", "b", "dimension", "persona_id", "profile_shown")


def _prefixes(branch: Branch) -> dict[int, tuple[Message, ...]]:
    """Messages that the candidates of each turn reply to, by turn."""
    prefixes: dict[int, tuple[Message, ...]] = {}
    history: tuple[Message, ...] = ()
    for turn in branch.turns:
        prefixes[turn.number] = (*history, Message("user", turn.user))
        history = (*prefixes[turn.number], *continued_answer(turn))
    return prefixes


def _parents(branch: Branch) -> dict[int, str | None]:
    """Id of the answer that the user message of each turn replies to, by turn."""
    return {0: None} | {turn.number + 1: turn.continued for turn in branch.turns}
