"""The memory needed for inference with the quantized model, compared with the free memory of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PySide6.QtCore import QCoreApplication

from app.shared.resource_needs import free_memory
from core.estimation.goals import Footprint, conversation_bytes, conversation_tokens
from core.wording import count, human

if TYPE_CHECKING:
    from app.shared.draft import Draft
    from core.model.tree import ModelTree

_tr = QCoreApplication.translate


@dataclass(frozen=True)
class RunningMemory:
    """The result of the comparison: whether it fits, a short text, and the parts of the memory."""

    fits: bool
    text: str
    more: str


def running_memory(draft: Draft, tree: ModelTree, weights: int) -> RunningMemory:
    """Return the comparison for `weights` bytes of weights on the device of the draft."""
    need = Footprint(weights, conversation_bytes(tree))
    free = free_memory(draft)
    text = _tr("RunningMemory", "{} for inference").format(human(need.total))
    if free is not None:
        text = _tr("RunningMemory", "{0}, {1} free").format(text, human(free))
    more = _tr("RunningMemory", "{0} of weights, {1} for a conversation of {2} tokens, {3} for the program").format(
        human(need.weights), human(need.conversation), count(conversation_tokens(tree)), human(need.engine)
    )
    return RunningMemory(free is None or need.total <= free, text, more)
