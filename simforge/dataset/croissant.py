"""Dataset metadata in the MLCommons Croissant 1.0 vocabulary (on schema.org), written as
`croissant.json` beside the card.

It lists every file with its digest, and every table as a record set with its columns, for
readers such as `mlcroissant`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from simforge.dataset import tables
from simforge.dataset.card import Release
from simforge.dataset.manifest import Manifest
from simforge.types import JsonObject

if TYPE_CHECKING:
    import pyarrow as pa


FILE_NAME = "croissant.json"


PARQUET_MIME_TYPE = "application/x-parquet"


DATA_TYPES = {
    "string": "sc:Text",
    "bool": "sc:Boolean",
    "double": "sc:Float",
    "date32[day]": "sc:Date",
}
"Croissant data types by Arrow type name; all other types are integers."


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
"JSON-LD context of Croissant 1.0."


def render(manifest: Manifest, release: Release | None = None) -> str:
    """Render the metadata of a dataset from its manifest; `release` adds its name and
    version."""
    licence, rows = manifest["licence"], manifest["counts"]
    schemas = {
        name: schema
        for name, schema in tables.published_schemas(manifest).items()
        if sum(rows[name].values())
    }
    metadata: JsonObject = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": release.name if release else f"simforge-{manifest['digest'][:12]}",
        "description": " ".join(manifest["recipe"]["description"].split()),
        "version": release.version if release else "0.0.0",
        "citeAs": f"A dataset made with SimForge {manifest['simforge']}, digest "
        f"{manifest['digest']}",
        **({"license": licence["row"]} if licence["row"] != "other" else {}),
        "keywords": ["synthetic", "preference", "personalization", "simforge"],
        "creator": {
            "@type": "sc:Organization",
            "name": f"SimForge {manifest['simforge']}",
        },
        "distribution": [*_file_objects(manifest), *map(_file_set, schemas)],
        "recordSet": [_record_set(table, schema) for table, schema in schemas.items()],
    }
    return json.dumps(metadata, indent=1, ensure_ascii=False) + "\n"


def _file_objects(manifest: Manifest) -> list[JsonObject]:
    return [
        {
            "@type": "cr:FileObject",
            "@id": path,
            "name": path,
            "contentUrl": path,
            "contentSize": f"{about['bytes']} B",
            "encodingFormat": PARQUET_MIME_TYPE,
            "sha256": about["sha256"],
        }
        for path, about in manifest["files"].items()
    ]


def _file_set(table: str) -> JsonObject:
    return {
        "@type": "cr:FileSet",
        "@id": f"{table}-files",
        "name": f"{table}-files",
        "encodingFormat": PARQUET_MIME_TYPE,
        "includes": f"data/{table}/*.parquet",
    }


def _record_set(table: str, schema: pa.Schema) -> JsonObject:
    fields = []
    for column in schema:
        source = {
            "fileSet": {"@id": f"{table}-files"},
            "extract": {"column": column.name},
        }
        about = column.metadata[b"description"].decode()
        fields.append(
            _field(f"{table}/{column.name}", column.type, source)
            | {"description": about}
        )
    return {"@type": "cr:RecordSet", "@id": table, "name": table, "field": fields}


def _field(key: str, data_type: pa.DataType, source: JsonObject) -> JsonObject:
    """Describe a field and its subfields; a list field is marked as repeated."""
    import pyarrow as pa

    description: JsonObject = {"@type": "cr:Field", "@id": key, "name": key}
    if pa.types.is_list(data_type):
        description, data_type = {**description, "repeated": True}, data_type.value_type
    if not pa.types.is_struct(data_type):
        return {
            **description,
            "dataType": DATA_TYPES.get(str(data_type), "sc:Integer"),
            "source": source,
        }
    subfields = [
        _field(
            f"{key}/{child.name}",
            child.type,
            {**source, "transform": {"jsonPath": f"$.{child.name}"}},
        )
        for child in data_type
    ]
    return {**description, "subField": subfields}
