"""Error of single blocks against the tokens of their tuning, for each way to tune them.

Run manually, from the root of the repository:

    python3 packaging/bootstrap.py exec --extra test \\
        python -m tests.benchmarks.block_curves WORK demo --blocks 3,10,20,28 --bits 2,3,4

The inputs of a block are those of the original model. Each run is tuned on bundled calibration text, and its error is
the squared error of the block's output on unseen text, relative to the change that the block makes; tokens with
massive activations, which would outweigh all others, are left out. Ways: `start` (no gradients), `scales`, `integers`
(integers and scales), all three from the same start, and `signround`. Each way runs with 25, 50, 100, 200 and 400
steps of 2 x 512 tokens, or --steps. Finished runs are lines of WORK/block-curves.jsonl, which a later call skips; the
tables are printed at the end. WORK is the folder of `tests.benchmarks.versus_auto_round`, whose models are used.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.calibration.text import BUILTIN, documents
from core.events import ignore_event
from core.model.block_runner import products_in
from core.quant.grid import new_grid
from core.quant.latent_grid import latent_grid
from core.quant.level_grid import level_grid
from core.quant.start.layer import start_layer
from core.quant.start.levels import Levels
from core.quant.tuned_grid import TunedGrid
from core.recipes import Recipe
from core.schemes import LayerScheme
from tests.benchmarks.versus_auto_round.material import evaluation_text, model_folder

WAYS = ("start", "scales", "integers", "signround")
SEQLEN, BATCH, SAMPLES, UNSEEN = 512, 2, 128, 12
MASSIVE = 50
"""Tokens whose output has more than this many times the median squared norm have massive activations."""


@dataclass
class Block:
    """A block of the original model, and its inputs.

    Attributes:
        run: returns the outputs of the block, [batch, tokens, hidden_size], for its inputs.
        layers: its linear layers by name.
        weights: their original weights.
        inputs, unseen: bfloat16 [samples, tokens, hidden_size] of the calibration and the evaluation text.
    """

    run: Callable[[Tensor], Tensor]
    layers: dict[str, nn.Linear]
    weights: dict[str, Tensor]
    inputs: Tensor
    unseen: Tensor

    def outputs(self, inputs: Tensor) -> Tensor:
        """Return the outputs of many samples without gradients."""
        with torch.no_grad():
            return torch.cat([self.run(part.float()).float() for part in inputs.split(BATCH)])


def load_block(work: Path, folder: Path, number: int) -> Block:
    """Load the model, and run it up to a block on both texts."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).requires_grad_(False)
    module = model.get_decoder().layers[number]
    whole = "\n\n".join(documents(BUILTIN, ignore_event))
    texts = [json.loads(line)["text"] for line in evaluation_text(work, "choose").read_text("utf-8").splitlines()]
    tokens = [_rows(tokenizer, text, count) for text, count in ((whole, SAMPLES), ("\n\n".join(texts), UNSEEN))]
    found: list[Tensor] = []
    arguments: dict[str, Any] = {}

    def capture(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs.pop("hidden_states")
        found.append(hidden.bfloat16())
        arguments.update(kwargs)
        raise StopIteration

    handle = module.register_forward_pre_hook(capture, with_kwargs=True)
    with torch.no_grad(), products_in(torch.bfloat16, torch.device("cpu")):
        for part in torch.cat(tokens).split(BATCH):
            with contextlib.suppress(StopIteration):
                model(part, use_cache=False)
    handle.remove()

    def run(hidden: Tensor) -> Tensor:
        with products_in(torch.bfloat16, torch.device("cpu")):
            output = module(hidden, **arguments)
        return output[0] if isinstance(output, tuple) else output

    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    weights = {name: layer.weight.data.clone() for name, layer in layers.items()}
    inputs = torch.cat(found)
    return Block(run, layers, weights, inputs[: len(tokens[0])], inputs[len(tokens[0]) :])


def _rows(tokenizer: Any, text: str, count: int) -> Tensor:
    """Return rows of tokens spread over a text, int64 [rows, tokens]."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    count = min(count, len(ids) // SEQLEN)
    starts = [number * (len(ids) - SEQLEN) // max(1, count - 1) for number in range(count)]
    return torch.tensor([ids[start : start + SEQLEN] for start in starts])


class Errors:
    """Relative error of a block on the unseen text."""

    def __init__(self, block: Block) -> None:
        self._block = block
        self._expected = block.outputs(block.unseen)
        sizes = self._expected.square().sum(-1)
        self._usual = sizes < MASSIVE * sizes.median()
        change = self._expected - block.unseen.float()
        self._scale = float(change.square().sum(-1)[self._usual].sum())

    def now(self) -> float:
        """Return the error with the present weights."""
        error = self._block.outputs(self._block.unseen) - self._expected
        return float(error.square().sum(-1)[self._usual].sum()) / self._scale


def starts(block: Block, scheme: LayerScheme) -> dict[str, Levels]:
    """Return the start of each linear layer."""
    grams: dict[str, Tensor] = {}

    def record(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_layer: nn.Module, args: tuple[Any, ...]) -> None:
            rows = args[0].reshape(-1, args[0].shape[-1]).float()
            with torch.autocast("cpu", enabled=False):
                grams[name] = grams.get(name, torch.zeros(())) + rows.T @ rows / len(rows)

        return hook

    handles = [layer.register_forward_pre_hook(record(name)) for name, layer in block.layers.items()]
    block.outputs(block.inputs)
    for handle in handles:
        handle.remove()
    return {name: start_layer(weight, scheme, grams[name]).levels for name, weight in block.weights.items()}


def tune(block: Block, grids: dict[str, TunedGrid], targets: Tensor, steps: int, rate: float) -> None:
    """Tune grids; the weights of the block are then theirs.

    Args:
        targets: outputs of the original block on its inputs.
        rate: initial learning rate of scales or ranges.
    """
    weights = {name: layer.weight for name, layer in block.layers.items()}
    generator, order = torch.Generator().manual_seed(0), list[int]()
    for step in range(steps):
        if len(order) < BATCH:
            order = torch.randperm(len(block.inputs), generator=generator).tolist()
        index = [order.pop() for _ in range(BATCH)]
        (block.run(block.inputs[index].float()) - targets[index]).square().mean().backward()
        for name, weight in weights.items():
            gradient, weight.grad = weight.grad, None
            assert gradient is not None
            grids[name].step(gradient, weight.data, steps - step, rate * (1 - step / steps))


def grids_of(
    block: Block, way: str, found: dict[str, Levels], scheme: LayerScheme, steps: int
) -> tuple[dict[str, TunedGrid], float]:
    """Return the grids of a way, and the learning rate of their scales or ranges."""
    recipe = Recipe(iters=steps, start="range" if way == "signround" else "gptq", learn_integers=way == "integers")
    rate = recipe.learning_rate(scheme.bits)
    made: dict[str, TunedGrid] = {}
    for name, weight in block.weights.items():
        if way == "signround":
            made[name] = new_grid(weight, scheme, iterations=steps, rate=rate)
        elif way == "integers":
            made[name] = latent_grid(found[name], weight, steps, rate * steps)
        else:
            made[name] = level_grid(found[name])
    return made, recipe.range_rate(scheme.bits)


def measure(block: Block, way: str, found: dict[str, Levels], scheme: LayerScheme, steps: int) -> dict[str, float]:
    """Return the errors of one run and the CPU seconds of its steps."""
    for name, layer in block.layers.items():
        layer.weight = nn.Parameter(block.weights[name].clone())
    errors, targets = Errors(block), block.outputs(block.inputs)
    grids, rate = grids_of(block, way, found, scheme, steps)
    for name, grid in grids.items():
        grid.quantize_into(block.layers[name].weight.data)
    before, begun = errors.now(), time.process_time()
    if way != "start":
        tune(block, grids, targets, steps, rate)
    seconds = time.process_time() - begun
    result = {"before": before, "after": errors.now(), "cpu": round(seconds, 1)}
    for name, layer in block.layers.items():
        layer.weight = nn.Parameter(block.weights[name].clone(), requires_grad=False)
    return result


def print_tables(lines: list[dict[str, Any]]) -> None:
    """Print one table per model and bit width: the mean over blocks of the error relative to that of the start."""
    for model, bits, group in sorted({(line["model"], line["bits"], line["group"]) for line in lines}):
        some = [line for line in lines if (line["model"], line["bits"], line["group"]) == (model, bits, group)]
        counts = sorted({line["steps"] for line in some} - {0})
        blocks = sorted({line["block"] for line in some})
        base = {line["block"]: line["after"] for line in some if line["way"] == "start"}
        print(f"\n{model}, {bits} bits, groups of {group}, blocks {', '.join(map(str, blocks))}; start alone = 1\n")
        print("| tokens | " + " | ".join(f"{count * BATCH * SEQLEN:,}" for count in counts) + " |")
        print("|---|" + "---|" * len(counts))
        for way in WAYS[1:]:
            cells = []
            for count in counts:
                ratios = [
                    line["after"] / base[line["block"]]
                    for line in some
                    if line["way"] == way and line["steps"] == count and line["block"] in base
                ]
                cells.append(f"{sum(ratios) / len(ratios):.3f}" if len(ratios) == len(blocks) else "")
            print(f"| {way} | " + " | ".join(cells) + " |")


def main() -> None:
    """Run what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("model", help="demo, gemma, llama, or a folder")
    parser.add_argument("--blocks", default="3,10,20,28")
    parser.add_argument("--bits", default="2,3,4")
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--steps", default="25,50,100,200,400")
    parser.add_argument("--ways", default=",".join(WAYS))
    options = parser.parse_args()
    results = options.work / "block-curves.jsonl"
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    known = {tuple(line[key] for key in ("model", "block", "bits", "group", "way", "steps")) for line in lines}
    label, folder = model_folder(options.work, options.model)
    ways = options.ways.split(",")
    for number in map(int, options.blocks.split(",")):
        wanted = [
            (label, number, bits, options.group_size, way, steps)
            for bits in map(int, options.bits.split(","))
            for way in ways
            for steps in ([0] if way == "start" else map(int, options.steps.split(",")))
            if way != "integers" or bits <= 4
        ]
        missing = [key for key in wanted if key not in known]
        if not missing:
            continue
        block, found = load_block(options.work, folder, number), dict[int, dict[str, Levels]]()
        for key in missing:
            _, _, bits, group, way, steps = key
            scheme = LayerScheme(bits, group)
            if way != "signround" and bits not in found:
                found[bits] = starts(block, scheme)
            measured = measure(block, way, found.get(bits, {}), scheme, steps)
            line = dict(zip(("model", "block", "bits", "group", "way", "steps"), key, strict=True)) | measured
            print(json.dumps(line), flush=True)
            lines.append(line)
            with results.open("a") as stream:
                stream.write(json.dumps(line) + "\n")
    print_tables(lines)


if __name__ == "__main__":
    main()
