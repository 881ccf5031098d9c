"""One side of chat_speed.py in its own process: load a model, process a prompt, generate tokens, print the figures.

    python chat_speed_side.py KIND MODEL PROMPT TOKENS THREADS

KIND is `transformers:fp32`, `transformers:bf16`, `auto-round` (its own choice of kernels, with auto-round-lib if
installed), `llama.cpp`, `ours:BACKEND`, or `bandwidth`. Runs in the interpreter of the measured
program, in which Bitwright need not be installed. The last line of stdout is one JSON object.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Extend = Callable[[Sequence[int]], int]
"""Reads tokens behind those that were read before; returns the likeliest next one."""
WARM = 8


def transformers_model(model: Any) -> tuple[Extend, Callable[[], None]]:
    import torch
    from transformers import DynamicCache

    state: dict[str, Any] = {}

    def reset() -> None:
        state["cache"] = DynamicCache(config=model.config)

    def extend(ids: Sequence[int]) -> int:
        with torch.inference_mode():
            out = model(
                input_ids=torch.tensor([list(ids)]), past_key_values=state["cache"], use_cache=True, logits_to_keep=1
            )
            return int(out.logits[0, -1].argmax())

    reset()
    return extend, reset


def by_transformers(path: str, dtype: str, threads: int) -> tuple[Extend, Callable[[], None], str]:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    model = AutoModelForCausalLM.from_pretrained(path, dtype=kind, device_map="cpu").eval()
    return (*transformers_model(model), dtype)


def by_auto_round(path: str, _: str, threads: int) -> tuple[Extend, Callable[[], None], str]:
    import auto_round
    import torch
    import transformers

    torch.set_num_threads(threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype="auto", device_map="cpu", quantization_config=transformers.AutoRoundConfig()
    ).eval()
    kinds = Counter(type(module).__name__ for module in model.modules() if hasattr(module, "qweight"))
    kinds = kinds or Counter(type(module).__name__ for module in model.modules() if "Linear" in type(module).__name__)
    note = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return (*transformers_model(model), f"auto-round {auto_round.__version__}: {note}")


def by_llama_cpp(path: str, _: str, threads: int) -> tuple[Extend, Callable[[], None], str]:
    import ctypes

    import llama_cpp
    import numpy as np

    model = llama_cpp.Llama(
        path, n_ctx=1024, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False
    )  # fmt: skip

    def extend(ids: Sequence[int]) -> int:
        model.eval(list(ids))
        pointer = ctypes.cast(llama_cpp.llama_get_logits_ith(model.ctx, -1), ctypes.POINTER(ctypes.c_float))
        return int(np.ctypeslib.as_array(pointer, shape=(model.n_vocab(),)).argmax())

    return extend, model.reset, f"llama-cpp-python {llama_cpp.__version__}"


def by_us(path: str, backend: str, threads: int) -> tuple[Extend, Callable[[], None], str]:
    from core.inference.loader import load_runner

    loaded = load_runner(path, "cpu", backend=backend or "auto", context=1024)
    runner = loaded.runner
    counts = ", ".join(f"{count} {name}" for name, count in loaded.counts.items())
    note = f"{runner.name} {loaded.dtype}: {counts or 'no quantized layer'}, {runner.memory_bytes / 1e6:.0f} MB"
    return lambda ids: int(runner.extend(ids).argmax()), lambda: runner.truncate(0), note


SIDES = {"transformers": by_transformers, "auto-round": by_auto_round, "llama.cpp": by_llama_cpp, "ours": by_us}


def measure(extend: Extend, reset: Callable[[], None], prompt: int, tokens: int) -> dict[str, float]:
    """Return the seconds to the first token after `prompt` tokens, and the decode speed from the median time."""
    extend(list(range(10, 10 + WARM)))
    extend([10])
    reset()
    ids = [(place * 7919) % 30000 + 10 for place in range(prompt)]
    began = time.perf_counter()
    token = extend(ids)
    first = time.perf_counter() - began
    times = []
    for _ in range(tokens):
        began = time.perf_counter()
        token = extend([token])
        times.append(time.perf_counter() - began)
    return {
        "first_token": first,
        "prefill": prompt / first,
        "decode": 1 / statistics.median(times),
        "decode_mean": len(times) / sum(times),
    }


def main(kind: str, path: str, prompt: int, tokens: int, threads: int) -> dict[str, Any]:
    if kind == "bandwidth":
        import torch

        from core.inference.bandwidth import read_bandwidth

        torch.set_num_threads(threads)
        return {"bandwidth": read_bandwidth("cpu").bytes_per_second}
    name, _, option = kind.partition(":")
    began = time.perf_counter()
    extend, reset, note = SIDES[name](path, option, threads)
    loaded = time.perf_counter() - began
    found: dict[str, Any] = measure(extend, reset, prompt, tokens)
    return {**found, "load": loaded, "peak_memory": peak_memory(), "note": note}


def peak_memory() -> int:
    """Return the peak memory of this process (Linux); getrusage would include that of its parent."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("the system does not say how much memory this process had")


if __name__ == "__main__":
    values = main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))
    sys.stdout.write("\n" + json.dumps(values) + "\n")
    sys.stdout.flush()
