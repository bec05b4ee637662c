"""What a person sees: a live line while a run goes on, and the ending.

In a terminal the line is redrawn; elsewhere (a log, CI) a plain line is printed now and then. Times and speeds are
shown here and stored nowhere.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from simforge import reliability
from simforge.reliability import DARK
from simforge.shards import Tally
from simforge.types import BROKEN, REASONS, Usage

EVERY = 10.0
"Seconds between plain lines."
WISHES = 4
"Wishes shown of a person."
SAMPLES = 3
"Pairs shown at the end."


class Display:
    """Progress of one run; a `Watch`."""

    def __init__(self, stream: TextIO | None = None) -> None:
        stream = stream or sys.stderr
        self._console = Console(file=stream, highlight=False, soft_wrap=not stream.isatty())
        self._tally, self._used, self._already = Tally(), Usage(), Tally()
        self._total = self._calls = self._resumed = 0
        self._live = self._writing = False
        self._started = self._printed = time.monotonic()

    @contextlib.contextmanager
    def running(self, total: int, calls: int, already: Tally) -> Iterator[None]:
        """Show progress towards `total` dialogues, which take at most `calls` calls."""
        self._total, self._resumed = total, already.dialogues
        self._calls = calls * (total - already.dialogues) // max(1, total)
        self._tally.add(already)
        self._already.add(already)
        if already.dialogues:
            self.say(f"going on: {already.dialogues} of {total} dialogues are there already")
        with self._shown():
            yield

    @contextlib.contextmanager
    def writing(self, people: int, calls: int) -> Iterator[None]:
        """Show progress of a model that completes `people` people, with at least `calls` calls."""
        self._calls, self._writing = calls, True
        self.say(f"{people} people are completed by the writer first")
        try:
            with self._shown():
                yield
        finally:
            self._writing, self._used = False, Usage()

    @contextlib.contextmanager
    def _shown(self) -> Iterator[None]:
        self._started = self._printed = time.monotonic()
        if not self._console.is_terminal:
            yield
            return
        self._live = True
        with Live(get_renderable=self._line, console=self._console, refresh_per_second=4, transient=True):
            try:
                yield
            finally:
                self._live = False

    def replied(self, used: Usage) -> None:
        """Take note of a reply. The clock of the speed starts before the first: loading a model is not talking."""
        if not self._used.calls:
            self._started = time.monotonic() - 1
        self._used += used
        self._print_now_and_then()

    def played(self, tally: Tally) -> None:
        """Take note of dialogues that ended."""
        self._tally.add(tally)
        self._print_now_and_then()

    def stands(self, tally: Tally, used: Usage) -> None:
        """Take note of how many workers' dialogues and replies stand since this start."""
        if used.calls and not self._used.calls:
            self._started = time.monotonic() - 1
        self._tally, self._used = Tally(), used
        self._tally.add(self._already)
        self._tally.add(tally)
        self._print_now_and_then()

    def say(self, text: str) -> None:
        self._console.print(Text(text))

    def log(self) -> logging.Handler:
        """A handler that shows log records between the lines of progress."""
        handler = _ToDisplay()
        handler.display = self
        return handler

    def _print_now_and_then(self) -> None:
        if not self._live and time.monotonic() - self._printed > EVERY:
            self._printed = time.monotonic()
            self._console.print(self._line())

    def _line(self) -> Text:
        tally, spent = self._tally, time.monotonic() - self._started
        if self._writing:
            speed = self._used.completion_tokens / max(1.0, spent)
            return Text(f"people: {self._used.calls} of {self._calls} replies of the writer · {speed:.0f} tokens/s")
        if not self._used.calls:
            return Text(f"0/{self._total} dialogues · starting, {spent:.0f} s")
        parts = [
            f"{tally.dialogues}/{self._total} dialogues",
            f"{tally.turns} turns",
            f"{tally.pairs} pairs",
            f"{tally.discards.total()} discards" + (f" ({_top(tally)})" if tally.discards else ""),
            f"{self._used.completion_tokens / spent:.0f} tokens/s",
        ]
        if tally.failed:
            parts.append(f"{tally.failed} failed")
        if tally.dialogues < self._total:
            parts.append(f"about {_duration(self._left(spent))} left")
        return Text(" · ".join(parts))

    def _left(self, spent: float) -> float:
        """Seconds to go, from the calls that are done or the dialogues, whichever is further."""
        fresh, to_play = self._tally.dialogues - self._resumed, self._total - self._resumed
        share = max(self._used.calls / max(1, self._calls), fresh / max(1, to_play))
        return spent * max(0.0, 1 - share) / share


class _ToDisplay(logging.Handler):
    display: Display

    def emit(self, record: logging.LogRecord) -> None:
        self.display.say(record.getMessage())


