"""The main window: job bar, rail, pages, error strip, log and status line, and their connections.

The window is painted before anything slow is imported; choices, run and pages are created afterwards. Depends on the
frame and on the interface of pages, not on a particular page.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

from PySide6.QtCore import QSize, QTimer, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFrame, QHBoxLayout, QMainWindow, QPushButton, QSplitter, QVBoxLayout, QWidget

from app.frame.job_bar import JobBar
from app.frame.page_stack import PAGES, PageEntry, PageStack
from app.frame.rail import Rail
from app.frame.status_line import StatusLine
from app.state import State
from app.theme import Theme

if TYPE_CHECKING:
    from PySide6.QtGui import QCloseEvent, QDragEnterEvent, QDropEvent, QKeyEvent, QPaintEvent

    from app.frame.error_strip import ErrorStrip
    from app.frame.job_control import JobControl
    from app.frame.leaving import Leaving
    from app.frame.log_view import LogView
    from app.frame.sheets import Sheets
    from app.logs import LogFeed
    from app.shared.context import Context, Remedy
    from core.errors import BitwrightError

__all__ = ["PAGES", "MainWindow", "real_context"]

_log = logging.getLogger(__name__)
_FIRST_SIZE = QSize(1200, 800)
_SMALLEST = QSize(640, 480)
_LOG_SHARE = (3, 1)

MakeContext = Callable[["MainWindow"], "Context"]


def real_context(window: MainWindow) -> Context:
    """Return the objects that are passed to the pages of a real window."""
    from app.shared.calls.calls import Calls
    from app.shared.context import Context
    from app.shared.draft import Draft
    from app.shared.run.runs import Runs

    return Context(
        draft=Draft(window),
        calls=Calls(window),
        runs=Runs(window),
        state=window.state,
        theme=window.theme,
        report=window.report,
        show_message=window.show_message,
        go=window.go,
    )


class MainWindow(QMainWindow):
    """The frame around the pages.

    Signals:
        painted: the frame was painted for the first time.
        furnished: the choices, the run and the current page were created.
        left: the window is closed, and everything it started has ended or was detached.
    """

    painted = Signal()
    furnished = Signal()
    left = Signal()

    def __init__(
        self,
        theme: Theme,
        state: State,
        feed: LogFeed,
        *,
        pages: Sequence[PageEntry] = PAGES,
        make_context: MakeContext = real_context,
    ) -> None:
        super().__init__()
        self.theme, self.state, self.feed = theme, state, feed
        self.context: Context | None = None
        self._make_context = make_context
        self._was_painted = False
        self._wanted: list[str] = []
        self._job: JobControl | None = None
        self._sheets: Sheets | None = None
        self._leaving: Leaving | None = None
        self._titles = titles = tuple((entry.id, entry.title) for entry in pages)
        self.rail = Rail(theme, titles)
        self.job_bar = JobBar(theme, self.rail.width())
        self.stack = PageStack(pages)
        self.status = StatusLine()
        self.setWindowTitle("Bitwright")
        self.setAcceptDrops(True)
        self.setMinimumSize(_SMALLEST)
        self._lay_out()
        self.rail.chosen.connect(self.go)
        self.resize(_FIRST_SIZE)
        self.restoreGeometry(state.geometry)
        self.go(state.page if state.page in dict(titles) else titles[0][0])

    # Hidden at first, so created on first use, after the first paint.

    @cached_property
    def strip(self) -> ErrorStrip:
        """The strip above the page."""
        from app.frame.error_strip import ErrorStrip

        strip = ErrorStrip(self.theme)
        self._column.insertWidget(0, strip)
        return strip

    @cached_property
    def log(self) -> LogView:
        """The log panel below the page."""
        from app.frame.log_view import LogView

        log = LogView(self.theme, self.feed)
        log.close_asked.connect(lambda: self._show_log(False))
        self._right.addWidget(log)
        self._right.setSizes([1000 * share for share in _LOG_SHARE])
        return log

    # --- interface for pages and the application ---

    def report(self, error: BitwrightError, remedy: Remedy | None = None) -> None:
        """Show an error as a strip above the page; ignore a cancellation."""
        if error.code != "cancelled":
            _log.warning("%s", error)
            self.strip.show_error(error, remedy)

    def show_failure(self, error: BitwrightError, details: str) -> None:
        """Show an uncaught exception; its traceback can be copied."""
        _log.info("Shown to the user: %s", error)
        self.strip.show_error(error, _copies(self.tr("Copy details"), details))

    def show_message(self, text: str) -> None:
        """Show a message in the status line."""
        self.status.show_message(text)

    def go(self, page: str) -> None:
        """Show a page by its id."""
        self.rail.show_page(page)
        self.stack.show_page(page)
        if page == "run" and self._job is not None and self._job.told and self.strip.message == self._job.told:
            self.strip.dismiss()  # the page shows the message itself

    def open_words(self, words: str) -> None:
        """Open a path, a link or the name of a model; deferred until the pages exist."""
        if self.context is None:
            self._wanted.append(words)
            return
        from app.shared.drop_target import target_of
        from core.errors import BitwrightError

        try:
            target = target_of(words)
        except BitwrightError as error:
            self.report(error)
            return
        method = "open_model" if target.kind == "model" else "open_file"
        self._hand_to({"model": "model", "recipe": "recipe", "map": "layers"}[target.kind], method, target.value)

    def show_crash(self, details: str) -> None:
        """Report a crash of the previous session; the stacks of its threads can be copied."""
        hint = self.tr("If a run was active, the Run page shows its state.")
        copies = _copies(self.tr("Copy details"), details)
        self.strip.show_warning(self.tr("Bitwright crashed in the previous session."), hint, copies)

    def answer_start(self, words: str) -> None:
        """Handle another start of the program, perhaps with a model."""
        self.come_forward()
        if words:
            self.open_words(words)

    def come_forward(self) -> None:
        """Raise the window, as requested by another start of the program."""
        from PySide6.QtCore import Qt  # late: see app.theme

        self.setWindowState(self.windowState() & ~Qt.WindowState.WindowMinimized)
        self.show()
        self.raise_()
        self.activateWindow()

    def do_primary(self) -> None:
        """Press the main button, or show the reason why it is disabled."""
        if self.job_bar.action:
            self.job_bar.press_primary()
        elif self.job_bar.reason:
            self.show_message(self.job_bar.reason)

    # --- construction ---

    def furnish(self) -> None:
        """Create the choices, the run and the pages. Called once, after the first paint."""
        if self.context is not None:
            return
        from app.frame.job_control import JobControl
        from app.frame.leaving import Leaving

        self.theme.heed_contrast()
        self._connect()
        self.context = context = self._make_context(self)
        self._job = JobControl(
            context, self.job_bar, self.status, self.feed, self._chat_with, lambda: self.stack.current, self
        )
        self._leaving = Leaving(context.runs, context.calls, self.strip, self)
        self._leaving.ready.connect(self.close)
        self._leaving.stopping.connect(lambda: self.show_message(self.tr("Stopping the run")))
        context.calls.unhandled.connect(self.report)
        context.calls.activity.connect(lambda text: self.status.set_running("calls", text))
        self.stack.furnish(context)
        self.status.start_measuring()
        self.furnished.emit()

    def _first_painted(self) -> None:
        self.painted.emit()
        self.furnish()

    def _lay_out(self) -> None:
        self._right = right = QSplitter()
        right.setProperty("orientation", "Vertical")  # by name: see app.theme
        right.setChildrenCollapsible(False)
        self._upper = upper = QWidget()
        self._column = column = QVBoxLayout(upper)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self.stack, 1)
        right.addWidget(upper)
        middle = QHBoxLayout()
        middle.setSpacing(0)
        middle.addWidget(self.rail)
        middle.addWidget(_line(QFrame.Shape.VLine))
        middle.addWidget(right, 1)
        ground = QWidget()
        whole = QVBoxLayout(ground)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.setSpacing(0)
        whole.addWidget(self.job_bar)
        whole.addWidget(_line(QFrame.Shape.HLine))
        whole.addLayout(middle, 1)
        whole.addWidget(_line(QFrame.Shape.HLine))
        whole.addWidget(self.status)
        self.setCentralWidget(ground)

    def _connect(self) -> None:
        from app.frame import actions
        from app.frame.settings_menu import settings_menu
        from app.frame.sheets import Sheets, open_data_folder

        entries = (*actions.page_entries(self._titles), *actions.TABLE)
        self._sheets = sheets = Sheets(self.theme, self._upper, entries)
        slots: dict[str, Callable[[], object]] = {
            "primary": self.do_primary,
            "cancel": lambda: self._job.cancel() if self._job is not None else None,
            "remedy": self.strip.press_remedy,
            "dismiss": self._dismiss,
            "log": lambda: self._show_log(self.log.isHidden()),
            "shortcuts": lambda: sheets.show_keys(self.stack.pages),
            "data_folder": partial(open_data_folder, self.report, partial(_copies, self.tr("Copy the path"))),
            "devices": lambda: sheets.show_devices(self.context) if self.context is not None else None,
            "about": sheets.show_about,
            "quit": self.close,
            **{f"page.{page}": partial(self.go, page) for page, _title in self._titles},
        }
        made = actions.make(self, entries, slots)
        self.rail.set_menu(settings_menu(self, made))
        self.status.log_toggled.connect(self._show_log)
        self.stack.built.connect(self._page_built)
        self.stack.complete.connect(self._settle)
        self.stack.failed.connect(self.show_failure)

    def _page_built(self, page_id: str) -> None:
        from app.widgets.primary_button import make_primary

        page = self.stack.pages[page_id]
        for button in page.findChildren(QPushButton, "next"):
            make_primary(button, self.theme)
        if hasattr(page, "dot"):

            def mark() -> None:
                self.rail.set_dot(page_id, bool(page.dot()))

            mark()
            if hasattr(page, "dot_changed"):
                page.dot_changed.connect(mark)

    def _settle(self) -> None:
        """Reconnect to a running job and open what was requested, once all pages exist."""
        if self.context is not None and self.context.runs.adopt():
            self.show_message(self.tr("Reconnected to the run that was active when Bitwright was closed."))
            self.go("run")
        wanted, self._wanted = self._wanted, []
        for words in wanted:
            self.open_words(words)

    def _hand_to(self, page_id: str, method: str, value: str) -> None:
        self.go(page_id)
        page = self.stack.page(page_id)
        getattr(page, method)(value)

    def _chat_with(self, folder: str) -> None:
        self.go("chat")
        page = self.stack.page("chat")
        if page is not None and hasattr(page, "open_model"):
            page.open_model(folder)

    # --- own actions ---

    def _show_log(self, shown: bool) -> None:
        self.log.setVisible(shown)
        self.status.set_log_shown(shown)

    def _dismiss(self) -> None:
        """Close the sheet, the message or the log, whichever comes first."""
        sheet = self._sheets.shown if self._sheets is not None else None
        if sheet is not None:
            sheet.dismiss()
        elif self.strip.isVisible():
            self.strip.dismiss()
        elif self.log.isVisible():
            self._show_log(False)

    # --- events ---

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if not self._was_painted:
            self._was_painted = True
            QTimer.singleShot(0, self, self._first_painted)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        from PySide6.QtCore import Qt  # late: see app.theme

        if event.key() == Qt.Key.Key_Escape:
            self._dismiss()
        else:
            super().keyPressEvent(event)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        from app.shared.drop_target import words_of

        if words_of(event.mimeData()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        from app.shared.drop_target import words_of

        event.acceptProposedAction()
        self.open_words(words_of(event.mimeData()))

    def closeEvent(self, event: QCloseEvent) -> None:
        if self._leaving is not None and not self._leaving.may_close():
            event.ignore()
            self.come_forward()
            return
        self.state.geometry = self.saveGeometry()
        self.state.page = self.stack.current
        self.state.save()
        self.hide()
        if self.context is not None:
            self.context.calls.close()
            self.context.runs.close()
        event.accept()
        self.left.emit()

    def leave_now(self) -> None:
        """Close without a question, for example at logout; a run continues without the window."""
        if self._leaving is not None:
            self._leaving.keep()
        self.close()


def _copies(words: str, text: str) -> Remedy:
    """Return a button that copies `text` to the clipboard."""
    from app.shared.context import Remedy

    return Remedy(words, lambda: QGuiApplication.clipboard().setText(text))


def _line(shape: QFrame.Shape) -> QFrame:
    line = QFrame()
    line.setFrameShape(shape)
    line.setFrameShadow(QFrame.Shadow.Plain)
    line.setForegroundRole(line.palette().ColorRole.Mid)
    return line
