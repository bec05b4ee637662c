"""The files in `schemas/`: JSON Schemas of the YAML inputs and of the output tables, generated
from the code.

`python -m simforge.dataset.schemas` writes them; a test compares them with the code.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa

from simforge import catalog
from simforge.catalog.documents import Strict
from simforge.catalog.templates import FrontMatter
from simforge.dataset import tables
from simforge.personas.pack import Pack
from simforge.personas.spaces import Space
from simforge.recipe.behavior import WritingStyle
from simforge.recipe.schema import Recipe
from simforge.types import JsonObject

DIALECT = "https://json-schema.org/draft/2020-12/schema"


INPUT_MODELS: dict[str, type[Strict]] = {
    "pipeline": Recipe,
    "pack": Pack,
    "space": Space,
    "writing": WritingStyle,
    "generator": FrontMatter,
}
"Models of the files that users write, by schema name."


TRAIT_SCHEMA = {
    "type": ["string", "integer", "number", "boolean", "null"],
    "description": "A trait that the pack defines, with the type that it declares.",
}
"Schema of additional columns of `personas`: each pack has its own."


def render() -> dict[str, str]:
    """The text of every schema file, by name."""
    schemas_by_name: dict[str, JsonObject] = {
        name: {"$schema": DIALECT, **model.model_json_schema()}
        for name, model in INPUT_MODELS.items()
    }
    schemas_by_name |= {
        name: row_schema(name, schema)
        for name, schema in tables.published_schemas({"traits": {}}).items()
    }
    schemas_by_name["personas"]["additionalProperties"] = TRAIT_SCHEMA
    return {
        name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in schemas_by_name.items()
    }


def row_schema(table: str, schema: pa.Schema) -> JsonObject:
    """JSON Schema of one row of a table."""
    properties = {
        field.name: {**_type_schema(field.type), "description": _description(field)}
        for field in schema
    }
    return {
        "$schema": DIALECT,
        "title": f"A row of {table}",
        "type": "object",
        "properties": properties,
        "required": list(schema.names),
        "additionalProperties": False,
    }


def _type_schema(kind: pa.DataType) -> JsonObject:
    if pa.types.is_list(kind):
        return {"type": "array", "items": _type_schema(kind.value_type)}
    if pa.types.is_struct(kind):
        return {
            "type": ["object", "null"],
            "properties": {field.name: _type_schema(field.type) for field in kind},
        }
    if pa.types.is_date(kind):
        return {"type": ["string", "null"], "format": "date"}
    name = {pa.string(): "string", pa.bool_(): "boolean", pa.float64(): "number"}.get(
        kind, "integer"
    )
    return {"type": [name, "null"]}


def _description(field: pa.Field) -> str:
    return str(field.metadata[b"description"].decode())


def main() -> None:
    folder = Path(catalog.root()) / "schemas"
    for name, text in render().items():
        (folder / f"{name}.schema.json").write_text(text, encoding="utf-8")
    print(f"{len(render())} schemas are in {folder}")


if __name__ == "__main__":
    main()
