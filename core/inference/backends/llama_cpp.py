"""llama.cpp in the table of backends: whether llama-cpp-python is here, and which models it can run.

It runs a whole GGUF file and no single layer (`core.inference.runners.llama_cpp`). Knows nothing of running one.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.inference.backends.backend import Missing

if TYPE_CHECKING:
    from core.inference.machine import Device

NAME: Final = "llama.cpp"
TITLE: Final = "llama.cpp, through llama-cpp-python"
TAKES: Final = "whole GGUF files, of any block type"
INSTALL: Final = "pip install llama-cpp-python"
_NEEDED: Final = ("llama_memory_seq_rm", "llama_init_from_model", "llama_set_abort_callback")
"""Functions of the C interface that came in 2025: without them a cache cannot be cut back, or a prompt stopped."""


def missing(device: Device) -> Missing | None:
    """What keeps llama.cpp from this device, or None where it works. Never raises."""
    library, problem = _loaded()
    if problem is not None:
        return problem
    if device.kind != "cpu" and not library.llama_supports_gpu_offload():
        flag = "-DGGML_CUDA=on" if device.kind == "cuda" else "-DGGML_SYCL=on"
        return Missing(
            "The llama-cpp-python that is installed computes on the CPU only.",
            f'CMAKE_ARGS="{flag}" pip install --force-reinstall --no-cache-dir llama-cpp-python',
        )
    return None


def refusal(place: Path) -> str:
    """Why it cannot run the model at `place` (`core.hub.source.Source.place`), as one sentence; "" where it can."""
    if place.suffix.lower() == ".gguf":
        return ""
    return "llama.cpp runs GGUF files, and this model is none; `bitwright convert` can make one of it."


def library() -> Any:
    """The module `llama_cpp`, its messages silenced.

    Raises:
        ImportError: it is not usable; `missing` says why.
    """
    found, problem = _loaded()
    if problem is not None:
        raise ImportError(problem.reason)
    return found


@functools.cache
def _loaded() -> tuple[Any, Missing | None]:
    """The module, or what is wrong with it."""
    if importlib.util.find_spec("llama_cpp") is None:
        return None, Missing("llama-cpp-python is not installed.", INSTALL)
    try:
        llama_cpp: Any = importlib.import_module("llama_cpp")
        lacking = [name for name in _NEEDED if not hasattr(llama_cpp, name)]
        if lacking:
            version = getattr(llama_cpp, "__version__", "that is installed")
            reason = f"llama-cpp-python {version} is too old: it has no {lacking[0]}."
            return None, Missing(reason, "pip install --upgrade llama-cpp-python")
        llama_cpp.llama_log_set(_silence(llama_cpp), None)
        llama_cpp.llama_backend_init()
    except (ImportError, OSError, RuntimeError, AttributeError) as error:  # its library is built for another machine
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        reinstall = "pip install --force-reinstall --no-cache-dir llama-cpp-python"
        return None, Missing(f"llama-cpp-python is installed and does not start: {line}", reinstall)
    return llama_cpp, None


_kept: list[Any] = []
"""C holds the address of the callback for as long as the process lives."""


def _silence(llama_cpp: Any) -> Any:
    _kept.append(llama_cpp.llama_log_callback(lambda level, text, data: None))
    return _kept[-1]
