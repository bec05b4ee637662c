"""Croissant: the dataset's metadata in the vocabulary that catalogues and loaders of data share (MLCommons, Croissant
1.0, on schema.org), as `croissant.json` beside the card.

Every file with its digest, and every table as a record set with its columns: what `mlcroissant` reads.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from simforge import records
from simforge.card import Release

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "croissant.json"
PARQUET = "application/x-parquet"
TYPES = {"string": "sc:Text", "bool": "sc:Boolean", "double": "sc:Float", "date32[day]": "sc:Date"}
"By Arrow's names; the others are integers."
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"The names as Croissant 1.0 has them."


def render(manifest: dict[str, Any], release: Release | None = None) -> str:
    """The metadata of a dataset, from its manifest; of a version on the Hub it says which one it is."""
    licence, rows = manifest["licence"], manifest["counts"]
    tables = {name: schema for name, schema in records.published(manifest).items() if sum(rows[name].values())}
    found: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": release.name if release else f"simforge-{manifest['digest'][:12]}",
        "description": " ".join(manifest["recipe"]["description"].split()),
        "version": release.version if release else "0.0.0",
        "citeAs": f"A dataset made with SimForge {manifest['simforge']}, digest {manifest['digest']}",
        **({"license": licence["row"]} if licence["row"] != "other" else {}),
        "keywords": ["synthetic", "preference", "personalization", "simforge"],
        "creator": {"@type": "sc:Organization", "name": f"SimForge {manifest['simforge']}"},
        "distribution": [*_files(manifest), *map(_set, tables)],
        "recordSet": [_rows(table, schema) for table, schema in tables.items()],
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _files(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "@type": "cr:FileObject",
            "@id": path,
            "name": path,
            "contentUrl": path,
            "contentSize": f"{about['bytes']} B",
            "encodingFormat": PARQUET,
            "sha256": about["sha256"],
        }
        for path, about in manifest["files"].items()
    ]


def _set(table: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{table}-files",
        "name": f"{table}-files",
        "encodingFormat": PARQUET,
        "includes": f"data/{table}/*.parquet",
    }


def _rows(table: str, schema: pa.Schema) -> dict[str, Any]:
    fields = []
    for column in schema:
        source = {"fileSet": {"@id": f"{table}-files"}, "extract": {"column": column.name}}
        about = column.metadata[b"description"].decode()
        fields.append(_field(f"{table}/{column.name}", column.type, source) | {"description": about})
    return {"@type": "cr:RecordSet", "@id": table, "name": table, "field": fields}


def _field(key: str, kind: pa.DataType, source: dict[str, Any]) -> dict[str, Any]:
    """A field, with those inside it: of a list each element has them."""
    import pyarrow as pa

    found: dict[str, Any] = {"@type": "cr:Field", "@id": key, "name": key}
    if pa.types.is_list(kind):
        found, kind = {**found, "repeated": True}, kind.value_type
    if not pa.types.is_struct(kind):
        return {**found, "dataType": TYPES.get(str(kind), "sc:Integer"), "source": source}
    inside = [
        _field(f"{key}/{one.name}", one.type, {**source, "transform": {"jsonPath": f"$.{one.name}"}}) for one in kind
    ]
    return {**found, "subField": inside}
