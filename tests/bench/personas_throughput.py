"""How fast people are drawn, beside plain Faker in the same run.

    uv run python tests/bench/personas_throughput.py [PACK] [N]

Prints people per second of `personas.sample` (with and without writing the Parquet file), of a
loop over Faker's five usual fields, their ratio, and the peak memory of the whole process.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

from faker import Faker

from simforge.personas.cast import sample_cast
from simforge.personas.files import write_cast
from simforge.personas.loader import load_pack


def main(pack: str = "everyday", n: str = "1000000") -> None:
    people = int(n)
    loaded = load_pack(pack)
    sample_cast(loaded, 1_000, 0)  # Faker's lists are read once per process
    start = time.perf_counter()
    cast = sample_cast(loaded, people, 0)
    drawn = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        write_cast(cast, Path(folder) / "cast.parquet")
    written = time.perf_counter() - start
    fake, fields = Faker("en_US"), 5_000
    start = time.perf_counter()
    for _ in range(fields):
        (fake.name(), fake.job(), fake.city(), fake.date_of_birth(), fake.sentence())
    plain = fields / (time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{pack}, {len(loaded.traits)} traits: {people / drawn:,.0f} people/s; with writing "
        f"{people / written:,.0f}/s"
    )
    print(
        f"plain Faker, five fields: {plain:,.0f} people/s; ratio {people / drawn / plain:,.0f}"
    )
    print(
        f"{people:,} people in {drawn:.1f} s ({written:.1f} s with the file), peak memory "
        f"{memory:.2f} GiB"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
