"""Detection of llama-cpp-python for the table of backends, and the check whether it can run a model.

llama.cpp runs whole GGUF files, not single layers; its runner is `core.inference.runners.llama_cpp`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.inference.backends.backend import MissingRequirement

if TYPE_CHECKING:
    from core.inference.machine import Device

NAME: Final = "llama.cpp"
TITLE: Final = "llama.cpp, through llama-cpp-python"
TAKES: Final = "whole GGUF files, of any block type"
INSTALL: Final = "pip install llama-cpp-python"
_NEEDED: Final = ("llama_memory_seq_rm", "llama_init_from_model", "llama_set_abort_callback")
"""Functions added to the C API in 2025, needed to truncate the cache and to stop the processing of a prompt."""


def missing(device: Device) -> MissingRequirement | None:
    """Return the reason why llama.cpp does not run on the device, or None. Never raises."""
    library, problem = _loaded()
    if problem is not None:
        return problem
    if device.kind != "cpu" and not library.llama_supports_gpu_offload():
        flag = "-DGGML_CUDA=on" if device.kind == "cuda" else "-DGGML_SYCL=on"
        return MissingRequirement(
            "The installed llama-cpp-python supports the CPU only.",
            f'CMAKE_ARGS="{flag}" pip install --force-reinstall --no-cache-dir llama-cpp-python',
        )
    return None


def refusal(place: Path) -> str:
    """Return the reason, as one sentence, why llama.cpp cannot run the model at `place`, or "".

    Args:
        place: GGUF file or folder, as in `core.hub.source.ModelSource.place`.
    """
    if place.suffix.lower() == ".gguf":
        return ""
    return "llama.cpp runs GGUF files only; convert this model with `bitwright convert`."


def library() -> Any:
    """Return the module `llama_cpp` with its log messages disabled.

    Raises:
        ImportError: it cannot be used; `missing` returns the reason.
    """
    found, problem = _loaded()
    if problem is not None:
        raise ImportError(problem.reason)
    return found


@functools.cache
def _loaded() -> tuple[Any, MissingRequirement | None]:
    """Return the module, or the reason why it cannot be used."""
    if importlib.util.find_spec("llama_cpp") is None:
        return None, MissingRequirement("llama-cpp-python is not installed.", INSTALL)
    try:
        llama_cpp: Any = importlib.import_module("llama_cpp")
        lacking = [name for name in _NEEDED if not hasattr(llama_cpp, name)]
        if lacking:
            version = getattr(llama_cpp, "__version__", "(unknown version)")
            reason = f"llama-cpp-python {version} is too old: it lacks {lacking[0]}."
            return None, MissingRequirement(reason, "pip install --upgrade llama-cpp-python")
        llama_cpp.llama_log_set(_silence(llama_cpp), None)
        llama_cpp.llama_backend_init()
    except (ImportError, OSError, RuntimeError, AttributeError) as error:  # its library was built for another machine
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        reinstall = "pip install --force-reinstall --no-cache-dir llama-cpp-python"
        return None, MissingRequirement(f"llama-cpp-python is installed but cannot be imported: {line}", reinstall)
    return llama_cpp, None


_callbacks: list[Any] = []
"""References that keep the callbacks alive, because the library stores their addresses."""


def _silence(llama_cpp: Any) -> Any:
    _callbacks.append(llama_cpp.llama_log_callback(lambda level, text, data: None))
    return _callbacks[-1]
