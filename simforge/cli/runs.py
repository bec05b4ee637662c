"""Commands around a run: generate, estimate, retry, ledger."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from simforge.cli.arguments import (
    Commands,
    parse_amount,
    parse_count,
    parse_positive,
    parse_share,
)
from simforge.cli.output import say
from simforge.errors import UsageError
from simforge.types import JsonObject

if TYPE_CHECKING:
    from simforge.run.pipeline import Run
    from simforge.run.progress import Display


def add_to(commands: Commands) -> None:
    """Add the commands of this group."""
    _add_generate(commands)
    _add_run_commands(commands)


def _add_generate(commands: Commands) -> None:
    generate = commands.add_parser(
        "generate", help="make a dataset", allow_abbrev=False
    )
    _add_recipe_arguments(generate)
    generate.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the run folder"
    )
    _add_execution_arguments(generate)
    generate.set_defaults(command=_generate)
    estimate = commands.add_parser(
        "estimate",
        help="estimate the calls, tokens and cost of a run",
        allow_abbrev=False,
    )
    _add_recipe_arguments(estimate)
    estimate.set_defaults(command=_estimate)


def _add_run_commands(commands: Commands) -> None:
    """Commands that work on a run folder."""
    retry = commands.add_parser(
        "retry", help="run the failed dialogues of a run again", allow_abbrev=False
    )
    retry.add_argument("run", type=Path, metavar="DIR", help="the run folder")
    retry.set_defaults(command=_retry)
    ledger = commands.add_parser(
        "ledger",
        help="show the replies in a run's ledger and what they cost",
        allow_abbrev=False,
    )
    ledger.add_argument("run", type=Path, metavar="DIR", help="the run folder")
    ledger.add_argument(
        "--prices",
        type=Path,
        metavar="FILE",
        help="YAML: prices per million tokens, by model",
    )
    ledger.set_defaults(command=_ledger)


def _add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that define the dataset."""
    parser.add_argument(
        "pipeline",
        nargs="?",
        default="quickstart",
        help="name from `simforge show pipelines`, or a path (default: quickstart)",
    )
    parser.add_argument(
        "--personas",
        type=parse_count,
        metavar="N",
        help="how many people: 500, 10k, 1.5M (with --cast by default all)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="a different seed gives different people and dialogues (default: 0)",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="[ROLE=]REF",
        help="model for all roles, or for one of user, assistants, judge, writer; REF "
        "is local:NAME, local:PATH.gguf, local:hf/OWNER/REPO/FILE.gguf, "
        "openai:NAME@URL, vllm:NAME or scripted:; repeatable",
    )
    parser.add_argument(
        "--prompts",
        metavar="SOURCE",
        help="prompts: a .jsonl, .csv or .parquet file, or a set that ships with SimForge",
    )
    parser.add_argument(
        "--cast",
        metavar="SOURCE",
        help="use these people: a file written by `personas sample --out`, another run's folder, "
        "or a published version such as OWNER/NAME@1.2.0",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change the recipe, for example dialogue.turns=3; repeatable",
    )
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="HOST=VARIABLE",
        dest="keys",
        help="allow the key in this environment variable to be sent to this host, where only the "
        "recipe names them; repeatable",
    )
    parser.add_argument(
        "--prices",
        type=Path,
        metavar="FILE",
        help="YAML: prices per million tokens, by model",
    )


