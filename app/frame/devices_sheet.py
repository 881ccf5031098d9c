"""The sheet of devices and backends, with the commands that install missing backends.

Shows the measured `Machine` of the draft and can measure it again with a call of the service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QFontDatabase, QGuiApplication
from PySide6.QtWidgets import QFrame, QGridLayout, QHBoxLayout, QPushButton, QToolButton, QVBoxLayout, QWidget

from app.frame.device_table import DeviceSection, as_text, said_of, sections_of
from app.frame.sheet import Sheet
from app.widgets.elided_label import ElidedLabel
from app.widgets.tinted_label import TintedLabel
from core.errors import BitwrightError
from core.inference.machine import Machine
from core.service.messages import MeasureMachine

if TYPE_CHECKING:
    from app.shared.context import Context
    from core.inference.backends.backend import BackendRow

_WIDTH = 860
_COLUMNS = (3, 4, 5)


class DevicesSheet(Sheet):
    """A list of devices, each with its backends."""

    def __init__(self, context: Context, parent: QWidget) -> None:
        super().__init__(context.theme, parent)
        self.setObjectName("devices_sheet")
        self.set_title(self.tr("Devices and backends"))
        self._context = context
        self._measuring = False
        self._problem = ""
        context.draft.machine_changed.connect(self._refresh_if_shown)

    def present(self) -> None:
        """Show the sheet with the current information."""
        self._refresh()
        super().present()

    def measure(self) -> None:
        """Detect the devices again, for example after a driver or a library was installed."""
        if self._measuring:
            return
        self._measuring, self._problem = True, ""
        self._context.calls.start(MeasureMachine(), on_success=self._measured, on_failure=self._failed)
        self._refresh()

    def _measured(self, machine: Machine) -> None:
        self._measuring = False
        self._context.draft.set_machine(machine)

    def _failed(self, error: BitwrightError) -> None:
        self._measuring, self._problem = False, str(error)
        self._refresh()

    def _refresh_if_shown(self) -> None:
        if not self.isHidden():
            self._refresh()

    def _refresh(self) -> None:
        sections = sections_of(self._context.draft.machine)
        self.set_content(_Content(self, sections, self._measuring, self._problem))
        if not self.isHidden():
            self._place()

    @property
    def context(self) -> Context:
        """The objects shared with the rest of the window."""
        return self._context


class _Content(QWidget):
    """The content of the sheet, with a width that keeps the table readable."""

    def __init__(self, sheet: DevicesSheet, sections: tuple[DeviceSection, ...], busy: bool, problem: str) -> None:
        super().__init__()
        self._theme = sheet.context.theme
        self._column = column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 8, 0)
        column.setSpacing(8)
        column.addLayout(self._head(sheet, sections, busy, problem))
        for section in sections:
            self._add(section)
        column.addStretch(1)

    def sizeHint(self) -> QSize:
        """Return the size that the sheet should give to the content."""
        return QSize(_WIDTH, self._column.heightForWidth(_WIDTH))

    def _head(self, sheet: DevicesSheet, sections: tuple[DeviceSection, ...], busy: bool, problem: str) -> QHBoxLayout:
        words = self.tr("Each layer uses the fastest available backend. You can choose another one on the Chat page.")
        if problem:
            words = problem
        elif busy or not sections:
            words = self.tr("Measuring this machine\N{HORIZONTAL ELLIPSIS}")
        label = TintedLabel(self._theme, words, role="bad" if problem else "muted", wrap=True, parent=self)
        label.setObjectName("devices_words")
        again = QPushButton(self.tr("Measure again"), self)
        again.setObjectName("devices_again")
        again.setToolTip(self.tr("Detect devices and measure their speed again, for example after installing a driver"))
        again.setEnabled(not busy)
        again.clicked.connect(sheet.measure)
        copy = QPushButton(self.tr("Copy as text"), self)
        copy.setObjectName("devices_copy")
        copy.setEnabled(bool(sections))
        copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(as_text(sections)))
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(label, 1)
        row.addWidget(again)
        row.addWidget(copy)
        return row

    def _add(self, section: DeviceSection) -> None:
        title = TintedLabel(self._theme, section.title, bold=True, parent=self)
        title.setObjectName(f"device_{section.id}")
        self._column.addSpacing(8)
        self._column.addWidget(title)
        if section.reason:
            words = self.tr("Cannot be used: {reason}").format(reason=section.reason)
            self._column.addWidget(TintedLabel(self._theme, words, role="warning", wrap=True, parent=self))
            return
        facts = [f"{name}: {value}" for name, value in section.facts]
        if section.chosen:
            facts.insert(0, self.tr("Used when the device is set to automatic"))
        # A non-breaking space keeps a name and its value on one line.
        words = "   ".join(fact.replace(" ", "\N{NO-BREAK SPACE}") if len(fact) < 60 else fact for fact in facts)
        self._column.addWidget(TintedLabel(self._theme, words, role="muted", wrap=True, parent=self))
        if section.rows:
            self._column.addLayout(self._table(section))

    def _table(self, section: DeviceSection) -> QGridLayout:
        grid = QGridLayout()
        grid.setHorizontalSpacing(16)
        grid.setVerticalSpacing(6)
        titles = (self.tr("Backend"), self.tr("Supported layers"), self.tr("Status"))
        for column, (title, share) in enumerate(zip(titles, _COLUMNS, strict=True)):
            grid.addWidget(TintedLabel(self._theme, title, role="muted", parent=self), 0, column)
            grid.setColumnStretch(column, share)
        line = 1
        for row in section.rows:
            rule = QFrame(self)
            rule.setFrameShape(QFrame.Shape.HLine)
            rule.setFrameShadow(QFrame.Shadow.Plain)
            rule.setForegroundRole(self.palette().ColorRole.Mid)
            grid.addWidget(rule, line, 0, 1, 3)
            self._fill(grid, line + 1, row)
            line += 2
        return grid

    def _fill(self, grid: QGridLayout, line: int, row: BackendRow) -> None:
        top = Qt.AlignmentFlag.AlignTop
        name = TintedLabel(self._theme, row.title or row.name, wrap=True, parent=self)
        name.setToolTip(self.tr("--backend {name}").format(name=row.name))
        name.setMinimumWidth(136)
        takes = TintedLabel(self._theme, row.takes, role="muted", wrap=True, parent=self)
        takes.setMinimumWidth(136)
        said, role = said_of(row)
        here = TintedLabel(self._theme, said, role=role, wrap=True, parent=self)
        here.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        here.setMinimumWidth(200)
        here.setObjectName(f"backend_{row.name}")
        last = QVBoxLayout()
        last.setSpacing(2)
        last.addWidget(here)
        if row.install:
            last.addLayout(self._command(row))
        grid.addWidget(name, line, 0, top)
        grid.addWidget(takes, line, 1, top)
        grid.addLayout(last, line, 2, top)

    def _command(self, row: BackendRow) -> QHBoxLayout:
        words = ElidedLabel(self._theme, row.install, middle=True, parent=self)
        words.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        words.set_exact(row.install)
        copy = QToolButton(self)
        copy.setObjectName(f"install_{row.name}")
        copy.setText(self.tr("Copy"))
        copy.setAccessibleName(self.tr("Copy the command that installs {name}").format(name=row.name))
        copy.setToolTip(row.install)
        copy.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        copy.setAutoRaise(True)
        copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(row.install))
        box = QHBoxLayout()
        box.setSpacing(8)
        box.addWidget(words, 1)
        box.addWidget(copy)
        return box