def ending(path: Path, manifest: dict[str, Any], stream: TextIO | None = None) -> None:
    """Where the data is, counts, three pairs to read, what was discarded and why, and what to do next."""
    console = Console(file=stream or sys.stdout, highlight=False)
    counts = {table: sum(splits.values()) for table, splits in manifest["counts"].items()}
    console.print(
        f"\n[bold]{counts['preferences']} preference pairs[/] from {manifest['dialogues']['played']} dialogues "
        f"of {manifest['personas']} personas are in [bold]{escape(str(path))}[/]"
    )
    console.print("  " + ", ".join(f"{count} {table}" for table, count in counts.items()))
    _models(console, manifest)
    _sample_pairs(console, path)
    if manifest["discards"]:
        table = Table(title="Discarded, and why", title_justify="left", box=None, padding=(0, 2, 0, 0))
        for reason, count in manifest["discards"].items():
            table.add_row(str(count), reason, REASONS[reason])
        console.print(table)
    _users(console, manifest["fidelity"])
    _judges(console, manifest["judges"])
    _dropped(console, manifest["dropped"])
    if not counts["preferences"]:
        text = "No pairs: every comparison was discarded, for the reasons above. "
        if any(about["reference"].startswith("scripted:") for about in manifest["models"].values()):
            text += "A scripted model follows only the steering it knows; this says nothing about your recipe."
        else:
            text += "A larger model helps most"
            if manifest["recipe"]["labels"]["by"] == "judge":
                text += ": here a model makes the labels, and a small one cannot judge."
            else:
                text += "; labels.check=none or more max_tokens in the generator change what passes."
        console.print(Text(text, style="bold"))
        return
    python = "uv run python" if "UV" in os.environ else "python"
    console.print("\n[bold]Next[/]")
    for line in (
        f"  read it     {python} -c \"import polars; print(polars.read_parquet('{path}/data/preferences/*.parquet'))\"",
        f"  train       datasets.load_dataset('{path}') has prompt, chosen, rejected as TRL reads them",
        f"  the card    {path}/README.md",
    ):
        console.print(Text(line), soft_wrap=True)


def _models(console: Console, manifest: dict[str, Any]) -> None:
    by_model: dict[str, list[str]] = {}
    for role, about in manifest["models"].items():
        by_model.setdefault(f"{about['reference']} ({about['about']})", []).append(role)
    for model, roles in by_model.items():
        console.print(Text(f"  {', '.join(roles)}: {model}"))


def _sample_pairs(console: Console, path: Path) -> None:
    for row in _some_pairs(path):
        person = row["person"]
        body = Text()
        for message in row["prompt"]:
            speaker = "person" if message["role"] == "user" else "assistant"
            body.append(f"{speaker}: ", style="bold")
            body.append(f"{message['content']}\n")
        body.append("\nchosen: ", style="bold green")
        body.append(row["chosen"][0]["content"])
        body.append("\n\nrejected: ", style="bold red")
        body.append(row["rejected"][0]["content"])
        wanted = _wanted(row["profile"])
        about = row["dimension"] or "overall"
        title = Text(f"{person}", overflow="ellipsis")
        console.print(
            Panel(
                body,
                title=title,
                title_align="left",
                subtitle=Text(f"wants {wanted}; this pair: {about}"),
                subtitle_align="left",
            )
        )


def _wanted(profile: dict[str, Any]) -> str:
    """The poles that a person wants; the dimension, where a pole only says that it is wanted."""
    pairs = zip(profile["names"], profile["values"], strict=True)
    said = [name if value == "wanted" else value for name, value in pairs if value]
    return ", ".join(said[:WISHES]) + (f" and {len(said) - WISHES} more" if len(said) > WISHES else "")


def _some_pairs(path: Path) -> list[dict[str, Any]]:
    """A few pairs of different dimensions and people, with the person's text."""
    import polars as pl

    pairs = pl.scan_parquet(path / "data" / "preferences" / "*.parquet").head(2_000)
    people = pl.scan_parquet(path / "data" / "personas" / "*.parquet").select("id", person="text")
    rows = (
        pairs.join(people, left_on="persona_id", right_on="id", how="left", maintain_order="left").collect().to_dicts()
    )
    shown: list[dict[str, Any]] = []
    for keys in (("dimension", "dialogue_id"), ("dialogue_id",), ("id",)):  # as different as there are
        for row in rows:
            if len(shown) < SAMPLES and all(row[key] != one[key] for one in shown for key in keys):
                shown.append(row)
    return shown


def _users(console: Console, found: dict[str, Any] | None) -> None:
    """How the simulated users' dialogues ended, and what the guards found in their messages."""
    if not found:
        return
    endings = ", ".join(f"{ending} {count}" for ending, count in found["endings"].items())
    console.print(Text(f"Dialogues ended: {endings}."))
    mended = sum(one["mended"] for one in found["guards"].values())
    ended = sum(count for ending, count in found["endings"].items() if ending in BROKEN)
    left = {name: one["share"] for name, one in found["guards"].items() if one["left"]}
    most = ", ".join(f"{name} {share:.1%}" for name, share in sorted(left.items(), key=lambda one: -one[1])[:3])
    text = (
        f"The simulated users wrote {found['messages']} messages; guards had {mended} written again and ended {ended} "
    )
    console.print(Text(f"{text}dialogues." + (f" Left with a flag: {most}." if left else "")))


def _dropped(console: Console, found: dict[str, Any]) -> None:
    """The group of people whose comparisons the filters dropped most unlike those of all."""
    if not found["groups"]:
        return
    most = found["groups"][0]
    low, high = most["interval"]
    text = (
        f"Dropped were {found['share']:.0%} of {found['comparisons']} comparisons; most unlike that, of people with "
        f"{most['group']}: {most['value']}, {most['share']:.0%} ({low:.0%} to {high:.0%}). The card has all of them."
    )
    console.print(Text(text))


def _judges(console: Console, found: dict[str, Any] | None) -> None:
    """What the judges' verdicts are worth, and what the profile decides of them."""
    if not found:
        return
    for judge, about in found["judges"].items():
        said = reliability.said_of(judge, about)
        console.print(Text(said, style="" if reliability.informs(about) is not False else "bold yellow"))
    dark = ", ".join(
        f"{DARK[told]} {one['share']:.0%} of {one['n']}" for told, one in found["same_in_the_dark"].items()
    )
    if dark:
        console.print(Text(f"The same outcome without the person's profile: {dark}."))
    if found["panel"] and found["panel"]["alpha"] is not None:
        console.print(Text(f"The judges agree with Krippendorff's alpha = {found['panel']['alpha']:.2f}."))


def _top(tally: Tally) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in tally.discards.most_common(3))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
