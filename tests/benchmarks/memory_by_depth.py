"""Peak memory of a run, over its whole process tree, for models with 4, 16 and 64 blocks of the same width.

Run manually:

    python3 packaging/bootstrap.py exec --extra test env PYTHONPATH=. python tests/benchmarks/memory_by_depth.py WORK

Creates random Llamas (hidden size 512, intermediate size 1408, tied) in WORK and quantizes each to 4 bits with few
steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.benchmarks.measured_run import BIN, measured
from tests.core import tiny_model

WIDTH, INNER = 512, 1408


def save_llama(folder: Path, blocks: int) -> Path:
    """Save a random Llama with a byte-level tokenizer."""
    if folder.is_dir():
        return folder
    tiny_model.save_model(folder)
    generator = torch.Generator().manual_seed(blocks)

    def random(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) / shape[-1] ** 0.5).to(torch.bfloat16)

    tensors = {"model.embed_tokens.weight": random(288, WIDTH), "model.norm.weight": torch.ones(WIDTH).bfloat16()}
    shapes = {
        "self_attn.q_proj": (WIDTH, WIDTH),
        "self_attn.k_proj": (WIDTH // 2, WIDTH),
        "self_attn.v_proj": (WIDTH // 2, WIDTH),
        "self_attn.o_proj": (WIDTH, WIDTH),
        "mlp.gate_proj": (INNER, WIDTH),
        "mlp.up_proj": (INNER, WIDTH),
        "mlp.down_proj": (WIDTH, INNER),
    }
    for block in range(blocks):
        start = f"model.layers.{block}"
        tensors |= {f"{start}.{name}.weight": random(*shape) for name, shape in shapes.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{start}.{norm}.weight"] = torch.ones(WIDTH).bfloat16()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {**tiny_model.CONFIG, "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": blocks}
    config |= {"num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 1024}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    peaks: dict[int, list[int]] = {}
    for round_number in range(options.rounds):
        for blocks in (4, 16, 64):
            model = save_llama(options.work / f"llama-{blocks}", blocks)
            output = options.work / f"out-{blocks}-{round_number}"
            command = [
                str(BIN / "bitwright"), "quantize", str(model), "--output", str(output), "--bits", "4", "--group-size",
                "64", "--iters", "10", "--samples", "16", "--seqlen", "256", "--batch-size", "8",
            ]  # fmt: skip
            figures = measured(command, options.work / f"run-{blocks}.log")
            peaks.setdefault(blocks, []).append(figures.peak)
            row = {"blocks": blocks, "exit": figures.code, "seconds": round(figures.seconds, 1)}
            print(json.dumps({**row, "peak_mb": round(figures.peak / 1e6)}), flush=True)
    medians = {blocks: statistics.median(found) for blocks, found in peaks.items()}
    print(json.dumps({f"{blocks} to 4": round(peak / medians[4], 3) for blocks, peak in medians.items()}))


if __name__ == "__main__":
    main()
