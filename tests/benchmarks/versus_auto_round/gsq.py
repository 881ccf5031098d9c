"""GSQ (arXiv 2604.18556), the third side of the comparison: GPTQ, then levels and scales trained with Gumbel-softmax.

    python -m tests.benchmarks.versus_auto_round.gsq MODEL TEXTS OUTPUT --bits 2 --group-size 64 --iters 50 \\
        --samples 64 --seqlen 256 --batch-size 8

A small re-implementation of the method, for blocks with the modules `self_attn` and `mlp`, in float32 on a CPU. The
model is in memory in 16 bits; one block at a time is in float32. Each block, on the inputs of the quantized model, with
the outputs of the original block for the same inputs as targets:

1. GPTQ of the layers of the attention. The levels and scales of queries and keys are then trained on the error of the
   layer under its Gram matrix, without text, and those of values and outputs on the mean squared error of the hidden
   states before the MLP.
2. GPTQ of the layers of the MLP, and training of all of them on the mean squared error of the block's output.

Each training takes --iters steps of --batch-size samples, so a weight gets as many tokens as in a run of the other
sides with these settings. Temperatures, factors of the logits, initial logits, weight decay, Lion, the cosine, damping
and the search of scales are those of the authors' configuration files (`gumbel.py`).

Differences from the authors' program:
- The learning rates are multiplied by 640 / iters, since the authors take 640 steps. The first rate of the logits is a
  quarter of theirs, and the rate of the scales is relative to the mean scale of the layer instead of absolute: with
  fewer tokens, these gave smaller errors on samples that were held out.
- Groups of GPTQ are searched in weights with all errors of earlier columns also if a group is shorter than 128.
- Queries and keys take fewer steps at learning rates that are higher by the same factor.
- Logits and activations are float32 instead of bfloat16; targets are computed once; samples are not held back.
- Samples of Gumbel's distribution are excerpts of one table.
- Scales are rounded to float16 values, as the other sides write them.

OUTPUT has plain float32 tensors, and in the folder `levels` the integers and scales. With --end-to-end N, the
integers and scales found before (--levels, or else found now) are the start of N end-to-end steps of the product, which
writes OUTPUT.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core.bitsmap import BitsMap, Rule
from core.quant.start.levels import Levels
from core.recipes import Recipe
from core.schemes import UNTOUCHED, LayerScheme
from tests.benchmarks.versus_auto_round.gumbel import (
    Noise,
    RelaxedWeight,
    gptq,
    rate_share,
    refine,
    values_of,
)

LEVELS = "levels"
MICRO_BATCH = 2
"""Samples for each of which weights are drawn anew, as in the authors' configuration files."""
WITHOUT_TEXT_STEPS = 500
"""Steps for queries and keys; the authors take 2,000."""
_ALONE = ("q_proj", "k_proj")

Found = tuple[Tensor, Tensor]
"""Levels from -2^(bits - 1), [out, in], and scales, [out, groups]."""


@dataclass(frozen=True)
class Settings:
    """Settings of a run; `iters` 0 keeps GPTQ's result."""

    bits: int
    group_size: int
    iters: int
    batch_size: int
    seed: int


