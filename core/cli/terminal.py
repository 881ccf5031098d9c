"""Terminal output of every command: results on stdout, progress, logs and errors on stderr.

In JSON mode, stdout receives one line per event and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from core import events
from core.control import ShouldStop
from core.errors import BitwrightError
from core.events import Done, Event, Result
from core.wording import duration, human, percentage, time_range

_MAX_LINE_LENGTH = 400


_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that are replaced before printing: control characters other than line feed and tab, bidirectional
overrides and isolates, and lone surrogates. Joiners, other spaces and directional marks are kept, since many languages
and emoji sequences need them."""
PROGRESS_INTERVAL = 20.0
"""Seconds between two progress lines if no progress bar can be drawn."""


def printable(text: str) -> str:
    """Replace terminal control characters in `text`, which may come from an untrusted source such as a model."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r", ""))


def one_line(text: str) -> str:
    """Return `text` as one printable line of at most `_MAX_LINE_LENGTH` characters."""
    line = " ".join(printable(text).split())
    return line if len(line) <= _MAX_LINE_LENGTH else f"{line[: _MAX_LINE_LENGTH - 3]}..."


class Terminal:
    """The two output streams of one command.

    Attributes:
        json: Print events as JSON lines instead of text.
        failed: The last `Failed` event that was shown, or None.
    """

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self._out: TextIO = sys.stdout
        self._errors: TextIO = sys.stderr
        self._console = Console(file=self._out, highlight=False, markup=False, soft_wrap=True)
        self._progress_lines = ProgressLines(self._progress_line)
        self.failed: events.Failed | None = None
        self._write_errors: dict[str, OSError] = {}

    @contextlib.contextmanager
    def libraries_to_stderr(self) -> Iterator[None]:
        """Redirect the output of libraries from stdout to stderr while a command runs in this process."""
        with contextlib.redirect_stdout(self._errors):
            yield

    def event(self, event: Event) -> None:
        """Print an event of a command other than a run."""
        if isinstance(event, events.Failed):
            self.failed = event
        if self.json:
            self._write(self._out, events.to_line(event) + "\n")
        elif isinstance(event, events.Token):
            self._write(self._out if event.kind == "text" else self._errors, printable(event.text))
        elif isinstance(event, events.Log):
            self.note(event)
        elif isinstance(event, events.Stage):
            self._progress_lines.begin(event.name)
            self._write(self._errors, f"{one_line(event.name)} ...\n")
        elif isinstance(event, events.Progress):
            self._progress_lines.update(event)

    def note(self, event: events.Log) -> None:
        """Print a log event to stderr."""
        prefix = "" if event.level == "info" else f"{event.level}: "
        self._write(self._errors, f"{prefix}{one_line(event.message)}\n")

    def warn(self, text: str) -> None:
        """Print a warning to stderr, in JSON mode also as an event."""
        event = events.Log("warning", text)
        if self.json:
            self.event(event)
        self.note(event)

    def print_info(self, text: str) -> None:
        """Print text to stderr without adding a line break. No output in JSON mode."""
        if not self.json:
            self._write(self._errors, printable(text))

    def line(self, text: str = "") -> None:
        """Print one line of a result to stdout. No output in JSON mode."""
        if not self.json:
            self._write(self._out, f"{printable(text)}\n")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table without borders; columns of numbers are right-aligned. No output in JSON mode."""
        if self.json:
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for number, column in enumerate(columns):
            figures = all(row[number][:1].isdigit() or row[number] in ("", "-") for row in rows)
            table.add_column(column, justify="right" if figures and rows else "left", overflow="fold")
        for row in rows:
            table.add_row(*(one_line(cell) for cell in row))
        self._console.print(table)

    def show(self, what: RenderableType) -> None:
        """Print a renderable of rich, whose texts must come from `one_line`. No output in JSON mode."""
        if not self.json:
            self._console.print(what, soft_wrap=False)

    def error(self, error: BitwrightError) -> None:
        """Print the message and the hint of an error to stderr, in JSON mode also as an event."""
        if self.json and self.failed is None:
            self.event(events.Failed(error.code, error.message, error.hint, "", True))
        self.print_error(error.message, error.hint)

    def print_error(self, message: str, hint: str = "") -> None:
        """Print an error message, and a hint on a second line, to stderr."""
        self._write(self._errors, f"error: {one_line(message)}\n" + (f"{one_line(hint)}\n" if hint else ""))

    @contextlib.contextmanager
    def run_view(self) -> Iterator[RunView]:
        """Open the view of a run: JSON lines, a progress bar, or plain lines if stderr is not a terminal."""
        console = Console(file=self._errors, highlight=False, markup=False)
        if self.json or not console.is_terminal:
            yield RunView(self, None)
            return
        left = TextColumn("{task.fields[eta]}", markup=False)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), left)
        with Progress(*columns, console=console, transient=True) as progress:
            yield RunView(self, progress)

    def follow(self, start: Callable[[ShouldStop], Iterable[Event]]) -> Result | Done | None:
        """Print the events of a call until it ends, and return its `Result` or `Done` event, or None.

        Args:
            start: Starts the call. Its argument returns whether the user has requested a stop.
        """
        outcome: Result | Done | None = None
        with self.libraries_to_stderr(), Interrupts() as interrupts, self.run_view() as view:
            for event in start(interrupts.requested):
                view.show(event)
                if isinstance(event, Result | Done):
                    outcome = event
        return outcome

    def _progress_line(self, text: str) -> None:
        self._write(self._errors, f"{one_line(text)}\n")

    def close(self) -> OSError | None:
        """Return the error of a failed write to stdout, or None. Streams with an error become the null device."""
        for name in self._write_errors:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - stays open until the process ends
        return self._write_errors.get("stdout")

    def _write(self, stream: TextIO, text: str) -> None:
        """Write to a stream and flush it. An error, such as a full disk, is stored for `close` and not raised."""
        try:
            try:
                stream.write(text)
            except UnicodeEncodeError:
                encoding = stream.encoding or "ascii"
                stream.write(text.encode(encoding, "replace").decode(encoding))
            stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            self._write_errors.setdefault("stdout" if stream is self._out else "stderr", error)


