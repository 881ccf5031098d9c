"""Largest differences when other programs read the checkpoints written by Bitwright, case by case.

Run manually with the interpreters of the available programs; the others are skipped:

    python3 packaging/bootstrap.py exec --extra test python tests/benchmarks/readers_table.py WORK \\
        --auto-round PYTHON --auto-round-lib PYTHON --gptqmodel PYTHON --vllm PYTHON --autoawq packing_utils.py \\
        --only WORD

A random Llama of two blocks with biases is rounded to nearest and written in every format, with every bit width,
symmetry and group size that the reader supports. Compared are the reader's weights with ours, rounded to its dtype, and
its logits with those of transformers in float32 with our weights; for reference, also those of transformers with the
same weights in the reader's dtype. The results are stored in WORK.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from safetensors.torch import load_file

from core.formats.registry import plan_packed
from core.formats.side_files import carry_over
from core.model.tree import resolve_schemes
from core.model.weights import TensorStore
from core.schemes import LayerScheme
from tests.core.formats.tiny import Output, bits_map, open_tree, write_output

TOKENS = torch.arange(48).reshape(2, 24) * 5 % 251
READER = Path(__file__).with_name("one_reader.py")
ATTENTION = tuple(f"model.layers.0.self_attn.{part}_proj" for part in "qkv")
LEFT: dict[str, dict[str, Any]] = {name: {"bits": 16} for name in (*ATTENTION, "model.layers.1.mlp.down_proj")}
# Fused layers have the same scheme, so that vLLM can read them.
MIXED: dict[str, dict[str, Any]] = {
    **{name: {"bits": 16} for name in ATTENTION},
    "model.layers.1.mlp.gate_proj": {"group_size": 32},
    "model.layers.1.mlp.up_proj": {"group_size": 32},
    "model.layers.1.mlp.down_proj": {"group_size": -1},
    "lm_head": {"bits": 4},
}


@dataclass(frozen=True)
class Case:
    """A format and a bits map to be read by one reader."""

    reader: str
    backend: str
    format: str
    scheme: LayerScheme
    what: str = ""

    @property
    def name(self) -> str:
        scheme = self.scheme.label().replace(" ", "-")
        return f"{self.format.replace(':', '-')}_{scheme}{'_' + self.what if self.what else ''}"


@dataclass(frozen=True)
class Found:
    """Largest differences of weights, of logits, and of logits with our weights in the reader's dtype."""

    layers: int
    weights: float
    logits: float | None
    usual: float | None
    dtype: str


def schemes(bits: tuple[int, ...], syms: tuple[bool, ...], groups: tuple[int, ...]) -> Iterator[LayerScheme]:
    """Return all combinations of bits, group size and symmetry."""
    return (LayerScheme(b, group, sym) for b in bits for sym in syms for group in groups)


