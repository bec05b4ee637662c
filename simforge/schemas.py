"""The files in `schemas/`: JSON Schema of what the YAML may say and of what comes out, generated from the code.

python -m simforge.schemas      writes them; a test compares
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from simforge import catalog, records
from simforge.conduct import Writing
from simforge.config import Recipe
from simforge.documents import Strict
from simforge.generators import FrontMatter
from simforge.personas import Pack
from simforge.preferences import Space

DIALECT = "https://json-schema.org/draft/2020-12/schema"
INPUTS: dict[str, type[Strict]] = {
    "pipeline": Recipe,
    "pack": Pack,
    "space": Space,
    "writing": Writing,
    "generator": FrontMatter,
}
"What people write, by the name of its schema."
TRAIT = {"type": ["string", "integer", "number", "boolean", "null"], "description": "A trait of the pack, as its type."}
"Further columns of `personas`: each pack has its own."


def render() -> dict[str, str]:
    """Every schema file's text, by name."""
    found: dict[str, dict[str, Any]] = {
        name: {"$schema": DIALECT, **model.model_json_schema()} for name, model in INPUTS.items()
    }
    found |= {name: row_schema(name, schema) for name, schema in records.published({"traits": {}}).items()}
    found["personas"]["additionalProperties"] = TRAIT
    return {name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in found.items()}


def row_schema(table: str, schema: pa.Schema) -> dict[str, Any]:
    """JSON Schema of one row of a table."""
    properties = {field.name: {**_of(field.type), "description": _about(field)} for field in schema}
    return {
        "$schema": DIALECT,
        "title": f"A row of {table}",
        "type": "object",
        "properties": properties,
        "required": list(schema.names),
        "additionalProperties": False,
    }


def _of(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(kind):
        return {"type": "array", "items": _of(kind.value_type)}
    if pa.types.is_struct(kind):
        return {"type": ["object", "null"], "properties": {field.name: _of(field.type) for field in kind}}
    if pa.types.is_date(kind):
        return {"type": ["string", "null"], "format": "date"}
    name = {pa.string(): "string", pa.bool_(): "boolean", pa.float64(): "number"}.get(kind, "integer")
    return {"type": [name, "null"]}


def _about(field: pa.Field) -> str:
    return str(field.metadata[b"description"].decode())


def main() -> None:
    folder = Path(catalog.root()) / "schemas"
    for name, text in render().items():
        (folder / f"{name}.schema.json").write_text(text, encoding="utf-8")
    print(f"{len(render())} schemas are in {folder}")


if __name__ == "__main__":
    main()
