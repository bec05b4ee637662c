"""A million preference rows: written, validated and loaded.

uv run python tests/bench/rows.py [ROWS]

The rows are those of a scripted run, over and over under other ids, in tables whose keys fit
each other. Each step runs in a process of its own, so that its peak of memory is its own.
Prints rows a second and MiB at most; the figures of a plain `pyarrow` write of the same rows
stand beside it, since machines differ.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

IDS = (
    "id",
    "parent",
    "persona_id",
    "dialogue_id",
    "chosen_id",
    "rejected_id",
    "judgment_id",
    "a",
    "b",
)


def again(table: pa.Table, number: int) -> pa.Table:
    """The same rows under other ids."""
    for name in IDS:
        if name in table.schema.names:
            place = table.schema.get_field_index(name)
            other = pc.binary_join_element_wise(
                table[name], pa.scalar(f"{number:05}"), ""
            )
            table = table.set_column(place, table.schema.field(place), other)
    return table


def write(run: Path, out: Path, rows: int) -> dict[str, float]:
    from simforge.dataset import tables
    from simforge.dataset.parquet import TableWriter
    from simforge.identity import file_sha256

    copied = {
        name: pq.read_table(
            run / f"data/{name}/train-00000-of-00001.parquet", schema=schema
        )
        for name, schema in tables.SCHEMAS.items()
    }
    copied["personas"] = pq.read_table(
        run / "data/personas/train-00000-of-00001.parquet"
    )
    copies = -(-rows // copied["preferences"].num_rows)
    writer, seconds = TableWriter(out / "data"), 0.0
    for number in range(copies):
        for name, table in copied.items():
            copy = again(table, number)
            for batch in copy.to_batches(
                max_chunksize=500
            ):  # about what a shard brings
                start = time.perf_counter()
                writer.add(
                    name, pa.Table.from_batches([batch]), ["train"] * batch.num_rows
                )
                seconds += (time.perf_counter() - start) * (name == "preferences")
    counts = writer.close({name: table.schema for name, table in copied.items()})
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["counts"] = counts
    manifest["files"] = {
        path.relative_to(out).as_posix(): {
            "sha256": file_sha256(path),
            "bytes": path.stat().st_size,
            "rows": pq.read_metadata(path).num_rows,
        }
        for path in sorted(out.glob("data/*/*.parquet"))
    }
    (out / "manifest.json").write_text(json.dumps(manifest))
    done = counts["preferences"]["train"]
    return {"rows": done, "rows/s": done / seconds}


def plain(run: Path, out: Path, rows: int) -> dict[str, float]:
    table = pq.read_table(run / "data/preferences/train-00000-of-00001.parquet")
    copies = min(8, -(-rows // table.num_rows))
    with pq.ParquetWriter(
        out / "plain.parquet", table.schema, compression="zstd"
    ) as file:
        start = time.perf_counter()
        for _ in range(copies):
            file.write_table(table, row_group_size=5_000)
        return {"rows/s": copies * table.num_rows / (time.perf_counter() - start)}


def seal(run: Path, out: Path, rows: int) -> dict[str, float]:
    """What sealing does with pairs before it writes them: margins from the judges' noise,
    near-duplicates, counts."""
    from simforge.dataset import tables
    from simforge.dataset.duplicates import DuplicateFilter

    pairs = pq.read_table(
        run / "data/preferences/train-00000-of-00001.parquet",
        schema=tables.SCHEMAS["preferences"],
    )
    judged = pq.read_table(
        run / "data/judgments/train-00000-of-00001.parquet",
        schema=tables.SCHEMAS["judgments"],
    )
    seen, start, done = DuplicateFilter(True), time.perf_counter(), 0
    for number in range(-(-rows // pairs.num_rows)):
        for batch in again(pairs, number).to_batches(max_chunksize=500):
            seen.filter(
                tables.with_calibrated_labels(
                    pa.Table.from_batches([batch]), judged.slice(0, 100), {}
                )
            )
            done += batch.num_rows
    return {"rows": done, "rows/s": done / (time.perf_counter() - start)}


def validate(run: Path, out: Path, rows: int) -> dict[str, float]:
    from simforge.dataset import validation

    start = time.perf_counter()
    found = validation.problems(out)
    assert found == [], found
    return {"s": time.perf_counter() - start}


def load(run: Path, out: Path, rows: int) -> dict[str, float]:
    import simforge

    start = time.perf_counter()
    data = simforge.load(out)
    return {"rows": data.num_rows, "s": time.perf_counter() - start}


def stream(run: Path, out: Path, rows: int) -> dict[str, float]:
    import simforge

    start = time.perf_counter()
    count = sum(1 for _ in simforge.load(out, view="trl_preference", streaming=True))
    return {"rows": count, "rows/s": count / (time.perf_counter() - start)}


STEPS = {
    "plain pyarrow": plain,
    "seal": seal,
    "write": write,
    "validate": validate,
    "load": load,
    "stream a view": stream,
}


def main(rows: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        run, out = Path(scratch) / "run", Path(scratch) / "out"
        out.mkdir()
        command = [
            sys.executable,
            "-m",
            "simforge",
            "generate",
            "psoup",
            "--personas",
            "2000",
            "--model",
            "scripted:",
        ]
        subprocess.run(
            [*command, "--set", "splits={}", "--out", run],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        for name in STEPS:
            arguments = [sys.executable, __file__, name, run, out, str(rows)]
            print(
                subprocess.run(
                    arguments, check=True, stdout=subprocess.PIPE, text=True
                ).stdout,
                end="",
                flush=True,
            )
        size = sum(path.stat().st_size for path in out.glob("data/*/*"))
        files = [path.stat().st_size for path in out.glob("data/*/*.parquet")]
        print(
            f"{size / 1e6:,.0f} MB in {len(files)} files, the largest {max(files) / 1e6:,.0f} MB"
        )


if __name__ == "__main__":
    if len(sys.argv) > 2:
        name, run, out, rows = sys.argv[1:]
        found = STEPS[name](Path(run), Path(out), int(rows))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{name:14}",
            " ".join(f"{key} {value:,.1f}" for key, value in found.items()),
            f"peak {peak:,.0f} MiB",
        )
        sys.exit()
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
