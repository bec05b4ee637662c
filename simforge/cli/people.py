"""Commands around persona packs and preference spaces: personas sample, check, show, grow."""

from __future__ import annotations

import argparse
from pathlib import Path

from simforge.cli.arguments import Commands, parse_count, parse_positive
from simforge.cli.output import say
from simforge.errors import UsageError


def add_to(commands: Commands) -> None:
    personas = commands.add_parser(
        "personas", help="inspect and sample persona packs", allow_abbrev=False
    )
    actions = personas.add_subparsers(required=True, metavar="ACTION")
    sample = actions.add_parser(
        "sample", help="draw people from a pack", allow_abbrev=False
    )
    sample.add_argument("pack", help="name or path")
    sample.add_argument(
        "-n",
        type=parse_count,
        default=10,
        metavar="N",
        help="how many: 500, 10k, 1.5M (default: 10)",
    )
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="a .parquet, .jsonl or .csv file (default: print them)",
    )
    sample.add_argument(
        "--space",
        metavar="NAME",
        help="also draw their profiles in this preference space",
    )
    sample.add_argument(
        "--model",
        metavar="REF",
        help="the writer model, for packs with parts that a model writes",
    )
    sample.set_defaults(command=_sample)
    check = actions.add_parser(
        "check",
        help="compare what a pack declares with a sample of it; exit status 1 if they "
        "differ by more than noise",
        allow_abbrev=False,
    )
    check.add_argument("pack", help="name or path")
    check.add_argument(
        "-n",
        type=parse_count,
        default=100_000,
        metavar="N",
        help="people to draw (default: 100k)",
    )
    check.add_argument("--seed", type=int, default=0)
    check.add_argument("--json", action="store_true", help="print everything as JSON")
    check.set_defaults(command=_check)
    show = actions.add_parser(
        "show", help="print the JSON Schema of a pack's people", allow_abbrev=False
    )
    show.add_argument("pack", help="name or path")
    show.set_defaults(command=_show_schema)
    grow = actions.add_parser(
        "grow",
        help="have a model add preferences to a space of the kind `hierarchy`",
        allow_abbrev=False,
    )
    grow.add_argument("space", help="name or path")
    grow.add_argument(
        "--to",
        type=parse_positive,
        required=True,
        metavar="K",
        help="target number of preferences in each subdimension",
    )
    grow.add_argument("--model", required=True, metavar="REF", help="the writer model")
    grow.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="the grown space, a .yaml file",
    )
    grow.add_argument("--seed", type=int, default=0)
    grow.set_defaults(command=_grow)


def _sample(options: argparse.Namespace) -> int:
    from simforge.personas.cast import CAST_SUFFIXES
    from simforge.personas.files import write_cast
    from simforge.run import casting

    if options.out is not None and options.out.suffix not in CAST_SUFFIXES:
        raise UsageError(
            f"--out {options.out}: people are written as {', '.join(CAST_SUFFIXES)}."
        )
    cast = casting.sample_people(
        options.pack, options.n, options.seed, options.space, options.model, options.out
    )
    rejections = cast.rejections
    if rejections.failed_conditions or rejections.quota_full:
        reasons = (
            f"{rejections.failed_conditions} fail a condition of `where`, "
            f"{rejections.quota_full} found their quota full"
        )
        say(
            f"{rejections.failed_conditions + rejections.quota_full} of "
            f"{rejections.candidates} candidates were passed over: {reasons}",
            error=True,
        )
    if rejections.incomplete:
        say(
            f"{rejections.incomplete} rows of the people's file lack a value and are left out",
            error=True,
        )
    if rejections.unwritten:
        say(
            f"{rejections.unwritten} people could not be written and are left out",
            error=True,
        )
    if options.out is None:
        for index in range(min(len(cast), 50)):
            say(cast.text(index))
            if cast.profiles is not None:
                profile = cast.profiles[index]
                wants = zip(profile["names"], profile["values"], strict=True)
                say("    " + ", ".join(f"{name}: {value}" for name, value in wants))
        if len(cast) > 50:
            say(f"… and {len(cast) - 50} more; --out FILE.parquet writes them all")
        return 0
    try:
        write_cast(cast, options.out)
    except OSError as problem:
        raise UsageError(
            f"--out {options.out} cannot be written: {problem.strerror or problem}."
        ) from None
    say(f"{len(cast)} people are in {options.out}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from simforge.personas import check
    from simforge.personas.loader import load_pack

    result = check.check_sampling(load_pack(options.pack), options.n, options.seed)
    if options.json:
        import json
        from dataclasses import asdict

        say(
            json.dumps(
                {**asdict(result), "holds": result.all_within_limit},
                indent=2,
                ensure_ascii=False,
            )
        )
    else:
        say(check.format_check(result, options.pack))
    return 0 if result.all_within_limit else 1


def _show_schema(options: argparse.Namespace) -> int:
    import json

    from simforge.personas.loader import load_pack

    say(json.dumps(load_pack(options.pack).json_schema(), indent=2, ensure_ascii=False))
    return 0


def _grow(options: argparse.Namespace) -> int:
    from simforge.run import casting

    if options.out.exists():
        raise UsageError(f"{options.out} exists: choose another place with --out.")
    added = casting.grow_space(
        options.space, options.to, options.model, options.seed, options.out
    )
    say(f"{added} preferences were added; the space is in {options.out}")
    return 0
