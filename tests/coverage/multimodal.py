"""Coverage table of multimodal models: tiny random models of every class in transformers' multimodal mapping.

Run manually; half an hour on one core:

    python3 packaging/bootstrap.py exec --extra test python -m tests.coverage.multimodal WORK [NAME ...]

The language model is quantized to 4 bits and everything else is compared with the source, see
`tests.coverage.multimodal_measure`. The results are kept in WORK/rows.json, so that a run with names updates their
rows; `--missing` runs the models without a row, `--only-peer` quantizes the verified ones with auto-round. `--guide`
writes all of them to resources/guide/architectures.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.coverage import peer, table
from tests.coverage.architectures import GUIDE, Rows, in_child, in_folder
from tests.coverage.measure import VERIFIED
from tests.coverage.multimodal_measure import measure_multimodal
from tests.coverage.multimodal_models import make_model, names


def main() -> None:
    """Measure the models, print a line for each, and write the table."""
    parser = argparse.ArgumentParser(description="Coverage table of multimodal models")
    parser.add_argument("work", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--missing", action="store_true", help="only models that have no row")
    parser.add_argument("--only-peer", action="store_true", help="quantize the verified models with auto-round")
    parser.add_argument("--guide", action="store_true", help="write the section in the guide")
    options = parser.parse_args()
    work: Path = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    kept = work / "rows.json"
    rows: Rows = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    for name in options.names or names():
        row = rows.get(name, {"name": name})
        if options.missing and ("peer" if options.only_peer else "verdict") in row:
            continue
        began = time.monotonic()
        if not options.only_peer:
            row = {**row, **in_folder(name, work, measured)}
        elif row.get("verdict") == VERIFIED:
            row["peer"] = in_folder(name, work, theirs)
        rows[name] = row
        shown = row.get("peer", {}) if options.only_peer else row
        took = time.monotonic() - began
        print(f"{name:24} {shown.get('verdict', ''):9} {took:4.0f} s  {shown.get('reason', '')}", flush=True)
        kept.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if options.guide:
        GUIDE.write_text(table.with_multimodal(GUIDE.read_text(encoding="utf-8"), rows), encoding="utf-8")
    print(Counter(row.get("verdict") for row in rows.values()))


def measured(name: str, folder: Path) -> dict[str, Any]:
    """Return our result for a model as a dict."""
    return in_child(_measured, (name, folder), folder)


def theirs(name: str, folder: Path) -> dict[str, Any]:
    """Return auto-round's result for a model as a dict; a second process reads what the first has written."""
    written = in_child(_quantized_by_peer, (name, folder), folder)
    if written["verdict"] in ("failed", "crash"):
        reason = written["reason"].replace(f"{folder}/", "")
        needs = any(word in reason for word in ("orchvision", "Can't load image processor"))
        return {**written, "verdict": "crash", "reason": "needs torchvision" if needs else reason}
    return in_child(_read_by_peer, (written, folder), folder)


def _quantized_by_peer(name: str, folder: Path) -> dict[str, Any]:
    return asdict(peer.quantize_by_peer(name, folder, make_model))


def _read_by_peer(written: dict[str, Any], folder: Path) -> dict[str, Any]:
    return asdict(peer.read_by_peer(peer.PeerRow(**written), folder, transformers.AutoModelForMultimodalLM))


def _measured(name: str, folder: Path) -> dict[str, Any]:
    return asdict(measure_multimodal(name, folder))


if __name__ == "__main__":
    main()
