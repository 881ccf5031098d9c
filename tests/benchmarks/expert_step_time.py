"""Time of a tuning step and peak memory for blocks with many experts.

Run manually on an otherwise idle machine:

    python3 packaging/bootstrap.py exec --extra test env PYTHONPATH=. python tests/benchmarks/expert_step_time.py WORK

Quantizes random Qwen3-MoE models to 4 bits with few iterations and prints:

- `step`: seconds of a tuning step with 8 and with 128 experts (hidden size 512, expert size 256, 4 experts per token,
  2,048 and 8,192 tokens per step), in alternation, and their ratio, which shall be at most 1.5;
- `memory`: the peak memory with 128 experts, which shall be at most 16 bytes for each weight of the block, plus the
  cached hidden states, plus 1 GB;
- `depth`: the peak memory with 2 and with 64 smaller blocks of 128 experts, which shall differ by at most 5 %.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from core.calibration.text import BUILTIN, documents
from core.events import ignore_event
from tests.benchmarks.measured_run import BIN, measured
from tests.benchmarks.small_models import VOCABULARY, train_tokenizer

TOP_K, SEQLEN, BATCH = 4, 256, 8
LENGTHS = (256, 1024)
"""Tokens per sequence of the timed steps: with 128 experts and a batch of 8, an expert gets 64 or 256 of them."""
HEAD_DIM = 64
CHECKS = ("step", "memory", "depth")


@dataclass(frozen=True)
class Shape:
    """Shape of a Qwen3-MoE model: blocks, experts per block, hidden size, and intermediate size of an expert."""

    blocks: int
    experts: int
    hidden_size: int = 512
    expert_size: int = 256

    @property
    def name(self) -> str:
        """Name of the folder of the model."""
        return f"qwen3-moe-{self.blocks}x{self.experts}-{self.hidden_size}"

    def block_shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the names and the shapes of the tensors of a block, as in the checkpoint."""
        hidden, inner = self.hidden_size, self.expert_size
        for projection in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield f"self_attn.{projection}.weight", (hidden, hidden)
        for norm in ("q_norm", "k_norm"):
            yield f"self_attn.{norm}.weight", (HEAD_DIM,)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{norm}.weight", (hidden,)
        yield "mlp.gate.weight", (self.experts, hidden)
        for expert in range(self.experts):
            yield f"mlp.experts.{expert}.gate_proj.weight", (inner, hidden)
            yield f"mlp.experts.{expert}.up_proj.weight", (inner, hidden)
            yield f"mlp.experts.{expert}.down_proj.weight", (hidden, inner)

    @property
    def block_weights(self) -> int:
        """Number of weights of a block."""
        return sum(torch.Size(shape).numel() for _, shape in self.block_shapes())


@dataclass(frozen=True)
class RunFigures:
    """Seconds of each tuning step but the first of each block, and the peak memory of the processes in bytes."""

    steps: list[float]
    peak: int


@cache
def _tokenizer() -> Any:
    """Return a tokenizer with many tokens: with the embeddings of a few bytes the router would use few experts."""
    return train_tokenizer(list(documents(BUILTIN, ignore_event)))


