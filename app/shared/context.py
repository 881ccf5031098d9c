"""What every page is given: the shared choices, the way to slow calls, the run, and the frame around the page.

A frozen bundle of objects that the main window makes once; knows nothing of how they work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.errors import BitwrightError

if TYPE_CHECKING:
    from app.shared.calls.calls import Calls
    from app.shared.draft import Draft
    from app.shared.run.runs import Runs
    from app.state import State
    from app.theme import Theme


@dataclass(frozen=True)
class Remedy:
    """A button beside an error: its text and what it does."""

    text: str
    act: Callable[[], object]


@dataclass(frozen=True)
class Context:
    """The surroundings of a page.

    Attributes:
        draft: what the user has chosen so far.
        calls: starts slow things (headers, downloads, devices, search) in child processes.
        runs: the quantization run of this window.
        state: what is remembered from one start to the next.
        theme: colours and tinted icons; tells when they change.
        report: shows an error as a strip above the page, with a remedy if there is one.
        say: one line in the status bar.
        go: shows a page by its id (`model`, `recipe`, `layers`, `run`, `chat`, `convert`).
    """

    draft: Draft
    calls: Calls
    runs: Runs
    state: State
    theme: Theme
    report: Callable[[BitwrightError, Remedy | None], None]
    say: Callable[[str], None]
    go: Callable[[str], None]
