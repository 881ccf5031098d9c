"""Peak memory of a run, over its whole process tree, for two blocks with the shapes of large models. Run manually:

    python3 packaging/bootstrap.py exec --extra test env PYTHONPATH=. python tests/benchmarks/memory_by_shape.py WORK

Writes random weights in bfloat16, quantizes them with three steps per block and end to end on 16 samples of 512 tokens
and a memory limit, and removes them. Prints the planned and the measured peak. `--shape` selects one shape, `--samples`
other numbers of samples, `--recipe` another recipe; the rest of the command line goes to `bitwright quantize`. Most of
the time is that of the start of the widest layers: on one core with 200 GFLOP/s, it is estimated as 10 minutes for a
block of 8B, and 80 minutes for one of 70B.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from core.allocation.request import parse_size
from core.estimation.memory_plan import ITEMSIZE, memory_needs, plan_memory
from core.estimation.preflight import read_tree
from core.formats.grids import plan_layers
from core.recipes import Recipe, load
from core.spec import from_options
from tests.benchmarks.measured_run import BIN, measured
from tests.core import tiny_model

_PIECE = 1 << 24
"""Numbers that are generated and written at once."""


@dataclass(frozen=True)
class Shape:
    """The shape of a model.

    Attributes:
        limit: for `--memory`.
        heads, kv_heads, head_dim: of the attention.
        experts, active: number of experts, and those of a token; 0 for a dense model.
    """

    limit: str
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    experts: int = 0
    active: int = 0

    def config(self) -> dict[str, Any]:
        """Return config.json."""
        config = {
            **tiny_model.CONFIG,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": 2,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": False,
        }
        if self.experts:
            config |= {
                "architectures": ["Qwen3MoeForCausalLM"],
                "model_type": "qwen3_moe",
                "moe_intermediate_size": self.intermediate,
                "num_experts": self.experts,
                "num_experts_per_tok": self.active,
                "norm_topk_prob": True,
            }
        return config

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the names and shapes of all tensors."""
        hidden, queries, keys = self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim
        yield "model.embed_tokens.weight", (self.vocabulary, hidden)
        yield "model.norm.weight", (hidden,)
        yield "lm_head.weight", (self.vocabulary, hidden)
        for block in range(2):
            start = f"model.layers.{block}"
            yield f"{start}.input_layernorm.weight", (hidden,)
            yield f"{start}.post_attention_layernorm.weight", (hidden,)
            for name, rows, columns in (
                ("q", queries, hidden), ("k", keys, hidden), ("v", keys, hidden), ("o", hidden, queries)
            ):  # fmt: skip
                yield f"{start}.self_attn.{name}_proj.weight", (rows, columns)
            if self.experts:
                yield f"{start}.self_attn.q_norm.weight", (self.head_dim,)
                yield f"{start}.self_attn.k_norm.weight", (self.head_dim,)
                yield f"{start}.mlp.gate.weight", (self.experts, hidden)
            places = [f"{start}.mlp.experts.{expert}" for expert in range(self.experts)] or [f"{start}.mlp"]
            for place in places:
                yield f"{place}.gate_proj.weight", (self.intermediate, hidden)
                yield f"{place}.up_proj.weight", (self.intermediate, hidden)
                yield f"{place}.down_proj.weight", (hidden, self.intermediate)


SHAPES = {
    "8b": Shape("8GB", 4096, 14336, 32, 8, 128, 128_256),
    "70b": Shape("20GB", 8192, 28672, 64, 8, 128, 128_256),
    "30b-a3b": Shape("16GB", 2048, 768, 32, 4, 128, 151_936, 128, 8),
    "small": Shape("2GB", 1024, 3584, 16, 4, 64, 32_000),
    "135m": Shape("1.5GB", 576, 1536, 9, 3, 64, 49_152),
}


def save(folder: Path, shape: Shape) -> None:
    """Write a checkpoint piece by piece."""
    folder.mkdir(parents=True)
    tiny_model.save_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(shape.config()), encoding="utf-8")
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, sizes in shape.tensors():
        begin, end = end, end + 2 * torch.Size(sizes).numel()
        header[name] = {"dtype": "BF16", "shape": sizes, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    generator = torch.Generator().manual_seed(0)
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for _, sizes in shape.tensors():
            left = torch.Size(sizes).numel()
            while left:
                count = min(left, _PIECE)
                piece = torch.ones(count) if len(sizes) == 1 else torch.randn(count, generator=generator)
                piece = piece if len(sizes) == 1 else piece.mul_(sizes[-1] ** -0.5)
                stream.write(piece.bfloat16().view(torch.uint8).numpy().tobytes())
                left -= count


def planned(folder: Path, recipe: Recipe, limit: str) -> int:
    """Return the bytes that a run is planned to need at most, as before its start."""
    spec = from_options(folder, "out", recipe=recipe, memory=parse_size(limit))
    tree = read_tree(folder)
    needs = memory_needs(tree, plan_layers(tree, spec.bits_map, spec.formats), spec, ITEMSIZE)
    return plan_memory(needs, parse_size(limit)).host


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--samples", type=int, nargs="+", default=[16])
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--memory", help="limit; default: that of the shape")
    options, rest = parser.parse_known_args()
    for name in options.shape or ("8b", "30b-a3b", "70b"):
        folder, output = options.work / name, options.work / f"{name}-out"
        limit = options.memory or SHAPES[name].limit
        try:
            save(folder, SHAPES[name])
            for samples in options.samples:
                usual = load(options.recipe, samples=samples, seqlen=512)
                recipe = replace(usual, iters=min(3, usual.iters), end_to_end=min(3, usual.end_to_end))
                command = [
                    str(BIN / "bitwright"), "quantize", str(folder), "--output", str(output), "--memory", limit,
                    "--recipe", options.recipe, "--iters", str(recipe.iters), "--end-to-end", str(recipe.end_to_end),
                    "--samples", str(samples), "--seqlen", "512", "--device", "cpu", *rest,
                ]  # fmt: skip
                figures = measured(command, options.work / f"{name}-{samples}.log")
                row = {"shape": name, "limit": limit, "samples": samples, "recipe": options.recipe}
                row["planned_mb"] = round(planned(folder, recipe, limit) / 1e6)
                peak = {"exit": figures.code, "peak_mb": round(figures.peak / 1e6), "seconds": round(figures.seconds)}
                print(json.dumps({**row, **peak}), flush=True)
                shutil.rmtree(output, ignore_errors=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
