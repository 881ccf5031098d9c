"""Import of conversations from JSON, and export as Markdown or JSON, with file dialogs and messages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtWidgets import QFileDialog, QWidget

from app.pages.chat.conversations.conversation import Conversation, new_id
from app.pages.chat.conversations.json_format import from_json, to_json
from app.pages.chat.conversations.picture_files import PictureFiles, embed, extract
from app.pages.chat.conversations.store import ConversationStore
from app.shared.context import Context, Remedy
from core.errors import BitwrightError
from core.files import json_bytes, read_json
from core.private_files import write_private

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_IMPORTED: Final = 512 << 20
"""Maximum size of an imported file in bytes; its pictures are part of it."""


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
    conversation: Conversation,
    title: str,
    system: str,
    path: str,
    store: ConversationStore,
    context: Context,
    again: Callable[[], object],
) -> None:
    """Write a conversation in the background: all branches and pictures for `.json`, otherwise the shown branch."""
    if path.lower().endswith(".json"):
        value = to_json(conversation)
        write = partial(_write_json, Path(path), value, store.pictures.folder)
    else:
        text = conversation.to_markdown(title, system).encode("utf-8", errors="replace")
        write = partial(_write, Path(path), text)
    store.run(
        write,
        lambda _none: context.show_message(_tr("Saved as {path}").format(path=path)),
        lambda error: context.report(error, Remedy(_tr("Save again"), again)),
    )


def import_file(
    path: str,
    store: ConversationStore,
    context: Context,
    then: Callable[[Conversation], object],
    again: Callable[[], object],
) -> None:
    """Read the conversation of a file as a new one in the background, and call `then` with it."""

    def done(conversation: Conversation) -> None:
        context.show_message(_tr("Imported {name}").format(name=conversation.name))
        then(conversation)

    store.run(
        partial(_read, Path(path), store.pictures),
        done,
        lambda error: context.report(error, Remedy(_tr("Choose another file"), again)),
    )


def _write_json(path: Path, value: dict[str, Any], pictures: Path) -> None:
    _write(path, json_bytes(embed(value, pictures)))


def _write(path: Path, data: bytes) -> None:
    try:
        write_private(path, data)
    except OSError as error:
        raise BitwrightError(f"{path} cannot be written: {error.strerror}.", _tr("Choose another location.")) from error


def _read(path: Path, pictures: PictureFiles) -> Conversation:
    return from_json(extract(read_json(path, MOST_IMPORTED), pictures), new_id(), pictures)


def _dialog(parent: QWidget, title: str, filters: Sequence[str]) -> QFileDialog:
    dialog = QFileDialog(parent, title)
    dialog.setNameFilters(list(filters))
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    return dialog


def _file_name(name: str) -> str:
    kept = "".join(letter if letter.isalnum() or letter in " -_.," else " " for letter in name)
    return " ".join(kept.split())[:60].rstrip(" .") or "conversation"
