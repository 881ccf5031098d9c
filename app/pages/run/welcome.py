"""The Run page before the first run: an explanation, and a button for the next step."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QPushButton, QWidget

from app.shared.context import Context
from app.shared.engine_words import engine_line
from app.widgets.centred_column import centred_column
from app.widgets.primary_button import make_primary
from app.widgets.tinted_label import TintedLabel

_HEADING = 1.5
_WIDEST = 520


class RunWelcome(QWidget):
    """The empty state of the Run page."""

    def __init__(self, context: Context, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._context = context
        title = TintedLabel(context.theme, self.tr("No run yet"), bold=True, scale=_HEADING)
        text = TintedLabel(
            context.theme,
            self.tr(
                "This page shows the progress of a run: the loss of each block, the remaining time and the memory. "
                "After the run it shows a report with the quality, the size and the files of the quantized model."
            ),
            role="muted",
            wrap=True,
        )
        self._what = TintedLabel(context.theme, wrap=True)
        self._what.setObjectName("welcome_what")
        self._button = make_primary(QPushButton(), context.theme)
        self._button.setObjectName("welcome_button")
        self._button.clicked.connect(self._press)
        column = centred_column(self, _WIDEST)
        for widget in (title, text, self._what):
            column.addWidget(widget)
        column.addWidget(self._button, 0, Qt.AlignmentFlag.AlignLeft)
        draft = context.draft
        for signal in (draft.changed, draft.machine_changed, draft.engine_changed):
            signal.connect(self._refresh_if_seen)
        self.refresh()

    def showEvent(self, event: QShowEvent) -> None:
        """Update the state, as choices may have changed on other pages."""
        super().showEvent(event)
        self.refresh()

    def refresh(self) -> None:
        """Show the next step for the current choices."""
        draft = self._context.draft
        problem = draft.problem()
        self._ready = not problem
        if draft.model is None:
            self._what.setText(self.tr("Select a model first."))
            self._button.setText(self.tr("Select a model"))
        elif problem:
            self._what.setText(problem)
            self._button.setText(self.tr("Change settings"))
        else:
            ready = self.tr("{model} is ready.").format(model=draft.model.label)
            line, role = engine_line(draft.engine, draft.marks)
            self._what.setText(f"{ready} {line}" if role in ("bad", "warning") else ready)
            self._button.setText(self.tr("Quantize"))

    def _refresh_if_seen(self) -> None:
        if self.isVisible():
            self.refresh()

    def _press(self) -> None:
        draft = self._context.draft
        if self._ready:
            self._context.runs.start(draft.spec())
        else:
            self._context.go("model" if draft.model is None else "recipe")
