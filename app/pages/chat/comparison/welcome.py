"""The empty state of the comparison: an explanation, and three example questions."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtWidgets import QWidget

from app.pages.chat.example_welcome import ExampleWelcome
from app.theme import Theme


class ComparisonWelcome(ExampleWelcome):
    """The empty state of a comparison of two models."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(theme, "comparison_", parent)
        self.title.setText(self.tr("Compare two models"))
        self.set_ready(False, True)

    def set_ready(self, ready: bool, any_model: bool) -> None:
        """Show the next step.

        Args:
            ready: both models are selected.
            any_model: there is at least one model.
        """
        if ready:
            self.hint.set_text(
                self.tr(
                    "Compare a quantized model with the original. Both use the same seed; differences are highlighted."
                )
            )
        elif any_model:
            self.hint.set_text(self.tr("Select a model for A and one for B above."))
        else:
            self.hint.set_text(self.tr("There is no model to compare yet. Quantize a model, or open a folder above."))
        self.show_buttons(examples=ready, get=not any_model)

    def examples(self) -> Sequence[str]:
        """Return the example messages."""
        return (
            self.tr("What is the capital of France, and what is it known for?"),
            self.tr("List the first ten prime numbers and explain why 1 is not one."),
            self.tr("Write a short poem about the sea."),
        )
