"""Terminal output of a run: a progress line while it is running, and the summary at the end.

In a terminal the line is redrawn; elsewhere (a log, CI) a plain line is printed periodically.
Times and speeds are shown here only and are not stored.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text as RichText

from simforge.catalog import records
from simforge.dataset.manifest import DropRates, Manifest, lost_dimensions
from simforge.judging import reliability
from simforge.judging.reliability import BLIND_CONTROLS
from simforge.models.providers import provider_of
from simforge.models.rate_limits import GateState
from simforge.run.shards import Tally
from simforge.text.printable import printable
from simforge.types import GUARD_ENDINGS, REASONS, JsonObject, Usage

PLAIN_LINE_INTERVAL = 10.0
"Minimum seconds between plain progress lines."


SILENT_SECONDS = 30.0
"Seconds without a reply after which the line says why."


MAX_WISHES = 4
"Maximum number of a person's wishes that are shown."


MAX_SAMPLE_PAIRS = 3
"Number of pairs shown at the end."


class Text(RichText):
    """Text whose control characters are shown, not obeyed: models and servers write it."""

    def __init__(self, text: str = "", *args: Any, **kwargs: Any) -> None:
        super().__init__(printable(text), *args, **kwargs)

    def append(self, text: Any, style: Any = None) -> Text:
        super().append(printable(text) if isinstance(text, str) else text, style)
        return self


class Output(Console):
    """A console for which a reader that went away (`| head`) is no error of the run."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Display:
    """Progress of one run."""

    def __init__(self, stream: TextIO | None = None) -> None:
        stream = stream or sys.stderr
        self._console = Output(
            file=stream, highlight=False, soft_wrap=not stream.isatty()
        )
        self._tally, self._used, self._resumed_tally = Tally(), Usage(), Tally()
        self._total = self._calls = self._resumed_dialogues = 0
        self._live = self._writing = False
        self._started = self._printed = time.monotonic()
        self._gates: Sequence[GateState] = ()
        self._spent: float | None = None
        self._budget: float | None = None
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def running(self, total: int, calls: int, already: Tally) -> Iterator[None]:
        """Show progress towards `total` dialogues, which take at most `calls` calls."""
        self._total, self._resumed_dialogues = total, already.dialogues
        self._calls = calls * (total - already.dialogues) // max(1, total)
        self._tally.add(already)
        self._resumed_tally.add(already)
        if already.dialogues:
            self.say(
                f"resuming: {already.dialogues} of {total} dialogues are already done"
            )
        with self._live_line():
            yield

    @contextlib.contextmanager
    def writing(self, people: int, calls: int) -> Iterator[None]:
        """Show progress of a model that completes `people` people, with at least `calls` calls."""
        self._calls, self._writing = calls, True
        self.say(f"first the writer model completes {people} people")
        try:
            with self._live_line():
                yield
        finally:
            self._writing, self._used = False, Usage()

    @contextlib.contextmanager
    def _live_line(self) -> Iterator[None]:
        """Redraw the progress line in a terminal; elsewhere print one regularly, whatever
        happens in the meantime."""
        self._started = self._printed = time.monotonic()
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            ended = threading.Event()
            ticker = threading.Thread(
                target=self._print_until, args=(ended,), daemon=True
            )
            ticker.start()
            try:
                yield
            finally:
                ended.set()
                ticker.join()
            return
        self._live = True
        with Live(
            get_renderable=self._progress_line,
            console=self._console,
            refresh_per_second=4,
            transient=True,
        ):
            try:
                yield
            finally:
                self._live = False

    def _print_until(self, ended: threading.Event) -> None:
        while not ended.wait(min(1.0, PLAIN_LINE_INTERVAL / 2)):
            self._print_periodically()

    def on_status(self, gates: Sequence[GateState], spent: float | None) -> None:
        """Record the state of the endpoints and the money spent since this start."""
        self._gates, self._spent = gates, spent

    def set_budget(self, limit: float) -> None:
        """Show what is spent beside a limit."""
        self._budget = limit

    def on_reply(self, usage: Usage) -> None:
        """Record a reply. The clock for the speed starts just before the first reply, so
        that the time to load a model does not count."""
        if not self._used.calls:
            self._started = time.monotonic() - 1
        self._used += usage
        self._print_periodically()

    def on_played(self, tally: Tally) -> None:
        """Record dialogues that ended."""
        self._tally.add(tally)
        self._print_periodically()

    def on_totals(self, tally: Tally, usage: Usage) -> None:
        """Set the totals of all workers' dialogues and replies since this start."""
        if usage.calls and not self._used.calls:
            self._started = time.monotonic() - 1
        self._tally, self._used = Tally(), usage
        self._tally.add(self._resumed_tally)
        self._tally.add(tally)
        self._print_periodically()

    def say(self, text: str) -> None:
        self._console.print(Text(text))

    def log(self) -> logging.Handler:
        """A logging handler that prints log messages between progress lines."""
        handler = _DisplayHandler()
        handler.display = self
        return handler

    def _print_periodically(self) -> None:
        with self._lock:
            due = time.monotonic() - self._printed > PLAIN_LINE_INTERVAL
            if not self._live and due:
                self._printed = time.monotonic()
                self._console.print(self._progress_line())

    def _progress_line(self) -> Text:
        tally, elapsed = self._tally, time.monotonic() - self._started
        if self._writing:
            speed = self._used.completion_tokens / max(1.0, elapsed)
            return Text(
                f"people: {self._used.calls} of {self._calls} replies of the writer · "
                f"{speed:.0f} tokens/s"
            )
        if not self._used.calls:
            parts = [f"0/{self._total} dialogues · starting, {elapsed:.0f} s"]
            return Text(" · ".join([*parts, *self._endpoint_parts()]))
        parts = [
            f"{tally.dialogues}/{self._total} dialogues",
            _counted(tally.turns, "turn"),
            _counted(tally.pairs, "pair"),
            f"{tally.discards.total()} discards"
            + (f" ({_top_reasons(tally)})" if tally.discards else ""),
            f"{self._used.completion_tokens / elapsed:.0f} tokens/s",
        ]
        if tally.failed:
            parts.append(f"{tally.failed} failed")
        parts += self._endpoint_parts()
        if tally.dialogues < self._total:
            parts.append(f"about {_duration(self._seconds_left(elapsed))} left")
        return Text(" · ".join(parts))

    def _endpoint_parts(self) -> Iterator[str]:
        """Parts of the line about the endpoints and the money."""
        busy = [gate for gate in self._gates if gate.in_flight]
        if busy:
            calls = sum(gate.in_flight for gate in busy)
            oldest = max(gate.oldest for gate in busy)
            yield f"{_counted(calls, 'call')} in flight, oldest {_duration(oldest)}"
        refusals = sum(gate.refusals for gate in self._gates)
        errors = sum(gate.errors for gate in self._gates)
        if refusals or errors:
            yield f"{refusals} overloads, {errors} errors"
        if self._spent is not None:
            limit = "" if self._budget is None else f" of {self._budget:g}"
            yield f"{self._spent:.4g}{limit} spent"
        silent = min((gate.silent for gate in busy), default=0.0)
        if silent > SILENT_SECONDS:
            problem = next((gate.problem for gate in busy if gate.problem), "")
            reason = problem or "the server has not answered the calls in flight yet"
            yield f"no reply for {_duration(silent)}: {reason}"

    def _seconds_left(self, spent: float) -> float:
        """Estimated seconds to the end, from the share of calls or of dialogues that is
        done, whichever is larger."""
        new_dialogues, to_play = (
            self._tally.dialogues - self._resumed_dialogues,
            self._total - self._resumed_dialogues,
        )
        share = max(
            self._used.calls / max(1, self._calls), new_dialogues / max(1, to_play)
        )
        return spent * max(0.0, 1 - share) / share


