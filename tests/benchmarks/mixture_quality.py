"""Held-out loss of a small trained model quantized by Bitwright and by auto-round at equal settings.

Run manually on the folders that `small_models.py` writes:

    python3 packaging/bootstrap.py exec --extra test env PYTHONPATH=. \
        python tests/benchmarks/mixture_quality.py MODEL WORK

Quantizes MODEL to 4 bits in groups of 64 and to 2 bits in groups of 32, symmetric, with three methods: round to nearest
(rtn), rounding with searched scales (opt-rtn) and tuning (50 iterations with a learning rate of 1/50). Both programs
use the same 64 samples of 256 tokens of the bundled calibration text and batches of 8. Both outputs are read by
auto-round's reader for transformers and evaluated in float32 on the same windows of the bundled evaluation text.

The loss increase is the mean difference to the original model's loss, token by token, in nats; its standard error is
that of the paired difference. Outputs that exist in WORK are evaluated again, but not quantized again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core.calibration.text import BUILTIN, documents
from core.events import ignore_event
from core.inference import evaluate
from tests.benchmarks.against_peer import BIN, checkpoint_in, measured

SAMPLES, SEQLEN, BATCH, ITERATIONS = 64, 256, 8, 50
SCHEMES = {"w4g64": (4, 64), "w2g32": (2, 32)}
PROGRAMS = ("bitwright", "auto-round")
METHODS = ("rtn", "opt-rtn", "tuned")


def write_samples(model: Path, path: Path) -> None:
    """Write SAMPLES texts of a little more than SEQLEN tokens, spread evenly over the bundled calibration text."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    width = SEQLEN + 16  # tokenizing the decoded text again can give fewer tokens
    texts = []
    for text in documents(BUILTIN, ignore_event):
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        texts += [tokenizer.decode(ids[start : start + width]) for start in range(0, len(ids) - width + 1, width)]
    chosen = [texts[number * len(texts) // SAMPLES] for number in range(SAMPLES)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in chosen), encoding="utf-8")


def command(program: str, method: str, model: Path, samples: Path, scheme: str, output: Path) -> list[str]:
    """Return the command line of a run; the options of both programs mean the same.

    Without --disable_model_free, auto-round rounds the tensors of the checkpoint without the model, also those that its
    reader does not read as quantized: `in_proj_a` and `in_proj_b` of Gated DeltaNet.
    """
    bits, group_size = SCHEMES[scheme]
    iterations = ITERATIONS if method == "tuned" else 0
    if program == "bitwright":
        recipe = "default" if method == "tuned" else method
        return [
            str(BIN / "bitwright"), "quantize", str(model), "--recipe", recipe, "--bits", str(bits), "--group-size",
            str(group_size), "--iters", str(iterations), "--lr", str(1 / ITERATIONS), "--samples", str(SAMPLES),
            "--seqlen", str(SEQLEN), "--batch-size", str(BATCH), "--calibration", str(samples), "--device", "cpu",
            "--output", str(output),
        ]  # fmt: skip
    search = {"rtn": ["--disable_opt_rtn"], "opt-rtn": ["--enable_opt_rtn"], "tuned": []}[method]
    return [
        str(BIN / "auto-round"), "--model", str(model), "--bits", str(bits), "--group_size", str(group_size),
        "--iters", str(iterations), "--lr", str(1 / ITERATIONS), "--nsamples", str(SAMPLES), "--seqlen", str(SEQLEN),
        "--batch_size", str(BATCH), "--dataset", str(samples), "--device", "cpu", "--disable_torch_compile",
        "--disable_model_free", "--format", "auto_round", "--output_dir", str(output), *search,
    ]  # fmt: skip


def load_dequantized(folder: Path) -> Any:
    """Load a checkpoint with transformers and auto-round, with each quantized layer as a float32 `nn.Linear`.

    The weight of a quantized layer is its output for the identity matrix, so all readers of auto-round are supported.

    Raises:
        SystemExit: a parameter of the model is not in the checkpoint, or a tensor is not in the model.
    """
    from transformers import AutoModelForCausalLM

    read: Any = AutoModelForCausalLM.from_pretrained  # its annotation has no loading information
    options = {"dtype": torch.float32, "device_map": "cpu", "output_loading_info": True}
    model, loaded = read(folder, **options)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if loaded[problem]:
            raise SystemExit(f"{problem}: {sorted(loaded[problem])}")
    for name, module in list(model.named_modules()):
        if not hasattr(module, "qweight"):
            continue
        with torch.inference_mode():
            bias = getattr(module, "bias", None)
            weight = module(torch.eye(module.infeatures)) - (0 if bias is None else bias)
        linear = nn.Linear(module.infeatures, module.outfeatures, bias=bias is not None)
        linear.weight.data = weight.float().t().contiguous()
        if bias is not None:
            linear.bias.data = bias.float()
        model.set_submodule(name, linear)
    return nn.Module.float(model).eval()  # transformers refuses `model.float()` for a quantized model


def save_losses(folder: Path, path: Path) -> None:
    """Write the token losses of a checkpoint on the bundled evaluation text, float32 [rows, SEQLEN - 1], to `path`."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    windows = evaluate.make_windows(tokenizer, seqlen=SEQLEN).tokens
    save_file({"losses": evaluate.token_losses(load_dequantized(folder), windows)}, path)


def losses_of(folder: Path, path: Path) -> Tensor | None:
    """Return the token losses of a checkpoint, or None if it cannot be read.

    They are measured in a child process, because auto-round replaces classes of transformers.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    child = [sys.executable, __file__, str(folder), str(path), "--losses"]
    with path.with_suffix(".read.log").open("wb") as log:
        done = subprocess.run(child, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    return None if done.returncode else load_file(path)["losses"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--schemes", nargs="+", choices=tuple(SCHEMES), default=list(SCHEMES))
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--losses", action="store_true", help="Only write the token losses of MODEL to the file WORK.")
    options = parser.parse_args()
    if options.losses:
        save_losses(options.model, options.work)
        return
    options.work.mkdir(parents=True, exist_ok=True)
    samples = options.work / "samples.jsonl"
    write_samples(options.model, samples)
    original = losses_of(options.model, options.work / "original.safetensors")
    if original is None:
        raise SystemExit(f"{options.model} cannot be evaluated; see {options.work / 'original.read.log'}.")
    print(json.dumps({"model": str(options.model), "perplexity": round(float(original.mean().exp()), 3)}), flush=True)
    increases: dict[tuple[str, str, str], float] = {}
    for scheme in options.schemes:
        for method in options.methods:
            for program in options.programs:
                name = f"{program}-{scheme}-{method}"
                output, row = options.work / name, {"program": program, "scheme": scheme, "method": method}
                if not output.exists():
                    run = command(program, method, options.model, samples, scheme, output)
                    figures = measured(run, options.work / f"{name}.log")
                    row |= {"exit": figures.code, "seconds": round(figures.seconds, 1)}
                    if figures.code:
                        shutil.rmtree(output, ignore_errors=True)
                        print(json.dumps(row), flush=True)
                        continue
                found = losses_of(checkpoint_in(output), options.work / f"{name}.safetensors")
                if found is None:
                    print(json.dumps({**row, "error": "cannot be read"}), flush=True)
                    continue
                increase, error = evaluate.loss_increase(original, found)
                increases[scheme, method, program] = increase
                row |= {"perplexity": round(float(found.mean().exp()), 3)}
                row |= {"loss_increase": round(increase, 5), "standard_error": round(error, 5)}
                print(json.dumps(row), flush=True)
    print("\nRatios of loss increases; below 1 Bitwright's is the lower, or tuning's is lower than that of rounding.")
    for (scheme, method, program), increase in increases.items():
        if program != "bitwright":
            continue
        ratios = {"rtn": increases.get((scheme, "rtn", program)), "peer": increases.get((scheme, method, "auto-round"))}
        parts = [f"to {name} {increase / other:.3f}" for name, other in ratios.items() if other]
        print(f"{scheme} {method}: {', '.join(parts)}")


if __name__ == "__main__":
    main()
