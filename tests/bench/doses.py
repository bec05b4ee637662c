"""The planted-dose table: bits of personal preference in truth, and as the audit measures them.

    uv run python tests/bench/doses.py [PAIRS]

Pairs of answers whose labels follow planted utilities, of which a known share is personal
(tests/planted_pairs.py), are audited as anybody's data. Prints truth and measurement, by
prompts and by people held out, with other people's profiles beside them, and the seconds that
it takes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from planted_pairs import planted

from simforge import audit
from simforge.audit import sections


def main(pairs: int) -> None:
    print(
        "dose   truth   prompts held out (95 %)        people held out   of others   seconds"
    )
    with tempfile.TemporaryDirectory() as scratch:
        for dose in (0.0, 0.25, 0.5, 0.75, 1.0):
            frame, truth = planted(dose, pairs)
            path = Path(scratch) / f"{dose}.parquet"
            frame.write_parquet(path)
            start = time.perf_counter()
            found = audit.audit(
                str(path),
                sections.AuditOptions(
                    columns={"profile": "first+second"}, families=("text",)
                ),
            )
            took = time.perf_counter() - start
            by = found["information"]["text"]
            bits, people = by["prompts"]["bits"], by["people"]["bits"]["value"]
            low, high = bits["interval"]
            others = max(one["shuffled"]["value"] for one in by.values())
            print(
                f"{dose:4.2f}   {truth:5.3f}   {bits['value']:6.3f} ({low:6.3f} to "
                f"{high:6.3f})       {people:6.3f}"
                f"            {others:6.3f}      {took:5.1f}"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 6_000)
