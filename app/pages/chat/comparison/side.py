"""One side of a comparison: model, device, session and perplexity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Signal

from app.pages.chat.comparison import turns
from app.pages.chat.comparison.turns import SideMemory
from app.pages.chat.session import ChatSession
from app.shared.models.choices import ModelChoice
from core.errors import BitwrightError
from core.events import Event, Progress
from core.inference.figures import Perplexity
from core.service.messages import MeasurePerplexity

if TYPE_CHECKING:
    from app.shared.calls.calls import Calls
    from core.inference.machine import Machine


class ComparisonSide(QObject):
    """A model of a comparison.

    Signals:
        changed: model, device, state, perplexity or error changed.
    """

    changed = Signal()

    def __init__(self, calls: Calls, letter: str, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.letter = letter
        self.session = ChatSession(calls, self)
        self.choice: ModelChoice | None = None
        self.device = "auto"
        self.perplexity = 0.0
        self.perplexity_words = ""
        self.measured = -1.0
        """Progress of the perplexity measurement; below 0 if inactive."""
        self.error: BitwrightError | None = None
        self._weights: dict[str, int] = {}
        self.session.changed.connect(self._follow)
        self.session.failed.connect(self._set_error)

    @property
    def name(self) -> str:
        """The name for `LoadModel`; "" if no model is selected."""
        return self.choice.name if self.choice is not None else ""

    @property
    def label(self) -> str:
        """Short name of the model."""
        return self.choice.label if self.choice is not None else ""

    @property
    def loaded(self) -> bool:
        """Return whether the model is loaded."""
        return self.session.state not in ("idle", "loading")

    @property
    def blind(self) -> str:
        """The reason why the loaded model does not read pictures, as a sentence; "" if it does, or none is loaded."""
        return self.session.blind(self.label)

    def pick(self, choice: ModelChoice | None) -> None:
        """Select another model; the previous one is unloaded."""
        if choice is not None and choice.name == self.name:
            self.choice = choice
            return
        self.session.close()
        self.choice, self.error = choice, None
        self._clear_perplexity()
        self.changed.emit()

    def pick_device(self, device: str) -> None:
        """Select the device for the next load."""
        if device != self.device:
            self.session.close()
            self.device, self.error = device, None
            self.changed.emit()

    def expect(self, name: str, weights: int) -> None:
        """Set the number of bytes of a model's weights that may not be in a local folder."""
        self._weights[name] = weights

    def load(self) -> None:
        """Load the model."""
        if self.name and self.session.state == "idle":
            self.error = None
            self.session.load(self.name, self.device)

    def need(self, machine: Machine) -> SideMemory:
        """Return the memory that the model uses or will use."""
        if self.name not in self._weights:
            self._weights[self.name] = turns.weights_in(self.name)
        opened = self.session.opened
        weights = opened.weight_bytes or self._weights[self.name]
        device = opened.device or turns.resolved(machine, self.device)
        return SideMemory(self.label, device, weights, max(1, opened.memory_bytes) if self.loaded else 0)

    def clear_error(self) -> None:
        """Clear the error, which is shown elsewhere."""
        self.error = None
        self.changed.emit()

    def measure(self) -> None:
        """Measure the perplexity of the loaded model; `changed` reports the progress."""
        if self.session.measure(
            MeasurePerplexity(), on_success=self._measured, on_failure=self._not_measured, on_event=self._handle_event
        ):
            self.error, self.measured = None, 0.0
            self.changed.emit()

    def _follow(self) -> None:
        opened = self.session.opened
        if opened.perplexity is not None and not self.perplexity:
            self.perplexity, self.perplexity_words = opened.perplexity.value, opened.perplexity.text
        if self.session.state != "measuring":
            self.measured = -1.0
        self.changed.emit()

    def _handle_event(self, event: Event) -> None:
        if isinstance(event, Progress):
            self.measured = event.fraction
            self.changed.emit()

    def _measured(self, found: Perplexity) -> None:
        self.perplexity, self.perplexity_words = found.value, found.text
        self.changed.emit()

    def _not_measured(self, error: BitwrightError) -> None:
        self.error = error
        self.changed.emit()

    def _set_error(self, error: BitwrightError, _loading: bool) -> None:
        self.error = error
        self.changed.emit()

    def _clear_perplexity(self) -> None:
        self.perplexity, self.perplexity_words, self.measured = 0.0, "", -1.0
