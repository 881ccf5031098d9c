"""Comparison of Bitwright, auto-round and GSQ at equal weights and texts: time, memory, size and accuracy.

Run manually on an otherwise idle machine, from the root of the repository:

    python3 packaging/bootstrap.py exec --extra test \\
        python -m tests.benchmarks.versus_auto_round run WORK ours:light:w4g64 peer:light:w4g64 --repeats 3
    python3 packaging/bootstrap.py exec --extra test python -m tests.benchmarks.versus_auto_round curve WORK

`run` creates in WORK what is missing: an environment of its own for auto-round, the model in bfloat16, the calibration
texts and two evaluation texts. It runs the configurations in alternation, prints each run, and at the end the ratios
with their spread. Each finished run and each evaluation is a line of WORK/results.jsonl, which a later call skips.
A recipe of ours is one of the product's, or NAME for a file WORK/recipes/NAME.json. The peer's are light, default,
best, alg_ext and best_alg_ext (with --enable_alg_ext), rtn and opt_rtn. The third side is a small re-implementation of
GSQ (`gsq.py`): gsq:gptq:w2g64 is its start, gsq:gsq:w2g64 the whole method, and gsq:gsq_e2e200:w2g64 has 200 of our
end-to-end steps after it; the time of such a run is without that of GSQ if gsq:gsq ran before with the same settings.
With --blocks, only these blocks are quantized, and the others stay in 16 bits on all sides. --iters, --samples,
--seqlen and --batch-size apply to all sides and override their recipes, and so does --lr for ours and the peer's; the
repetitions differ in the seed. Settings are chosen with `--text choose` and reported with `--text report`, the default:
the two halves of the bundled evaluation text.

All outputs are read back to plain floats without the programs' readers, and evaluated by transformers in float32.
Each output is evaluated on windows of 512 tokens; standard errors are those over windows. Peak memory is the sum of the
resident memory of the process tree, in which pages shared by processes count more than once.
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

from safetensors import safe_open

from tests.benchmarks.measured_run import checkpoint_in, measured
from tests.benchmarks.versus_auto_round import material
from tests.benchmarks.versus_auto_round.configurations import (
    GSQ,
    OURS,
    Configuration,
    Paths,
    Settings,
    command,
    in_alternation,
    our_recipe,
    parse,
    run_name,
    schedule,
    tokens_per_block,
)
from tests.benchmarks.versus_auto_round.results import (
    Results,
    Row,
    curve_lines,
    floor_lines,
    floor_name,
    joined,
    ratio_lines,
    ratios,
)

EVALUATION_SEQLEN = 512
RECIPES = "recipes"
READBACK = "tests.benchmarks.versus_auto_round.readback"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    run, curve = actions.add_parser("run"), actions.add_parser("curve")
    for each in (run, curve):
        each.add_argument("work", type=Path)
        each.add_argument("--text", choices=material.TEXTS, default="report")
    run.add_argument("configurations", nargs="+", type=parse, metavar="SIDE:RECIPE:SCHEME")
    run.add_argument("--model", default="demo", help="demo, gemma, llama or a folder")
    for option in ("--iters", "--samples", "--seqlen", "--batch-size"):
        run.add_argument(option, type=int)
    run.add_argument("--lr", type=float)
    run.add_argument("--blocks", type=_numbers, default=(), help="only these blocks, such as 0,10,20,29")
    run.add_argument("--repeats", type=int, default=1)
    run.add_argument("--max-windows", type=int, default=0, help="limit of the evaluation; 0 is the whole text")
    options = parser.parse_args()
    results = Results(options.work / "results.jsonl")
    if options.action == "run":
        options.work.mkdir(parents=True, exist_ok=True)
        run_all(options, results)
    rows = joined(results.rows(), options.text)
    lines = curve_lines(rows) if options.action == "curve" else ratio_lines(ratios(rows))
    print("\n".join([*floor_lines(results.rows(), options.text), *lines]))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def run_all(options: argparse.Namespace, results: Results) -> None:
    """Run and evaluate every configuration that has no line in the results."""
    work: Path = options.work.resolve()
    settings = Settings(options.iters, options.samples, options.seqlen, options.batch_size, options.lr, options.blocks)
    peer = material.peer_environment(work)
    label, model = material.model_folder(work, options.model)
    evaluate(options, results, model, model, floor_name(label))
    for repeat, configuration in in_alternation(options.configurations, options.repeats):
        name = run_name(label, configuration, settings, repeat)
        output = work / "outputs" / name
        row = results.run(name)
        if row is None:
            texts = _texts(work, label, model, configuration, settings)
            paths = Paths(model, texts, _emptied(output), peer, work / RECIPES)
            row = measure_run(command(configuration, settings, paths, repeat), output, configuration, settings)
            if row is None:
                continue
            row = {"name": name, "model": label, "repeat": repeat, **row}
            results.add(row)
        found = evaluate(options, results, model, checkpoint_in(output), name)
        shown = {**row, **{key: value for key, value in found.items() if key != "window_kl"}}
        print(json.dumps({key: _rounded(value) for key, value in shown.items()}), flush=True)


def _texts(work: Path, label: str, model: Path, configuration: Configuration, settings: Settings) -> Path:
    """Return the calibration texts, for as many tokens as the settings, or else the recipe, need."""
    from core import recipes

    if configuration.side != OURS:
        _, samples, seqlen, _ = schedule(configuration, settings)
    else:
        recipe = recipes.load(our_recipe(work / RECIPES, configuration.recipe))
        samples, seqlen = recipe.samples, recipe.seqlen
    return material.calibration_texts(work, label, model, settings.samples or samples, settings.seqlen or seqlen)


def _emptied(output: Path) -> Path:
    """Remove what an interrupted run left behind."""
    shutil.rmtree(output, ignore_errors=True)
    output.parent.mkdir(exist_ok=True)
    return output


def measure_run(line: list[str], output: Path, configuration: Configuration, settings: Settings) -> Row | None:
    """Run a command line and return its figures; None, with the end of its log on stderr, if it failed."""
    log = output.with_name(f"{output.name}.log")
    own_home = str(output.parent.parent / "home")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "BITWRIGHT_HOME": own_home, "TOKENIZERS_PARALLELISM": "false"}
    figures = measured(line, log, environment)
    if figures.code:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:])
        print(f"{configuration} ended with exit code {figures.code}; see {log}\n{tail}", file=sys.stderr, flush=True)
        return None
    folder = checkpoint_in(output)
    return {
        "side": configuration.side,
        "recipe": configuration.recipe,
        "scheme": configuration.scheme,
        "settings": settings.label(),
        "blocks": list(settings.blocks),
        "tokens_per_block": tokens_per_block(configuration, settings, folder),
        "seconds": figures.seconds,
        "cpu_seconds": figures.cpu_seconds,
        "peak_bytes": figures.peak,
        "output_bytes": 0 if _plain(folder) else sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        "dtype": computed_dtype(configuration, folder),
    }


def _plain(folder: Path) -> bool:
    """Return whether a checkpoint has plain floats, as GSQ writes it here, so that its size tells nothing."""
    return "quantization_config" not in json.loads((folder / "config.json").read_text(encoding="utf-8"))


def computed_dtype(configuration: Configuration, folder: Path) -> str:
    """Return the dtype that a side computed in.

    Ours is in the report of the run. The peer's is that of the tensors it does not quantize, which it writes in the
    dtype in which it tunes. GSQ computes in float32.
    """
    if configuration.side == GSQ:
        return "float32"
    if configuration.side == OURS:
        return str(json.loads((folder / "bitwright.json").read_text(encoding="utf-8"))["settings"]["dtype"])
    with safe_open(sorted(folder.glob("*.safetensors"))[-1], "pt") as file:
        norm = next(name for name in file.keys() if name.endswith("norm.weight"))  # noqa: SIM118 - no mapping
        return {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}[file.get_slice(norm).get_dtype()]


def evaluate(options: argparse.Namespace, results: Results, original: Path, output: Path, name: str) -> Row:
    """Return the figures of an output on the chosen text, measured in a child process where no line has them."""
    text, most = options.text, options.max_windows
    row = results.evaluation(name, text, most)
    if row is None:
        path = material.evaluation_text(options.work, text)
        line = [sys.executable, "-m", READBACK, original, output, path, EVALUATION_SEQLEN, most]
        done = subprocess.run(
            [str(part) for part in line], check=False, capture_output=True, text=True, cwd=Path(__file__).parents[3],
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{output} cannot be evaluated:\n{done.stderr[-2000:]}")
        row = {"name": name, "text": text, "max_windows": most, **json.loads(done.stdout.splitlines()[-1])}
        results.add(row)
        if output == original:
            shown = {key: _rounded(value) for key, value in row.items() if key != "window_kl"}
            print(json.dumps(shown), flush=True)
    return row


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
