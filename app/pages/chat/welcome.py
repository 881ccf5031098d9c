"""The empty state of a conversation: the model, and three example questions."""

from __future__ import annotations

from collections.abc import Sequence

from app.pages.chat.example_welcome import ExampleWelcome


class ChatWelcome(ExampleWelcome):
    """The empty state of a conversation with one model."""

    def set_model(self, label: str, loaded: bool) -> None:
        """Show the name of the model; "" if there is none."""
        if label:
            self.title.setText(self.tr("Chat with {model}").format(model=label))
            self.hint.set_text(
                self.tr("The model runs on this machine. Nothing is sent anywhere.")
                if loaded
                else self.tr("It is loaded with your first message. It runs on this machine; nothing is sent anywhere.")
            )
        else:
            self.title.setText(self.tr("Chat with a model"))
            self.hint.set_text(self.tr("Chat with a quantized model or any other model on this machine."))
        self.show_buttons(examples=bool(label), get=not label)

    def examples(self) -> Sequence[str]:
        """Return the example messages."""
        return (
            self.tr("What is the capital of France?"),
            self.tr("Write a haiku about small things."),
            self.tr("Explain recursion to a child."),
        )
