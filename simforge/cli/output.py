"""What commands print: text of others without control characters, on any kind of output."""

from __future__ import annotations

import sys
from typing import TextIO

from simforge.text.printable import printable


def say(text: object = "", error: bool = False, end: str = "\n") -> None:
    """Print a line to standard output, or to standard error."""
    stream = sys.stderr if error else sys.stdout
    print(printable(str(text)), file=stream, end=end, flush=error)


def replace_unencodable(*streams: TextIO) -> None:
    """Make streams show a question mark for a character that they cannot encode."""
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # streams of tests have none
            reconfigure(errors="replace")