def cases(autoawq: str) -> Iterator[Case]:
    """Yield the cases of each reader that it supports according to its documentation."""
    every, both, groups = (2, 3, 4, 8), (True, False), (32, 128, -1)
    for name in ("auto_round", "auto_gptq"):
        for scheme in schemes(every, (True,), groups):
            yield Case("auto-round", "auto_round:torch_zp", name, scheme)
        yield Case("auto-round", "auto_round:torch_zp", name, LayerScheme(4, 64), "mixed")
    for scheme in schemes((2, 3, 8), (False,), groups):
        yield Case("auto-round", "auto_round:torch", "auto_round", scheme)
    for name in ("auto_round:plain", "auto_round:gptqmodel"):
        for scheme in schemes(every, both, groups):
            yield Case("auto-round", "auto_round:torch", name, scheme)
    for scheme in schemes((4,), both, groups):
        yield Case("auto-round-lib", "auto", "auto_awq", scheme)
        yield Case("auto-round-lib", "auto", "auto_round:auto_awq", scheme)
    for scheme in schemes((2, 4, 8), (False,), groups):
        yield Case("auto-round-lib", "auto", "auto_gptq", scheme)
        yield Case("auto-round-lib", "auto", "auto_round:auto_gptq", scheme)
    for name, syms in (("auto_gptq", (True,)), ("gptqmodel", both)):
        for scheme in schemes(every, syms, groups):
            yield Case("gptqmodel", "GPTQ_TORCH", name, scheme)
        yield Case("gptqmodel", "GPTQ_TORCH", name, LayerScheme(4, 64), "mixed")
    for scheme in schemes((4,), both, groups):
        yield Case("gptqmodel", "AWQ_TORCH", "auto_awq", scheme)
        yield Case("autoawq", autoawq, "auto_awq", scheme)
        yield Case("vllm", "", "auto_awq", scheme)
    for name in ("auto_gptq", "gptqmodel"):
        yield Case("gptqmodel", "GPTQ_TORCH", name, LayerScheme(4, 64), "act_order")
    yield Case("gptqmodel", "AWQ_TORCH", "auto_awq", LayerScheme(4, 64, False), "left")
    yield Case("vllm", "", "auto_awq", LayerScheme(4, 64, False), "left")
    for name in ("auto_gptq", "gptqmodel", "auto_awq"):
        yield from (Case("optimum", "", name, scheme) for scheme in schemes((4,), both, (64,)))
    yield Case("optimum", "", "auto_awq", LayerScheme(4, 64), "left")
    for name in ("auto_round", "auto_gptq", "gptqmodel"):
        for scheme in schemes((4,), (True,), groups):
            yield Case("vllm", "", name, scheme)
        yield Case("vllm", "", name, LayerScheme(4, 64), "mixed")
    yield from (Case("vllm", "", "auto_round", scheme) for scheme in schemes((4,), (False,), groups))


def save_source(folder: Path) -> None:
    """Save a random model in bfloat16 with a tokenizer of 256 words."""
    config = transformers.LlamaConfig(
        vocab_size=256, hidden_size=256, intermediate_size=384, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, attention_bias=True, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(5)
    model: Any = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    model.to(torch.bfloat16).save_pretrained(folder)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"w{i}": i for i in range(256)}, unk_token="w0"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1").save_pretrained(folder)


def write(source: Path, folder: Path, case: Case) -> Output:
    """Write the output of a case."""
    extra = {"mixed": MIXED, "left": LEFT}.get(case.what)
    output = write_output(source, folder, case.format, bits_map(case.scheme, extra))
    if case.what == "act_order":
        output = act_order(source, folder, case.format, output)
    carry_over(source, folder)
    return output


def act_order(source: Path, folder: Path, name: str, output: Output) -> Output:
    """Return the layers with act-order: the inputs are assigned to the groups at random, as with GPTQ's `desc_act`."""
    generator = torch.Generator().manual_seed(3)
    layers = {}
    for layer in output.layers.values():
        groups = torch.arange(layer.in_features, dtype=torch.int32) // layer.scheme.group_of(layer.in_features)
        order = groups[torch.randperm(layer.in_features, generator=generator)]
        layers[layer.name] = replace(layer, g_idx=order)
    tree = open_tree(source)
    plans = resolve_schemes(tree, bits_map(next(iter(layers.values())).scheme))
    plan = plan_packed(name, tree, plans, tree.config, act_order=True)
    shutil.rmtree(folder)
    folder.mkdir()
    writer = plan.writer(folder)
    for value in layers.values():
        writer.write(value)
    writer.begin(source)
    writer.finish(TensorStore(source), lambda: False)
    return Output(folder, plan, layers)


def ask(python: str, reader: str, work: Path, asked: list[Case]) -> None:
    """Run a reader in its own interpreter; vLLM needs a process for each case."""
    places = [(str(work / case.name), str(answer(work, case)), case.backend) for case in asked]
    for batch in [[place] for place in places] if reader == "vllm" else [places]:
        command = [
            python,
            str(READER),
            reader,
            json.dumps(TOKENS.tolist()),
            *(part for place in batch for part in place),
        ]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with (work / f"{reader}.log").open("ab") as log:
            subprocess.run(command, stdout=log, stderr=log, env=environment, cwd=work, check=False)


