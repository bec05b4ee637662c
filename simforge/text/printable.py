"""Text for the terminal: control characters of models, servers and files are shown, not obeyed.

A terminal obeys escape sequences in what is printed: a title is changed, lines are overwritten,
text is written in the opposite direction. What comes from somebody else is therefore printed with
these characters spelt out.
"""

from __future__ import annotations

import re

_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
"Control characters but line breaks and tabs, and marks that change the direction of writing."


def printable(text: str) -> str:
    """Return a text without control characters; each becomes its number, as in `\\x1b`."""
    return _CONTROLS.sub(_spelt_out, text)


def _spelt_out(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