class _DisplayHandler(logging.Handler):
    display: Display

    def emit(self, record: logging.LogRecord) -> None:
        self.display.say(record.getMessage())


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _commonest(counts: Mapping[str, int]) -> str:
    return max(counts, key=lambda name: counts[name], default="")


def print_summary(path: Path, manifest: Manifest, stream: TextIO | None = None) -> None:
    """Print where the data is, its counts, three sample pairs, discards with their reasons,
    and next steps."""
    console = Output(file=stream or sys.stdout, highlight=False)
    counts = {
        table: sum(splits.values()) for table, splits in manifest["counts"].items()
    }
    console.print(
        f"\n[bold]{counts['preferences']} preference pairs[/] from "
        f"{manifest['dialogues']['played']} dialogues "
        f"of {manifest['personas']} personas are in [bold]{escape(str(path))}[/]"
    )
    console.print(
        "  " + ", ".join(f"{count} {table}" for table, count in counts.items())
    )
    for sentence in lost_dimensions(manifest):
        console.print(Text(sentence, style="bold yellow"))
    _print_models(console, manifest)
    if manifest["spent"] is not None:
        console.print(Text(f"  {manifest['spent']:.4g} spent at the prices given"))
    lost = manifest["dialogues"].get("commonest_problem")
    if lost:
        failed = manifest["dialogues"]["failed"]
        console.print(Text(f"{_counted(failed, 'dialogue')} were lost. {lost}"))
    _print_sample_pairs(console, path)
    if manifest["discards"]:
        table = Table(
            title="Discarded, and why",
            title_justify="left",
            box=None,
            padding=(0, 2, 0, 0),
        )
        for reason, count in manifest["discards"].items():
            table.add_row(str(count), reason, REASONS[reason])
        console.print(table)
    _print_users(console, manifest["fidelity"])
    _print_judges(console, manifest["judges"])
    _print_dropped(console, manifest["dropped"])
    if not counts["preferences"]:
        text = "No pairs: every comparison was discarded, for the reasons above. "
        if all(
            provider_of(model["reference"]).is_placeholder
            for model in manifest["models"].values()
        ):
            text += (
                "A scripted model follows only the steering it knows; this says "
                "nothing about your recipe."
            )
        elif _commonest(manifest["discards"]) == "only_thought":
            text += (
                "The model spends its tokens on thinking: raise max_tokens in the generator, or "
                "switch thinking off (endpoints.URL.body)."
            )
        else:
            text += "A larger model helps most"
            if manifest["recipe"]["labels"]["by"] == "judge":
                text += ": here a model makes the labels, and a small one cannot judge."
            else:
                text += (
                    "; labels.check=none or more max_tokens in the generator may let "
                    "more pairs pass."
                )
        console.print(Text(text, style="bold"))
        return
    python = "uv run python" if "UV" in os.environ else "python"
    console.print("\n[bold]Next[/]")
    for line in (
        f'  read it     {python} -c "import simforge; '
        f'print(simforge.scan({str(path)!r}).collect())"',
        f"  train       datasets.load_dataset('{path}') has prompt, chosen, rejected "
        "as TRL reads them",
        f"  the card    {path}/README.md",
    ):
        console.print(Text(line), soft_wrap=True)


