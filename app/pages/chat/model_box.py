"""The list that a model is picked from, and the question for a folder that is in no list.

Shows choices (`app.shared.chat_choices`); knows neither where they come from nor what becomes of a pick.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFileDialog, QWidget

from app.shared.chat_choices import ChatChoice
from app.widgets.elided_box import ElidedBox


class ModelBox(ElidedBox):
    """Models by their short names, with a line where another kind of them begins; an item's data is the whole name."""

    def offer(self, choices: Sequence[ChatChoice]) -> None:
        """Offer these in place of all others."""
        self.clear()
        for index, choice in enumerate(choices):
            if index and choice.kind != choices[index - 1].kind:
                self.insertSeparator(self.count())
            self.addItem(choice.label, choice.name)
            # Escaped: a tooltip that looks like HTML would be laid out as such.
            whole = f"<p style='white-space:pre'>{html.escape(choice.name)}</p>"
            self.setItemData(self.count() - 1, whole, Qt.ItemDataRole.ToolTipRole)
        self.fit_list()


def ask_folder(parent: QWidget, then: Callable[[str], object]) -> None:
    """Let the user choose a folder that holds a model; `then` is told its path."""
    dialog = QFileDialog(parent, parent.tr("Open a model folder"))
    dialog.setFileMode(QFileDialog.FileMode.Directory)
    dialog.setOption(QFileDialog.Option.ShowDirsOnly)
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    dialog.fileSelected.connect(then)
    dialog.open()
