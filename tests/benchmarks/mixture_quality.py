"""Held-out loss and KL divergence of a small trained model quantized by Bitwright and by auto-round at equal settings.

Run manually on the folders that `small_models.py` writes:

    python3 packaging/bootstrap.py exec --extra test env PYTHONPATH=. \
        python tests/benchmarks/mixture_quality.py MODEL WORK

Quantizes MODEL to 4 bits in groups of 64 and to 2 bits in groups of 32, symmetric. Both programs round to nearest
(rtn), round with searched scales (opt-rtn) and tune the rounding (signround: 50 iterations with a learning rate of
1/50). Bitwright also makes its start without gradients (start), learns the scales of each block from there (scales: 50
iterations) or its scales and integers (integers), and after these the scales of all blocks together (end-to-end: 50
steps). Both programs use the same 64 samples of 256
tokens of the bundled calibration text and batches of 8. Both outputs are read by auto-round's reader for transformers
and evaluated in float32 on the same windows of the bundled evaluation text.

The loss increase is the mean difference to the original model's loss, token by token, in nats; its standard error is
that of the paired difference. `kl` is the mean KL divergence from the original model's next-token distribution, in
nats; it is never negative, and its relative error is smaller than that of the loss increase. Outputs that exist in WORK
are evaluated again, but not quantized again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core.calibration.text import BUILTIN, documents
from core.events import ignore_event
from core.inference import evaluate
from tests.benchmarks.measured_run import BIN, checkpoint_in, measured

SAMPLES, SEQLEN, BATCH, ITERATIONS, END_TO_END = 64, 256, 8, 50, 50
SCHEMES = {"w4g64": (4, 64), "w2g32": (2, 32)}
PROGRAMS = ("bitwright", "auto-round")
COMMON = ("rtn", "opt-rtn", "signround")
"""Methods of both programs."""
METHODS = (*COMMON, "start", "scales", "integers", "end-to-end")


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
    iterations = ITERATIONS if method in ("signround", "scales", "integers", "end-to-end") else 0
    if program == "bitwright":
        recipe = {"signround": "autoround", "rtn": "rtn", "opt-rtn": "opt-rtn"}.get(method, "gptq")
        rate = ["--lr", str(1 / ITERATIONS)] if method == "signround" else []
        learned = ["--learn-integers"] if method in ("integers", "end-to-end") else []
        together = ["--end-to-end", str(END_TO_END)] if method == "end-to-end" else []
        return [
            str(BIN / "bitwright"), "quantize", str(model), "--recipe", recipe, "--bits", str(bits), "--group-size",
            str(group_size), "--iters", str(iterations), *rate, *learned, *together, "--samples", str(SAMPLES),
            "--seqlen", str(SEQLEN), "--batch-size", str(BATCH), "--calibration", str(samples), "--device", "cpu",
            "--output", str(output),
        ]  # fmt: skip
    search = {"rtn": ["--disable_opt_rtn"], "opt-rtn": ["--enable_opt_rtn"], "signround": []}[method]
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


@torch.inference_mode()
def measure(folder: Path, original: Path | None, path: Path) -> None:
    """Measure a checkpoint on the bundled evaluation text and write the figures of each token to `path`.

    `losses` are negative log-likelihoods, float32 [rows, SEQLEN - 1]. Without `original`, `log_probs` are the
    logarithms of the next-token probabilities, float32 [rows, SEQLEN, vocabulary]; with it, the path of such a file,
    `divergences` are the KL divergences from its distributions, float32 [rows, SEQLEN].
    """
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = load_dequantized(folder)
    losses, log_probs, divergences = [], [], []
    for number, row in enumerate(evaluate.make_windows(tokenizer, seqlen=SEQLEN).tokens):
        found = torch.log_softmax(model(input_ids=row[None], use_cache=False).logits[0].float(), dim=-1)
        losses.append(evaluate.row_losses(found[:-1], row[1:]))
        if original is None:
            log_probs.append(found)
        else:
            with safe_open(original, "pt") as file:
                expected = file.get_slice("log_probs")[number]
            divergences.append((expected.exp() * (expected - found)).sum(dim=-1))
    tables = {"losses": losses, "log_probs": log_probs, "divergences": divergences}
    save_file({name: torch.stack(rows) for name, rows in tables.items() if rows}, path)


def figures_of(folder: Path, path: Path, original: Path | None = None) -> dict[str, Tensor] | None:
    """Return the figures that `measure` writes, or None if the checkpoint cannot be read.

    They are measured in a child process, because auto-round replaces classes of transformers.
    """
    child = [sys.executable, __file__, str(folder), str(path), "--measure"]
    if original is not None:
        child += ["--original", str(original)]
    with path.with_suffix(".read.log").open("wb") as log:
        done = subprocess.run(
            child, env={**os.environ, "HF_HUB_OFFLINE": "1"}, stdout=log, stderr=subprocess.STDOUT, check=False
        )
    return None if done.returncode else load_file(path)


def print_ratios(rows: list[dict[str, Any]]) -> None:
    """Print the ratios of Bitwright's figures to those of its SignRound and to auto-round's with the same method."""
    found = {(row["scheme"], row["method"], row["program"]): row for row in rows}
    print("\nRatios of Bitwright's figures; below 1 they are lower.")
    for (scheme, method, program), row in found.items():
        if program != "bitwright":
            continue
        others = {
            "signround": found.get((scheme, "signround", program)),
            "auto-round": found.get((scheme, method, "auto-round")),
        }
        for name, other in others.items():
            if other is not None and other is not row:
                ratios = [f"{key} {row[key] / other[key]:.3f}" for key in ("loss_increase", "kl")]
                print(f"{scheme} {method} to {name}: {', '.join(ratios)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--schemes", nargs="+", choices=tuple(SCHEMES), default=list(SCHEMES))
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--measure", action="store_true", help="Only write the figures of MODEL to the file WORK.")
    parser.add_argument("--original", type=Path, help="Figures of the original model, for --measure.")
    options = parser.parse_args()
    if options.measure:
        measure(options.model, options.original, options.work)
        return
    options.work.mkdir(parents=True, exist_ok=True)
    samples, reference = options.work / "samples.jsonl", options.work / "original.safetensors"
    write_samples(options.model, samples)
    original = figures_of(options.model, reference)
    if original is None:
        raise SystemExit(f"{options.model} cannot be evaluated; see {reference.with_suffix('.read.log')}.")
    value = float(original["losses"].mean().exp())
    print(json.dumps({"model": str(options.model), "perplexity": round(value, 3)}), flush=True)
    rows = []
    for scheme, method, program in product(options.schemes, options.methods, options.programs):
        if program == "auto-round" and method not in COMMON:
            continue
        name = f"{program}-{scheme}-{method}"
        output = options.work / name
        row: dict[str, Any] = {"program": program, "scheme": scheme, "method": method}
        if not output.exists():
            run = command(program, method, options.model, samples, scheme, output)
            process = measured(run, options.work / f"{name}.log")
            row |= {"exit": process.code, "seconds": round(process.seconds, 1)}
            if process.code:
                shutil.rmtree(output, ignore_errors=True)
                print(json.dumps(row), flush=True)
                continue
        found = figures_of(checkpoint_in(output), options.work / f"{name}.safetensors", reference)
        if found is None:
            print(json.dumps({**row, "error": "cannot be read"}), flush=True)
            continue
        increase, error = evaluate.loss_increase(original["losses"], found["losses"])
        divergence, divergence_error = evaluate.loss_increase(torch.zeros(()), found["divergences"])
        row |= {"perplexity": round(float(found["losses"].mean().exp()), 3)}
        row |= {"loss_increase": round(increase, 5), "loss_error": round(error, 5)}
        row |= {"kl": round(divergence, 5), "kl_error": round(divergence_error, 5)}
        rows.append(row)
        print(json.dumps(row), flush=True)
    print_ratios(rows)


if __name__ == "__main__":
    main()
