"""Two models against each other: what was asked, what each answered, and in which order they can be asked at all.

Two models need the memory of both, and two that compute at once share the cores. This says from the size of the weights
what fits, in words. Plain values; knows no child process, no widget and, but for `free_for`, nothing of this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from PySide6.QtCore import QCoreApplication

from app.pages.chat.comparison.token_diff import TokenDiff
from core.estimation.goals import ENGINE
from core.inference.generation.settings import Sampling
from core.wording import human

if TYPE_CHECKING:
    from app.shared.models.choices import ModelChoice
    from core.inference.generation.reply import Statistics
    from core.inference.machine import Machine

AskOrder = Literal["auto", "at_once", "in_turn"]
Messages = list[dict[str, str]]

_SPARE: Final = 1.1
"""Conversation, activations and what the allocator keeps, against the bytes of the weights."""
_WEIGHTS: Final = (".safetensors", ".gguf", ".bin")


def _tr(text: str) -> str:
    return QCoreApplication.translate("Comparison", text)


@dataclass
class Reply:
    """What one side said to a question, or why it did not.

    Attributes:
        label: of the model that said it; model: its name, as in `LoadModel`.
        text: as it came; thinking: what it thought before, if it does.
        pieces: text of each token.
        figures: what it cost, None while it comes.
        memory: bytes that the model held while it answered, 0 where that is not known.
        perplexity: of the model, 0 where nobody measured it; perplexity_words: on what, if that is known.
        problem: why there is no answer, in a sentence, or "".
        shared: whether the other side computed on the same device at the same time.
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
        """Whether no more will come."""
        return self.figures is not None or bool(self.problem)


@dataclass
class Turn:
    """A question, the settings it was asked with, the both answers, and how they differ once both are there."""

    question: str
    sampling: Sampling = field(default_factory=Sampling)
    replies: tuple[Reply, Reply] = field(default_factory=lambda: (Reply(), Reply()))
    comparison: TokenDiff | None = None


def messages_of(turns: Sequence[Turn], side: int, system: str = "") -> Messages:
    """What a chat template takes for the side `side`: every question, and this side's own answers to them.

    A question without an answer is joined to the next one, as many templates refuse two of a kind in a row.
    """
    found: Messages = [{"role": "system", "content": system}] if system.strip() else []
    for turn in turns:
        if found and found[-1]["role"] == "user":
            found[-1]["content"] += f"\n\n{turn.question}"
        else:
            found.append({"role": "user", "content": turn.question})
        if turn.replies[side].text.strip():
            found.append({"role": "assistant", "content": turn.replies[side].text})
    return found


@dataclass(frozen=True)
class SideMemory:
    """What one side takes.

    Attributes:
        label: of its model; device: its id.
        weights: bytes of its weights, 0 where that is not known.
        held: bytes that it holds now, 0 while it is not loaded.
    """

    label: str
    device: str
    weights: int = 0
    held: int = 0

    @property
    def more(self) -> int:
        """Bytes that loading it will take in addition to what is taken now, with the program; 0: loaded, or unknown."""
        return 0 if self.held or not self.weights else round(self.weights * _SPARE) + ENGINE


@dataclass(frozen=True)
class AskPlan:
    """How both sides will be asked.

    Attributes:
        at_once: both answer at the same time; else the second begins when the first has answered.
        swap: only one of them may be in memory at a time.
        words: that in a sentence, with the figures; role: its colour, "warning" where it may not go well.
    """

    at_once: bool
    swap: bool
    words: str
    role: str = "muted"


