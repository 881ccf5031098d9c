"""Bits maps in files, in checkpoints and on the clipboard: from the draft and back, each way in as one undoable edit.

What goes wrong is reported and changes nothing. Knows no widget of the page.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject
from PySide6.QtGui import QGuiApplication

from app.shared.calls.background import Background
from app.shared.drops import checkpoint_of
from core import bitsmap
from core.allocation import map_rules
from core.bitsmap import BitsMap
from core.errors import BitwrightError, OutputProblem
from core.formats import map_exchange
from core.home import home
from core.model.tree import resolve_schemes

if TYPE_CHECKING:
    from app.shared.context import Context


class MapFiles(QObject):
    """What the menu of the map does."""

    def __init__(self, context: Context, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._context = context
        self._tidying = Background(self)
        self._tidying.done.connect(self._tidied)
        self._tidying.failed.connect(lambda error: context.report(error, None))

    def open(self, path: str | Path) -> None:
        """Take the map in a file, or the one that a quantized checkpoint was made with."""
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
        self._context.say(self.tr("The bits map {} is in use.").format(name))

    def load_checkpoint(self, folder: str | Path) -> None:
        """Take the map that a checkpoint was made with."""
        try:
            found = self._checked(map_exchange.from_checkpoint(Path(folder)))
        except BitwrightError as error:
            self._context.report(error, None)
            return
        name = Path(folder).name
        self._context.draft.edit_map(found, self.tr("Map of {}").format(name))
        self._context.say(self.tr("The bits of {} are in use.").format(name))

    def save(self, path: str | Path) -> None:
        """Write the map to a file."""
        if self._write(Path(path)):
            self._context.say(self.tr("Saved as {}").format(path))

    def copy_command(self) -> None:
        """Put the command that runs the map on the clipboard; what it reads is written for it."""
        draft = self._context.draft
        # a map of an earlier command must keep its meaning, so each has a file of its own
        text = json.dumps(draft.choices.bits_map.to_json(), sort_keys=True)
        path = home() / "commands" / hashlib.sha256(text.encode()).hexdigest()[:12] / "bits.json"
        model = draft.model.name if draft.model is not None else "MODEL"
        command = map_exchange.to_command(draft.choices.bits_map, model, str(path))
        if str(path) in command:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                self._context.report(OutputProblem(f"{path.parent} cannot be made: {error.strerror}.", ""), None)
                return
            if not self._write(path):
                return
        QGuiApplication.clipboard().setText(command)
        self._context.say(self.tr("The command is on the clipboard."))

    def copy_config(self) -> None:
        """Put AutoRound's `layer_config` for this model on the clipboard."""
        draft = self._context.draft
        if draft.model is None or not draft.plans:
            return
        config = map_exchange.to_layer_config(draft.model.tree, draft.choices.bits_map)
        QGuiApplication.clipboard().setText(json.dumps(config, indent=2))
        default = draft.choices.bits_map.default.label()
        self._context.say(self.tr("The layer_config is on the clipboard; all other layers have {}.").format(default))

    def tidy(self) -> None:
        """Say the same with fewer rules."""
        draft = self._context.draft
        if draft.model is None or not draft.plans:
            return
        before, tree = draft.choices.bits_map, draft.model.tree
        self._tidying.ask(lambda: (before, map_rules.compact(tree, before)))

    def _tidied(self, found: tuple[BitsMap, BitsMap]) -> None:
        before, after = found
        draft = self._context.draft
        fewer = len(before.rules) + len(before.layers) - len(after.rules) - len(after.layers)
        if fewer <= 0:
            self._context.say(self.tr("The map cannot be said with less."))
        elif draft.choices.bits_map is before:
            draft.edit_map(after, self.tr("Tidy"))
            text = self.tr("The same with {0} rules and {1} layers set by name.")
            self._context.say(text.format(len(after.rules), len(after.layers)))

    def _write(self, path: Path) -> bool:
        try:
            self._context.draft.choices.bits_map.save(path)
        except OSError as error:
            problem = OutputProblem(f"{path} cannot be written: {error.strerror}.", self.tr("Choose another place."))
            self._context.report(problem, None)
            return False
        return True

    def _checked(self, found: BitsMap) -> BitsMap:
        """The map, where it fits the model.

        Raises:
            BadInput: it does not.
        """
        model = self._context.draft.model
        if model is not None and (self._context.draft.plans or self._context.draft.misfit):
            resolve_schemes(model.tree, found)
        return found