class _Reached(Exception):  # noqa: N818 - control flow, not an error
    """Hidden states at the place where the rest of a block is not needed."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


def until_mlp(block: Any, hidden: Tensor, arguments: dict[str, Any]) -> Tensor:
    """Return the hidden states before the norm of the MLP, after the residual of the attention."""

    def stop(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        raise _Reached(inputs[0])

    norm = getattr(block, "pre_feedforward_layernorm", None) or block.post_attention_layernorm
    hook = norm.register_forward_pre_hook(stop)
    try:
        block(hidden, **arguments)
    except _Reached as reached:
        return reached.hidden
    finally:
        hook.remove()
    raise SystemExit("The blocks of this model have no norm before their MLP.")


def whole(block: Any, hidden: Tensor, arguments: dict[str, Any]) -> Tensor:
    """Return the output of a block."""
    found = block(hidden, **arguments)
    output: Tensor = found[0] if isinstance(found, tuple) else found
    return output


Forward = Callable[[Any, Tensor, dict[str, Any]], Tensor]


@contextlib.contextmanager
def recorded(layers: dict[str, nn.Linear]) -> Iterator[dict[str, Tensor]]:
    """Yield the sums of x^T x over the inputs x of each layer, float32 [in, in], in this context.

    Layers with the same inputs share a tensor.
    """
    grams: dict[str, Tensor] = {}
    last: list[tuple[Tensor, Tensor]] = []

    def hook_of(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if last and last[0][0] is inputs[0]:
                grams[name] = last[0][1]
                return
            rows = inputs[0].flatten(0, -2)
            gram = grams.setdefault(name, torch.zeros(rows.shape[1], rows.shape[1])).addmm_(rows.T, rows)
            last[:] = [(inputs[0], gram)]

        return hook

    hooks = [layer.register_forward_pre_hook(hook_of(name)) for name, layer in layers.items()]
    try:
        yield grams
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def outputs(forward: Forward, block: Any, states: Tensor, arguments: dict[str, Any]) -> Tensor:
    """Return the outputs for all samples, [samples, tokens, hidden_size]."""
    return torch.cat([forward(block, part, arguments) for part in states.split(MICRO_BATCH)])


def train(
    layers: dict[str, nn.Linear],
    relaxed: dict[str, RelaxedWeight],
    forward: Callable[[Tensor], Tensor],
    states: Tensor,
    targets: Tensor,
    settings: Settings,
) -> None:
    """Train relaxed weights on the mean squared error of the outputs.

    Args:
        layers: with the weights that `forward` uses, by name.
        forward: returns the outputs for some samples.
        states, targets: inputs and wanted outputs of all samples.
    """
    order = torch.Generator().manual_seed(settings.seed)
    queue: list[int] = []
    size = min(settings.batch_size, len(states))
    for step in range(settings.iters):
        if len(queue) < size:
            queue = torch.randperm(len(states), generator=order).tolist()
        chosen, queue = torch.tensor(queue[:size]), queue[size:]
        for index in chosen.split(MICRO_BATCH):
            for name, weight in relaxed.items():
                layers[name].weight.data.copy_(weight.draw(step / max(1, settings.iters - 1)))
                layers[name].weight.requires_grad_(True)
            (forward(states[index]) - targets[index]).square().mean().backward()
            for name, weight in relaxed.items():
                gradient = layers[name].weight.grad
                assert gradient is not None
                weight.collect(gradient)
                layers[name].weight.grad = None
        for weight in relaxed.values():
            weight.step(rate_share(step, settings.iters))
    for name in relaxed:
        layers[name].weight.requires_grad_(False)


def quantize_block(block: Any, states: Tensor, arguments: dict[str, Any], settings: Settings) -> dict[str, Found]:
    """Quantize the layers of a block in float32 in place, and return their levels and scales by name in the block.

    Args:
        states: inputs of the block in the quantized model, [samples, tokens, hidden_size].
        arguments: other arguments of the block.
    """
    linears = {name: module for name, module in block.named_modules() if isinstance(module, nn.Linear)}
    attention = {name: linear for name, linear in linears.items() if name.startswith("self_attn.")}
    rest = {name: linear for name, linear in linears.items() if name not in attention}
    wanted = outputs(whole, block, states, arguments)
    noise = Noise(settings.seed)
    found: dict[str, Found] = {}
    for layers, forward in ((attention, until_mlp), (rest, whole)):
        with recorded(layers) as grams:
            passed = outputs(forward, block, states, arguments)
        targets = passed if forward is until_mlp else wanted
        relaxed = {}
        for name, layer in layers.items():
            weight = layer.weight.data
            levels, scale = gptq(weight, grams[name], settings.bits, _group(settings, weight))
            found[name] = levels, scale.half().float()
            if settings.iters:
                one = RelaxedWeight(levels, scale, settings.bits, noise)
                if name.endswith(_ALONE):
                    refine(weight, one, grams[name], WITHOUT_TEXT_STEPS)
                    found[name] = one.hard()
                else:
                    relaxed[name] = one
            layer.weight.data.copy_(values_of(*found[name]))
        grams.clear()
        if relaxed:
            train(
                layers,
                relaxed,
                lambda hidden, forward=forward: forward(block, hidden, arguments),  # type: ignore[misc]
                states,
                targets,
                settings,
            )
        for name, one in relaxed.items():
            found[name] = one.hard()
            layers[name].weight.data.copy_(values_of(*found[name]))
    return found


def _group(settings: Settings, weight: Tensor) -> int:
    return LayerScheme(settings.bits, settings.group_size).group_of(weight.shape[1])


def block_arguments(model: Any, tokens: Tensor) -> tuple[Tensor, list[dict[str, Any]]]:
    """Return the inputs of the first block for tokens, and the arguments of each block except the hidden states."""
    blocks, arguments = model.model.layers, []
    inputs: list[Tensor] = []

    def stand_in(hidden: Tensor, *_: Any, **given: Any) -> Tensor:
        inputs.append(hidden)
        arguments.append({**given, "past_key_values": None, "use_cache": False})
        return hidden

    originals = [block.forward for block in blocks]
    for block in blocks:
        block.forward = stand_in
    try:
        with torch.no_grad():
            model.model(input_ids=tokens, use_cache=False)
    finally:
        for block, forward in zip(blocks, originals, strict=True):
            block.forward = forward
    return inputs[0].float(), [
        {name: _in_float32(value) for name, value in given.items()} for given in arguments[: len(blocks)]
    ]


def _in_float32(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_in_float32(part) for part in value)
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def quantize(model: Any, tokens: Tensor, blocks: tuple[int, ...], settings: Settings) -> dict[str, Found]:
    """Quantize the blocks of transformers' model in place, and return levels and scales by the names of the layers.

    Args:
        tokens: int64 [samples, tokens].
        blocks: numbers of the blocks that are quantized; () for all.
    """
    _, arguments = block_arguments(model, tokens[:1])
    states = torch.cat([block_arguments(model, part)[0] for part in tokens.split(MICRO_BATCH)])
    found: dict[str, Found] = {}
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for number, block in enumerate(model.model.layers):
        dtype = next(block.parameters()).dtype
        block.float()
        if not blocks or number in blocks:
            layers = quantize_block(block, states, arguments[number], settings)
            found |= {f"model.layers.{number}.{name}": value for name, value in layers.items()}
        states = outputs(whole, block, states, arguments[number])
        block.to(dtype)
        print(f"block {number + 1}/{len(model.model.layers)}", flush=True)
    return found


def write(source: Path, output: Path, found: dict[str, Found], bits: int) -> None:
    """Write a checkpoint with plain float32 tensors, and the levels, uint8 from 0, with their scales."""
    (output / LEVELS).mkdir(parents=True, exist_ok=True)
    floats: dict[str, Tensor] = {}
    for path in sorted(source.glob("*.safetensors")):
        floats |= {name: value.float() for name, value in load_file(path).items()}
    parts: dict[str, Tensor] = {}
    for name, (levels, scale) in found.items():
        floats[f"{name}.weight"] = values_of(levels, scale)
        parts[f"{name}.levels"] = (levels + 2 ** (bits - 1)).to(torch.uint8)
        parts[f"{name}.scale"] = scale
    save_file(parts, output / LEVELS / "levels.safetensors")
    save_file(floats, output / "model.safetensors")
    (output / "config.json").write_text((source / "config.json").read_text(encoding="utf-8"), encoding="utf-8")


def stored_start(folder: Path, scheme: LayerScheme) -> Callable[..., list[Levels]]:
    """Return a function that returns the stored levels of each group of rows, in place of the product's start."""
    stored = load_file(folder / LEVELS / "levels.safetensors")

    def start_groups(groups: Any, *_: Any, **__: Any) -> list[Levels]:
        found = []
        for group in groups:
            names = [part.item.linear.name for part in group.rows]
            scale = torch.cat([stored[f"{name}.scale"] for name in names])
            ints = torch.cat([stored[f"{name}.levels"] for name in names])
            found.append(Levels(scheme, ints, scale, torch.full_like(scale, float(scheme.reach))))
        return found

    return start_groups


