"""Parquet files of a dataset: bytes that do not depend on how the rows arrived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROW_GROUP_ROWS = 5_000
"Rows in a row group; independent of the shards, so that sharding does not change the bytes."


PARQUET_OPTIONS = {
    "compression": "zstd",
    "write_page_index": True,
    "use_content_defined_chunking": True,
}
"Parquet options; pages end by content, so that data shared by two versions is uploaded once."


FILE_BYTES = 500_000_000
"Target file size in bytes: a file is closed once it exceeds 90 % of this."


@dataclass(slots=True)
class _SplitWriter:
    """Parquet files of one table and split, written one after the other."""

    folder: Path
    split: str
    schema: pa.Schema
    row_group: int
    file_bytes: int
    written: list[Path] = field(default_factory=list)
    _open: tuple[pq.ParquetWriter, pa.NativeFile] | None = None

    def write(self, group: pa.Table) -> None:
        """Write one row group."""
        writer, sink = self._open or self._start_file()
        if group.num_rows:
            writer.write_table(group, row_group_size=self.row_group)
        if sink.tell() > self.file_bytes * 0.9:
            self._finish_file()

    def close(self) -> None:
        """Give the files their final names, now that their number is known."""
        self._finish_file()
        for number, path in enumerate(self.written):
            path.rename(
                self.folder
                / f"{self.split}-{number:05}-of-{len(self.written):05}.parquet"
            )

    def _start_file(self) -> tuple[pq.ParquetWriter, pa.NativeFile]:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.written.append(self.folder / f".{self.split}-{len(self.written):05}")
        sink = pa.OSFile(str(self.written[-1]), "wb")
        self._open = pq.ParquetWriter(sink, self.schema, **PARQUET_OPTIONS), sink
        return self._open

    def _finish_file(self) -> None:
        for file in self._open or ():
            file.close()
        self._open = None


class TableWriter:
    """Writer of Parquet files by table and split; their layout does not depend on how rows
    arrive."""

    def __init__(
        self, root: Path, row_group: int = ROW_GROUP_ROWS, file_bytes: int = FILE_BYTES
    ) -> None:
        self._root = root
        self._row_group, self._file_bytes = row_group, file_bytes
        self._files: dict[tuple[str, str], _SplitWriter] = {}
        self._waiting: dict[tuple[str, str], list[pa.Table]] = {}
        self._counts: dict[str, dict[str, int]] = {}

    def add(self, name: str, table: pa.Table, splits: Sequence[str]) -> None:
        """Add rows of a table, with the split of each row."""
        for split in dict.fromkeys(splits):
            rows = (
                table.filter(pc.equal(pa.array(splits), split))
                if len(set(splits)) > 1
                else table
            )
            self._waiting.setdefault((name, split), []).append(rows)
            split_counts = self._counts.setdefault(name, {})
            split_counts[split] = split_counts.get(split, 0) + rows.num_rows
            self._flush((name, split), table.schema, whole_groups=True)

    def close(self, schemas: Mapping[str, pa.Schema]) -> dict[str, dict[str, int]]:
        """Write the remaining rows. Every table gets a `train` file, which may be empty.
        Returns the number of rows by table and split."""
        for name, schema in schemas.items():
            self._waiting.setdefault((name, "train"), [])
            self._counts.setdefault(name, {}).setdefault("train", 0)
            for key in [key for key in self._waiting if key[0] == name]:
                self._flush(key, schema, whole_groups=False)
        for files in self._files.values():
            files.close()
        return {name: dict(sorted(self._counts[name].items())) for name in schemas}

    def _flush(
        self, key: tuple[str, str], schema: pa.Schema, whole_groups: bool
    ) -> None:
        waiting = self._waiting[key]
        if whole_groups and sum(table.num_rows for table in waiting) < self._row_group:
            return
        files = self._files.setdefault(
            key,
            _SplitWriter(
                self._root / key[0], key[1], schema, self._row_group, self._file_bytes
            ),
        )
        table = (
            pa.concat_tables(waiting).combine_chunks()
            if waiting
            else schema.empty_table()
        )
        start = 0
        while table.num_rows - start >= (self._row_group if whole_groups else 1):
            files.write(table.slice(start, self._row_group))
            start += self._row_group
        if not files.written:
            files.write(table)
        self._waiting[key] = [table.slice(start)] if start < table.num_rows else []
