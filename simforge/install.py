"""How to install what an optional part of SimForge needs.

The distribution is called `simforge-prefs`, since the name `simforge` on the package index belongs
to another project. Every message that tells somebody to install something gets its words here.
"""

from __future__ import annotations

import sys
from pathlib import Path

DISTRIBUTION = "simforge-prefs"
"Name of the distribution; the package and the command are called `simforge`."


def isolated_python(*arguments: str) -> list[str]:
    """A command line of this Python that imports nothing from its working folder, where
    anybody's `pip.py` may lie."""
    return [sys.executable, "-P", *arguments]


def how_to_install(extra: str) -> str:
    """The words that say how to add an extra, as they end a sentence."""
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").is_file():
        return f"in the checkout, uv sync --extra {extra} installs it"
    return f'python -m pip install "{DISTRIBUTION}[{extra}]" installs it'
