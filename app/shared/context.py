"""The objects that every page uses: the draft, the calls, the run, and functions of the main window.

The main window creates one `Context` and passes it to each page.
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
    """A button beside an error: its text and its action."""

    text: str
    act: Callable[[], object]


@dataclass(frozen=True)
class Context:
    """The objects that a page shares with the rest of the window.

    Attributes:
        draft: the choices of the user.
        calls: starts slow calls (headers, downloads, devices, search) in child processes.
        runs: the quantization run of this window.
        state: settings of the window, kept between sessions.
        theme: colors and tinted icons; emits `changed` with them.
        report: shows an error as a strip above the page, with a remedy if there is one.
        show_message: shows one line in the status bar.
        go: shows a page by its id (`model`, `recipe`, `layers`, `run`, `chat`, `convert`).
    """

    draft: Draft
    calls: Calls
    runs: Runs
    state: State
    theme: Theme
    report: Callable[[BitwrightError, Remedy | None], None]
    show_message: Callable[[str], None]
    go: Callable[[str], None]
