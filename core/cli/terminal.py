"""What a person or a program sees: results on stdout, everything else on stderr.

Knows events and errors; not what commands do. With `json` every event is one line on stdout and nothing else is.
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
from core.wording import duration, human, time_range

_MAX_LINE_LENGTH = 400


_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but line feed and tab, what turns the direction of text around, and halves of characters. Joiners,
spaces of other widths and marks of direction belong to many languages and to joined emoji."""
PROGRESS_INTERVAL = 20.0
"""Seconds between two lines that tell the progress, where no bar can be drawn."""


def printable(text: str) -> str:
    """`text` without what steers a terminal; names and texts come from strangers."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r", ""))


def one_line(text: str) -> str:
    """`text` as one printable line of bounded length."""
    line = " ".join(printable(text).split())
    return line if len(line) <= _MAX_LINE_LENGTH else f"{line[: _MAX_LINE_LENGTH - 3]}..."


class Terminal:
    """The two output streams of one command."""

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
        """Send what libraries print to stderr while a command runs in this process."""
        with contextlib.redirect_stdout(self._errors):
            yield

    def event(self, event: Event) -> None:
        """Show an event of a command other than a run."""
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
        """A log line, on stderr."""
        prefix = "" if event.level == "info" else f"{event.level}: "
        self._write(self._errors, f"{prefix}{one_line(event.message)}\n")

    def warn(self, text: str) -> None:
        """A warning on stderr, and as an event in JSON mode."""
        event = events.Log("warning", text)
        if self.json:
            self.event(event)
        self.note(event)

    def print_info(self, text: str) -> None:
        """Text on stderr as it is, for people."""
        if not self.json:
            self._write(self._errors, printable(text))

    def line(self, text: str = "") -> None:
        """One line of a result for people."""
        if not self.json:
            self._write(self._out, f"{printable(text)}\n")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table for people, without a box; columns whose cells are all figures go to the right."""
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
        """Something of rich's for people; its texts must be `one_line`."""
        if not self.json:
            self._console.print(what, soft_wrap=False)

    def error(self, error: BitwrightError) -> None:
        """The error on stderr, one line for the message and one for the hint; in JSON mode an event as well."""
        if self.json and self.failed is None:
            self.event(events.Failed(error.code, error.message, error.hint, "", True))
        self.print_error(error.message, error.hint)

    def print_error(self, message: str, hint: str = "") -> None:
        """One sentence and a hint on stderr."""
        self._write(self._errors, f"error: {one_line(message)}\n" + (f"{one_line(hint)}\n" if hint else ""))

    @contextlib.contextmanager
    def run_view(self) -> Iterator[RunView]:
        """How a run is watched: JSON lines, a progress bar, or plain lines where stderr is no terminal."""
        console = Console(file=self._errors, highlight=False, markup=False)
        if self.json or not console.is_terminal:
            yield RunView(self, None)
            return
        left = TextColumn("{task.fields[eta]}", markup=False)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), left)
        with Progress(*columns, console=console, transient=True) as progress:
            yield RunView(self, progress)

    def follow(self, start: Callable[[ShouldStop], Iterable[Event]]) -> Result | Done | None:
        """Show the events of a call from its first to its last; what it came to.

        Args:
            start: makes the call, given what says whether the user wants it to stop.
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
        """Return why something is missing on stdout, or None; a stream that cannot be written is written no more."""
        for name in self._write_errors:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - stays open until the process ends
        return self._write_errors.get("stdout")

    def _write(self, stream: TextIO, text: str) -> None:
        """Write to a stream at once; where that fails, as on a full disk, the work goes on and `close` tells it."""
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
    """Shows the events of a quantization run as they come."""

    def __init__(self, terminal: Terminal, progress: Progress | None) -> None:
        self._terminal = terminal
        self._progress = progress
        self._task = progress.add_task("starting", total=1.0, eta="") if progress else None
        self._block = ""
        self._progress_lines = ProgressLines(self._print)

    def show(self, event: Event) -> None:
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
            self._describe(self._block)
        elif isinstance(event, events.Loss):
            self._describe(f"{self._block}, step {event.iteration}/{event.iterations}, loss {event.loss:.4g}")
        elif isinstance(event, events.BlockDone):
            change = f"loss {event.loss_before:.4g} -> {event.loss_after:.4g}"
            self._print(f"block {event.block + 1}/{event.total}: {change}, {duration(event.seconds)}")
        elif isinstance(event, events.Progress):
            if self._progress is None or self._task is None:
                self._progress_lines.update(event)
            else:
                self._progress.update(self._task, completed=event.fraction, eta=time_left(event))

    def _describe(self, text: str) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=one_line(text))

    def _print(self, text: str) -> None:
        if self._progress is not None:
            self._progress.console.print(one_line(text))
        else:
            self._terminal.note(events.Log("info", text))


class ProgressLines:
    """Tells from time to time how far a long action is, in lines, for a log or a terminal without a bar.

    Args:
        print_line: gets the lines; now: the clock.
    """

    def __init__(self, print_line: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        self._print, self._now = print_line, now
        self._name, self._last_update = "", now()

    def begin(self, name: str) -> None:
        """Note the stage that is about to begin, which is told elsewhere."""
        self._name, self._last_update = name, self._now()

    def update(self, event: events.Progress) -> None:
        """Tell the progress, if the last line is long enough ago."""
        if event.fraction < 0 or self._now() - self._last_update < PROGRESS_INTERVAL:
            return
        self._last_update = self._now()
        left = time_left(event)
        self._print(f"{self._name or 'working'}: {100 * event.fraction:.0f} %{', ' if left else ''}{left}")


def time_left(event: events.Progress) -> str:
    """`3 to 5 min left`, or "" while nobody can tell."""
    return "" if event.seconds_low < 0 else f"{time_range(event.seconds_low, event.seconds_high)} left"


class Interrupts:
    """Turns the first Ctrl-C (or SIGTERM) into a wish to stop, while entered; the second one is a KeyboardInterrupt."""

    def __init__(self) -> None:
        self._requested = False
        self._before: dict[int, object] = {}

    def requested(self) -> bool:
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
    """`269 MB -> 120 MB (45 %)`."""
    share = f" ({100 * after / before:.0f} %)" if before else ""
    return f"{human(before)} -> {human(after)}{share}"
