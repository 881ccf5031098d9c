"""Weights and logits of a checkpoint as loaded by another program.

Run by readers_table.py in the interpreter of that program, in which Bitwright need not be installed:

    python one_reader.py READER TOKENS FOLDER OUT BACKEND [FOLDER OUT BACKEND ...]

READER is `transformers` (with auto-round, or optimum and gptqmodel, as the checkpoint requires), `gptqmodel`,
`vllm`, or `autoawq` (weights only; BACKEND is then the path of its packing_utils.py); BACKEND may be empty. TOKENS is a
JSON list of lists. OUT is a safetensors file: `NAME.weight` [out, in] in the dtype of the reader, and either
`logits` or `logprobs` [rows, tokens, vocabulary]; if the reader fails, OUT.txt contains the reason. A weight is the
output for the unit matrix, which is exact because zeros add nothing.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]

# vLLM's fused layers and their parts.
FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


def answer_to_unit(module: Any, inputs: int, dtype: torch.dtype) -> torch.Tensor:
    """Return the weight [out, in] of a linear module, without its bias."""
    bias = getattr(module, "bias", None)
    kept = None if bias is None else bias.detach().clone()
    with torch.no_grad():
        if bias is not None:
            bias.zero_()
        weight = module(torch.eye(inputs, dtype=dtype)).T.contiguous()
        if bias is not None:
            bias.copy_(kept)
    return weight


def packed_modules(model: torch.nn.Module) -> dict[str, Any]:
    """Return the quantized layers by name."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "qweight")}


def inputs_of(module: Any) -> int:
    """Return the number of inputs of a layer, whose attribute name depends on the program."""
    for name in ("in_features", "infeatures", "original_infeatures"):
        if isinstance(getattr(module, name, None), int):
            return int(getattr(module, name))
    raise AttributeError(f"{type(module)} does not say how many inputs it has")


def of_module(model: torch.nn.Module, tokens: torch.Tensor) -> Tensors:
    """Return the weights and logits of a transformers model."""
    dtype = next(p.dtype for p in model.parameters() if p.dtype.is_floating_point)
    found = {
        f"{name}.weight": answer_to_unit(module, inputs_of(module), dtype)
        for name, module in packed_modules(model).items()
    }
    with torch.no_grad():
        found["logits"] = model(tokens).logits.float().contiguous()
    return found


def by_transformers(folder: str, tokens: torch.Tensor, backend: str) -> Tensors:
    """Read with transformers, and with auto-round for its own formats or if BACKEND is one of its backends."""
    import transformers

    own = json.loads((Path(folder) / "config.json").read_text())["quantization_config"]["quant_method"] == "auto-round"
    options: dict[str, Any] = {}
    if own or backend:
        import auto_round  # noqa: F401

        named: dict[str, Any] = {"backend": backend} if backend not in ("", "auto") else {}
        options["quantization_config"] = transformers.AutoRoundConfig(**named)
    dtype = torch.float32 if backend == "auto" else torch.float16
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map="cpu", **options)
    return of_module(model, tokens)


def by_gptqmodel(folder: str, tokens: torch.Tensor, backend: str) -> Tensors:
    """Read with GPTQModel."""
    from gptqmodel import BACKEND, GPTQModel

    model = GPTQModel.load(folder, device="cpu", backend=getattr(BACKEND, backend or "AUTO"), dtype=torch.float16)
    found = of_module(model.model, tokens)
    kinds = {type(module).__name__ for module in packed_modules(model.model).values()}
    sys.stderr.write(f"kernels: {sorted(kinds)}\n")
    return found


def by_vllm(folder: str, tokens: torch.Tensor, backend: str) -> Tensors:
    """Read with vLLM on a CPU, in this process, so that its layers are accessible."""
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
    from vllm import LLM, SamplingParams

    vocabulary = json.loads((Path(folder) / "config.json").read_text())["vocab_size"]
    model = LLM(
        folder, dtype=backend or "float16", enforce_eager=True, max_model_len=64, max_num_seqs=4,
        skip_tokenizer_init=True, max_logprobs=vocabulary, enable_prefix_caching=False,
    )  # fmt: skip
    found: Tensors = {}
    for part in model.apply_model(_of_vllm):
        found |= part
    asked = SamplingParams(max_tokens=1, temperature=0, detokenize=False, prompt_logprobs=vocabulary)
    rows = model.generate([{"prompt_token_ids": row} for row in tokens.tolist()], asked)
    # The first token of a prompt has no probability, and the token after the last one is not part of the prompt.
    logprobs = [
        [[place[token].logprob for token in range(vocabulary)] for place in row.prompt_logprobs[1:]] for row in rows
    ]
    return found | {"logprobs": torch.tensor(logprobs)}


def _of_vllm(model: torch.nn.Module) -> Tensors:
    found: Tensors = {}
    for name, module in model.named_modules():
        method = getattr(module, "quant_method", None)
        if method is None or "Unquantized" in type(method).__name__ or not hasattr(module, "qweight"):
            continue
        dtype = module.scales.dtype
        inputs = getattr(module, "input_size_per_partition", None) or module.input_size
        with torch.no_grad():
            weight = method.apply(module, torch.eye(inputs, dtype=dtype), None).T.contiguous()
        parent, _, last = name.rpartition(".")
        parts = FUSED.get(last, (last,))
        sizes = module.output_partition_sizes if len(parts) > 1 else [len(weight)]
        for part, piece in zip(parts, weight.split(list(sizes)), strict=True):
            found[f"{parent}.{part}.weight" if parent else f"{part}.weight"] = piece.contiguous()
    return found


def by_autoawq(folder: str, tokens: torch.Tensor, backend: str) -> Tensors:
    """Read with AutoAWQ's unpacking code, a source file that needs only torch."""
    spec = importlib.util.spec_from_file_location("packing_utils", backend)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = json.loads((Path(folder) / "config.json").read_text())["quantization_config"]
    tensors = load_file(Path(folder) / "model.safetensors")
    found = {}
    for name in [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]:
        parts = [tensors[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales")]
        size = config["group_size"] if config["group_size"] > 0 else len(parts[0])
        found[f"{name}.weight"] = module.dequantize_gemm(*parts, config["bits"], size).T.contiguous()
    return found


READERS = {
    "transformers": by_transformers,
    "gptqmodel": by_gptqmodel,
    "vllm": by_vllm,
    "autoawq": by_autoawq,
}


def main() -> None:
    """Read each FOLDER and write its OUT."""
    reader, tokens, *cases = sys.argv[1:]
    rows = torch.tensor(json.loads(tokens))
    for folder, out, backend in zip(cases[::3], cases[1::3], cases[2::3], strict=True):
        try:
            save_file(READERS[reader](folder, rows, backend), out)
        except Exception:  # noqa: BLE001 - whatever another program raises
            Path(f"{out}.txt").write_text(traceback.format_exc(), encoding="utf-8")


if __name__ == "__main__":
    main()
