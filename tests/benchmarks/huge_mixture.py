"""Time and memory of everything before a run for a mixture of 235 billion parameters. Run manually:

    python3 packaging/bootstrap.py exec --extra test env PYTHONPATH=. python tests/benchmarks/huge_mixture.py

Writes config.json and the headers of 94 blocks with 128 experts; the weights are holes in sparse files, which take no
space on disk. The sensitivity table is random. Prints seconds, and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from core import api
from core.allocation import map_rules
from core.allocation.pareto import pareto
from core.allocation.problem import AllocationRequest, Budget, allocate
from core.bitsmap import BitsMap, Rule
from core.estimation.preflight import read_tree
from core.model.headers import TensorInfo
from core.model.tree import resolve_schemes
from core.schemes import LayerScheme
from tests.core.allocation.problems import table_for
from tests.core.paper_model import mixture_parts

Result = TypeVar("Result")
SHARD = 4_000_000_000
"""Bytes of the tensors of a file."""


def write(folder: Path, *, fused: bool, blocks: int) -> None:
    """Write the folder of a checkpoint whose weights are holes."""
    config, tensors = mixture_parts(blocks, 128, fused, 4096, 1536, 8, 151_936, 8192)
    (folder / "config.json").write_text(json.dumps(config))
    shards: list[list[TensorInfo]] = [[]]
    for info in tensors.values():
        if shards[-1] and sum(other.nbytes for other in shards[-1]) + info.nbytes > SHARD:
            shards.append([])
        shards[-1].append(info)
    names: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        header, offset = {}, 0
        for info in shard:
            header[info.name] = {
                "dtype": "BF16",
                "shape": info.shape,
                "data_offsets": [offset, offset + info.nbytes],
            }
            offset += info.nbytes
            names[info.name] = file
        text = json.dumps(header).encode()
        with (folder / file).open("wb") as stream:
            stream.write(struct.pack("<Q", len(text)) + text)
            stream.truncate(8 + len(text) + offset)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def timed(what: str, step: Callable[[], Result]) -> Result:
    """Run a step and print its seconds and the peak memory of the process until then."""
    began = time.perf_counter()
    found = step()
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(f"  {what:<34} {seconds:7.2f} s {peak:7.0f} MB", flush=True)
    return found


def measure(folder: Path) -> None:
    found = timed("inspect", lambda: api.inspect(folder))
    print(
        f"  {len(found.tree.linears):,} layers, {found.tree.nbytes / 1e9:.0f} GB, {found.tree.refusal or 'supported'}"
    )
    tree = timed("read the layers", lambda: read_tree(folder)).prepared()
    timed("estimate", lambda: api.estimate(folder, throughput=1e12, device="cpu"))
    mixed = BitsMap(
        LayerScheme(4, 128),
        (Rule("*.experts.*", bits=2), Rule("*.down_proj", bits=3), Rule("model.layers.3.*", bits=8)),
    )
    timed("resolve a map with rules", lambda: resolve_schemes(tree, mixed))
    timed("resolve it again", lambda: resolve_schemes(tree, mixed))
    timed("effects of its rules", lambda: map_rules.effects(tree, mixed))
    timed("simplify it", lambda: map_rules.compact(tree, mixed))
    table = table_for(tree)
    request = AllocationRequest(Budget("bpw", 3.2), (2, 3, 4, 8))
    timed("allocate 3.2 bits", lambda: allocate(tree, table, request))
    size = AllocationRequest(Budget("bytes", 100e9), (2, 3, 4, 8))
    timed("allocate 100 GB", lambda: allocate(tree, table, size))
    timed("curve of budgets", lambda: pareto(tree, table, request))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=94)
    blocks = parser.parse_args().blocks
    for fused in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), fused=fused, blocks=blocks)
            print("one tensor of all experts per block" if fused else "a tensor for each expert")
            measure(Path(folder))


if __name__ == "__main__":
    main()
