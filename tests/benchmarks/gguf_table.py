"""Largest differences when gguf-py and llama.cpp read the GGUF files written by Bitwright. Run manually:

    export BITWRIGHT_LLAMA_PYTHON=PYTHON    # an interpreter with llama-cpp-python
    python3 packaging/bootstrap.py exec --extra test env PYTHONPATH=. python tests/benchmarks/gguf_table.py WORK

A random Llama of one block is rounded to nearest with every scheme that `gguf` supports and in every named type.
Weights: those of gguf-py's dequantizers, in transformers' order of rows, against ours. Logits: llama.cpp's against
transformers' in float32 with the same weights, and for comparison llama.cpp's with a 32-bit file, because llama.cpp
multiplies blocks with activations rounded to 8 bits.
"""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM

from core import convert
from core.errors import BitwrightError
from core.formats.names import GGUF_MIXES
from core.formats.opened import open_checkpoint
from core.schemes import LayerScheme
from tests.core.conversion.sources import make, save_original
from tests.core.formats.gguf.llama import ask

IDS = [[1 + 7 * place % 280 for place in range(48)]]
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def cases() -> list[tuple[str, str, LayerScheme]]:
    """Yield the name, format and scheme of every file."""
    plain = [
        LayerScheme(bits, group, sym)
        for bits, sym, group in itertools.product((2, 3, 4, 8), (True, False), (32, 64, 128, -1))
        if bits != 8 or sym
    ]
    mixes = [(f"gguf:{mix}", f"gguf:{mix}", LayerScheme(4, 32)) for mix in GGUF_MIXES]
    return [(scheme.label(), "gguf", scheme) for scheme in plain] + mixes


def in_order(values: np.ndarray, kind: str, heads: tuple[int, int]) -> np.ndarray:
    """Return the rows of q and k in transformers' order: halves of a head instead of pairs (as in its GGUF reader)."""
    if kind not in ("self_attn.q_proj", "self_attn.k_proj"):
        return values
    count = heads[kind == "self_attn.k_proj"]
    rows, columns = values.shape
    return values.reshape(count, rows // count // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def weights_apart(path: Path, kept: dict[str, torch.Tensor], heads: tuple[int, int]) -> float:
    """Return the largest difference over all linears as read by gguf-py."""
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    apart = 0.0
    for kind, name in NAMES.items():
        tensor = tensors[f"blk.0.{name}.weight"]
        values = in_order(np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type)), kind, heads)
        apart = max(apart, float(np.abs(values - kept[f"model.layers.0.{kind}"].numpy()).max()))
    return apart


def logits_of(folder: Path) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.tensor(IDS)).logits[0].numpy()


def main(work: Path) -> None:
    original = save_original(work / "original", wide=True)
    print("| layers | types in the file | weights | logits, llama.cpp | the same weights in 32 bits |")
    print("|---|---|---|---|---|")
    for label, name, scheme in cases():
        with tempfile.TemporaryDirectory(dir=work) as place:
            folder = Path(place)
            try:
                source = make(original, folder / "gguf", name, scheme)
            except BitwrightError as error:
                print(f"| {label} | {error.message} | | | |")
                continue
            (path,) = source.glob("*.gguf")
            checkpoint = open_checkpoint(path)
            kept = {layer: checkpoint.layer(layer).dequantize() for layer in checkpoint.schemes}
            for goal, form in (("f32", "f32"), ("back", "gguf")):
                origin = path if goal == "f32" else folder / "f32"
                for _ in convert(origin, folder / goal, form, inexact=True):
                    pass
            types = ", ".join(sorted({found.label() for found in checkpoint.schemes.values()}))
            expected = logits_of(folder / "f32")
            (plain,) = (folder / "back").glob("*.gguf")
            found = [float(np.abs(ask(file, ids=IDS).logits[0] - expected).max()) for file in (path, plain)]
            apart = weights_apart(path, kept, (4, 2))
            print(f"| {label} | {types} | {apart:.1e} | {found[0]:.1e} | {found[1]:.1e} |", flush=True)
    shutil.rmtree(original)


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    main(Path(sys.argv[1]))
