"""The journey of a user in the terminal, with a tiny model of each kind; run manually:

    python3 packaging/bootstrap.py exec --extra test python -m tests.coverage.journeys WORK [NAME ...]

For each model: inspect, estimate, budget (plan), quantize to 4 bits and with the map of the budget, chat for three
turns, convert. After each step that makes a model, its logits are compared with those of transformers' own model,
filled with the dequantized weights. Prints one line per model.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.formats.dense_store import DenseStore
from core.formats.opened import open_checkpoint
from core.inference.loader import load_model, load_runner
from core.model.skeleton import build_skeleton
from core.model.tree import build_tree
from tests.core.formats.dequantized.test_mixtures import FAMILIES, to_fp8, to_mxfp4
from tests.core.tiny_architectures import make_model

NAMES = (
    "qwen3_moe", "qwen3_5_moe_text", "gpt_oss", "deepseek_v3", "gemma4_text", "granitemoehybrid", "lfm2",
    "nemotron_h moe",
)  # fmt: skip
_FAST = ("--recipe", "light", "--iters", "4", "--samples", "8", "--seqlen", "64", "--group-size", "32")
CLOSE = 5e-3
"""Largest relative difference of the logits of an output and of the same weights in transformers."""


def main() -> None:
    """Print a line for each model."""
    transformers.logging.set_verbosity_error()
    work = Path(sys.argv[1]).absolute()
    for name in sys.argv[2:] or NAMES:
        folder = work / name.replace(" ", "-")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        started = time.monotonic()
        try:
            found = _journey(name, folder)
        except (subprocess.CalledProcessError, AssertionError) as error:
            output = getattr(error, "stderr", "") or ""
            found = f"FAILED: {str(error)[:200]} {output[-600:]}"
        print(f"{name:18} {found} ({time.monotonic() - started:.0f} s)", flush=True)


def _journey(name: str, folder: Path) -> str:
    source = _source(name, folder / "source")
    out4, mixed, converted, plain = (folder / part for part in ("w4", "mixed", "converted", "plain"))
    layers = len(json.loads(_run("inspect", source, "--json").splitlines()[-1])["values"]["linears"])
    _run("estimate", source, "--bits", "4", "--group-size", "32", "--json")
    _run(
        "plan",
        source,
        "--bpw",
        "5.5",
        "--group-size",
        "32",
        "--samples",
        "4",
        "--seqlen",
        "128",
        "-o",
        folder / "map.json",
    )
    _run("quantize", source, "--output", out4, "--bits", "4", *_FAST)
    _run("quantize", source, "--output", mixed, "--bits-map", folder / "map.json", *_FAST)
    answers = _run("chat", out4, "--each-line", "--max-tokens", "5", feed="One.\nTwo.\nThree.\n")
    _run("convert", out4, converted, "--format", "auto_round:plain")
    _run("convert", out4, plain, "--format", "f32")
    against = {"w4": _apart(out4), "mixed": _apart(mixed), "converted": _apart(converted), "f32": _apart(plain)}
    same = float((_logits(out4) - _logits(plain)).norm() / _logits(plain).norm())
    bits = sorted({scheme.bits for scheme in open_checkpoint(mixed).schemes.values()})
    assert all(value < CLOSE for value in against.values()), against
    figures = ", ".join(f"{key} {value:.1e}" for key, value in against.items())
    return (
        f"ok: {layers} layers, mixed map of {bits} bits; logits {figures}; f32 against w4 {same:.1e}; {len(answers)} B"
    )


def _source(name: str, folder: Path) -> Path:
    """Write the tiny model; gpt-oss in MXFP4 and DeepSeek V3 in FP8, as they are published."""
    make_model(name, folder)
    if name not in FAMILIES:
        return folder
    made: dict[str, Tensor] = {}
    for key, weight in load_file(folder / "model.safetensors").items():
        if name == "gpt_oss" and weight.dim() == 3:
            made |= to_mxfp4(key, weight)
        elif name != "gpt_oss" and key.endswith(("proj.weight", "proj_with_mqa.weight")):
            made |= to_fp8(key, weight)
        else:
            made[key] = weight
    save_file(made, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = FAMILIES[name][0]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _run(*arguments: Any, feed: str | None = None) -> str:
    command = [sys.executable, "-m", "core", *map(str, arguments)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        command, input=feed, capture_output=True, text=True, check=True, env=environment, timeout=900
    ).stdout


def _apart(folder: Path) -> float:
    """Return the relative difference between the logits of the chat's runner, with packed layers, and of transformers.

    Both compute in float32 with the same weights; the logits are those of the last token.
    """
    checkpoint = open_checkpoint(folder)
    store = DenseStore(checkpoint)
    config = {key: value for key, value in checkpoint.config.items() if key != "quantization_config"}
    skeleton = build_skeleton(build_tree(config, store.table), store)
    skeleton.fill("", torch.float32, torch.device("cpu"))
    if skeleton.tree.tied:
        model = skeleton.model
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
    with torch.no_grad():
        expected: Tensor = skeleton.model(input_ids=_ids(), use_cache=False).logits
    found = load_runner(str(folder), "cpu", dtype="float32").runner.extend(_ids()[0].tolist())
    return float((found - expected[0, -1]).norm() / expected[0, -1].norm())


def _logits(folder: Path) -> Tensor:
    with torch.no_grad():
        found: Tensor = load_model(str(folder), "cpu", "float32").model(input_ids=_ids(), use_cache=False).logits
    return found.float()


def _ids() -> Tensor:
    return torch.randint(3, 250, (1, 96), generator=torch.Generator().manual_seed(2))


if __name__ == "__main__":
    main()