class RunView:
    """The output of a quantization run: a progress bar, plain lines or JSON lines."""

    def __init__(self, terminal: Terminal, progress: Progress | None) -> None:
        self._terminal = terminal
        self._progress = progress
        self._task = progress.add_task("starting", total=1.0, eta="") if progress else None
        self._block = ""
        self._started: list[events.LayerStarted] = []
        self._progress_lines = ProgressLines(self._print)

    def show(self, event: Event) -> None:
        """Print an event of a run."""
        terminal = self._terminal
        if isinstance(event, events.Failed):
            terminal.failed = event
        if terminal.json:
            terminal.event(event)
        elif isinstance(event, events.Log):
            self._print(f"{'' if event.level == 'info' else event.level + ': '}{event.message}")
        elif isinstance(event, events.Stage):
            self._describe(event.name)
            self._progress_lines.begin(event.name)
            if self._progress is None:
                self._print(f"{event.name} ...")
        elif isinstance(event, events.Started):
            what = f"{event.model}: {event.blocks} blocks, {event.linears} layers to quantize"
            self._print(f"{what}, on {event.device} in {event.dtype}, {event.threads} threads")
        elif isinstance(event, events.BlockStarted):
            self._block = f"block {event.block + 1}/{event.total}"
            self._started = []
            self._describe(self._block)
        elif isinstance(event, events.LayerStarted):
            self._started.append(event)
            errors = f"output error {percentage(event.error_before)} -> {percentage(event.error_after)}"
            self._describe(f"{self._block}, {event.layer}, {errors}")
        elif isinstance(event, events.Loss):
            self._describe(f"{self._block}, step {event.iteration}/{event.iterations}, loss {event.loss:.4g}")
        elif isinstance(event, events.EndToEnd):
            self._describe(f"end to end, step {event.step}/{event.steps}, KL divergence {event.kl:.4g}")
        elif isinstance(event, events.BlockDone):
            change = f"loss {event.loss_before:.4g} -> {event.loss_after:.4g}"
            start = self._start_errors()
            self._print(f"block {event.block + 1}/{event.total}: {start}{change}, {duration(event.seconds)}")
        elif isinstance(event, events.Progress):
            if self._progress is None or self._task is None:
                self._progress_lines.update(event)
            else:
                self._progress.update(self._task, completed=event.fraction, eta=time_left(event))

    def _start_errors(self) -> str:
        """Return the mean output errors of the layers of a block before and after their start, or ""."""
        if not self._started:
            return ""
        before, after = (
            sum(errors) / len(self._started)
            for errors in zip(*((one.error_before, one.error_after) for one in self._started), strict=True)
        )
        return f"output error of its layers {percentage(before)} -> {percentage(after)}, "

    def _describe(self, text: str) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=one_line(text))

    def _print(self, text: str) -> None:
        if self._progress is not None:
            self._progress.console.print(one_line(text))
        else:
            self._terminal.note(events.Log("info", text))


class ProgressLines:
    """Progress of a long action as lines at intervals, for a log or a terminal without a progress bar.

    Args:
        print_line: Prints one line.
        now: Returns the time in seconds.
    """

    def __init__(self, print_line: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        self._print, self._now = print_line, now
        self._name, self._last_update = "", now()

    def begin(self, name: str) -> None:
        """Set the name of the stage and restart the interval. Prints nothing."""
        self._name, self._last_update = name, self._now()

    def update(self, event: events.Progress) -> None:
        """Print the progress if the interval has passed since the last line."""
        if event.fraction < 0 or self._now() - self._last_update < PROGRESS_INTERVAL:
            return
        self._last_update = self._now()
        left = time_left(event)
        self._print(f"{self._name or 'working'}: {100 * event.fraction:.0f} %{', ' if left else ''}{left}")


def time_left(event: events.Progress) -> str:
    """Return the remaining time, for example `3 to 5 min left`, or "" if it is unknown."""
    return "" if event.seconds_low < 0 else f"{time_range(event.seconds_low, event.seconds_high)} left"


class Interrupts:
    """A context manager that turns the first Ctrl-C or SIGTERM into a stop request and the second into an exception."""

    def __init__(self) -> None:
        self._requested = False
        self._before: dict[int, object] = {}

    def requested(self) -> bool:
        """Return whether a stop has been requested."""
        return self._requested

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True


def sizes_line(before: int, after: int) -> str:
    """Format two sizes in bytes and their ratio, for example `269 MB -> 120 MB (45 %)`."""
    share = f" ({100 * after / before:.0f} %)" if before else ""
    return f"{human(before)} -> {human(after)}{share}"
