"""One stop for Tab in a row of exclusive buttons: the chosen one, or the first while none is.

Qt sees to that once one of them has had the focus; until then Tab would stop at the first, chosen or not.
"""

from __future__ import annotations

from collections.abc import Iterable

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QAbstractButton


def settle_focus(buttons: Iterable[QAbstractButton]) -> None:
    """Let Tab reach the checked one of `buttons` and pass the others, which arrows reach."""
    group = list(buttons)
    stop = next((button for button in group if button.isChecked()), group[0] if group else None)
    for button in group:
        policy = Qt.FocusPolicy.StrongFocus if button is stop else Qt.FocusPolicy.ClickFocus
        if button.focusPolicy() != policy:
            button.setFocusPolicy(policy)
