"""The command line.

Each command parses its arguments, calls one function of the package, and turns errors into
messages and exit statuses: 0 done; 1 a check failed; 2 wrong usage or configuration, nothing
started; 3 too many failures; 4 budget reached; 130 interrupted. Heavy modules are imported only
by the commands that need them, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from simforge import __version__
from simforge.cli import audits, catalogue, people, runs, versions
from simforge.cli.arguments import Parser, shell_quote
from simforge.cli.output import replace_unencodable, say
from simforge.errors import BudgetReached, Interrupted, RunStopped, SimForgeError

DEBUG = "SIMFORGE_DEBUG"
"Variable that, if set, shows the traceback of every error."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    argument_list = list(sys.argv[1:] if arguments is None else arguments)
    replace_unencodable(sys.stdout, sys.stderr)
    options = _parser().parse_args(argument_list)
    try:
        return int(options.command(options) or 0)
    except RunStopped as stopped:
        command = "uv run simforge" if "UV" in os.environ else "simforge"
        again = f"{command} {' '.join(map(shell_quote, argument_list))}"
        advice = (
            f"To continue, run it with a higher --budget: {again}"
            if isinstance(stopped, BudgetReached)
            else f"To continue, run: {again}"
        )
        say(f"simforge: {stopped}\n{advice}", error=True)
        if isinstance(stopped, Interrupted) and arguments is None:
            os._exit(
                stopped.exit_status
            )  # an interrupted engine prints long errors when it is shut down
        return stopped.exit_status
    except SimForgeError as problem:
        say(f"simforge: {problem}", error=True)
        return problem.exit_status
    except KeyboardInterrupt:
        say("simforge: interrupted.", error=True)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as problem:
        if DEBUG in os.environ or not _is_about_input(problem):
            raise
        reason = str(problem).split("\n")[0][:300] or type(problem).__name__
        say(
            f"simforge: a file or a server gave something that cannot be used: {reason} "
            f"({type(problem).__name__}). {DEBUG}=1 shows where.",
            error=True,
        )
        return 2


def _is_about_input(problem: Exception) -> bool:
    """Return whether an exception comes from what a file or a server holds. Each reader raises
    its own errors, so this is for what they do not foresee; any other exception is a bug."""
    library = type(problem).__module__.partition(".")[0]
    return library in ("polars", "pyarrow", "aiohttp", "httpx", "fsspec") or isinstance(
        problem, OSError | RecursionError | MemoryError | UnicodeError
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="simforge",
        description="Personalised preference data from simulated users.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="version", version=f"simforge {__version__}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (runs, people, versions, audits, catalogue):
        group.add_to(commands)
    return parser
