"""Test of inspect, quantize, eval and chat with a tiny random model of every architecture of transformers.

Run manually; each architecture takes a few seconds:

    python3 packaging/bootstrap.py exec --extra test python tests/benchmarks/architectures.py WORK [NAME ...]

Each model is rounded to 8 bits, with products in float32. It passes if the perplexity of the run and of `eval` equal
that of transformers, the predictions of the output are close to those of the source, and generation token by token has
the logits of one pass. A refusal before the first block is accepted; the table shows its reason for review. Anything
else is reported as `wrong` or `crash`. The results are stored in WORK/table.json.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
import transformers
import transformers.models.llama.modeling_llama  # imported here, once, instead of in every child

from core import api
from core.errors import BitwrightError
from core.events import Done, Result
from core.inference.devices import DtypeProbe
from core.inference.evaluate import make_windows
from core.inference.loader import load_model, load_runner
from core.model.context import ASSUMED, context_length
from core.quant import heldout, prepare
from core.recipes import RESOURCES
from tests.core.tiny_architectures import CONTEXT, make_model, names

SECONDS = 120
CLOSE = 1e-3
"""Largest difference of the logarithms of two perplexities: float32 makes 1e-6."""
Row = dict[str, Any]


def main() -> None:
    """Print a line for each architecture, and the totals."""
    work = Path(sys.argv[1]).absolute()
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    rows = []
    for name in sys.argv[2:] or names():
        rows.append(_in_child(name, work))
        print("{name:26} {verdict:8} {why}".format_map(rows[-1]), flush=True)
        (work / "table.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(Counter(row["verdict"] for row in rows))


def _in_child(name: str, work: Path) -> Row:
    folder = work / name.replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    told = folder / "row.json"
    process = os.fork()
    if not process:
        signal.alarm(SECONDS)
        setattr(prepare, "probe_dtype", lambda device: DtypeProbe("float32", {}, 0.0))  # noqa: B010 - in this child alone
        with (folder / "log").open("w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            os.environ["BITWRIGHT_HOME"] = str(work / "home")  # what is compiled is compiled once
            told.write_text(json.dumps(_judge(name, folder)), encoding="utf-8")
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(0)
    _, status = os.waitpid(process, 0)
    row = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else {"verdict": "crash", "why": str(status)}
    for part in ("source", "output"):
        shutil.rmtree(folder / part, ignore_errors=True)
    return {"name": name, **row}


def _judge(name: str, folder: Path) -> Row:
    source, output = folder / "source", folder / "output"
    try:
        make_model(name, source)
        expected = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    except Exception as error:  # noqa: BLE001 - of transformers, which cannot build everything that it lists
        traceback.print_exc()
        return {"verdict": "not made", "why": f"{type(error).__name__}: {error}".replace("\n", " ")[:200]}
    row: Row = {}
    for step, work in (
        ("inspect", lambda: _inspected(source)),
        ("eval", lambda: _evaluated(source, expected)),
        ("quantize", lambda: _quantized(source, output, expected, tokenizer)),
        ("output", lambda: _compared(output, expected, tokenizer)),
        ("chat", lambda: _chatted(output if output.is_dir() else source, tokenizer)),
    ):
        row[step] = _attempt(work)
        if row[step].startswith("refused") and step == "inspect":
            break
    return {**_verdict(row), **row}


def _attempt(work: Callable[[], str]) -> str:
    try:
        return work()
    except BitwrightError as error:
        traceback.print_exc()
        kind = "crash" if error.code in ("internal", "child-died") else "refused"
        return f"{kind}: {error.message} {error.hint}"
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        traceback.print_exc()
        return f"crash: {type(error).__name__}: {error}".replace("\n", " ")[:300]


def _verdict(row: Row) -> Row:
    """Return the worst result of all steps; a refusal by `quantize` overrides earlier results."""
    texts = [f"{step} {text}" for step, text in row.items()]
    for kind in ("crash", "wrong", "late"):
        found = [text for text in texts if text.split(" ", 1)[1].startswith(kind)]
        if found:
            return {"verdict": "crash" if kind == "crash" else "wrong", "why": "; ".join(found)}
    refused = [text for text in texts if text.split(" ", 1)[1].startswith("refused")]
    if not refused:
        return {"verdict": "right", "why": ""}
    chat = all(text.startswith("chat ") for text in refused)
    return {"verdict": "right" if chat else "refused", "why": "; ".join(refused)}


def _inspected(source: Path) -> str:
    found = api.inspect(source, bits=8, group_size=32)
    return f"refused: {found.tree.refusal}" if found.tree.refusal else "right"


def _evaluated(source: Path, expected: Any) -> str:
    *_, last = api.evaluate(source, text=_text(source.parent), seqlen=96, max_windows=2)
    assert isinstance(last, Result)
    found = last.values["perplexity"]["value"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    true = _perplexity(expected, make_windows(tokenizer, _text(source.parent), 96, 2).tokens)
    return f"{_close(found, true)}: {found:.6g}, transformers {true:.6g}"


def _quantized(source: Path, output: Path, expected: Any, tokenizer: Any) -> str:
    blocks, last = 0, None
    try:
        for event in api.quantize(
            source, output, recipe="rtn", samples=4, seqlen=32, bits=8, group_size=32, device="cpu", inline=True
        ):
            blocks += type(event).__name__ == "BlockStarted"
            last = event
    except BitwrightError as error:
        if blocks and error.code not in ("internal", "child-died"):
            return f"late: {error.message}"
        raise
    assert isinstance(last, Done)
    told = last.report["perplexity"]
    longest = context_length(json.loads((source / "config.json").read_text(encoding="utf-8"))) or ASSUMED
    true = _perplexity(expected, heldout.windows(tokenizer, longest))
    found = told["original"]
    return f"{_close(found, true)}: report says {found:.6g}, transformers {true:.6g}"


def _compared(output: Path, expected: Any, tokenizer: Any) -> str:
    if not output.is_dir():
        return "-"
    windows = heldout.windows(tokenizer, 128)[:1]
    found = load_model(str(output), "cpu", "float32").model
    apart = 0.0
    for row in windows:
        with torch.no_grad():
            one = expected(input_ids=row[None], use_cache=False).logits[0].float().log_softmax(-1)
            two = found(input_ids=row[None], use_cache=False).logits[0].float().log_softmax(-1)
        apart = max(apart, float((one.exp() * (one - two)).sum(-1).mean()))
    return f"{'right' if apart < 0.02 else 'wrong'}: KL {apart:.4g}"


def _chatted(model: Path, tokenizer: Any) -> str:
    if not model.is_dir():
        return "-"
    ids = heldout.windows(tokenizer, CONTEXT)[0].tolist()
    whole = load_model(str(model), "cpu", "float32").model
    with torch.no_grad():
        expected = whole(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    runner = load_runner(str(model), "cpu", dtype="float32").runner
    worst = 0.0
    start = 150
    found = runner.extend(ids[:start])
    for place in range(start, start + 12):
        reference = expected[place - 1]
        worst = max(worst, float((found - reference).norm() / reference.norm().clamp_min(1e-9)))
        found = runner.extend([ids[place]])
    return f"{'right' if worst < 0.03 else 'wrong'}: {runner.name}, {worst:.3g} apart"


def _close(found: float, true: float) -> str:
    return "right" if abs(math.log(found) - math.log(true)) < CLOSE else "wrong"


def _perplexity(model: Any, windows: torch.Tensor) -> float:
    total = 0.0
    for row in windows:
        with torch.no_grad():
            logits = model(input_ids=row[None], use_cache=False).logits[0, :-1].float()
        total += float(torch.nn.functional.cross_entropy(logits, row[1:]))
    return math.exp(min(700.0, total / len(windows)))


def _text(folder: Path) -> Path:
    path = folder / "text.txt"
    if not path.exists():
        texts = sorted((RESOURCES / "evaluation").glob("*.txt"))
        path.write_text("".join(text.read_text(encoding="utf-8") for text in texts)[:1024])
    return path


if __name__ == "__main__":
    main()
