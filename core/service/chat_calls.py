"""Handlers of the requests of a chat. One model stays loaded between requests.

A handler imports torch only if it needs it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.api import chats, speed
from core.control import ShouldStop
from core.errors import BadInput, CorruptFile
from core.events import Emit
from core.files import read_json
from core.inference.figures import Perplexity, SpeedReport
from core.inference.generation.reply import ChatAnswer
from core.model_id import absolute
from core.service.messages import (
    CountTokens,
    LoadedModel,
    LoadModel,
    MeasurePerplexity,
    MeasureSpeed,
    ReportedPerplexity,
    Request,
    Say,
    TokenCount,
)

if TYPE_CHECKING:
    from core.inference.generation.chat import ChatModel

HELD_OUT: Final = "bundled held-out text"
"""Name of the evaluation text in reports of runs; `MeasurePerplexity` uses the same text."""


class ChatCalls:
    """Handlers that share one loaded model."""

    def __init__(self) -> None:
        self._model: ChatModel | None = None
        self._key: tuple[Any, ...] = ()

    def handlers(self) -> dict[type[Request[Any]], Callable[[Any, Emit, ShouldStop], Any]]:
        """Return the handler of each request class."""
        return {
            LoadModel: self.load,
            Say: self.say,
            CountTokens: self.count,
            MeasurePerplexity: self.perplexity,
            MeasureSpeed: self.speed,
        }

    def load(self, request: LoadModel, emit: Emit, should_stop: ShouldStop) -> LoadedModel:
        """Load a model; the previous one is unloaded first, because memory may not suffice for both."""
        if request.context is not None and request.context < 1:
            raise BadInput(
                f"A context of {request.context} tokens is not possible.", "Choose a whole number of at least 1."
            )
        name = absolute(request.model)
        key = (name, request.device, request.backend, request.context)
        if self._model is None or self._key != (*key, *_stamps(name, self._model.loaded.folder)):
            self._close()
            opened = chats.open_chat(
                name, request.device, backend=request.backend, context=request.context, emit=emit,
                should_stop=should_stop,
            )  # fmt: skip
            self._model, self._key = opened, (*key, *_stamps(name, opened.loaded.folder))
        return self._described(self._model, name)

    def say(self, request: Say, emit: Emit, should_stop: ShouldStop) -> ChatAnswer:
        """Generate one answer; a stop ends it after the current token and is not an error."""
        opened = self._opened()
        return chats.generate(
            opened, request.messages, request.sampling, emit, should_stop, continue_last=request.continue_last
        )

    def count(self, request: CountTokens, emit: Emit, should_stop: ShouldStop) -> TokenCount:
        """Count the tokens of a conversation."""
        opened = self._opened()
        return TokenCount(opened.count(request.messages), opened.context)

    def perplexity(self, request: MeasurePerplexity, emit: Emit, should_stop: ShouldStop) -> Perplexity:
        """Measure the perplexity of the loaded model on the evaluation text of a run."""
        from core.inference.evaluate import perplexity
        from core.quant import heldout

        opened = self._opened()
        rows = heldout.windows(opened.loaded.tokenizer, opened.context)
        opened.forget()
        return perplexity(opened.loaded.runner, rows, HELD_OUT, emit, should_stop)

    def speed(self, request: MeasureSpeed, emit: Emit, should_stop: ShouldStop) -> SpeedReport:
        """Measure prefill and decode speed of the loaded model at several prompt lengths."""
        opened = self._opened()
        opened.forget()
        return speed.measure_speed(opened.loaded, request.lengths, emit, should_stop, str(self._key[0]))

    def _opened(self) -> ChatModel:
        if self._model is None:
            raise BadInput("No model is loaded.", "Load a model first.")
        return self._model

    def _close(self) -> None:
        """Unload the model and free its memory."""
        if self._model is not None:
            self._model.loaded.runner.close()
        self._model, self._key = None, ()
        _free_memory()

    @staticmethod
    def _described(opened: ChatModel, name: str) -> LoadedModel:
        loaded: Any = opened.loaded
        return LoadedModel(
            label=loaded.label,
            device=loaded.device,
            device_name=loaded.device_name,
            device_note=loaded.device_note,
            dtype=loaded.dtype,
            schemes=dict(loaded.schemes),
            weight_bytes=loaded.weight_bytes,
            unpacked=loaded.unpacked,
            memory_bytes=loaded.runner.memory_bytes,
            context=opened.context,
            template=bool(opened.prompts.template),
            folder=str(loaded.folder),
            runner=loaded.runner.name,
            backends=tuple(loaded.rows),
            perplexity=reported_perplexity(Path(name), loaded.folder),
            thinking=opened.thinks,
            reads=opened.reads,
            pictures_note=opened.pictures_note,
        )


def reported_perplexity(model: Path, folder: Path) -> ReportedPerplexity | None:
    """Return the perplexity in the report of the run that wrote a model; None if there is none.

    Args:
        model: folder or file that was opened; folder: folder that was read, which may differ.
    """
    path = speed.report_of(str(model) if model.is_absolute() else "", folder)
    try:
        report = read_json(path) if path is not None else None
    except CorruptFile:
        return None
    if isinstance(report, dict) and "source_report" in report and report.get("error") is None:
        report = report["source_report"]  # an exact conversion
    figures = report.get("perplexity") if isinstance(report, dict) else None
    value = figures.get("quantized") if isinstance(figures, dict) else None
    if isinstance(figures, dict) and isinstance(value, int | float):
        return ReportedPerplexity(float(value), str(figures.get("text") or HELD_OUT))
    return None


def _stamps(name: str, folder: Path) -> tuple[int, ...]:
    """Return the modification times of the files of a model, because a folder may be overwritten."""
    try:
        files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
        given = Path(name)
        if given.is_file():
            files.append(given)
        return tuple(path.stat().st_mtime_ns for path in files if path.exists())
    except OSError:
        return ()


def _free_memory() -> None:
    """Return the memory of an unloaded model to the system."""
    import torch

    gc.collect()
    for library in (torch.cuda, torch.xpu):
        if library.is_available():
            library.empty_cache()