def answer(work: Path, case: Case) -> Path:
    """Return the path of the result of a case."""
    return work / f"{case.reader}_{case.name}.safetensors"


def compare(source: Path, output: Output, said: dict[str, torch.Tensor]) -> Found:
    """Compare a reader's result with our weights."""
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    weights, dtype = 0.0, torch.float16
    missing = set(output.layers) ^ {name.removesuffix(".weight") for name in said if name.endswith(".weight")}
    if missing:
        raise ValueError(f"{min(missing)} is quantized in one of both only")
    for name, layer in output.layers.items():
        value, theirs = layer.dequantize(), said[f"{name}.weight"]
        model.get_submodule(name).weight.data.copy_(value)
        dtype = theirs.dtype
        weights = max(weights, float((theirs.float() - value.to(dtype).float()).abs().max()))
    kind = next((name for name in ("logits", "logprobs") if name in said), "")
    if not kind:
        return Found(len(output.layers), weights, None, None, str(dtype))

    def logits() -> torch.Tensor:
        with torch.no_grad():
            values = model(TOKENS).logits.float()
        return values.log_softmax(-1)[:, :-1] if kind == "logprobs" else values

    exact = logits()
    model.to(dtype)
    usual = float((logits() - exact).abs().max())
    return Found(len(output.layers), weights, float((said[kind] - exact).abs().max()), usual, str(dtype))


def row(case: Case, found: Found | str) -> str:
    """Return a row of the table."""
    first = f"| {case.reader} | {case.format} | {case.scheme.label()}{' ' + case.what if case.what else ''} |"
    if isinstance(found, str):
        return f"{first} {found} | | |"
    said = "" if found.logits is None else f"{found.logits:.1e}"
    usual = "" if found.usual is None else f"{found.usual:.1e} ({found.dtype.removeprefix('torch.')})"
    return f"{first} {found.layers} layers, {found.weights:.1e} | {said} | {usual} |"


def main() -> int:
    """Print the table and return 1 if a reader failed to read a checkpoint."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("work", type=Path)
    for reader in ("auto-round", "auto-round-lib", "gptqmodel", "vllm"):
        parser.add_argument(f"--{reader}", default="")
    parser.add_argument("--autoawq", default="")
    parser.add_argument("--only", default="", help="only cases with this text in reader, format or scheme")
    options = vars(parser.parse_args())
    pythons = {
        "auto-round": (options["auto_round"], "transformers"),
        "auto-round-lib": (options["auto_round_lib"], "transformers"),
        "gptqmodel": (options["gptqmodel"], "gptqmodel"),
        "optimum": (options["gptqmodel"], "transformers"),
        "vllm": (options["vllm"], "vllm"),
        "autoawq": (sys.executable if options["autoawq"] else "", "autoawq"),
    }
    work: Path = options["work"].absolute()
    source = work / "source"
    if not (source / "config.json").exists():
        save_source(source)
    failed = False
    sys.stdout.write("| reader | format | layers | weights | logits | its dtype alone |\n|---|---|---|---|---|---|\n")
    for reader, (python, kind) in pythons.items():
        asked = [case for case in cases(options["autoawq"]) if case.reader == reader]
        asked = [case for case in asked if options["only"] in f"{case.reader} {case.name}"]
        if not python or not asked:
            continue
        outputs = {case: write(source, work / case.name, case) for case in asked}
        ask(python, kind, work, asked)
        for case, output in outputs.items():
            found: Found | str
            try:
                found = compare(source, output, load_file(answer(work, case)))
            except (OSError, ValueError) as error:
                why = Path(f"{answer(work, case)}.txt")
                found = why.read_text(encoding="utf-8").strip().splitlines()[-1] if why.exists() else str(error)
                failed = True
            sys.stdout.write(row(case, found) + "\n")
            sys.stdout.flush()
            shutil.rmtree(work / case.name, ignore_errors=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
