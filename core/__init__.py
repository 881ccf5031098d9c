"""Python interface of Bitwright: quantize language models, follow the run, and use the result.

The functions below correspond to the sub-commands of the command line. They are imported on first use, so that
importing a part of `core` does not import the rest. Depends on no window toolkit and prints nothing.

    from core import quantize

    for event in quantize("demo", "out", recipe="quick"):
        print(event)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.api import chat, conversions, convert, devices, estimate, evaluate, inspect, list_jobs, plan, quantize

__all__ = [
    "chat", "conversions", "convert", "devices", "estimate", "evaluate", "inspect", "list_jobs", "plan", "quantize",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'core' has no attribute {name!r}")
    from core import api

    return getattr(api, name)
