"""Import and export of the bits map: files, quantized checkpoints and the clipboard, with the file dialogs.

Each import is one undoable edit. Errors are reported and leave the map unchanged.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QDir, QObject, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFileDialog, QWidget

from app.shared.calls.background import Background
from app.shared.drop_target import checkpoint_of
from core import bitsmap
from core.allocation import map_rules
from core.bitsmap import BitsMap
from core.errors import BitwrightError, OutputProblem
from core.formats import map_exchange
from core.home import home
from core.model.tree import resolve_schemes

if TYPE_CHECKING:
    from app.shared.context import Context

_FOLDER: Final = "layers/folder"


class MapFiles(QObject):
    """Actions of the map menu; `window` is the parent of the file dialogs."""

    def __init__(self, context: Context, window: QWidget) -> None:
        super().__init__(window)
        self._context, self._window = context, window
        self._simplifying = Background(self)
        self._simplifying.done.connect(self._simplified)
        self._simplifying.failed.connect(lambda error: context.report(error, None))

    def choose(self) -> None:
        """Open a dialog to select a bits map file, and load it."""
        dialog = self._dialog(self.tr("Open a bits map"))
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.fileSelected.connect(self.open)
        dialog.open()

    def choose_checkpoint(self) -> None:
        """Open a dialog to select a quantized checkpoint, and load its map."""
        dialog = self._dialog(self.tr("Load the bits of a quantized checkpoint"))
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.setOption(QFileDialog.Option.ShowDirsOnly, True)
        dialog.fileSelected.connect(self.load_checkpoint)
        dialog.open()

    def choose_save_path(self) -> None:
        """Open a dialog to save the map."""
        model = self._context.draft.model
        dialog = self._dialog(self.tr("Save the bits map"))
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix("json")
        dialog.selectFile(f"{model.label.removesuffix('.gguf') if model is not None else 'model'}-bits.json")
        dialog.fileSelected.connect(self.save)
        dialog.open()

    def open(self, path: str | Path) -> None:
        """Load the map from a file, or the one that a quantized checkpoint was made with."""
        checkpoint = checkpoint_of(str(path))
        if checkpoint is not None:
            self.load_checkpoint(checkpoint)
            return
        draft, name = self._context.draft, Path(path).name
        try:
            found = self._checked(bitsmap.load(Path(path), draft.choices.bits_map.default))
        except BitwrightError as error:
            self._context.report(error, None)
            return
        draft.edit_map(found, self.tr("Open {}").format(name))
        self._context.show_message(self.tr("Bits map {} loaded.").format(name))

    def load_checkpoint(self, folder: str | Path) -> None:
        """Load the map that a checkpoint was made with."""
        try:
            found = self._checked(map_exchange.from_checkpoint(Path(folder)))
        except BitwrightError as error:
            self._context.report(error, None)
            return
        name = Path(folder).name
        self._context.draft.edit_map(found, self.tr("Map of {}").format(name))
        self._context.show_message(self.tr("Bits of {} loaded.").format(name))

    def save(self, path: str | Path) -> None:
        """Save the map to a file."""
        if self._write(Path(path)):
            self._context.show_message(self.tr("Saved as {}").format(path))

    def copy_command(self) -> None:
        """Copy the command line that uses the map to the clipboard, and save the map file that it reads."""
        draft = self._context.draft
        # A file for each map, so that commands copied earlier stay valid.
        text = json.dumps(draft.choices.bits_map.to_json(), sort_keys=True)
        path = home() / "commands" / hashlib.sha256(text.encode()).hexdigest()[:12] / "bits.json"
        model = draft.model.name if draft.model is not None else "MODEL"
        command = map_exchange.to_command(draft.choices.bits_map, model, str(path))
        if str(path) in command:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                self._context.report(
                    OutputProblem(f"The folder {path.parent} cannot be created: {error.strerror}.", ""), None
                )
                return
            if not self._write(path):
                return
        QGuiApplication.clipboard().setText(command)
        self._context.show_message(self.tr("Command copied."))

    def copy_config(self) -> None:
        """Copy the `layer_config` of AutoRound for this model to the clipboard."""
        draft = self._context.draft
        if draft.model is None or not draft.plans:
            return
        config = map_exchange.to_layer_config(draft.model.tree, draft.choices.bits_map)
        QGuiApplication.clipboard().setText(json.dumps(config, indent=2))
        default = draft.choices.bits_map.default.label()
        self._context.show_message(self.tr("layer_config copied; all other layers have {}.").format(default))

    def simplify(self) -> None:
        """Replace the rules by fewer rules that have the same result."""
        draft = self._context.draft
        if draft.model is None or not draft.plans:
            return
        before, tree = draft.choices.bits_map, draft.model.tree
        self._simplifying.ask(lambda: (before, map_rules.compact(tree, before)))

    def _simplified(self, found: tuple[BitsMap, BitsMap]) -> None:
        before, after = found
        draft = self._context.draft
        fewer = len(before.rules) + len(before.layers) - len(after.rules) - len(after.layers)
        if fewer <= 0:
            self._context.show_message(self.tr("The rules cannot be shortened further."))
        elif draft.choices.bits_map is before:
            draft.edit_map(after, self.tr("Simplify rules"))
            text = self.tr("Same result with {0} rules and {1} layers set by name.")
            self._context.show_message(text.format(len(after.rules), len(after.layers)))

    def _dialog(self, title: str) -> QFileDialog:
        state = self._context.state
        dialog = QFileDialog(self._window, title, state.value(_FOLDER, QDir.homePath()))
        dialog.setNameFilter(self.tr("Bits maps (*.json)"))
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(lambda path: state.set_value(_FOLDER, str(Path(path).parent)))
        return dialog

    def _write(self, path: Path) -> bool:
        try:
            self._context.draft.choices.bits_map.save(path)
        except OSError as error:
            problem = OutputProblem(f"{path} cannot be written: {error.strerror}.", self.tr("Choose another folder."))
            self._context.report(problem, None)
            return False
        return True

    def _checked(self, found: BitsMap) -> BitsMap:
        """Return the map if it fits the model.

        Raises:
            BadInput: The map does not fit the model.
        """
        model = self._context.draft.model
        if model is not None and (self._context.draft.plans or self._context.draft.misfit):
            resolve_schemes(model.tree, found)
        return found
