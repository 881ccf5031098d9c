"""The row of a parameter: name, field or check box, unit, explanation, default, and a reset button.

Shows the error of an invalid value and keeps the input for correction.
"""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QEvent, QObject, QSize, Qt, Signal
from PySide6.QtGui import QKeyEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QCheckBox, QComboBox, QHBoxLayout, QLineEdit, QPushButton, QVBoxLayout, QWidget

from app.pages.recipe import parameters
from app.pages.recipe.parameters import Parameter
from app.theme import Theme
from app.widgets.note import Note
from app.widgets.tinted_label import TintedLabel
from core.errors import BitwrightError
from core.recipes import Recipe

_FIELD_CHARS = 8
_DOT = 8


class ParameterRow(QWidget):
    """The row of a parameter.

    Signals:
        turned: the new valid value.
    """

    turned = Signal(object)

    def __init__(self, theme: Theme, parameter: Parameter, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._parameter = parameter
        self._value: Any = None
        self._default: Any = None
        self._recipe = Recipe()
        self._shown_once = False
        self._dot = _Dot(theme, self)
        self._switch: QCheckBox | None = None
        self._field: QLineEdit | None = None
        self._choice: QComboBox | None = None
        head = QHBoxLayout()
        head.setSpacing(8)
        head.addWidget(self._dot)
        if parameter.kind == "switch":
            self._switch = self._make_switch()
            head.addWidget(self._switch)
        elif parameter.kind == "choice":
            self._choice = self._make_choice()
            head.addWidget(self._make_label(theme, self._choice))
            head.addWidget(self._choice)
        else:
            self._add_field(theme, head)
        head.addStretch(1)
        self._reset = QPushButton(self.tr("Reset"), self)
        self._reset.setObjectName(f"reset-{parameter.key}")
        self._reset.setAccessibleName(self.tr("Reset {name}").format(name=parameter.label))
        self._reset.setAutoDefault(False)
        self._reset.clicked.connect(self._back)
        # keeps the row height when the button is shown
        policy = self._reset.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self._reset.setSizePolicy(policy)
        head.addWidget(self._reset)
        self._problem = Note(theme, role="bad", parent=self)
        self._problem.setObjectName(f"problem-{parameter.key}")
        self._explanation = Note(theme, parameter.explanation, parent=self)
        below = QVBoxLayout()
        below.setContentsMargins(_DOT + head.spacing(), 0, 0, 0)  # under the name, not under the dot
        below.setSpacing(2)
        below.addWidget(self._problem)
        below.addWidget(self._explanation)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addLayout(head)
        column.addLayout(below)
        column.addStretch(1)

    @property
    def parameter(self) -> Parameter:
        """The parameter."""
        return self._parameter

    @property
    def changed(self) -> bool:
        """Return whether the value differs from the default, which is marked with a dot."""
        return bool(self._value != self._default)

    @property
    def refused(self) -> bool:
        """Return whether the input is invalid."""
        return not self._problem.isHidden()

    def stops(self) -> list[QWidget]:
        """Return the focusable widgets in reading order."""
        return [widget for widget in (self._switch, self._choice, self._field, self._reset) if widget is not None]

    def show_value(self, value: Any, default: Any, recipe: Recipe) -> None:
        """Show the value and the default; `recipe` gives the value of an empty rate.

        The input is kept unless the value was changed elsewhere, or another recipe was selected.
        """
        moved = not self._shown_once or value != self._value or recipe.name != self._recipe.name
        self._shown_once = True
        self._value, self._default, self._recipe = value, default, recipe
        if self._switch is not None:
            self._switch.setChecked(bool(value))
        if self._choice is not None:
            self._choice.setCurrentIndex(self._choice.findData(value))
        unused = parameters.unused(self._parameter, recipe)
        if self._field is not None:
            self._field.setEnabled(not unused)
            self._field.setAccessibleDescription(unused or self._parameter.explanation)
            self._field.setPlaceholderText(parameters.automatic(self._parameter, recipe))
            typed = parameters.parse(self._parameter, self._field.text())
            if unused or (moved and not (self._field.hasFocus() and typed == value)):
                self._field.setText(parameters.shown(self._parameter, value))
            if unused or moved:
                self._problem.set_text("", "bad")
        self._dot.set_on(self.changed)
        self._reset.setVisible(self.changed or self.refused)
        usual = self.tr("Default: {value}.").format(value=parameters.spoken(self._parameter, default))
        self._explanation.set_text(unused or f"{self._parameter.explanation} {usual}")

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Handle Escape: restore the value after an invalid input."""
        escape = isinstance(event, QKeyEvent) and event.key() == Qt.Key.Key_Escape
        if escape and event.type() == QEvent.Type.KeyPress and self._field is not None and self.refused:
            self._restore()
            return True
        return False

    def _make_switch(self) -> QCheckBox:
        switch = QCheckBox(self._parameter.label, self)
        switch.setObjectName(f"parameter-{self._parameter.key}")
        switch.setAccessibleDescription(self._parameter.explanation)
        switch.clicked.connect(lambda on: self.turned.emit(on))
        return switch

    def _make_choice(self) -> QComboBox:
        choice = QComboBox(self)
        choice.setObjectName(f"parameter-{self._parameter.key}")
        choice.setAccessibleName(self._parameter.label)
        choice.setAccessibleDescription(self._parameter.explanation)
        for value, text in self._parameter.choices:
            choice.addItem(text, value)
        choice.activated.connect(lambda index: self.turned.emit(choice.itemData(index)))
        return choice

    def _make_label(self, theme: Theme, field: QWidget) -> TintedLabel:
        label = TintedLabel(theme, self._parameter.label, parent=self)
        label.setBuddy(field)
        names = (other.label for other in parameters.PARAMETERS if other.kind != "switch")
        label.setMinimumWidth(max(label.fontMetrics().horizontalAdvance(name) + 2 for name in names))
        return label

    def _add_field(self, theme: Theme, head: QHBoxLayout) -> None:
        parameter = self._parameter
        field = QLineEdit(self)
        field.setObjectName(f"parameter-{parameter.key}")
        field.setAccessibleName(f"{parameter.label}, {parameter.unit}" if parameter.unit else parameter.label)
        field.setAccessibleDescription(parameter.explanation)
        limits = self.tr("From {low:,} to {high:,}")
        if parameter.kind == "size":
            limits = self.tr("A size in MB or GB")
        if parameter.kind == "rate":
            limits = self.tr("Above {low:,}, at most {high:,}")
        field.setToolTip(limits.format(low=parameter.low, high=parameter.high))
        field.setFixedWidth(field.fontMetrics().averageCharWidth() * _FIELD_CHARS + 16)
        field.setAlignment(Qt.AlignmentFlag.AlignRight)
        field.textEdited.connect(self._typed)
        field.editingFinished.connect(self._settle)
        field.installEventFilter(self)
        self._field = field
        head.addWidget(self._make_label(theme, field))
        head.addWidget(field)
        if parameter.unit:
            head.addWidget(TintedLabel(theme, parameter.unit, role="muted", parent=self))

    def _typed(self, text: str) -> None:
        """Accept a valid value at once; ignore an invalid one, as typing may not have finished."""
        value = parameters.parse(self._parameter, text)
        self._problem.set_text("", "bad")
        if self._refusal(value) is None and value != self._value:
            self.turned.emit(value)

    def _settle(self) -> None:
        """Show the error or format the value when editing has finished."""
        if self._field is None:
            return
        value = parameters.parse(self._parameter, self._field.text())
        error = self._refusal(value)
        if error is not None:
            self._problem.set_text(str(error), "bad")
            self._reset.setVisible(True)
            return
        self._field.setText(parameters.shown(self._parameter, value))

    def _refusal(self, value: Any) -> BitwrightError | None:
        try:
            parameters.check(self._parameter, self._recipe, value)
        except BitwrightError as error:
            return error
        return None

    def _back(self) -> None:
        self._problem.set_text("", "bad")
        changed, default = self.changed, self._default
        self._restore()
        if changed:
            self.turned.emit(default)

    def _restore(self) -> None:
        self._problem.set_text("", "bad")
        if self._field is not None:
            self._field.setText(parameters.shown(self._parameter, self._value))
        self._reset.setVisible(self.changed)


class _Dot(QWidget):
    """A dot that marks a changed parameter; it takes the same space when hidden."""

    def __init__(self, theme: Theme, parent: QWidget) -> None:
        super().__init__(parent)
        self._theme, self._on = theme, False
        self.setFixedSize(QSize(_DOT, _DOT))
        theme.changed.connect(self.update)

    def set_on(self, on: bool) -> None:
        """Show or hide the dot."""
        self._on = on
        self.setToolTip(self.tr("Changed") if on else "")
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint the dot."""
        if not self._on:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(self._theme.color("accent"))
        painter.drawEllipse(self.rect().adjusted(0, 0, -1, -1))
        painter.end()