def plan(needs: tuple[SideMemory, SideMemory], free: dict[str, float], wanted: AskOrder = "auto") -> AskPlan:
    """How to ask two models.

    Args:
        needs: of both sides.
        free: bytes free now by device id; a device that is not in it is not known.
        wanted: what the user chose; `auto` is at once where both fit.
    """
    short, known = _shortage(needs, free)
    swap = bool(short) or not known
    at_once = wanted == "at_once" or (wanted == "auto" and not swap)
    same = needs[0].device == needs[1].device
    if at_once and short:
        return AskPlan(
            True, False, _tr("{short} Both at once may fail or take very long.").format(short=short), "warning"
        )
    if at_once:
        words = _tr("Both stay in memory and answer at once.") if known else _tr("Both answer at once.")
        if same:
            words += " " + _tr("They share {device}, so each is slower than alone.").format(
                device=_name(needs[0].device)
            )
        return AskPlan(True, False, words)
    if short:
        return AskPlan(
            False, True, _tr("{short} Each is loaded for its answer and then makes room.").format(short=short)
        )
    if not known:
        return AskPlan(False, True, _tr("How much memory both need is not known yet: one after the other."))
    return AskPlan(False, False, _tr("One after the other, each at its full speed. Both stay in memory."))


def _shortage(needs: tuple[SideMemory, SideMemory], free: dict[str, float]) -> tuple[str, bool]:
    """A sentence on the device where both do not fit ("" where they do), and whether that is known at all."""
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
    """Bytes free now on these devices; one whose memory is not known is left out."""
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
    """Bytes free now, within what a container grants, which only the measured machine knows."""
    import psutil  # not needed for the first paint

    cpu = machine.device("cpu")
    free = float(psutil.virtual_memory().available)
    return min(free, cpu.total_memory) if cpu is not None and cpu.total_memory else free


def resolved(machine: Machine, device: str) -> str:
    """The id of the device that a choice means: `auto` and a stable id become `cpu`, `cuda:0` and the like."""
    if device == "auto":
        return machine.chosen or "cpu"
    known = machine.device(device)
    return known.id if known is not None else device


def weights_in(name: str) -> int:
    """Bytes of the weights in a folder or a GGUF file on this machine; 0 for what is not here."""
    try:
        path = Path(name)
        if path.is_file():
            return path.stat().st_size
        return sum(file.stat().st_size for file in path.iterdir() if file.suffix in _WEIGHTS)
    except OSError:
        return 0


def likely_pair(choices: Sequence[ModelChoice]) -> tuple[ModelChoice | None, ModelChoice | None]:
    """The original against the newest of what was made, else the first two of what there is."""
    originals = [each for each in choices if each.kind == "original"]
    made = [each for each in choices if each.kind == "run"]
    first = next(iter([*originals, *choices]), None)
    second = next((each for each in [*made, *choices] if each is not first), None)
    return first, second


def ending_of(turn: Turn) -> str:
    """What is said in place of a comparison, where one of the answers is missing; "" where that is not so."""
    missing = [not reply.text.strip() for reply in turn.replies]
    if all(missing) or not any(missing):
        return ""
    letter = "AB"[missing.index(False)]
    return _tr("Only {letter} answered, so there is nothing to compare.").format(letter=letter)


def verdict(comparison: TokenDiff) -> tuple[str, str]:
    """How two answers differ, in a sentence, and the colour of it."""
    unit, units = (_tr("token"), _tr("tokens")) if comparison.unit == "token" else (_tr("word"), _tr("words"))
    count = max(comparison.lengths)
    if not count:
        return _tr("Neither of them said anything."), "muted"
    if comparison.equal:
        return _tr("The same answer, all {count} {units}.").format(count=f"{count:,}", units=units), "good"
    share = f"{100 * comparison.share:.0f}"
    common = _tr("{share} % of the {units} are the same.").format(share=share, units=units)
    if comparison.common == 0:
        begin = _tr("They differ from the first word on.")
    elif comparison.common == min(comparison.lengths):
        begin = _tr("One goes on where the other ends, after {count} {units}.")
    else:
        begin = _tr("The same for {count} {units}, then they part.")
    counted = unit if comparison.common == 1 else units
    return begin.format(count=f"{comparison.common:,}", units=counted) + " " + common, "muted"