def _print_models(console: Console, manifest: Manifest) -> None:
    by_model: dict[str, list[str]] = {}
    for role, model_info in manifest["models"].items():
        by_model.setdefault(
            f"{model_info['reference']} ({model_info['about']})", []
        ).append(role)
    for model, roles in by_model.items():
        console.print(Text(f"  {', '.join(roles)}: {model}"))


def _print_sample_pairs(console: Console, path: Path) -> None:
    for row in _read_sample_pairs(path):
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
        wanted = _wanted_poles(row["profile"])
        subject = row["dimension"] or "overall"
        title = Text(f"{person}", overflow="ellipsis")
        console.print(
            Panel(
                body,
                title=title,
                title_align="left",
                subtitle=Text(f"wants {wanted}; this pair: {subject}"),
                subtitle_align="left",
            )
        )


def _wanted_poles(profile: JsonObject) -> str:
    """The poles that a person wants; the dimension's name if the pole is only `wanted`."""
    pairs = zip(profile["names"], profile["values"], strict=True)
    wishes = [name if value == "wanted" else value for name, value in pairs if value]
    return ", ".join(wishes[:MAX_WISHES]) + (
        f" and {len(wishes) - MAX_WISHES} more" if len(wishes) > MAX_WISHES else ""
    )


def _read_sample_pairs(path: Path) -> list[JsonObject]:
    """A few pairs of different dimensions and people, with the text of the person."""
    pairs = records.scan_table(path, "preferences").head(2_000)
    people = records.scan_table(path, "personas").select("id", person="text")
    rows = (
        pairs.join(
            people,
            left_on="persona_id",
            right_on="id",
            how="left",
            maintain_order="left",
        )
        .collect()
        .to_dicts()
    )
    shown: list[JsonObject] = []
    for keys in (
        ("dimension", "dialogue_id"),
        ("dialogue_id",),
        ("id",),
    ):  # as varied as possible
        for row in rows:
            if len(shown) < MAX_SAMPLE_PAIRS and all(
                row[key] != previous[key] for previous in shown for key in keys
            ):
                shown.append(row)
    return shown


