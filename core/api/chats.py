"""A conversation with a model, as Python calls: load it, ask it, get events. Imports no torch until a call needs it.

Knows `core.inference.generation.chat`; nothing of processes or of how anything is shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.control import ShouldStop, never
from core.errors import BadInput
from core.estimation import preflight
from core.events import Emit, Event, Log, Result, Stage, Token
from core.inference.generation.reply import ChatAnswer
from core.inference.generation.settings import Sampling
from core.model_id import absolute
from core.threads import stream

if TYPE_CHECKING:
    from core.inference.generation.chat import ChatModel, Sampling

PathLike = str | os.PathLike[str]


def chat(
    model: PathLike,
    prompt: str,
    *,
    system: str = "",
    max_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    seed: int | None = 0,
    stop: Sequence[str] = (),
    device: str = "auto",
    backend: str = "auto",
    context: int | None = None,
    thinking: bool | None = None,
    should_stop: ShouldStop = never,
) -> Iterator[Event]:
    """Load a model, quantized or not, and answer one prompt: `Token` events, then a `Result` with the figures.

    Args:
        temperature: 0 takes the likeliest token each time; top_p to repetition_penalty narrow the choice.
        seed: of the draw; None draws one, and the result tells it.
        stop: texts that end the answer.
        device: `auto` or one of `bitwright devices`; one that does not work becomes the CPU, with a `Log` that says so.
        backend: `auto` or one of `bitwright devices`; context: tokens to keep room for, None for all the model reads.
        thinking: whether the model thinks before it answers, where its chat template has a switch for it; None leaves
            it at the model's own default.

    Raises:
        BitwrightError: the model cannot be loaded, or a value is out of range.
    """
    messages = conversation(prompt, system)
    values = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "stop": stop,
    }

    def work(emit: Emit, should_end: ShouldStop) -> None:
        sampling = sampling_of(values)
        emit(Stage("load"))
        talk = open_chat(model, device, backend=backend, context=context, emit=emit, should_stop=should_end)
        answer(talk, messages, sampling, emit, should_end, variables=thinking_variables(talk, thinking))

    return stream(work, should_stop)


def open_chat(
    model: PathLike,
    device: str = "auto",
    *,
    backend: str = "auto",
    context: int | None = None,
    emit: Emit | None = None,
    should_stop: ShouldStop = never,
) -> ChatModel:
    """A loaded model for a conversation of many turns (see `answer`). Imports torch, takes seconds.

    Arguments as `chat`; events tell where the model runs if that is not where it was asked for, and that it has no
    chat template, so that it only continues text.
    """
    name = absolute(model)
    preflight.check_model(name)
    from core.inference.generation import chat as chats

    tell = emit or _ignore
    talk = chats.load(name, device, backend=backend, context=context, emit=tell, should_stop=should_stop)
    if note := getattr(talk.loaded, "device_note", ""):
        tell(Log("warning", note))
    if talk.notice:
        tell(Log("warning", talk.notice))
    return talk


def conversation(prompt: str, system: str = "") -> list[dict[str, str]]:
    """The messages of a conversation that begins with `prompt`."""
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": prompt}]


def sampling_of(values: Mapping[str, Any]) -> Sampling:
    """The `Sampling` that JSON values ask for.

    Raises:
        BadInput: a name that there is not, or a value that is not possible.
    """
    given = dict(values)
    stop = given.pop("stop", None) or ()
    if not isinstance(stop, str | list | tuple):
        raise BadInput("A stop text must be a non-empty string.", "Correct or remove it.")
    try:
        return Sampling(**given, stop=(stop,) if isinstance(stop, str) else tuple(stop))
    except TypeError as error:
        raise BadInput(f"These sampling settings are not possible: {error}.", "Use the standard ones.") from error


def thinking_variables(talk: ChatModel, thinking: bool | None) -> dict[str, Any]:
    """Return what switches thinking on or off in a model's chat template.

    Raises:
        BadInput: the template has no such switch.
    """
    if thinking is None or (not thinking and not talk.thinks):
        return {}
    names = [name for name in ("enable_thinking", "thinking") if re.search(rf"\b{name}\b", talk.template)]
    if not names:
        raise BadInput("The chat template of this model has no switch for thinking.", "Leave the option out.")
    return {names[0]: thinking}


def answer(
    talk: ChatModel,
    messages: Sequence[Mapping[str, str]],
    sampling: Sampling,
    emit: Emit,
    should_stop: ShouldStop = never,
    *,
    continue_last: bool = False,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """Generate one answer of a conversation: emit its `Token` events and a `Result`; return the text without thoughts.

    Args:
        continue_last: the last message is the model's own and is continued.
        variables: for the model's chat template.
    """
    found = generate(talk, messages, sampling, emit, should_stop, continue_last=continue_last, variables=variables)
    emit(Result({"text": found.text, "thinking": found.thinking, **found.statistics.to_json()}))
    return found.text


def generate(
    talk: ChatModel,
    messages: Sequence[Mapping[str, str]],
    sampling: Sampling,
    emit: Emit,
    should_stop: ShouldStop = never,
    *,
    continue_last: bool = False,
    variables: Mapping[str, Any] | None = None,
) -> ChatAnswer:
    """Generate one answer as `answer` does, without a `Result`; return it with its statistics."""
    texts: dict[str, list[str]] = {"text": [], "thinking": []}
    for part in talk.reply(messages, sampling, should_stop, continue_last=continue_last, variables=variables):
        texts[part.kind].append(part.text)
        emit(Token(part.text, part.kind))
    return ChatAnswer("".join(texts["text"]), "".join(texts["thinking"]), talk.statistics)


def _ignore(_event: Event) -> None:
    """For callers who do not want to know."""
