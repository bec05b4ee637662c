"""Everything that SimForge raises on purpose, as one small tree.

    SimForgeError
    ├── UsageError            wrong command or input; nothing was started        exit 2
    │   ├── RecipeError       mistakes in YAML or a generator, all of them at once
    │   ├── NotFound          no such pipeline, pack, generator, model, role
    │   ├── SourceError       a file of prompts or people that cannot be used
    │   └── RunFolderError    the run folder belongs to something else, or cannot be written
    ├── HubError              the Hub refuses, or cannot be reached              exit 2
    ├── ModelError            a model cannot be had, or does not work            exit 2
    │   └── CallFailed        one call failed: the dialogue becomes a discard
    └── RunStopped            a run that ended early and can go on
        ├── TooManyFailures                                                      exit 3
        ├── BudgetReached                                                        exit 4
        ├── EndpointDown      an endpoint went away during the run               exit 3
        ├── ClusterLost       no worker is left, and none can be had             exit 3
        └── Interrupted                                                          exit 130

A message is one sentence or two that name the thing, the value, the choices and the fix. Anything else that
escapes is a bug, and is shown as one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


class SimForgeError(Exception):
    """The root. `exit_status` is what the command line ends with."""

    exit_status = 2


class UsageError(SimForgeError):
    """The command or one of its inputs is wrong; nothing was started."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong in a file, and where."""

    file: str
    line: int | None
    "1-based; `None` where the mistake is in no line (an option, a missing key at the root)."
    path: str
    "Keys from the root, as `candidates.conditions.1`."
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class RecipeError(UsageError):
    """All the mistakes of one or more files."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(sorted(mistakes, key=lambda mistake: (mistake.file, mistake.line or 0)))
        super().__init__(self.mistakes)

    def __str__(self) -> str:
        count = len(self.mistakes)
        head = "1 mistake" if count == 1 else f"{count} mistakes"
        return "\n".join([f"{head}, nothing was started:", *(f"  {m}" for m in self.mistakes)])


class NotFound(UsageError):
    """A name that is in no list; carries the nearest ones."""

    def __init__(self, kind: str, name: str, choices: Iterable[str], hint: str = "") -> None:
        self.kind, self.name, self.choices, self.hint = kind, name, tuple(sorted(choices)), hint
        super().__init__(kind, name, self.choices, hint)

    def __str__(self) -> str:
        said = f"there is no {self.kind} named {self.name!r}{nearest(self.name, self.choices)}"
        return f"{said}{'' if said.endswith('?') else '.'} {self.hint}".strip()


class SourceError(UsageError):
    """A file of prompts or people that cannot be used."""


class RunFolderError(UsageError):
    """The run folder belongs to another recipe, or cannot be written."""


class HubError(SimForgeError):
    """The Hub refuses, or cannot be reached; in its own words."""


class ModelError(SimForgeError):
    """A model cannot be had, or does not work."""


class CallFailed(ModelError):
    """One call failed; the dialogue it belongs to becomes a discard."""


class RunStopped(SimForgeError):
    """A run that ended early; the same command goes on with it."""


class TooManyFailures(RunStopped):
    """More scenarios were lost than `--max-failures` allows."""

    exit_status = 3


class BudgetReached(RunStopped):
    """`--budget` is spent."""

    exit_status = 4


class EndpointDown(RunStopped):
    """An endpoint that answered before cannot be reached any more."""

    exit_status = 3


class ClusterLost(RunStopped):
    """A Ray cluster on which no worker can be had any more."""

    exit_status = 3


class Interrupted(RunStopped):
    """The user stopped the run."""

    exit_status = 130


def nearest(name: str, choices: Iterable[str]) -> str:
    """What to say after an unknown name: the close ones, or all when they are few."""
    choices = list(choices)
    close = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(repr(c) for c in close)}?"
    if choices and len(choices) <= 20:
        return f"; there are: {', '.join(sorted(choices))}"
    return ""
