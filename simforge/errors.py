"""All exceptions that SimForge raises on purpose, as one small tree.

    SimForgeError
    ├── UsageError            wrong command or input; nothing was started        exit 2
    │   ├── RecipeError       mistakes in YAML or a generator, all of them at once
    │   ├── NotFound          no such pipeline, pack, generator, model, role
    │   ├── SourceError       a file of prompts or people that cannot be used
    │   └── RunFolderError    the run folder belongs to something else, or cannot be written
    ├── HubError              the Hub refuses, or cannot be reached              exit 2
    ├── ModelError            a model is not available, or does not work         exit 2
    │   └── CallFailed        one call failed: the dialogue becomes a discard
    │       └── MalformedReply    its answer is not what the protocol says
    └── RunStopped            a run that ended early and can be resumed
        ├── TooManyFailures                                                      exit 3
        ├── BudgetReached                                                        exit 4
        ├── EndpointDown      an endpoint went down during the run               exit 3
        ├── ClusterLost       no worker is left, and none can be started         exit 3
        └── Interrupted                                                          exit 130

A message is one or two sentences with the name, the value, the choices and the fix. Any other
exception is a bug, and is shown as one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


class SimForgeError(Exception):
    """The base class. `exit_status` is the exit status of the command line."""

    exit_status = 2


class UsageError(SimForgeError):
    """The command or one of its inputs is wrong; nothing was started."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in a file, and its position."""

    file: str
    line: int | None
    "1-based; `None` if the mistake is on no line (an option, a missing key at the root)."
    path: str
    "Keys from the root, such as `candidates.conditions.1`."
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return (
            f"{place}: {self.path}: {self.message}"
            if self.path
            else f"{place}: {self.message}"
        )


class RecipeError(UsageError):
    """All mistakes of one or more files."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(
            sorted(mistakes, key=lambda mistake: (mistake.file, mistake.line or 0))
        )
        super().__init__(self.mistakes)

    def __str__(self) -> str:
        count = len(self.mistakes)
        head = "1 mistake" if count == 1 else f"{count} mistakes"
        return "\n".join(
            [
                f"{head}, nothing was started:",
                *(f"  {mistake}" for mistake in self.mistakes),
            ]
        )


class NotFound(UsageError):
    """An unknown name; the message suggests the closest ones."""

    def __init__(
        self, kind: str, name: str, choices: Iterable[str], hint: str = ""
    ) -> None:
        self.kind, self.name, self.choices, self.hint = (
            kind,
            name,
            tuple(sorted(choices)),
            hint,
        )
        super().__init__(kind, name, self.choices, hint)

    def __str__(self) -> str:
        message = f"there is no {self.kind} named {self.name!r}{suggest(self.name, self.choices)}"
        return f"{message}{'' if message.endswith('?') else '.'} {self.hint}".strip()


class SourceError(UsageError):
    """A file of prompts or people that cannot be used."""


class RunFolderError(UsageError):
    """The run folder belongs to another recipe, or cannot be written."""


class HubError(SimForgeError):
    """The Hub refuses, or cannot be reached; the message is the Hub's own."""


class ModelError(SimForgeError):
    """A model is not available, or does not work."""


class CallFailed(ModelError):
    """One call failed; the dialogue it belongs to becomes a discard."""


class MalformedReply(CallFailed):
    """The server's answer is not what its protocol says."""


class RunStopped(SimForgeError):
    """A run that ended early; the same command resumes it."""


class TooManyFailures(RunStopped):
    """More scenarios were lost than `--max-failures` allows."""

    exit_status = 3


class BudgetReached(RunStopped):
    """`--budget` is spent."""

    exit_status = 4


class EndpointDown(RunStopped):
    """An endpoint that answered before can no longer be reached."""

    exit_status = 3


class ClusterLost(RunStopped):
    """No worker can be started on the Ray cluster any more."""

    exit_status = 3


class Interrupted(RunStopped):
    """The user stopped the run."""

    exit_status = 130


def suggest(name: str, choices: Iterable[str]) -> str:
    """Return the suggestion to append after an unknown name: the closest names, or all if there
    are few."""
    choices = list(choices)
    close = difflib.get_close_matches(name, choices, n=3, cutoff=0.55)
    if close:
        return f"; did you mean {' or '.join(repr(choice) for choice in close)}?"
    if choices and len(choices) <= 20:
        return f"; there are: {', '.join(sorted(choices))}"
    return ""
