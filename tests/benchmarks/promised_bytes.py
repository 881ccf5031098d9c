"""Comparison of the estimated size with the written size for ten random bits maps. Run manually:

    python3 packaging/bootstrap.py exec --extra test \\
        env PYTHONPATH=. python tests/benchmarks/promised_bytes.py MODEL WORK

Every layer gets random bits, group size and symmetry; every other map includes the head; formats alternate. The runs
use the recipe `rtn`, since the rounding does not affect the size. Prints one JSON object per map.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

from core import inspect, quantize
from core.bitsmap import BitsMap, Rule
from core.schemes import LayerScheme

MAPS = 10


def random_map(names: list[str], head: str, draw: random.Random) -> BitsMap:
    """Return a random scheme for every layer, and 8 bits for the head if it is included."""
    rules = [
        Rule(name, draw.choice((2, 3, 4, 8, 16)), draw.choice((32, 64, 128, -1)), draw.random() < 0.5) for name in names
    ]
    return BitsMap(LayerScheme(4, 64), layers=[*rules, *([Rule(head, 8, 64, True)] if head else [])])


def main(model: str, work: Path) -> None:
    os.environ["BITWRIGHT_HOME"] = str(work / "home")
    tree = inspect(model).tree
    draw = random.Random(7)
    for number in range(MAPS):
        bits_map = random_map(list(tree.block_linears), (tree.lm_head or "lm_head") if number % 2 else "", draw)
        form = ("auto_round", "auto_gptq")[number // 2 % 2]
        found = inspect(model, bits_map=bits_map, format=form)
        assert found.size is not None
        output = work / f"map-{number}"
        for _ in quantize(model, output, recipe="rtn", samples=1, seqlen=64, bits_map=bits_map, formats=(form,)):
            pass
        written = sum(file.stat().st_size for file in output.glob("*.safetensors"))
        row = {
            "map": number,
            "format": form,
            "head": bool(number % 2),
            "promised": found.size.total,
            "written": written,
        }
        print(json.dumps({**row, "off_percent": round(100 * (written / found.size.total - 1), 4)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
