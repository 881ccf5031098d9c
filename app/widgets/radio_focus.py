"""Tab order of exclusive buttons: only the checked button, or the first if none is checked, takes the focus.

Qt does that only after one of them has had the focus.
"""

from __future__ import annotations

from collections.abc import Iterable

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QAbstractButton


def settle_focus(buttons: Iterable[QAbstractButton]) -> None:
    """Set the focus policies of `buttons` so that Tab stops only at the checked one."""
    group = list(buttons)
    stop = next((button for button in group if button.isChecked()), group[0] if group else None)
    for button in group:
        policy = Qt.FocusPolicy.StrongFocus if button is stop else Qt.FocusPolicy.ClickFocus
        if button.focusPolicy() != policy:
            button.setFocusPolicy(policy)
