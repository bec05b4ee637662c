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
from simforge.errors import Interrupted, RunStopped, SimForgeError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    argument_list = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(argument_list)
    try:
        return int(options.command(options) or 0)
    except RunStopped as stopped:
        command = "uv run simforge" if "UV" in os.environ else "simforge"
        print(
            f"simforge: {stopped}\nGo on with: {command} "
            f"{' '.join(map(shell_quote, argument_list))}",
            file=sys.stderr,
            flush=True,
        )
        if isinstance(stopped, Interrupted) and arguments is None:
            os._exit(
                stopped.exit_status
            )  # an interrupted engine prints long errors when it is shut down
        return stopped.exit_status
    except SimForgeError as problem:
        print(f"simforge: {problem}", file=sys.stderr)
        return problem.exit_status
    except KeyboardInterrupt:
        print("simforge: interrupted; nothing was started.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


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
