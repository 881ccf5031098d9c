"""Coverage table: what becomes of a tiny random model of every class in transformers' causal-LM mapping.

Run manually; under an hour on two cores:

    python3 packaging/bootstrap.py exec --extra test python -m tests.coverage.architectures WORK [NAME ...] [--peer]

Every text decoder and its variants are measured, see `tests.coverage.measure`; `tests.coverage.multimodal` does the
same for multimodal classes; every other class must be refused by its kind. With `--peer`, auto-round quantizes the same
models. The results are kept in WORK/rows.json, so that a run with names updates their rows; `--guide` writes all of
them to resources/guide/architectures.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch
import torch._dynamo
import transformers
import transformers.models.llama.modeling_llama  # imported here, once, instead of in every child

from core.recipes import RESOURCES
from tests.core.tiny_architectures import names
from tests.coverage import peer, table
from tests.coverage.kinds import MULTIMODAL, TEXT, kind_of
from tests.coverage.measure import measure, refusal_of

SECONDS = 300
"""Limit of the processor time of a child, in seconds."""
GUIDE = RESOURCES / "guide" / "architectures.md"
Rows = dict[str, dict[str, Any]]


def main() -> None:
    """Measure the models, print a line for each, and write the table."""
    parser = argparse.ArgumentParser(description="Coverage table of architectures")
    parser.add_argument("work", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--peer", action="store_true", help="quantize the models with auto-round as well")
    parser.add_argument("--only-peer", action="store_true", help="keep our rows as they are")
    parser.add_argument("--guide", action="store_true", help="write the page of the guide")
    options = parser.parse_args()
    work: Path = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    kept = work / "rows.json"
    rows: Rows = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    for name in options.names or names():
        if kind_of(name.partition(" ")[0]) == MULTIMODAL:  # `tests.coverage.multimodal`
            continue
        began = time.monotonic()
        row = rows.get(name, {"name": name})
        if not options.only_peer:
            row = {**row, **in_folder(name, work, ours)}
        if (options.peer or options.only_peer) and kind_of(name.partition(" ")[0]) == TEXT:
            row["peer"] = in_folder(name, work, theirs)
        rows[name] = row
        print(
            f"{name:26} {row.get('verdict', ''):9} {time.monotonic() - began:4.0f} s  {row.get('reason', '')}",
            flush=True,
        )
        kept.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if options.guide:
        section = table.multimodal_section(GUIDE.read_text(encoding="utf-8"))
        GUIDE.write_text(table.markdown(rows, section), encoding="utf-8")
    print(Counter(row.get("verdict") for row in rows.values()))


def ours(name: str, folder: Path) -> dict[str, Any]:
    """Return our result for a model as a dict."""
    if kind_of(name.partition(" ")[0]) != TEXT:
        return asdict(refusal_of(name))
    return in_child(_measured, (name, folder), folder)


def theirs(name: str, folder: Path) -> dict[str, Any]:
    """Return auto-round's result for a model as a dict; a second process reads what the first has written."""
    written = in_child(_quantized_by_peer, (name, folder), folder)
    if written["verdict"] == "failed":
        return {**written, "verdict": "crash"}
    return in_child(_read_by_peer, (written, folder), folder)


def _measured(name: str, folder: Path) -> dict[str, Any]:
    return asdict(measure(name, folder))


def _quantized_by_peer(name: str, folder: Path) -> dict[str, Any]:
    return asdict(peer.quantize_by_peer(name, folder))


def _read_by_peer(written: dict[str, Any], folder: Path) -> dict[str, Any]:
    return asdict(peer.read_by_peer(peer.PeerRow(**written), folder))


def in_folder(name: str, work: Path, run: Callable[[str, Path], dict[str, Any]]) -> dict[str, Any]:
    """Run a function with a new folder for the model, of which only the log remains."""
    folder = work / f"{name.replace(' ', '-')}-{run.__name__}"
    rmtree(folder, ignore_errors=True)
    folder.mkdir()
    row = run(name, folder)
    for part in ("source", "output", "plain"):
        rmtree(folder / part, ignore_errors=True)
    return row


def in_child(run: Callable[..., dict[str, Any]], arguments: tuple[Any, ...], folder: Path) -> dict[str, Any]:
    """Run a function in a process of its own, whose output is appended to the file `log` in the folder.

    The process is forked from one that has imported torch and computed nothing: a process that has used several threads
    cannot be forked, since OpenMP waits forever in the child.
    """
    told = folder / "row.json"
    told.unlink(missing_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__spec__.name])
    process = context.Process(target=_tell, args=(run, arguments, folder, told))
    process.start()
    process.join()
    if not told.is_file():
        return {"verdict": "failed", "reason": f"the process ended with exit code {process.exitcode}"}
    row: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
    return row


def _tell(run: Callable[..., dict[str, Any]], arguments: tuple[Any, ...], folder: Path, told: Path) -> None:
    """Write the result of a function to the file `told`; in the process of its own."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    torch.set_num_threads(1)
    torch.set_num_threads = lambda nthreads: None  # a run sets the number of cores, which is slower for tiny layers
    with (folder / "log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        os.environ["BITWRIGHT_HOME"] = str(folder.parent / "home")  # kernels are compiled once
        try:
            told.write_text(json.dumps(run(*arguments)), encoding="utf-8")
        except BaseException as error:  # noqa: BLE001 - reported as the row
            traceback.print_exc()
            text = f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
            told.write_text(json.dumps({"verdict": "failed", "reason": text}), encoding="utf-8")
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    main()