def learn_end_to_end(options: argparse.Namespace, levels: Path) -> None:
    """Run the product with the stored levels as the start of its end-to-end stage."""
    import core
    from core.quant import blocks

    scheme = LayerScheme(options.bits, options.group_size)
    # the product has no start from stored levels
    setattr(blocks, "start_groups", stored_start(levels, scheme))  # noqa: B010 - an attribute of a module
    count = json.loads((options.model / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    kept = [number for number in range(count) if options.blocks and number not in options.blocks]
    bits_map = BitsMap(scheme, tuple(Rule(f"*.layers.{number}.*", bits=UNTOUCHED) for number in kept))
    recipe = Recipe(
        iters=0, samples=options.samples, seqlen=options.seqlen, batch_size=options.batch_size,
        end_to_end=options.end_to_end,
    )  # fmt: skip
    for event in core.quantize(
        options.model, options.output, recipe=recipe, bits_map=bits_map, calibration=options.texts, device="cpu",
        seed=options.seed, inline=True,
    ):  # fmt: skip
        print(event, flush=True)


def calibration_tokens(model: Path, texts: Path, samples: int, seqlen: int) -> Tensor:
    """Return the tokens of the first `samples` texts, int64 [samples, seqlen].

    Raises:
        SystemExit: there are not enough texts of this length.
    """
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    lines = texts.read_text(encoding="utf-8").splitlines()
    rows = [tokenizer(json.loads(line)["text"])["input_ids"][:seqlen] for line in lines]
    rows = [row for row in rows if len(row) == seqlen][:samples]
    if len(rows) < samples:
        raise SystemExit(f"{texts} has {len(rows)} texts of {seqlen} tokens, fewer than {samples}.")
    return torch.tensor(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "texts", "output"):
        parser.add_argument(name, type=Path)
    for option in ("--bits", "--group-size", "--iters", "--samples", "--seqlen", "--batch-size"):
        parser.add_argument(option, type=int, required=True)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--blocks", type=lambda text: tuple(map(int, text.split(","))), default=())
    parser.add_argument("--end-to-end", type=int, default=0)
    parser.add_argument("--levels", type=Path, help="output of an earlier run, for --end-to-end")
    options = parser.parse_args()
    levels = options.levels or options.output
    if not (levels / "config.json").exists():
        from transformers import AutoModelForCausalLM

        settings = Settings(options.bits, options.group_size, options.iters, options.batch_size, options.seed)
        model = AutoModelForCausalLM.from_pretrained(options.model, dtype="auto").eval()
        tokens = calibration_tokens(options.model, options.texts, options.samples, options.seqlen)
        write(options.model, levels, quantize(model, tokens, options.blocks, settings), options.bits)
    if options.end_to_end:
        learn_end_to_end(options, levels)


if __name__ == "__main__":
    main()