def _print_users(console: Console, fidelity: JsonObject | None) -> None:
    """Print how the simulated users' dialogues ended, and what the guards found in their
    messages."""
    if not fidelity:
        return
    endings = ", ".join(
        f"{ending} {count}" for ending, count in fidelity["endings"].items()
    )
    console.print(Text(f"Dialogues ended: {endings}."))
    repaired = sum(guard["repaired"] for guard in fidelity["guards"].values())
    ended = sum(
        count
        for ending, count in fidelity["endings"].items()
        if ending in GUARD_ENDINGS
    )
    flagged_shares = {
        name: guard["share"]
        for name, guard in fidelity["guards"].items()
        if guard["kept"]
    }
    top_flags = ", ".join(
        f"{name} {share:.1%}"
        for name, share in sorted(flagged_shares.items(), key=lambda item: -item[1])[:3]
    )
    text = (
        f"The simulated users wrote {fidelity['messages']} messages; guards had "
        f"{repaired} of them rewritten and ended {ended} "
    )
    console.print(
        Text(
            f"{text}dialogues."
            + (f" Kept with a flag: {top_flags}." if flagged_shares else "")
        )
    )


def _print_dropped(console: Console, dropped: DropRates) -> None:
    """Print the group of people whose share of dropped comparisons differs most from that of
    everyone."""
    if not dropped["groups"]:
        return
    extreme_group = dropped["groups"][0]
    low, high = extreme_group["interval"]
    text = (
        f"The filters dropped {dropped['share']:.0%} of {dropped['comparisons']} "
        f"comparisons. Most different from that: people with {extreme_group['group']}: "
        f"{extreme_group['value']}, {extreme_group['share']:.0%} ({low:.0%} to "
        f"{high:.0%}). The card lists all groups."
    )
    console.print(Text(text))


def _print_judges(console: Console, summary: JsonObject | None) -> None:
    """Print how reliable the judges' verdicts are, and how much the profile decides them."""
    if not summary:
        return
    for judge, figures in summary["judges"].items():
        sentence = reliability.describe(judge, figures)
        console.print(
            Text(
                sentence,
                style=""
                if reliability.is_informative(figures) is not False
                else "bold yellow",
            )
        )
    blind_shares = ", ".join(
        f"{BLIND_CONTROLS[control]} {outcome['share']:.0%} of {outcome['n']}"
        for control, outcome in summary["blind_agreement"].items()
    )
    if blind_shares:
        console.print(
            Text(f"The same outcome without the person's profile: {blind_shares}.")
        )
    if summary["panel"] and summary["panel"]["alpha"] is not None:
        console.print(
            Text(
                f"The judges agree with Krippendorff's alpha = {summary['panel']['alpha']:.2f}."
            )
        )


def _top_reasons(tally: Tally) -> str:
    return ", ".join(
        f"{reason} {count}" for reason, count in tally.discards.most_common(3)
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
