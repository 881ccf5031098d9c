"""Sampling settings with explanations, kept between sessions."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, Final

from PySide6.QtCore import QCoreApplication, QLocale, Qt, Signal
from PySide6.QtWidgets import QDoubleSpinBox, QGridLayout, QLabel, QPushButton, QSpinBox, QWidget

from app.state import State
from app.widgets.wheel_guard import WheelGuard
from core.inference.generation.settings import Sampling

NEW_SEED: Final = -1
"""Value for a new random seed per answer."""
_LARGEST_SEED: Final = 2**31 - 1


@dataclass(frozen=True)
class _Setting:
    """A setting: key, label, explanation, neutral default and range."""

    key: str
    label: str
    why: str
    default: float
    low: float
    high: float
    step: float


def _settings() -> tuple[_Setting, ...]:
    def tr(text: str) -> str:
        return QCoreApplication.translate("SamplingPanel", text)

    return (
        _Setting(
            "temperature", tr("&Temperature"),
            tr("Randomness of the choice of tokens. 0 always takes the most likely token."),
            0.0, 0.0, 5.0, 0.1,
        ),
        _Setting(
            "top_p", tr("Top-&p"),
            tr("Sample from the most likely tokens that together reach this probability. 1 disables it."),
            1.0, 0.01, 1.0, 0.05,
        ),
        _Setting(
            "top_k", tr("Top-&k"),
            tr("Sample from this many of the most likely tokens. 0 disables it."),
            0, 0, 100_000, 10,
        ),
        _Setting(
            "min_p", tr("&Min-p"),
            tr("Exclude tokens with less than this fraction of the highest probability. 0 disables it."),
            0.0, 0.0, 1.0, 0.05,
        ),
        _Setting(
            "repetition_penalty", tr("&Repetition penalty"),
            tr("Reduces the probability of tokens that already occurred. 1 disables it; 1.1 is usually enough."),
            1.0, 0.1, 5.0, 0.05,
        ),
        _Setting(
            "max_tokens", tr("Ma&x tokens"),
            tr("Maximum length of the answer in tokens."),
            512, 1, 1_000_000, 64,
        ),
        _Setting(
            "seed", tr("S&eed"),
            tr("The same seed gives the same answer. No effect at temperature 0."),
            NEW_SEED, NEW_SEED, _LARGEST_SEED, 1,
        ),
    )  # fmt: skip


class SamplingPanel(QWidget):
    """The settings as a form.

    Signals:
        changed: a setting changed.
    """

    changed = Signal()

    def __init__(self, state: State, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self._fields: dict[str, QSpinBox | QDoubleSpinBox] = {}
        self._settings = _settings()
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(0, 1)
        for row, setting in enumerate(self._settings):
            field = self._field(setting)
            label = QLabel(setting.label, self)
            label.setBuddy(field)
            label.setToolTip(setting.why)
            grid.addWidget(label, row, 0)
            grid.addWidget(field, row, 1)
        self._reset = QPushButton(self.tr("Reset"), self)
        self._reset.setObjectName("reset_sampling")
        self._reset.setToolTip(self.tr("Reset all settings to neutral values"))
        self._reset.clicked.connect(self.reset)
        grid.addWidget(self._reset, len(self._settings), 0, 1, 2, Qt.AlignmentFlag.AlignRight)
        self._update_reset()

    def values(self) -> Sampling:
        """Return the sampling settings; if the seed is random, draw one."""
        found: dict[str, Any] = {key: field.value() for key, field in self._fields.items()}
        if found["seed"] == NEW_SEED:
            found["seed"] = secrets.randbelow(_LARGEST_SEED)
        return Sampling(**found)

    @property
    def fixed(self) -> bool:
        """Return whether the same message always gets the same answer."""
        return self._fields["temperature"].value() == 0

    def reset(self) -> None:
        """Reset all settings to their neutral values."""
        for setting in self._settings:
            field = self._fields[setting.key]
            if isinstance(field, QSpinBox):
                field.setValue(int(setting.default))
            else:
                field.setValue(setting.default)

    def _field(self, setting: _Setting) -> QSpinBox | QDoubleSpinBox:
        field: QSpinBox | QDoubleSpinBox
        if isinstance(setting.default, int):
            field = QSpinBox(self)
            field.setRange(int(setting.low), int(setting.high))
            field.setSingleStep(int(setting.step))
            value: float = self._state.value(f"chat/{setting.key}", int(setting.default))
            field.setValue(int(value))
        else:
            field = QDoubleSpinBox(self)
            field.setDecimals(2)
            field.setRange(setting.low, setting.high)
            field.setSingleStep(setting.step)
            field.setValue(self._state.value(f"chat/{setting.key}", float(setting.default)))
        if setting.key == "seed":
            field.setSpecialValueText(self.tr("random"))
        else:
            field.setGroupSeparatorShown(field.locale().language() != QLocale.Language.C)
        field.setObjectName(f"sampling_{setting.key}")
        field.setAccessibleName(setting.label.replace("&", ""))
        field.setAccessibleDescription(setting.why)
        field.setToolTip(setting.why)
        field.setAlignment(Qt.AlignmentFlag.AlignRight)
        WheelGuard(field)
        field.valueChanged.connect(lambda value, key=setting.key: self._note(key, value))
        self._fields[setting.key] = field
        return field

    def _note(self, key: str, value: float) -> None:
        self._state.set_value(f"chat/{key}", value)
        self._update_reset()
        self.changed.emit()

    def _update_reset(self) -> None:
        neutral = all(self._fields[setting.key].value() == setting.default for setting in self._settings)
        self._reset.setEnabled(not neutral)
