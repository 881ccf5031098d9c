"""The selected layers, shared by all views."""

from __future__ import annotations

from collections.abc import Iterable

from PySide6.QtCore import QObject, Signal


class Selection(QObject):
    """A set of layers by their position in the model's tree, and the current one (-1: none).

    Signals:
        changed: The set of selected layers changed.
        current_changed: The current layer, the origin of keyboard actions, changed.
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
        """Select only these layers."""
        wanted = frozenset(layers)
        if wanted != self._layers:
            self._layers = wanted
            self.changed.emit()

    def add(self, layers: Iterable[int]) -> None:
        """Add these layers to the selection."""
        self.select(self._layers.union(layers))

    def toggle(self, layers: Iterable[int]) -> None:
        """Add these layers to the selection, or remove them if all of them are selected."""
        wanted = frozenset(layers)
        self.select(self._layers - wanted if wanted <= self._layers else self._layers | wanted)

    def clear(self) -> None:
        """Clear the selection; keep the current layer."""
        self.select(())

    def set_current(self, layer: int) -> None:
        """Set the current layer (-1: none)."""
        if layer != self._current:
            self._current = layer
            self.current_changed.emit(layer)
