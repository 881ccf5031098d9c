"""The menu of the map, and what is dropped on the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PySide6.QtCore import QMimeData, QPoint, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent, QGuiApplication
from PySide6.QtWidgets import QFileDialog
from pytestqt.qtbot import QtBot

from app.pages.layers.page import LayersPage
from app.shared.context import Remedy
from core.bitsmap import BitsMap, Rule
from core.errors import BitwrightError
from core.schemes import LayerScheme
from tests.app.find import find
from tests.app.pages.layers.parts import model, select_kind
from tests.core.paper_model import llama

Reports = list[tuple[BitwrightError, Remedy | None]]


@pytest.fixture
def small(page: LayersPage) -> LayersPage:
    page.context.draft.choose(model=model(llama(2)))
    return page


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder that another program might have made of a model with two blocks, without the weights."""
    folder = tmp_path / "quantized"
    folder.mkdir()
    config = {
        "model_type": "llama",
        "quantization_config": {
            "quant_method": "auto-round", "bits": 4, "group_size": 64, "sym": True,
            "packing_format": "auto_round:auto_gptq",
            "extra_config": {"model.layers.1.mlp.down_proj": {"bits": 8}},
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def drop(page: LayersPage, path: Path) -> bool:
    """Drop a file or folder on the page; whether the page took it."""
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path))])
    buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    enter = QDragEnterEvent(QPoint(9, 9), Qt.DropAction.CopyAction, mime, buttons, keys)
    enter.ignore()
    page.dragEnterEvent(enter)
    if not enter.isAccepted():
        return False
    page.dropEvent(QDropEvent(QPoint(9, 9), Qt.DropAction.CopyAction, mime, buttons, keys))
    return True


def test_a_dropped_map_is_taken(small: LayersPage, tmp_path: Path) -> None:
    wanted = BitsMap(LayerScheme(3, 64), (Rule("*.down_proj", 8),))
    wanted.save(tmp_path / "map.json")
    assert drop(small, tmp_path / "map.json")
    assert small.context.draft.choices.bits_map == wanted


def test_a_dropped_checkpoint_gives_its_map(
    small: LayersPage, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = BitsMap(LayerScheme(4, 64), layers=(Rule("model.layers.1.mlp.down_proj", 8),))
    monkeypatch.setattr(
        "core.formats.map_exchange.from_checkpoint", lambda folder: wanted if folder == checkpoint else None
    )
    for dropped in (checkpoint, checkpoint / "config.json"):
        assert drop(small, dropped)
        assert small.context.draft.choices.bits_map == wanted
        small.context.draft.undo_stack.undo()


def test_a_model_is_left_to_the_window(small: LayersPage, tiny_model: Path) -> None:
    assert not drop(small, tiny_model)


def test_a_checkpoint_that_cannot_be_read_is_reported(small: LayersPage, checkpoint: Path, reports: Reports) -> None:
    small._files.load_checkpoint(checkpoint)
    assert len(reports) == 1
    assert small.context.draft.undo_stack.count() == 0


def test_a_folder_without_a_model_is_reported(small: LayersPage, tmp_path: Path, reports: Reports) -> None:
    small.body.side.take.trigger()
    dialog = find(small, QFileDialog)
    dialog.fileSelected.emit(str(tmp_path))
    dialog.reject()
    assert "config.json is missing" in reports[0][0].message


def test_the_command_names_a_map_that_is_there(small: LayersPage) -> None:
    select_kind(small, "down")
    small.set_keys(bits=8)
    small.body.side.copy_command.trigger()
    words = QGuiApplication.clipboard().text().split()
    assert words[:3] == ["bitwright", "quantize", "paper"]
    saved = json.loads(Path(words[words.index("--bits-map") + 1]).read_text())
    assert len(saved["layers"]) == 2


def test_a_plain_map_needs_no_file(small: LayersPage) -> None:
    small.body.side.copy_command.trigger()
    assert "--bits 4" in QGuiApplication.clipboard().text()


def test_layer_config_lists_what_differs(small: LayersPage) -> None:
    select_kind(small, "down")
    small.set_keys(bits=8)
    small.body.side.copy_config.trigger()
    config = json.loads(QGuiApplication.clipboard().text())
    assert set(config) == {"model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"}


def test_simplified_rules_have_the_same_result(qtbot: QtBot, small: LayersPage, said: list[str]) -> None:
    select_kind(small, "down")
    small.set_keys(bits=8)
    before = [plan.scheme for plan in small.context.draft.plans]
    small.body.side.simplify.trigger()
    qtbot.waitUntil(lambda: bool(small.context.draft.choices.bits_map.rules))
    assert [plan.scheme for plan in small.context.draft.plans] == before
    small.body.side.simplify.trigger()
    qtbot.waitUntil(lambda: said[-1].startswith("The rules cannot"))


def test_menu_entries_have_names(small: LayersPage) -> None:
    texts = [action.text() for action in small.body.side.menu.menu().actions() if not action.isSeparator()]
    assert texts == [
        "Open map…", "Save map…", "Load from checkpoint…", "Copy as command", "Copy as layer_config",
        "Simplify rules", "Reset all",
    ]  # fmt: skip