def save_model(folder: Path, shape: Shape) -> Path:
    """Save a model with random weights, one file per block, unless the folder exists."""
    if folder.is_dir():
        return folder
    from transformers import Qwen3MoeConfig

    generator = torch.Generator().manual_seed(shape.blocks)
    folder.mkdir(parents=True)
    locations: dict[str, str] = {}

    def save(number: int, shapes: dict[str, tuple[int, ...]]) -> None:
        tensors = {}
        for name, size in shapes.items():
            if len(size) == 1:
                tensors[name] = torch.ones(size, dtype=torch.bfloat16)
                continue
            scale = 1.0 if name.startswith("model.embed_tokens") else size[-1] ** -0.5
            tensors[name] = (torch.randn(size, generator=generator) * scale).to(torch.bfloat16)
        file = f"model-{number + 1:05}-of-{shape.blocks + 1:05}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        locations.update(dict.fromkeys(tensors, file))

    embeddings = (VOCABULARY, shape.hidden_size)
    save(
        0, {"model.embed_tokens.weight": embeddings, "model.norm.weight": embeddings[1:], "lm_head.weight": embeddings}
    )
    for block in range(shape.blocks):
        save(block + 1, {f"model.layers.{block}.{name}": size for name, size in shape.block_shapes()})
    index = {"metadata": {}, "weight_map": locations}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    heads = shape.hidden_size // HEAD_DIM
    config = Qwen3MoeConfig(
        architectures=["Qwen3MoeForCausalLM"], dtype="bfloat16", vocab_size=VOCABULARY, hidden_size=shape.hidden_size,
        num_hidden_layers=shape.blocks, num_attention_heads=heads, num_key_value_heads=heads,
        moe_intermediate_size=shape.expert_size, num_experts=shape.experts, num_experts_per_tok=TOP_K,
        norm_topk_prob=True, max_position_embeddings=2048, eos_token_id=0,
    )  # fmt: skip
    config.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def quantize(work: Path, shape: Shape, label: str, iterations: int, samples: int, seqlen: int = SEQLEN) -> RunFigures:
    """Quantize the model of a shape in child processes.

    Raises:
        SystemExit: the run failed.
    """
    model, log = save_model(work / shape.name, shape), work / f"{shape.name}-{label}.log"
    output = work / f"{shape.name}-{label}"
    command = [
        str(BIN / "bitwright"), "quantize", str(model), "--output", str(output), "--bits", "4", "--group-size", "64",
        "--iters", str(iterations), "--samples", str(samples), "--seqlen", str(seqlen), "--batch-size", str(BATCH),
        "--device", "cpu", "--json",
    ]  # fmt: skip
    figures = measured(command, log)
    shutil.rmtree(output, ignore_errors=True)
    lines = log.read_text(encoding="utf-8").splitlines()
    if figures.code:
        raise SystemExit(f"{shape.name}: exit code {figures.code}\n" + "\n".join(lines[-5:]))
    events = [json.loads(line) for line in lines if line.startswith("{")]
    losses = [event for event in events if event["event"] == "Loss"]
    steps = [after["time"] - before["time"] for before, after in pairwise(losses) if before["block"] == after["block"]]
    # The sampled peak includes the process of the command line, but it can miss a short peak of the worker.
    peaks = [event["peak"] for event in events if event["event"] == "Memory"]
    return RunFigures(steps, max(figures.peak, *peaks))


def compare_steps(work: Path, rounds: int, seqlen: int) -> None:
    """Print the median time of a step with 8 and with 128 experts, and their ratio."""
    shapes = {experts: Shape(1, experts) for experts in (8, 128)}
    seconds: dict[int, list[float]] = {experts: [] for experts in shapes}
    for number in range(rounds):
        for experts, shape in shapes.items():
            figures = quantize(work, shape, f"step-{number}", 20, 16 * 1024 // seqlen, seqlen)
            seconds[experts].append(statistics.median(figures.steps))
    medians = {experts: statistics.median(found) for experts, found in seconds.items()}
    rows = {f"seconds_{experts}": round(value, 3) for experts, value in medians.items()}
    figures_of = {"check": "step", "tokens": BATCH * seqlen, **rows, "ratio": round(medians[128] / medians[8], 3)}
    print(json.dumps(figures_of), flush=True)


def compare_with_limit(work: Path) -> None:
    """Print the peak memory with 128 experts and its limit."""
    shape, samples = Shape(2, 128), 64
    found = quantize(work, shape, "memory", 10, samples)
    caches = 2 * samples * SEQLEN * shape.hidden_size * 4  # of the original and the quantized model, float32
    limit = 16 * shape.block_weights + caches + 10**9
    row = {"check": "memory", "block_weights": shape.block_weights, "peak_mb": round(found.peak / 1e6)}
    print(json.dumps({**row, "limit_mb": round(limit / 1e6), "ratio": round(found.peak / limit, 3)}), flush=True)


def compare_depths(work: Path) -> None:
    """Print the peak memory with 2 and with 64 blocks, and their ratio."""
    peaks = {blocks: quantize(work, Shape(blocks, 128, 256, 128), "depth", 4, 16).peak for blocks in (2, 64)}
    row = {f"peak_mb_{blocks}": round(peak / 1e6) for blocks, peak in peaks.items()}
    print(json.dumps({"check": "depth", **row, "ratio": round(peaks[64] / peaks[2], 3)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--checks", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if "step" in options.checks:
        for seqlen in LENGTHS:
            compare_steps(options.work, options.rounds, seqlen)
    if "memory" in options.checks:
        compare_with_limit(options.work)
    if "depth" in options.checks:
        compare_depths(options.work)


if __name__ == "__main__":
    main()
