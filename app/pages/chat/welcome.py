"""The empty state of the Chat page."""

from __future__ import annotations

from collections.abc import Sequence

from app.pages.chat.example_welcome import ExampleWelcome


class ChatWelcome(ExampleWelcome):
    """The empty state of a conversation with one model."""

    def set_model(self, label: str, loaded: bool) -> None:
        """Show the model that will answer; "" if there is no model."""
        if label:
            self.title.setText(self.tr("Talk to {model}").format(model=label))
            self.hint.set_text(
                self.tr("Everything stays on this machine.")
                if loaded
                else self.tr("It is loaded with your first message. It runs on this machine; nothing is sent anywhere.")
            )
        else:
            self.title.setText(self.tr("Talk to your model"))
            self.hint.set_text(self.tr("A model that you quantized, or any model you pick, answers here."))
        self.show_buttons(examples=bool(label), get=not label)

    def examples(self) -> Sequence[str]:
        """Return the example messages."""
        return (
            self.tr("What is the capital of France?"),
            self.tr("Write a haiku about small things."),
            self.tr("Explain recursion to a child."),
        )
