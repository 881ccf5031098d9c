"""Answering in a model's own chat format, token by token. Knows one loaded model; nothing of windows or files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import DynamicCache, GenerationConfig
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from core.errors import BadInput
from core.events import Emit
from core.inference.loader import LoadedModel, load_model
from core.model.context import ASSUMED, context_length

Message = dict[str, str]
"""`{"role": "system" | "user" | "assistant", "content": text}`, as chat templates take it."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; temperature 0 takes the most likely one.

    Attributes:
        max_tokens: longest answer.
        temperature, top_p, top_k, min_p, repetition_penalty: the usual ones; neutral values switch each off.
        seed: of the draw; the same seed gives the same answer.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        limits = (
            ("max tokens", self.max_tokens, 1, 1_000_000),
            ("temperature", self.temperature, 0, 10),
            ("top p", self.top_p, 0.0001, 1),
            ("top k", self.top_k, 0, 1_000_000),
            ("min p", self.min_p, 0, 1),
            ("repetition penalty", self.repetition_penalty, 0.1, 10),
        )
        for label, value, low, high in limits:
            if not low <= value <= high:
                raise BadInput(f"{label} {value} is not possible.", f"Choose a number from {low:g} to {high:g}.")

    def processors(self) -> LogitsProcessorList:
        """The steps from logits to the scores that are drawn from."""
        steps = LogitsProcessorList()
        if self.repetition_penalty != 1.0:
            steps.append(RepetitionPenaltyLogitsProcessor(self.repetition_penalty))
        if self.temperature > 0:
            steps.append(TemperatureLogitsWarper(float(self.temperature)))
            if self.top_k:
                steps.append(TopKLogitsWarper(self.top_k))
            if self.top_p < 1:
                steps.append(TopPLogitsWarper(self.top_p))
            if self.min_p > 0:
                steps.append(MinPLogitsWarper(self.min_p))
        return steps


@dataclass
class Statistics:
    """Of one answer: tokens of the prompt and of the answer, seconds to the first token and in all."""

    prompt_tokens: int = 0
    tokens: int = 0
    first_token_seconds: float = 0.0
    seconds: float = 0.0
    ended_by: str = ""

    @property
    def tokens_per_second(self) -> float:
        """Of the tokens after the first."""
        spent = self.seconds - self.first_token_seconds
        return (self.tokens - 1) / spent if self.tokens > 1 and spent > 0 else 0.0


@dataclass
class ChatModel:
    """A loaded model that answers.

    Attributes:
        loaded: the model, its tokenizer and where it runs.
        statistics: of the last answer.
    """

    loaded: LoadedModel
    statistics: Statistics = field(default_factory=Statistics)

    def prompt_ids(self, messages: Sequence[Message]) -> Tensor:
        """Token ids int64 [1, tokens] of a conversation in the model's own template, ready for an answer.

        A model without a template gets the bare text of all messages: it is a base model, which continues text.
        """
        tokenizer = self.loaded.tokenizer
        if getattr(tokenizer, "chat_template", None):
            text = self._templated(messages)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            ids = tokenizer("\n".join(message["content"] for message in messages))["input_ids"]
        return torch.tensor([ids], dtype=torch.int64)

    def _templated(self, messages: Sequence[Message]) -> str:
        """The conversation as the model's template writes it; if that knows no system prompt, the question has it.

        Raises:
            BadInput: the template refuses the conversation.
        """
        first = messages[0] if messages else {}
        tries = [list(messages)]
        if len(messages) > 1 and first.get("role") == "system" and messages[1]["role"] == "user":
            question = {"role": "user", "content": f"{first['content']}\n\n{messages[1]['content']}"}
            tries.append([question, *messages[2:]])
        reason = ""
        for some in tries:
            try:
                text = self.loaded.tokenizer.apply_chat_template(some, tokenize=False, add_generation_prompt=True)
            except TemplateError as error:
                reason = reason or str(error).partition("\n")[0][:200]
            else:
                return str(text)
        raise BadInput(f"The model's chat format refuses this conversation: {reason}", "Start a new one.")

    def reply(
        self, messages: Sequence[Message], sampling: Sampling, should_stop: Callable[[], bool] = lambda: False
    ) -> Iterator[str]:
        """The answer in pieces of whole characters, until an end token, `max_tokens`, a full context or a stop.

        Raises:
            BadInput: the conversation is longer than the model's context, or empty.
        """
        ids = self.prompt_ids(messages)
        limit = self.context - ids.shape[1]
        if limit <= 0 or not ids.shape[1]:
            raise BadInput(
                f"The conversation has {ids.shape[1]} tokens and the model reads {self.context}.", "Start a new one."
            )
        statistics = self.statistics = Statistics(prompt_tokens=ids.shape[1])
        began, shown, text, found = time.monotonic(), "", "", []
        statistics.ended_by = "length" if sampling.max_tokens <= limit else "context"
        ends = self._ends()
        for token in self._tokens(ids, sampling, min(limit, sampling.max_tokens)):
            now = time.monotonic() - began
            statistics.tokens += 1
            statistics.seconds = now
            statistics.first_token_seconds = statistics.first_token_seconds or now
            if token in ends:
                statistics.ended_by = "end"
                break
            found.append(token)
            text = self.loaded.tokenizer.decode(found, skip_special_tokens=True)
            # A character of several tokens shows as U+FFFD until its last one has come.
            if not text.endswith("\N{REPLACEMENT CHARACTER}") and len(text) > len(shown):
                yield text[len(shown) :]
                shown = text
            if should_stop():
                statistics.ended_by = "stopped"
                break
        whole = text.rstrip("\N{REPLACEMENT CHARACTER}")
        if len(whole) > len(shown):
            yield whole[len(shown) :]  # what stood before a character that did not become complete

    @property
    def context(self) -> int:
        """Tokens that the model can read at once."""
        return context_length(self.loaded.model.config.get_text_config().to_dict()) or ASSUMED

    def _tokens(self, ids: Tensor, sampling: Sampling, limit: int) -> Iterator[int]:
        model, device = self.loaded.model, torch.device(self.loaded.device)
        generator = torch.Generator().manual_seed(sampling.seed)
        steps, cache = sampling.processors(), DynamicCache(config=model.config)
        seen = ids.to(device)
        step = seen
        for _ in range(limit):
            with torch.inference_mode():
                out = model(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1)
                scores: Tensor = steps(seen, out.logits[:, -1].float())  # type: ignore[arg-type] # LongTensor is no type
            if sampling.temperature > 0:
                drawn = torch.multinomial(scores.softmax(-1).cpu(), 1, generator=generator)
            else:
                drawn = scores.argmax(-1, keepdim=True).cpu()
            step = drawn.to(device)
            seen = torch.cat([seen, step], dim=1)
            yield int(drawn)

    def _ends(self) -> set[int]:
        """Tokens that end an answer, from the generation config and the tokenizer."""
        found: set[int] = set()
        values: list[Any] = [self.loaded.tokenizer.eos_token_id]
        if (self.loaded.folder / "generation_config.json").is_file():
            values.append(GenerationConfig.from_pretrained(self.loaded.folder).eos_token_id)
        for value in values:
            found.update(value if isinstance(value, list) else [] if value is None else [value])
        return found


def load(
    model: str,
    device: str = "auto",
    *,
    emit: Emit = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ChatModel:
    """Load a model to talk to; arguments and errors as `core.inference.loader.load_model`."""
    return ChatModel(load_model(model, device, emit=emit, should_stop=should_stop))
