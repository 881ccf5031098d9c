"""The layers that are selected, shared by every view of them. Knows their numbers, not how they are shown."""

from __future__ import annotations

from collections.abc import Iterable

from PySide6.QtCore import QObject, Signal


class Selection(QObject):
    """A set of layers by their position in the model's tree, and the current one (-1: none).

    Signals:
        changed: other layers are selected now.
        current_changed: the current layer, where keys act from, is another one now.
    """

    changed = Signal()
    current_changed = Signal(int)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._layers: frozenset[int] = frozenset()
        self._current = -1

    @property
    def layers(self) -> frozenset[int]:
        return self._layers

    @property
    def current(self) -> int:
        return self._current

    def select(self, layers: Iterable[int]) -> None:
        """Select these layers and no others."""
        wanted = frozenset(layers)
        if wanted != self._layers:
            self._layers = wanted
            self.changed.emit()

    def add(self, layers: Iterable[int]) -> None:
        """Select these layers too."""
        self.select(self._layers.union(layers))

    def toggle(self, layers: Iterable[int]) -> None:
        """Select these layers too, or none of them where all are selected."""
        wanted = frozenset(layers)
        self.select(self._layers - wanted if wanted <= self._layers else self._layers | wanted)

    def clear(self) -> None:
        """Select nothing; the current layer stays."""
        self.select(())

    def set_current(self, layer: int) -> None:
        """Make `layer` the current one (-1: none)."""
        if layer != self._current:
            self._current = layer
            self.current_changed.emit(layer)
