"""The calls of a chat: one model stays loaded from call to call, answers, and is measured.

Turns JSON values into calls of the rest of `core` and back. Imports torch only where a call needs it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.api import bench_call, chats
from core.errors import BadInput, CorruptFile
from core.events import Emit, Event, Result
from core.files import read_json
from core.model_id import absolute

if TYPE_CHECKING:
    from core.inference.generation.chat import ChatModel

Arguments = Mapping[str, Any]
Asked = Callable[[], bool]
Values = dict[str, Any]
HELD_OUT: Final = "bundled held-out text"
"""What the report of a run calls the text of its perplexity, which `perplexity` measures on too."""


class Chat:
    """One loaded model, kept from call to call."""

    def __init__(self) -> None:
        self._talk: ChatModel | None = None
        self._key: tuple[Any, ...] = ()

    def table(self) -> dict[str, Callable[[Arguments, Emit, Asked], Values]]:
        """The calls by their names."""
        return {
            "chat_open": self.open,
            "chat_say": self.say,
            "chat_count": self.count,
            "chat_perplexity": self.perplexity,
            "chat_bench": self.bench,
        }

    def open(self, arguments: Arguments, emit: Emit, should_stop: Asked) -> Values:
        """Load a model in place of the one before, which leaves first: two may not fit."""
        name = absolute(arguments["model"])
        device, backend = (str(arguments.get(key) or "auto") for key in ("device", "backend"))
        context = arguments.get("context")
        if context is not None and (type(context) is not int or context < 1):
            raise BadInput(f"A context of {context} tokens is not possible.", "Choose a whole number from 1.")
        key = (name, device, backend, context)
        if self._talk is None or self._key != (*key, *_stamps(name, self._talk.loaded.folder)):
            self._close()
            opened = chats.open_chat(name, device, backend=backend, context=context, emit=emit, should_stop=should_stop)
            self._talk, self._key = opened, (*key, *_stamps(name, opened.loaded.folder))
        return self._described(self._talk, name)

    def say(self, arguments: Arguments, emit: Emit, should_stop: Asked) -> Values:
        """One answer of the model that was opened; a stop ends it after the token at hand, which is no failure."""
        opened = self._opened()
        sampling = chats.sampling_of(_mapping(arguments, "sampling"))
        results: list[Values] = []

        def tell(event: Event) -> None:
            if isinstance(event, Result):
                results.append(event.values)
            else:
                emit(event)

        continues = arguments.get("continue_last") is True
        chats.answer(opened, _messages(arguments), sampling, tell, should_stop, continue_last=continues)
        return results[-1]

    def count(self, arguments: Arguments, emit: Emit, should_stop: Asked) -> Values:
        """How many tokens a conversation has, and how many the model reads."""
        opened = self._opened()
        return {"tokens": opened.count(_messages(arguments)), "context": opened.context}

    def perplexity(self, arguments: Arguments, emit: Emit, should_stop: Asked) -> Values:
        """Perplexity of the model that was opened, as it answers, on the rows of text that a run measures on too."""
        from core.inference.evaluate import perplexity
        from core.quant import heldout

        opened = self._opened()
        rows = heldout.windows(opened.loaded.tokenizer, opened.context)
        opened.forget()
        return asdict(perplexity(opened.loaded.runner, rows, HELD_OUT, emit, should_stop))

    def bench(self, arguments: Arguments, emit: Emit, should_stop: Asked) -> Values:
        """How fast the model that was opened reads and writes at several lengths (`core.api.bench_call`)."""
        opened = self._opened()
        opened.forget()
        return bench_call.bench(opened.loaded, arguments, emit, should_stop, str(self._key[0]))

    def _opened(self) -> ChatModel:
        if self._talk is None:
            raise BadInput("No model is open to answer.", "Open one first.")
        return self._talk

    def _close(self) -> None:
        """Give the memory of the model back."""
        if self._talk is not None:
            self._talk.loaded.runner.close()
        self._talk, self._key = None, ()
        _give_back()

    @staticmethod
    def _described(opened: ChatModel, name: str) -> Values:
        loaded: Any = opened.loaded
        return {
            "label": loaded.label,
            "device": loaded.device,
            "device_name": loaded.device_name,
            "device_note": loaded.device_note,
            "dtype": loaded.dtype,
            "schemes": loaded.schemes,
            "weight_bytes": loaded.weight_bytes,
            "context": opened.context,
            "template": bool(opened.prompts.template),
            "folder": str(loaded.folder),
            "runner": loaded.runner.name,
            "backends": [asdict(row) for row in loaded.rows],
            "memory_bytes": loaded.runner.memory_bytes,
            "perplexity": reported_perplexity(Path(name), loaded.folder),
            "thinking": opened.thinks,
        }


def reported_perplexity(model: Path, folder: Path) -> Values | None:
    """The perplexity that the run which made a model measured: `value` and `text`; None where no report has one.

    Args:
        model: what was opened, a folder or a file; folder: what was read, for one that lies elsewhere.
    """
    path = bench_call.report_of(str(model) if model.is_absolute() else "", folder)
    try:
        report = read_json(path) if path is not None else None
    except CorruptFile:
        return None
    if isinstance(report, dict) and "source_report" in report and report.get("error") is None:
        report = report["source_report"]  # a conversion that changed no weight
    told = report.get("perplexity") if isinstance(report, dict) else None
    value = told.get("quantized") if isinstance(told, dict) else None
    if isinstance(told, dict) and type(value) in (int, float):
        return {"value": value, "text": str(told.get("text") or HELD_OUT)}
    return None


def _messages(arguments: Arguments) -> list[dict[str, str]]:
    messages = arguments.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise BadInput("A conversation is a list of messages.", "Begin a new one.")
    return messages


def _mapping(arguments: Arguments, name: str) -> Mapping[str, Any]:
    value = arguments.get(name) or {}
    if not isinstance(value, Mapping):
        raise BadInput(f"{name} has to be an object.", "Leave it out.")
    return value


def _stamps(name: str, folder: Path) -> tuple[int, ...]:
    """When the files that make a model changed: the same folder may hold another model now."""
    try:
        files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
        given = Path(name)
        if given.is_file():
            files.append(given)
        return tuple(path.stat().st_mtime_ns for path in files if path.exists())
    except OSError:
        return ()


def _give_back() -> None:
    """Return the memory of a model that nobody holds any more."""
    import torch

    gc.collect()
    for library in (torch.cuda, torch.xpu):
        if library.is_available():
            library.empty_cache()
