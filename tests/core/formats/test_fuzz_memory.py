"""Hostile files of a few megabytes are read quickly and with memory of a small multiple of their size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

resource = pytest.importorskip("resource")

TIMES = 40
"""Limit on memory per byte of a file: an empty list in JSON has 3 bytes and takes 64 bytes in Python."""

READ = """
import resource, sys
from pathlib import Path
import torch
from core.errors import BitwrightError
from core.formats.reader import QuantizedCheckpoint
torch.set_num_threads(1)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
torch.ones(1 << 20).double().half().int()
for folder in map(Path, sys.argv[1:]):
    size = sum(path.stat().st_size for path in folder.iterdir())
    before, said = peak(), "read"
    try:
        checkpoint = QuantizedCheckpoint(folder)
        checkpoint.act_order
        for name in checkpoint.schemes:
            checkpoint.layer(name).dequantize()
    except BitwrightError as error:
        said = error.code
    print(folder.name, size, peak() - before, said)
"""

GPTQ = {"quant_method": "gptq", "bits": 2, "group_size": 128, "sym": True}


def tensors(header: bytes, data: bytes = b"") -> dict[str, bytes]:
    return {
        "model.safetensors": len(header).to_bytes(8, "little") + header + data,
        "config.json": json.dumps({"quantization_config": GPTQ}).encode(),
    }


def config(text: bytes) -> dict[str, bytes]:
    return {"model.safetensors": (2).to_bytes(8, "little") + b"{}", "config.json": text}


def many(entry: bytes, count: int) -> bytes:
    """Return a JSON object with numbered entries."""
    return b"{" + b",".join(entry % number for number in range(count)) + b"}"


def layer() -> dict[str, bytes]:
    """Write a valid layer of two bits, whose weights in float32 are sixteen times as large."""
    header, end = {}, 0
    for part, dtype, shape in (
        ("qweight", "I32", (256, 4096)),
        ("qzeros", "I32", (32, 256)),
        ("scales", "F16", (32, 4096)),
    ):
        size = shape[0] * shape[1] * (4 if dtype == "I32" else 2)
        header[f"w.{part}"] = {"dtype": dtype, "shape": shape, "data_offsets": (end, end + size)}
        end += size
    return tensors(json.dumps(header).encode(), b"\x55" * end)


HOSTILE: dict[str, Callable[[], dict[str, bytes]]] = {
    "lists-in-header": lambda: tensors(b'{"a":[' + b"[]," * 1_000_000 + b"[]]}"),
    "objects-in-header": lambda: tensors(b'{"a":[' + b"{}," * 1_000_000 + b"{}]}"),
    "one-key-many-times": lambda: tensors(b"{" + b'"a":0,' * 500_000 + b'"b":0}'),
    "many-tensors": lambda: tensors(many(b'"%x.qweight":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}', 40_000)),
    "lists-in-config": lambda: config(b'{"quantization_config":{"bits":[' + b"[]," * 1_000_000 + b"[]]}}"),
    "many-rules": lambda: config(
        json.dumps({"quantization_config": {**GPTQ, "dynamic": {f"a{i}.*": {} for i in range(100_000)}}}).encode()
    ),
    "long-block-name": lambda: config(
        json.dumps({"quantization_config": {**GPTQ, "block_name_to_quantize": "a." * 1_000_000}}).encode()
    ),
    "index": lambda: {
        **config(json.dumps({"quantization_config": GPTQ}).encode()),
        "model.safetensors.index.json": b'{"weight_map":' + many(b'"%x":"a.safetensors"', 100_000) + b"}",
    },
    "sound-layer": layer,
}  # fmt: skip


@pytest.mark.slow
def test_memory_is_a_small_multiple_of_the_file(tmp_path: Path) -> None:
    for name, make in HOSTILE.items():
        (tmp_path / name).mkdir()
        for file, data in make().items():
            (tmp_path / name / file).write_bytes(data)
    root = Path(__file__).resolve().parents[3]
    found = subprocess.run(
        [sys.executable, "-c", READ, *(str(tmp_path / name) for name in HOSTILE)],
        capture_output=True, text=True, timeout=120, check=True, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    grown = {}
    for line in found.stdout.splitlines():
        name, size, more, said = line.split()
        assert (said == "read") is (name == "sound-layer"), line
        grown[name] = int(more) / int(size)
    assert set(grown) == set(HOSTILE)
    assert {name: times for name, times in grown.items() if times > TIMES} == {}