def _add_execution_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that say how the run is executed; they never change the result."""
    parser.add_argument(
        "--executor",
        choices=("local", "ray"),
        help="where dialogues run (default: local; ray with --ray-address or inside a Ray job)",
    )
    parser.add_argument("--ray-address", metavar="A", help="address of a Ray cluster")
    parser.add_argument(
        "--workers",
        type=parse_positive,
        metavar="N",
        help="workers (default: 1; with ray one per CPU, or one per node for local models)",
    )
    parser.add_argument(
        "--runtime-env",
        type=Path,
        metavar="FILE",
        help="YAML: Ray's runtime environment of workers and servers",
    )
    parser.add_argument(
        "--concurrency",
        type=parse_positive,
        metavar="N",
        help="dialogues in flight in one worker (default: 32 with an embedded model, else 256)",
    )
    parser.add_argument(
        "--max-in-flight",
        type=parse_positive,
        metavar="N",
        help="maximum concurrent calls to each model, over all workers",
    )
    parser.add_argument(
        "--max-tokens-per-minute",
        type=parse_positive,
        metavar="N",
        help="maximum tokens per minute for each model behind an endpoint, over all workers",
    )
    parser.add_argument(
        "--ledger",
        metavar="PLACE",
        help="keep the replies in this folder or URL (s3://bucket/run) instead of the run folder",
    )
    parser.add_argument(
        "--reuse",
        type=Path,
        nargs="+",
        default=[],
        metavar="RUN",
        help="earlier run folders: requests answered in their ledgers are not sent again",
    )
    parser.add_argument(
        "--moved",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="an endpoint has a new URL (the same model): continue the run there; repeatable",
    )
    parser.add_argument(
        "--max-failures",
        type=parse_share,
        default=0.05,
        metavar="SHARE",
        help="share of dialogues that may be lost to failed calls (default: 0.05)",
    )
    parser.add_argument(
        "--budget",
        type=parse_amount,
        metavar="MONEY",
        help="stop before a call that might exceed this (needs --prices)",
    )


def _generate(options: argparse.Namespace) -> int:
    from simforge.run import pipeline
    from simforge.run.options import Options

    display = _start_display()
    run = pipeline.generate(
        Options(
            **_recipe_options(options),
            out=options.out,
            executor=options.executor,
            ray_address=options.ray_address,
            runtime_env=options.runtime_env,
            workers=options.workers,
            concurrency=options.concurrency,
            max_in_flight=options.max_in_flight,
            max_tokens_per_minute=options.max_tokens_per_minute,
            ledger=options.ledger,
            reuse=tuple(options.reuse),
            moved=tuple(options.moved),
            max_failures=options.max_failures,
            budget=options.budget,
        ),
        display,
    )
    _print_ending(run)
    return 0


def _print_ending(run: Run) -> None:
    """Print the summary of a sealed run. It is done, whether or not somebody can read that."""
    from simforge.run.progress import print_summary

    try:
        print_summary(run.path, run.manifest)
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _start_display() -> Display:
    """Set up the progress display, with log messages between its lines, and handle SIGTERM
    and SIGHUP like Ctrl-C. They go through asyncio: an exception raised wherever the process
    happens to be can be lost in a finalizer, and asyncio runs one for each task."""
    from simforge.run.progress import Display

    display = Display()
    logging.basicConfig(handlers=[display.log()], level=logging.WARNING, force=True)
    logging.getLogger("simforge").setLevel(logging.INFO)
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # `nohup` ignores hang-ups on purpose
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    return display


def _recipe_options(options: argparse.Namespace) -> JsonObject:
    """The arguments that define the dataset, as fields of `pipeline.Options`."""
    return {
        "personas": options.personas,
        "pipeline": options.pipeline,
        "seed": options.seed,
        "models": tuple(options.model),
        "prompts": options.prompts,
        "cast": options.cast,
        "overrides": tuple(options.overrides),
        "keys": tuple(options.keys),
        "prices": options.prices,
    }


def _estimate(options: argparse.Namespace) -> int:
    from simforge.run.estimate import estimate_run
    from simforge.run.options import Options

    estimate = estimate_run(Options(**_recipe_options(options), out=Path()))
    say(f"{estimate.dialogues} dialogues, about:")
    for role, usage in estimate.usage.items():
        cost = estimate.cost[role]
        usage_text = (
            f"{usage.calls:>12,} calls {usage.prompt_tokens:>15,} tokens read "
            f"{usage.completion_tokens:>14,} written"
        )
        priced = f" {cost:>12,.2f}" if cost is not None else ""
        say(f"  {role:<11}{usage_text}{priced}  {estimate.references[role]}")
    if estimate.pairs:
        calls = sum(usage.calls for usage in estimate.usage.values()) / estimate.pairs
        tokens = (
            sum(
                usage.prompt_tokens + usage.completion_tokens
                for usage in estimate.usage.values()
            )
            / estimate.pairs
        )
        say(
            f"  at most {estimate.pairs:,} pairs: {calls:.2g} calls and {tokens:,.0f} "
            "tokens for each"
        )
    costs = [cost for cost in estimate.cost.values() if cost is not None]
    if costs:
        unpriced = (
            ""
            if len(costs) == len(estimate.cost)
            else ", plus the models without a price"
        )
        say(f"  together {sum(costs):,.2f}{unpriced}")
    return 0


def _retry(options: argparse.Namespace) -> int:
    from simforge.run import pipeline

    display = _start_display()
    run, lost = pipeline.retry(options.run, display)
    if not lost:
        say(f"{options.run} has no failed dialogues: there is nothing to run again.")
        return 0
    _print_ending(run)
    return 0


def _ledger(options: argparse.Namespace) -> int:
    from simforge.models import ledger
    from simforge.models.budget import load_prices, price_of
    from simforge.run.folder import ledger_location, why_no_ledger

    folder = ledger_location(options.run)
    if isinstance(folder, Path) and not folder.is_dir():
        raise UsageError(f"{options.run}: {why_no_ledger(options.run)}.")
    prices = load_prices(options.prices)
    usage_by_model = ledger.usage_by_model(folder)
    say(
        f"{sum(usage.calls for usage in usage_by_model.values()):,} replies in {folder}"
    )
    for model, usage in sorted(usage_by_model.items()):
        price = price_of(model, prices)
        priced = f"  {price.cost_of(usage):,.2f}" if price is not None else ""
        usage_text = (
            f"{usage.calls:,} replies, {usage.prompt_tokens:,} tokens read, "
            f"{usage.completion_tokens:,} written"
        )
        say(f"  {model}: {usage_text}{priced}")
    return 0
