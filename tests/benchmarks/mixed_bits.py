"""Comparison of our allocation of bits with AutoScheme's and with uniform bits, tuned alike. Run manually:

    python3 packaging/bootstrap.py exec --extra test \\
        env PYTHONPATH=. python tests/benchmarks/mixed_bits.py MODEL TEXTS WORK

MODEL is a folder, TEXTS a jsonl file with a `text` of at least 256 tokens per line, WORK a folder. Both analyses use 16
samples of 256 tokens of TEXTS. Every map is tuned by the same recipe on the same texts, and evaluated in fp32 on the
bundled evaluation text. Prints one JSON object per row: predicted loss increase, bytes, bits per weight, perplexity,
and for the analyses seconds and peak memory of the process tree. Existing results in WORK are reused.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from core import bitsmap, inspect
from core.api.planning import plan
from core.bitsmap import BitsMap, Rule
from core.schemes import LayerScheme
from core.sensitivity.table import SensitivityTable
from tests.benchmarks.measured_run import BIN, Figures, measured, perplexity_of

HERE = Path(__file__).resolve().parent
GROUP = 64
FUSION = ["--no-fuse-qkv", "--no-fuse-gate-up"]
"""AutoScheme does not fuse modules by default either."""


def analyse_ours(model: str, texts: str, work: Path, budgets: list[float]) -> Figures:
    """Compute our maps; the first call measures, and the others use its measurements."""
    figures = []
    for budget in budgets:
        target = work / f"ours-{budget}.json"
        command = [str(BIN / "bitwright"), "plan", model, "--bpw", str(budget), "--choices", "2,3,4,8"]
        command += ["--group-size", str(GROUP), "--calibration", texts, *FUSION, "-o", str(target)]
        figures.append(measured(command, work / f"plan-{budget}.log"))
        if figures[-1].code:
            raise SystemExit((work / f"plan-{budget}.log").read_text())
    return figures[0]


def analyse_theirs(model: str, texts: str, work: Path, budgets: list[float]) -> Figures:
    """Compute AutoScheme's maps."""
    found = work / "theirs.json"
    command = [sys.executable, str(HERE / "peer_scheme.py"), model, texts, ",".join(map(str, budgets)), str(found)]
    figures = measured(command, work / "theirs.log")
    for budget, layers in json.loads(found.read_text())["maps"].items():
        rules = [Rule(name, bits) for name, bits in layers.items() if bits < 16 and "lm_head" not in name]
        BitsMap(LayerScheme(4, GROUP), layers=rules).save(work / f"theirs-{budget}.json")
    return figures


def loss_increase_of(model: str, table: SensitivityTable, bits_map: BitsMap) -> float | None:
    """Return the loss increase that our table predicts for a map."""
    return table.total(inspect(model, bits_map=bits_map).plans)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("texts")
    parser.add_argument("work", type=Path)
    parser.add_argument("--budgets", type=float, nargs="+", default=[2.5, 3.0, 3.5])
    parser.add_argument("--recipe", default="quick")
    options = parser.parse_args()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    os.environ["BITWRIGHT_HOME"] = str(work / "home")
    os.environ["AR_AUTO_SCHEME_CACHE"] = str(work / "their-cache")
    analyses = {"ours": analyse_ours, "theirs": analyse_theirs}
    for name, analyse in analyses.items():
        if not (work / f"{name}-{options.budgets[-1]}.json").exists():
            figures = analyse(options.model, options.texts, work, options.budgets)
            row = {"analysis": name, "seconds": round(figures.seconds, 1), "peak_mb": round(figures.peak / 1e6)}
            print(json.dumps(row), flush=True)
    table = plan(
        options.model, bpw=options.budgets[0], choices=(2, 3, 4, 8), group_size=GROUP, calibration=options.texts
    ).table
    for bits in (2, 3, 4):
        BitsMap(LayerScheme(bits, GROUP)).save(work / f"uniform-{bits}.json")
    names = [f"{who}-{budget}" for budget in options.budgets for who in analyses]
    for name in [*names, "uniform-2", "uniform-3", "uniform-4"]:
        tune_and_measure(options, table, work, name)


def tune_and_measure(options: argparse.Namespace, table: SensitivityTable, work: Path, name: str) -> None:
    """Tune and evaluate one map."""
    path, output = work / f"{name}.json", work / name
    if not output.exists():
        command = [str(BIN / "bitwright"), "quantize", options.model, "--bits-map", str(path), "--output", str(output)]
        command += ["--recipe", options.recipe, "--calibration", options.texts]
        if measured(command, work / f"{name}.log").code:
            raise SystemExit((work / f"{name}.log").read_text())
    bits_map = bitsmap.load(path)
    found = inspect(options.model, bits_map=bits_map)
    assert found.size is not None
    value, error = perplexity_of(output)
    row = {
        "map": name,
        "predicted": loss_increase_of(options.model, table, bits_map),
        "bits": round(found.size.effective_bits, 3),
        "bytes": sum(file.stat().st_size for file in output.glob("*.safetensors")),
        "promised": found.size.total,
        "perplexity": round(value, 3),
        "standard_error": round(error, 3),
    }
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
