"""The command audit."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from simforge.cli.arguments import Commands
from simforge.cli.output import say
from simforge.errors import UsageError
from simforge.types import JsonObject


def add_to(commands: Commands) -> None:
    """The command that measures the quality of any dataset, whoever made it."""
    audit = commands.add_parser(
        "audit",
        help="measure how personal a dataset's preferences are, and what else determines them",
        allow_abbrev=False,
    )
    audit.add_argument(
        "source",
        help="a run folder, a URL, OWNER/NAME@X.Y.Z, or any .parquet, .jsonl, .json or .csv file, "
        "also with .gz",
    )
    audit.add_argument(
        "--columns", nargs="+", default=[], metavar="NAME=COLUMN",
        help="columns of a file that SimForge did not make: prompt, chosen, rejected, "
             "persona, profile (A+B for several), wish, dimension, chosen_model, "
             "rejected_model; or a, b and label (which is better); X.Y for a nested value",
    )  # fmt: skip
    audit.add_argument(
        "--again",
        metavar="RUN",
        help="another run with the same people, to measure how consistent they are",
    )
    audit.add_argument(
        "--trusted",
        type=Path,
        metavar="FILE",
        help="labels known to be right or wrong: a table with the columns id and right",
    )
    audit.add_argument(
        "--benchmark",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="benchmark prompts to check for overlap",
    )
    audit.add_argument(
        "--human",
        type=Path,
        metavar="FILE",
        help="dialogues of real people, one a row in a column messages, to compare the users with",
    )
    audit.add_argument(
        "--probe",
        action="store_true",
        help="ask the user model how its people react to wrong answers (60 calls)",
    )
    audit.add_argument(
        "--model",
        metavar="REF",
        help="with --probe, the model that plays the people, if it needs a key or is Python code "
        "(default: the model that the dataset names)",
    )
    audit.add_argument(
        "--scorers",
        nargs="+",
        metavar="FAMILY",
        help="text, embeddings (default: both; the latter take most of the time)",
    )
    audit.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where audit.json and report.html go (default: the run folder, or AUDIT)",
    )
    audit.set_defaults(command=_audit)


def _audit(options: argparse.Namespace) -> int:
    from simforge import audit
    from simforge.audit import sections
    from simforge.audit.report.page import sample_rows, write
    from simforge.dataset.audit_files import add_audit, write_standalone_audit
    from simforge.hub import loading

    columns = dict(
        assignment.split("=", 1) for assignment in options.columns if "=" in assignment
    )
    if len(columns) < len(options.columns):
        raise UsageError(
            "--columns takes NAME=COLUMN, for example --columns persona=user_id chosen=better."
        )
    audit_options = sections.AuditOptions(
        columns,
        options.again,
        options.trusted,
        tuple(options.benchmark),
        options.human,
        options.probe,
        options.model,
        tuple(options.scorers) if options.scorers else sections.FAMILIES,
    )
    with loading.read_errors(options.source):
        results = audit.audit(options.source, audit_options)
        sample = sample_rows(options.source, columns)
    run = Path(options.source)
    if (run / "manifest.json").is_file() and options.out is None:
        results_path = add_audit(run, results)
    else:
        results_path = write_standalone_audit(options.out or Path("AUDIT"), results)
    report_path = write(results_path.parent, results, sample)
    for line in _reading_notes(results):
        say(line)
    for finding in results["verdict"]:
        say(f"{finding['weight']:5}  {finding['text']}")
    for option, given, figure in (
        ("--human", options.human, results["dialogues"]["realism"]),
        ("--probe", options.probe, results["push_back"]["wrong"]),
        ("--trusted", options.trusted, results["certified"]["coverage"]),
        ("--again", options.again, results["consistency"]["same"]),
    ):
        reason = figure.get("not_measured") or figure.get("characters", {}).get(
            "not_measured"
        )
        if given and reason:
            say(f"none   {option} gave no result: {reason}.")
    say(f"To read: {report_path}. All figures are in {results_path}.")
    return 0


def _reading_notes(results: JsonObject) -> Iterator[str]:
    """Lines about the rows that were not used."""
    left_out = results["left_out"]
    if left_out:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
        total = sum(left_out.values())
        yield f"left out  {total:,} of {results['rows']:,} rows: {reasons}"
