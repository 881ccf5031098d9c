"""Coverage table of multimodal models: tiny random models of every class in transformers' multimodal mapping.

Run manually; half an hour on one core:

    python3 packaging/bootstrap.py exec --extra test python -m tests.coverage.multimodal WORK [NAME ...] [--peer]

The language model is quantized to 4 bits and everything else is compared with the source, see
`tests.coverage.multimodal_measure`. The results are kept in WORK/rows.json, so that a run with names updates their
rows; `--missing` runs the models without a row. `--guide` writes all of them to resources/guide/architectures.md.
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

from tests.coverage import table
from tests.coverage.architectures import GUIDE, Rows, in_child, in_folder
from tests.coverage.multimodal_measure import measure_multimodal
from tests.coverage.multimodal_models import names


def main() -> None:
    """Measure the models, print a line for each, and write the table."""
    parser = argparse.ArgumentParser(description="Coverage table of multimodal models")
    parser.add_argument("work", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--missing", action="store_true", help="only models that have no row")
    parser.add_argument("--guide", action="store_true", help="write the section in the guide")
    options = parser.parse_args()
    work: Path = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    kept = work / "rows.json"
    rows: Rows = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    for name in options.names or names():
        if options.missing and name in rows:
            continue
        began = time.monotonic()
        row = {**rows.get(name, {"name": name}), **in_folder(name, work, measured)}
        rows[name] = row
        print(f"{name:24} {row['verdict']:9} {time.monotonic() - began:4.0f} s  {row.get('reason', '')}", flush=True)
        kept.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if options.guide:
        GUIDE.write_text(table.with_multimodal(GUIDE.read_text(encoding="utf-8"), rows), encoding="utf-8")
    print(Counter(row.get("verdict") for row in rows.values()))


def measured(name: str, folder: Path) -> dict[str, Any]:
    """Return our result for a model as a dict."""
    return in_child(_measured, (name, folder), folder)


def _measured(name: str, folder: Path) -> dict[str, Any]:
    return asdict(measure_multimodal(name, folder))


if __name__ == "__main__":
    main()
