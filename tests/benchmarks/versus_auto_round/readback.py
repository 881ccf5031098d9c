"""Evaluation of an output against the original, by a path that is independent of both programs.

Reads the packed integers of a checkpoint with its own unpacking, puts plain floats into transformers' own model and
compares the logits of both in float32. Run as a child process, so that its memory is freed:

    python -m tests.benchmarks.versus_auto_round.readback ORIGINAL OUTPUT TEXT SEQLEN MAX_WINDOWS

With ORIGINAL as OUTPUT, measures the noise floor: the original in bfloat16 against itself in float32. Prints one JSON
object. MAX_WINDOWS is 0 for the whole text.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from core.inference import evaluate
from core.inference.divergence import compare_tokens

PARTS = ("qweight", "qzeros", "scales", "g_idx")


def unpacked(words: Tensor, bits: int) -> Tensor:
    """Return the integers in 32-bit words: a stream of bits from the lowest bit up along the first dimension.

    Args:
        words: int32 [n * bits / 32, columns].

    Returns:
        int32 [n, columns].
    """
    positions = torch.arange(32, dtype=torch.int32)
    stream = ((words[:, None] >> positions[None, :, None]) & 1).flatten(0, 1)
    values = stream.view(-1, bits, words.shape[1])
    return (values << torch.arange(bits, dtype=torch.int32)[None, :, None]).sum(dim=1, dtype=torch.int32)


def dequantized(parts: dict[str, Tensor], zero_bias: int) -> Tensor:
    """Return the weight, float32 [outputs, inputs], of a layer in the layout of GPTQ and AutoRound.

    Args:
        parts: qweight int32 [inputs * bits / 32, outputs], qzeros int32 [groups, outputs * bits / 32], scales
            [groups, outputs], and g_idx [inputs] with the group of each input, which may be missing.
        zero_bias: added to the stored zero points.
    """
    scales = parts["scales"].float()
    bits = parts["qzeros"].shape[1] * 32 // scales.shape[1]
    levels = unpacked(parts["qweight"], bits)
    zeros = unpacked(parts["qzeros"].t().contiguous(), bits).t() + zero_bias
    each = -(-len(levels) // len(scales))
    group = parts["g_idx"].long() if "g_idx" in parts else torch.arange(len(levels)) // each
    return ((levels - zeros[group]).float() * scales[group]).t().contiguous()


def read_floats(folder: Path) -> dict[str, Tensor]:
    """Return all tensors of a checkpoint in float32, with the layers dequantized.

    Raises:
        SystemExit: the layout of the layers is not known here.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    layout = config.get("quantization_config", {}).get("packing_format", "")
    if layout not in ("", "auto_round:auto_gptq", "auto_round:gptqmodel", "auto_round"):
        raise SystemExit(f"{folder} has layers in the layout {layout}, which this benchmark does not read.")
    stored: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        stored |= load_file(path)
    layers = [name.removesuffix(".qweight") for name in stored if name.endswith(".qweight")]
    floats = {name: value.float() for name, value in stored.items() if name.rpartition(".")[2] not in PARTS}
    for layer in layers:
        parts = {part: stored[f"{layer}.{part}"] for part in PARTS if f"{layer}.{part}" in stored}
        floats[f"{layer}.weight"] = dequantized(parts, 1 if layout == "auto_round:auto_gptq" else 0)
    return floats


def load_plain(original: Path, floats: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> Any:
    """Return transformers' model of the original's config, with the given tensors.

    Raises:
        SystemExit: a tensor is missing or unknown.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(original), dtype=torch.float32)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    problems = model.load_state_dict({name: value for name, value in floats.items() if name not in tied}, strict=False)
    wrong = [*(set(problems.missing_keys) - tied), *problems.unexpected_keys]
    if wrong:
        raise SystemExit(f"The tensors do not fit the model: {', '.join(sorted(wrong)[:5])}")
    model.tie_weights()
    return model.to(dtype).eval()


def measure(original: Path, output: Path, text: Path, seqlen: int, max_windows: int) -> dict[str, Any]:
    """Return the figures of an output, with the mean KL divergence of each window."""
    from transformers import AutoTokenizer

    windows = evaluate.make_windows(AutoTokenizer.from_pretrained(original), text, seqlen, max_windows or None).tokens
    dtype = torch.bfloat16 if output == original else torch.float32
    reference, other = load_plain(original, read_floats(original)), load_plain(original, read_floats(output), dtype)
    tokens = compare_tokens(reference, other, windows)
    found = evaluate.summarize(tokens.losses, windows)
    return {
        "perplexity": found.value,
        "perplexity_standard_error": found.standard_error,
        **asdict(tokens.summary()),
        "window_kl": tokens.divergences.double().mean(dim=1).tolist(),
    }


if __name__ == "__main__":
    given_original, given_output, given_text, given_seqlen, given_windows = sys.argv[1:]
    paths = (Path(given_original), Path(given_output), Path(given_text))
    print(json.dumps(measure(*paths, int(given_seqlen), int(given_windows))))
