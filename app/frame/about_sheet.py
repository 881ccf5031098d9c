"""The sheet with version and license of the program and its data folder."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import PySide6.QtCore
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QVBoxLayout, QWidget

from app.frame.sheet import Sheet
from app.theme import Theme


class AboutSheet(Sheet):
    """Version, license and data folder."""

    def __init__(self, theme: Theme, data_folder: Path, parent: QWidget) -> None:
        super().__init__(theme, parent)
        self.setObjectName("about_sheet")
        self.set_title(self.tr("About Bitwright"))
        lines = (
            self.tr("Bitwright {version}").format(version=installed_version()),
            self.tr("Quantizes large language models so that they run on your own machine."),
            self.tr("Licensed under the Apache License 2.0."),
            self.tr("Uses Qt {version} (LGPL 3) through PySide6.").format(version=PySide6.QtCore.qVersion()),
            self.tr("Jobs, presets and logs are stored in {folder}.").format(folder=data_folder),
        )
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        for line in lines:
            label = QLabel(line)
            label.setTextFormat(Qt.TextFormat.PlainText)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            column.addWidget(label)
        column.addStretch(1)
        self.set_content(content)


def installed_version() -> str:
    """Return the version of the installed package, or a placeholder if it is not installed."""
    try:
        return version("bitwright")
    except PackageNotFoundError:
        return "(not installed)"
