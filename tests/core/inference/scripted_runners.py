"""Runners for tests: one that records the calls of a real one, and two without a model.

`RecordingRunner` wraps the runner of a tiny model, `ScriptedRunner` generates given tokens, and `CountingRunner`
generates the last token id plus one and checks its arguments as `Runner` requires.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.control import ShouldStop, never
from core.errors import BadInput, Cancelled
from core.inference.generation.chat import ChatModel
from core.inference.loader import load_model
from core.inference.runners.module import ModuleRunner

PIECE = 16
"""Tokens between two calls of `should_stop`."""


class RecordingRunner:
    """A wrapper that splits `extend` into pieces of PIECE tokens and records the ids of every call."""

    name = "recording"

    def __init__(self, runner: Any) -> None:
        self.runner = runner
        self.read: list[list[int]] = []

    @property
    def context(self) -> int:
        return int(self.runner.context)

    @property
    def length(self) -> int:
        return int(self.runner.length)

    @property
    def memory_bytes(self) -> int:
        return int(self.runner.memory_bytes)

    def extend(self, ids: Sequence[int], should_stop: ShouldStop = never) -> Tensor:
        self.read.append(list(ids))
        for start in range(0, len(ids), PIECE):
            if should_stop():
                raise Cancelled("Stopped.")
            logits = self.runner.extend(ids[start : start + PIECE])
        return torch.as_tensor(logits)

    def truncate(self, length: int) -> None:
        self.runner.truncate(length)

    def logits(self, ids: Sequence[int]) -> Tensor:
        return torch.as_tensor(self.runner.logits(ids))

    def close(self) -> None:
        self.runner.close()


@dataclass
class ScriptedRunner:
    """A runner that generates given tokens in order, whatever its input."""

    script: Sequence[int]
    vocabulary: int = 300
    context: int = 256
    name: str = "scripted"
    memory_bytes: int = 0
    ids: list[int] = field(default_factory=list)
    _generated: int = 0

    @property
    def length(self) -> int:
        return len(self.ids)

    def extend(self, ids: Sequence[int], should_stop: ShouldStop = never) -> Tensor:
        if should_stop():
            raise Cancelled("Stopped.")
        self.ids += ids
        logits = torch.zeros(self.vocabulary)
        logits[self.script[min(self._generated, len(self.script) - 1)]] = 50.0
        self._generated += 1
        return logits

    def truncate(self, length: int) -> None:
        del self.ids[length:]

    def logits(self, ids: Sequence[int]) -> Tensor:
        return torch.zeros(len(ids), self.vocabulary)

    def close(self) -> None:
        self.ids = []


class CountingRunner:
    """A runner whose next token is the last one plus one; it raises on calls that violate the contract of `Runner`.

    Attributes:
        held: token ids in the cache.
        read: token ids of every completed call of `extend`.
    """

    name = "counting"
    memory_bytes = 1000

    def __init__(self, vocabulary: int = 50, context: int = 64) -> None:
        self.vocabulary, self.context = vocabulary, context
        self.held: list[int] = []
        self.read: list[list[int]] = []
        self.closed = False

    @property
    def length(self) -> int:
        return len(self.held)

    def extend(self, ids: Sequence[int], should_stop: ShouldStop = never) -> Tensor:
        if should_stop():
            raise Cancelled("Stopped.")
        if not ids or len(self.held) + len(ids) > self.context or not 0 <= min(ids) <= max(ids) < self.vocabulary:
            raise BadInput("These tokens cannot be read.", "Give others.")
        self.held += ids
        self.read.append(list(ids))
        return self._after(self.held[-1])

    def truncate(self, length: int) -> None:
        assert 0 <= length <= len(self.held)
        del self.held[length:]

    def logits(self, ids: Sequence[int]) -> Tensor:
        self.held = []
        return torch.stack([self._after(token) for token in ids])

    def close(self) -> None:
        self.closed = True

    def _after(self, token: int) -> Tensor:
        row = torch.zeros(self.vocabulary)
        row[(token + 1) % self.vocabulary] = 10.0
        return row


@dataclass
class Loaded:
    """The attributes of a loaded model that generation uses."""

    runner: Any
    tokenizer: Any
    folder: Path


def load_recording(folder: Path) -> ChatModel:
    """Load the model in `folder` in float32 on the CPU into a `RecordingRunner`."""
    loaded = load_model(str(folder), "cpu", "float32")
    context = int(loaded.model.config.max_position_embeddings)
    runner = RecordingRunner(ModuleRunner(loaded.model, context, "cpu"))
    return ChatModel(Loaded(runner, loaded.tokenizer, loaded.folder))


def scripted(talk: ChatModel, text: str) -> ChatModel:
    """Return a model with the tokenizer of `talk` that generates `text` and the end token."""
    tokenizer = talk.loaded.tokenizer
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return ChatModel(Loaded(ScriptedRunner(ids), tokenizer, talk.loaded.folder))
