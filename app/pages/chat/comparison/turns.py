"""The turns of a comparison, and the order in which two models can be asked given the free memory.

Two loaded models need the memory of both, and two active ones share the device. Plain values; only `free_for` measures
anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from PySide6.QtCore import QCoreApplication

from app.pages.chat.comparison.token_diff import TokenDiff
from app.pages.chat.conversations.conversation import LEFT_OUT
from core.estimation.goals import ENGINE
from core.inference.generation.message import Message
from core.inference.generation.settings import Sampling
from core.wording import human

if TYPE_CHECKING:
    from app.shared.models.choices import ModelChoice
    from core.inference.generation.reply import Statistics
    from core.inference.machine import Machine

AskOrder = Literal["auto", "at_once", "in_turn"]
Messages = list[Message]

_SPARE: Final = 1.1
"""Cache, activations and allocator overhead, relative to the size of the weights."""
_WEIGHTS: Final = (".safetensors", ".gguf", ".bin")


def _tr(text: str) -> str:
    return QCoreApplication.translate("Comparison", text)


@dataclass
class Reply:
    """The answer of one side, or the reason why there is none.

    Attributes:
        label: name of the model; model: its name for `LoadModel`.
        text: the text; thinking: the reasoning before it.
        pieces: text of each token.
        figures: statistics, None while it is being generated.
        memory: bytes used by the model, 0 if unknown.
        perplexity: perplexity of the model, 0 if not measured; perplexity_words: description of its text.
        problem: the reason why there is no answer, as a sentence, or "".
        shared: the other side used the same device at the same time.
    """

    label: str = ""
    model: str = ""
    text: str = ""
    thinking: str = ""
    pieces: tuple[str, ...] = ()
    figures: Statistics | None = None
    memory: int = 0
    perplexity: float = 0.0
    perplexity_words: str = ""
    problem: str = ""
    shared: bool = False

    @property
    def done(self) -> bool:
        """Return whether the answer is complete."""
        return self.figures is not None or bool(self.problem)


@dataclass
class Turn:
    """A message, its settings, both answers, and their differences once both are complete.

    `pictures` are the paths of the pictures before the text of the message.
    """

    question: str
    sampling: Sampling = field(default_factory=Sampling)
    replies: tuple[Reply, Reply] = field(default_factory=lambda: (Reply(), Reply()))
    comparison: TokenDiff | None = None
    pictures: tuple[str, ...] = ()


def messages_of(turns: Sequence[Turn], side: int, system: str = "", *, pictures: bool = True) -> Messages:
    """Return the messages for the chat template of a side: every message, and this side's own answers.

    A message without an answer is joined to the next one, as many templates reject repeated roles. Pictures are left
    out if `pictures` is False.
    """
    found: Messages = [{"role": "system", "content": system}] if system.strip() else []
    for turn in turns:
        text = turn.question or ("" if pictures else LEFT_OUT)
        if found and found[-1]["role"] == "user":
            found[-1]["content"] = "\n\n".join(filter(None, (found[-1]["content"], text)))
        else:
            found.append({"role": "user", "content": text})
        if pictures and turn.pictures:
            found[-1]["pictures"] = (*found[-1].get("pictures", ()), *turn.pictures)
        if turn.replies[side].text.strip():
            found.append({"role": "assistant", "content": turn.replies[side].text})
    return found


@dataclass(frozen=True)
class SideMemory:
    """The memory of one side.

    Attributes:
        label: name of its model; device: its id.
        weights: bytes of its weights, 0 if unknown.
        held: bytes used now, 0 if it is not loaded.
    """

    label: str
    device: str
    weights: int = 0
    held: int = 0

    @property
    def more(self) -> int:
        """Additional bytes needed to load the model, including the process; 0 if loaded or unknown."""
        return 0 if self.held or not self.weights else round(self.weights * _SPARE) + ENGINE


@dataclass(frozen=True)
class AskPlan:
    """The order in which both sides are asked.

    Attributes:
        at_once: both generate at the same time; otherwise one after the other.
        swap: only one model may be loaded at a time.
        words: the plan as a sentence with figures; role: its color, "warning" if it may fail.
    """

    at_once: bool
    swap: bool
    words: str
    role: str = "muted"


def plan(needs: tuple[SideMemory, SideMemory], free: dict[str, float], wanted: AskOrder = "auto") -> AskPlan:
    """Return the order in which to ask two models.

    Args:
        needs: memory of both sides.
        free: free bytes by device id; unknown for missing devices.
        wanted: the user's choice; `auto` is at once if both fit.
    """
    short, known = _shortage(needs, free)
    swap = bool(short) or not known
    at_once = wanted == "at_once" or (wanted == "auto" and not swap)
    same = needs[0].device == needs[1].device
    if at_once and short:
        return AskPlan(
            True, False, _tr("{short} Running both at once may fail or be very slow.").format(short=short), "warning"
        )
    if at_once:
        words = (
            _tr("Both models stay loaded and run at the same time.")
            if known
            else _tr("Both models run at the same time.")
        )
        if same:
            words += " " + _tr("They share {device}, so each is slower.").format(device=_name(needs[0].device))
        return AskPlan(True, False, words)
    if short:
        return AskPlan(False, True, _tr("{short} The models are loaded one at a time.").format(short=short))
    if not known:
        return AskPlan(False, True, _tr("The memory of both models is not known yet, so they run one after the other."))
    return AskPlan(False, False, _tr("One after the other, each at full speed. Both models stay loaded."))


def _shortage(needs: tuple[SideMemory, SideMemory], free: dict[str, float]) -> tuple[str, bool]:
    """Return a sentence about the device on which both do not fit ("" if they do), and whether this is known."""
    known = all(need.weights or need.held for need in needs)
    for device in dict.fromkeys(need.device for need in needs):
        wanted = sum(need.more for need in needs if need.device == device)
        room = free.get(device)
        if room is None:
            known = known and not wanted
        elif wanted > room:
            words = _tr("Loading needs about {wanted} and {device} has {room} free.")
            return words.format(wanted=human(wanted), device=_name(device), room=human(room)), True
    return "", known


def _name(device: str) -> str:
    return _tr("the CPU") if device.startswith("cpu") else device


def free_for(machine: Machine, devices: Sequence[str]) -> dict[str, float]:
    """Return the free bytes of these devices; a device with unknown memory is omitted."""
    found: dict[str, float] = {}
    for device in devices:
        if device.startswith("cpu"):
            found[device] = _free_ram(machine)
            continue
        known = machine.device(device)
        if known is not None and known.free_memory:
            found[device] = float(known.free_memory)
    return found


def _free_ram(machine: Machine) -> float:
    """Return the free bytes of RAM, within the limit of a container as measured."""
    import psutil  # not needed for the first paint

    cpu = machine.device("cpu")
    free = float(psutil.virtual_memory().available)
    return min(free, cpu.total_memory) if cpu is not None and cpu.total_memory else free


def resolved(machine: Machine, device: str) -> str:
    """Return the device id of a choice: `auto` and stable ids become `cpu`, `cuda:0` and the like."""
    if device == "auto":
        return machine.chosen or "cpu"
    known = machine.device(device)
    return known.id if known is not None else device


def weights_in(name: str) -> int:
    """Return the bytes of the weights in a local folder or GGUF file; 0 if it does not exist."""
    try:
        path = Path(name)
        if path.is_file():
            return path.stat().st_size
        return sum(file.stat().st_size for file in path.iterdir() if file.suffix in _WEIGHTS)
    except OSError:
        return 0


def likely_pair(choices: Sequence[ModelChoice]) -> tuple[ModelChoice | None, ModelChoice | None]:
    """Return the original and the newest output, or else the first two models."""
    originals = [each for each in choices if each.kind == "original"]
    made = [each for each in choices if each.kind == "run"]
    first = next(iter([*originals, *choices]), None)
    second = next((each for each in [*made, *choices] if each is not first), None)
    return first, second


def ending_of(turn: Turn) -> str:
    """Return the text shown in place of a comparison if an answer is missing; otherwise ""."""
    missing = [not reply.text.strip() for reply in turn.replies]
    if all(missing) or not any(missing):
        return ""
    letter = "AB"[missing.index(False)]
    return _tr("Only {letter} answered, so there is nothing to compare.").format(letter=letter)


def verdict(comparison: TokenDiff) -> tuple[str, str]:
    """Return a sentence about the differences of two answers, and its color role."""
    unit, units = (_tr("token"), _tr("tokens")) if comparison.unit == "token" else (_tr("word"), _tr("words"))
    count = max(comparison.lengths)
    if not count:
        return _tr("Both answers are empty."), "muted"
    if comparison.equal:
        return _tr("Identical answers ({count} {units}).").format(count=f"{count:,}", units=units), "good"
    share = f"{100 * comparison.share:.0f}"
    common = _tr("{share} % of the {units} are the same.").format(share=share, units=units)
    if comparison.common == 0:
        begin = _tr("They differ from the start.")
    elif comparison.common == min(comparison.lengths):
        begin = _tr("One answer continues after {count} {units}.")
    else:
        begin = _tr("They differ after {count} {units}.")
    counted = unit if comparison.common == 1 else units
    return begin.format(count=f"{comparison.common:,}", units=counted) + " " + common, "muted"
