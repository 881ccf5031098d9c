"""Comparison of tuned GGUF files with llama.cpp's own quantization of the same weights. Run manually:

    export BITWRIGHT_LLAMA_PYTHON=PYTHON    # an interpreter with llama-cpp-python
    python3 packaging/bootstrap.py exec --extra test \\
        env PYTHONPATH=. python tests/benchmarks/gguf_against_llama_cpp.py MODEL WORK TYPE...

For each TYPE (`q4_0`, `q4_k_m`, ...): MODEL is written as a 16-bit GGUF, which llama.cpp quantizes without an
importance matrix, and is tuned by the recipe `quick` (RECIPE in the environment names another). llama.cpp computes the
perplexity of all files, on the bundled evaluation text in windows of 512 tokens.
Prints one JSON object per file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from core import convert, quantize
from core.formats.opened import open_source
from core.recipes import RESOURCES

WINDOWS, LENGTH = 33, 512

QUANTIZE = """
import sys, llama_cpp
source, target, name = sys.argv[1:]
settings = llama_cpp.llama_model_quantize_default_params()
settings.ftype = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + name)
settings.nthread = 2
assert llama_cpp.llama_model_quantize(source.encode(), target.encode(), settings) == 0
"""

PERPLEXITY = """
import json, math, sys
import numpy as np
from llama_cpp import Llama
path, text, windows, length = sys.argv[1], open(sys.argv[2], encoding="utf-8").read(), *map(int, sys.argv[3:])
model = Llama(path, n_ctx=length, n_batch=length, logits_all=True, verbose=False, n_threads=2)
ids = model.tokenize(text.encode("utf-8"), add_bos=False, special=False)
count = min(windows, len(ids) // length)
total, seen = 0.0, 0
for number in range(count):
    start = number * (len(ids) - length) // max(1, count - 1)
    part = ids[start : start + length]
    model.reset()
    model.eval(part)
    logits = np.asarray(model.scores[: length - 1], dtype=np.float64)
    top = logits.max(-1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(-1)) + top[:, 0]
    total += float((log_sum - logits[np.arange(length - 1), part[1:]]).sum())
    seen += length - 1
print(json.dumps({"perplexity": math.exp(total / seen), "tokens": seen}))
"""


def in_llama(script: str, *arguments: object) -> str:
    """Run a script in the interpreter with llama-cpp-python and return its output."""
    command = [os.environ["BITWRIGHT_LLAMA_PYTHON"], "-c", script, *map(str, arguments)]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def report(what: str, path: Path, text: Path) -> None:
    found = json.loads(in_llama(PERPLEXITY, path, text, WINDOWS, LENGTH))
    print(json.dumps({"file": what, "bytes": path.stat().st_size, **found}), flush=True)


def one_file(folder: Path) -> Path:
    (path,) = folder.glob("*.gguf")
    return path


def main(model: str, work: Path, types: list[str]) -> None:
    work.mkdir(parents=True, exist_ok=True)
    os.environ["BITWRIGHT_HOME"] = str(work / "home")
    text = work / "text.txt"
    text.write_text(
        "\n\n".join(path.read_text(encoding="utf-8") for path in sorted((RESOURCES / "evaluation").glob("*.txt"))),
        encoding="utf-8",
    )
    plain = work / "plain"
    if not plain.exists():
        # a GGUF source would keep its own blocks
        source = open_source(model, lambda event: None, lambda: False).folder
        for _ in convert(source, plain, "gguf"):
            pass
    report("16 bits", one_file(plain), text)
    for name in types:
        theirs = work / f"llama.cpp-{name}.gguf"
        if not theirs.exists():
            in_llama(QUANTIZE, one_file(plain), theirs, name.upper())
        report(f"llama.cpp {name}", theirs, text)
        ours = work / f"bitwright-{name}"
        if not ours.exists():
            for _ in quantize(model, ours, recipe=os.environ.get("RECIPE", "quick"), formats=(f"gguf:{name}",)):
                pass
        report(f"Bitwright {name}", one_file(ours), text)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:] or ["q4_0"])
