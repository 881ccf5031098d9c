"""Chat with a model: load it, generate answers, and receive events. Torch is imported when a call needs it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.control import ShouldStop, never
from core.errors import BadInput
from core.estimation import preflight
from core.events import Emit, Event, Log, Result, Stage, Token
from core.files import expanded
from core.inference.generation.message import Message
from core.inference.generation.reply import ChatAnswer
from core.inference.generation.settings import Sampling
from core.model_id import absolute
from core.pictures.opening import check_picture
from core.pictures.sources import is_address, is_data_uri
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
    images: Sequence[PathLike] = (),
    should_stop: ShouldStop = never,
) -> Iterator[Event]:
    """Load a model, quantized or not, and answer one prompt: `Token` events, then a `Result` with statistics.

    Args:
        system: System prompt.
        max_tokens: Maximum number of tokens to generate.
        temperature: Sampling temperature; 0 always takes the most likely token (greedy).
        top_p, top_k, min_p, repetition_penalty: Sampling settings; see `Sampling`.
        seed: Random seed for sampling; None takes a random one, which the result contains.
        stop: Stop strings that end the answer.
        device: `auto`, `cpu`, `cuda:N` or `xpu:N`. If it cannot be used, the CPU is used and a `Log` event is emitted.
        backend: `auto` or the name of a backend for the quantized layers.
        context: Context size, in tokens; None is the maximum of the model.
        thinking: Turn reasoning before the answer on or off, for chat templates that have a switch for it; None keeps
            the default of the model.
        images: Paths or `data:` URIs of pictures, which stand before the prompt; for a vision-language model.

    Raises:
        BitwrightError: The model cannot be loaded, or a value is out of range.
    """
    messages = conversation(prompt, system, tuple(map(picture_source, images)))
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
    """Load a model for a conversation with several turns (see `answer`). Imports torch and takes seconds.

    The arguments are those of `chat`. `Log` events are emitted if the model runs on another device than requested,
    if it has no chat template, so that it can only continue text, and if it can see pictures but cannot get any here.
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
    if talk.pictures_note:
        tell(Log("info", talk.pictures_note))
    return talk


def conversation(prompt: str, system: str = "", pictures: Sequence[str] = ()) -> list[Message]:
    """Return the messages of a conversation that starts with `prompt` and pictures (see `picture_source`)."""
    first: list[Message] = [{"role": "system", "content": system}] if system else []
    question: Message = {"role": "user", "content": prompt}
    return [*first, {**question, "pictures": tuple(pictures)} if pictures else question]


def picture_source(picture: PathLike) -> str:
    """Return a picture as messages contain it, an absolute path or a `data:` URI, after a check of its header.

    Raises:
        BadInput, CorruptFile: There is no such file, or it is not a picture that can be opened.
        MissingDependency: Pillow is not installed.
    """
    given = os.fspath(picture)
    source = given if is_data_uri(given) or is_address(given) else str(expanded(given).absolute())
    check_picture(source)
    return source


def sampling_of(values: Mapping[str, Any]) -> Sampling:
    """Return the `Sampling` with the given values.

    Raises:
        BadInput: A name is unknown, or a value is out of range.
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
    """Return the template variable that turns reasoning on or off; empty if the default applies.

    Raises:
        BadInput: The chat template has no switch for it.
    """
    if thinking is None or (not thinking and not talk.thinks):
        return {}
    names = [name for name in ("enable_thinking", "thinking") if re.search(rf"\b{name}\b", talk.template)]
    if not names:
        raise BadInput("The chat template of this model has no switch for thinking.", "Leave the option out.")
    return {names[0]: thinking}


def answer(
    talk: ChatModel,
    messages: Sequence[Message],
    sampling: Sampling,
    emit: Emit,
    should_stop: ShouldStop = never,
    *,
    continue_last: bool = False,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """Generate one answer, emit its `Token` events and a `Result`, and return the text without the reasoning.

    Args:
        messages: The messages of the conversation.
        continue_last: Continue the last message, which is one of the model.
        variables: Variables for the chat template.
    """
    found = generate(talk, messages, sampling, emit, should_stop, continue_last=continue_last, variables=variables)
    emit(Result({"text": found.text, "thinking": found.thinking, **found.statistics.to_json()}))
    return found.text


def generate(
    talk: ChatModel,
    messages: Sequence[Message],
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
    """Do nothing: the default receiver of events."""
