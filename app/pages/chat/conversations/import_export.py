"""Conversations out of and into the window: exported as Markdown or JSON, imported from JSON.

Asks for the file, reads and writes it, and says how it went; knows nothing of bubbles.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtWidgets import QFileDialog, QWidget

from app.pages.chat.conversations.conversation import Conversation, new_id
from app.pages.chat.conversations.json_format import from_json, to_json
from app.shared.context import Context, Remedy
from core.errors import BitwrightError
from core.files import json_bytes, read_json
from core.private_files import write_private

if TYPE_CHECKING:
    from collections.abc import Sequence


def _tr(text: str) -> str:
    return QCoreApplication.translate("Exchange", text)


def choose_export_path(parent: QWidget, name: str, then: Callable[[str], object]) -> None:
    """Let the user say where to write, as Markdown or as JSON."""
    dialog = _dialog(
        parent, _tr("Export the conversation"), [_tr("Markdown (*.md)"), _tr("JSON, all branches (*.json)")]
    )
    dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
    dialog.setDefaultSuffix("md")
    dialog.filterSelected.connect(lambda kind: dialog.setDefaultSuffix("json" if "json" in kind else "md"))
    dialog.selectFile(f"{_file_name(name)}.md")
    dialog.fileSelected.connect(then)
    dialog.open()


def choose_import_path(parent: QWidget, then: Callable[[str], object]) -> None:
    """Let the user say what to read."""
    dialog = _dialog(parent, _tr("Import a conversation"), [_tr("JSON (*.json)")])
    dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
    dialog.fileSelected.connect(then)
    dialog.open()


def export(
    conversation: Conversation, title: str, system: str, path: str, context: Context, again: Callable[[], object]
) -> None:
    """Write a conversation: all of it where the name ends in `.json`, else the shown branch as Markdown."""
    try:
        if path.lower().endswith(".json"):
            write_private(Path(path), json_bytes(to_json(conversation)))
        else:
            write_private(Path(path), conversation.to_markdown(title, system).encode("utf-8", errors="replace"))
    except OSError as error:
        reason = BitwrightError(f"{path} cannot be written: {error.strerror}.", _tr("Choose another place."))
        context.report(reason, Remedy(_tr("Save again"), again))
    else:
        context.show_message(_tr("Saved as {path}").format(path=path))


def imported(path: str, context: Context, again: Callable[[], object]) -> Conversation | None:
    """The conversation in a file, as a new one beside those that there are; None where it is none, which is told."""
    try:
        conversation = from_json(read_json(Path(path)), new_id())
    except BitwrightError as error:
        context.report(error, Remedy(_tr("Choose another file"), again))
        return None
    context.show_message(_tr("Imported {name}").format(name=conversation.name))
    return conversation


def _dialog(parent: QWidget, title: str, filters: Sequence[str]) -> QFileDialog:
    dialog = QFileDialog(parent, title)
    dialog.setNameFilters(list(filters))
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    return dialog


def _file_name(name: str) -> str:
    kept = "".join(letter if letter.isalnum() or letter in " -_.," else " " for letter in name)
    return " ".join(kept.split())[:60].rstrip(" .") or "conversation"
