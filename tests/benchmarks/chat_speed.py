"""Prefill and decode speed of Bitwright and other programs, measured in one run on the same cores. Run manually:

    export BITWRIGHT_LLAMA_PYTHON=PYTHON    # an interpreter with llama-cpp-python
    export BITWRIGHT_ARK_PYTHON=PYTHON      # one with auto-round and auto-round-lib
    python3 packaging/bootstrap.py exec --extra test \\
        env PYTHONPATH=. python tests/benchmarks/chat_speed.py WORK [--models demo,1.1b] [--only PATTERN ...]

Peers are transformers (fp32, bf16), auto-round without and with auto-round-lib, and llama.cpp; missing ones
are skipped. Each side runs in its own process, alternating, `--rounds` times. Measurements are appended to
WORK/chat_speed.json; WORK/chat_speed.md is a table of the medians over this file, so that single sides can be run
again: `--only '1.1b/w4g128/ours*'`. PATTERN is matched against MODEL/SCHEME/SIDE; `--table` only writes the table.
Models are created in WORK (about 10 GB with all schemes of 1.1b). Peak memory is that of the process, including the
touched pages of mapped files; the bandwidth share of a side is based on the stored size of its weights.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.files import write_atomic, write_json
from core.inference.devices import physical_cores
from tests.benchmarks import chat_speed_models as models

SIDE = Path(__file__).with_name("chat_speed_side.py")
ROOT = Path(__file__).resolve().parents[2]
RECORD, TABLE = "chat_speed.json", "chat_speed.md"
PLAIN = "original"
SLOW_TOKENS = 16
"""Of the peers that need a second a token."""
TIMEOUT = 1200
HEAD = (
    "| weights | program | answer tok/s | ours is | of memory speed | first token s | prompt tok/s | ours is "
    "| peak memory MB | runs | what ran |"
)


@dataclass(frozen=True)
class Side:
    """A program with a model."""

    model: str
    scheme: str
    name: str
    kind: str
    python: str

    @property
    def key(self) -> str:
        return f"{self.model}/{self.scheme}/{self.name}"


def sides(names: list[str]) -> list[Side]:
    """Return all available sides in the order of a round."""
    own, ark, llama = sys.executable, os.environ.get("BITWRIGHT_ARK_PYTHON"), os.environ.get("BITWRIGHT_LLAMA_PYTHON")
    found = []
    for model in names:
        found += [
            Side(model, PLAIN, "transformers fp32", "transformers:fp32", own),
            Side(model, PLAIN, "transformers bf16", "transformers:bf16", own),
            Side(model, PLAIN, "ours", "ours:auto", own),
        ]
        for scheme, what in models.SCHEMES.items():
            found.append(Side(model, scheme, "ours", "ours:auto", own))
            if what.format.startswith("gguf"):
                found += [Side(model, scheme, "llama.cpp", "llama.cpp", llama)] if llama else []
                continue
            found.append(Side(model, scheme, "auto-round", "auto-round", own))
            found += [Side(model, scheme, "auto-round + lib", "auto-round", ark)] if ark else []
    return found


def run(side: Side, place: Path, prompt: int, tokens: int, threads: int) -> dict[str, Any]:
    """Run one side and return its figures, or the reason why it failed."""
    wanted = min(tokens, SLOW_TOKENS) if side.kind.startswith(("transformers", "auto-round")) else tokens
    command = [side.python, str(SIDE), side.kind, str(place), str(prompt), str(wanted), str(threads)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    if side.python == sys.executable:
        environment["PYTHONPATH"] = str(ROOT)
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT, cwd=place.parent
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done in {TIMEOUT} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"error": said[-1][:300]}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def bytes_needed(side: Side, place: Path) -> int:
    """Return the bytes of weights that this side reads per token."""
    name, _, option = side.kind.partition(":")
    return models.needed_bytes(place, option if name == "transformers" else "")


def append(record: Path, value: dict[str, Any]) -> None:
    """Append a measurement to the record."""
    before = json.loads(record.read_text(encoding="utf-8")) if record.exists() else []
    write_json(record, [*before, value])


def measure(work: Path, options: argparse.Namespace) -> None:
    chosen = [
        side
        for side in sides(options.models.split(","))
        if not options.only or any(fnmatch.fnmatch(side.key, pattern) for pattern in options.only)
    ]
    places = {}
    for side in chosen:
        where = (side.model, side.scheme)
        if where not in places:
            print(f"model {side.model}/{side.scheme}", flush=True)
            plain = side.scheme == PLAIN
            places[where] = models.original(side.model, work) if plain else models.quantized(*where, work)
    for number in range(options.rounds):
        memory = run(Side("", "", "", "bandwidth", sys.executable), work, 0, 0, options.threads)
        for side in chosen:
            place = places[side.model, side.scheme]
            found = run(side, place, options.prompt, options.tokens, options.threads)
            head = {
                "key": side.key, "time": time.time(), "round": number, "prompt": options.prompt,
                "threads": options.threads, "bandwidth": memory.get("bandwidth"),
                "bytes": bytes_needed(side, place), "stored": models.describe(place),
            }  # fmt: skip
            append(work / RECORD, {**head, **found})
            print(json.dumps({"key": side.key, **found}), flush=True)


def medians(record: Path) -> dict[str, dict[str, Any]]:
    """Return the medians of the measurements and the last note or error, by key."""
    grouped: dict[str, list[dict[str, Any]]] = {}
    for value in json.loads(record.read_text(encoding="utf-8")):
        grouped.setdefault(value["key"], []).append(value)
    found = {}
    for key, values in grouped.items():
        good = [value for value in values if "error" not in value]
        last: dict[str, Any] = {
            "note": values[-1].get("note", ""),
            "error": values[-1].get("error", ""),
            "runs": len(good),
        }
        for name in ("decode", "prefill", "first_token", "peak_memory", "load", "bytes", "bandwidth"):
            seen = [value[name] for value in good if value.get(name) is not None]
            last[name] = statistics.median(seen) if seen else None
        found[key] = last
    return found


def table(work: Path) -> str:
    """Return the medians as a Markdown table; a ratio above 1 means that Bitwright is faster than that side."""
    found = medians(work / RECORD)
    text = []
    for model in dict.fromkeys(key.split("/")[0] for key in found):
        text += [
            f"## {model}",
            "",
            HEAD,
            "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|",
        ]
        text += [_line(key, found) for key in found if key.split("/")[0] == model]
        text.append("")
    return "\n".join(text)


def _line(key: str, found: dict[str, dict[str, Any]]) -> str:
    model, scheme, name = key.split("/")
    one, ours = found[key], found.get(f"{model}/{scheme}/ours")
    if not one["decode"]:
        return f"| {scheme} | {name} | - | - | - | - | - | - | - | {one['runs']} | {one['error']} |"
    share = f"{100 * one['bytes'] * one['decode'] / one['bandwidth']:.0f} %" if one["bandwidth"] else "-"
    return (
        f"| {scheme} | {name} | {one['decode']:.2f} | {_ratio(ours, one, 'decode')} | {share} "
        f"| {one['first_token']:.2f} | {one['prefill']:.1f} | {_ratio(ours, one, 'prefill')} "
        f"| {one['peak_memory'] / 1e6:.0f} | {one['runs']} | {one['note']} |"
    )


def _ratio(ours: dict[str, Any] | None, one: dict[str, Any], name: str) -> str:
    if ours is None or ours is one or not ours[name] or not one[name]:
        return "-"
    return f"{ours[name] / one[name]:.2f} x"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--models", default="demo,1.1b", help="of demo, 1.1b, tiny")
    parser.add_argument("--only", action="append", metavar="PATTERN", help="of MODEL/SCHEME/SIDE; repeatable")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--table", action="store_true", help="only write the table of earlier measurements")
    options = parser.parse_args()
    work = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    if not options.table:
        measure(work, options)
    if (work / RECORD).exists():
        text = table(work)
        write_atomic(work / TABLE, text.encode("utf-8"))
        print(text)


if __name__ == "__main__":
    main()
