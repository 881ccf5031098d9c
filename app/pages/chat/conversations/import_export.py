"""Import of conversations from JSON, and export as Markdown or JSON, with file dialogs and messages."""

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
    """Let the user choose the file to write, as Markdown or JSON."""
    dialog = _dialog(parent, _tr("Export conversation"), [_tr("Markdown (*.md)"), _tr("JSON, all branches (*.json)")])
    dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
    dialog.setDefaultSuffix("md")
    dialog.filterSelected.connect(lambda kind: dialog.setDefaultSuffix("json" if "json" in kind else "md"))
    dialog.selectFile(f"{_file_name(name)}.md")
    dialog.fileSelected.connect(then)
    dialog.open()


def choose_import_path(parent: QWidget, then: Callable[[str], object]) -> None:
    """Let the user choose the file to read."""
    dialog = _dialog(parent, _tr("Import conversation"), [_tr("JSON (*.json)")])
    dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
    dialog.fileSelected.connect(then)
    dialog.open()


def export(
    conversation: Conversation, title: str, system: str, path: str, context: Context, again: Callable[[], object]
) -> None:
    """Write a conversation: all branches for `.json`, otherwise the shown branch as Markdown."""
    try:
        if path.lower().endswith(".json"):
            write_private(Path(path), json_bytes(to_json(conversation)))
        else:
            write_private(Path(path), conversation.to_markdown(title, system).encode("utf-8", errors="replace"))
    except OSError as error:
        reason = BitwrightError(f"{path} cannot be written: {error.strerror}.", _tr("Choose another location."))
        context.report(reason, Remedy(_tr("Save again"), again))
    else:
        context.show_message(_tr("Saved as {path}").format(path=path))


def imported(path: str, context: Context, again: Callable[[], object]) -> Conversation | None:
    """Return the conversation of a file as a new one; None after an error, which is reported."""
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
