"""Models for chat_speed.py: the demo, a random Llama with 1.1B parameters, and quantized versions of both.

Speed does not depend on the values of the weights, so layers are rounded to nearest and written without a run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from core.bitsmap import BitsMap, from_json
from core.files import read_json
from core.formats import registry
from core.formats.grids import plan_layers
from core.formats.names import is_gguf
from core.formats.opened import open_source
from core.model.gguf_header import read_gguf_header
from core.model.headers import read_folder
from core.model.skeleton import build_skeleton
from core.model.tree import build_tree
from core.model.weights import TensorStore
from core.model_id import DEMO
from core.quant.grid import new_grid

DTYPE_BYTES: Final = {"fp32": 4, "bf16": 2}
LLAMA: Final[dict[str, Any]] = {
    "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
    "num_key_value_heads": 4, "vocab_size": 32000, "max_position_embeddings": 2048, "tie_word_embeddings": False,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None,
}  # fmt: skip


@dataclass(frozen=True)
class Scheme:
    """A format and a bits map in JSON."""

    format: str
    map: dict[str, Any]


def _plain(bits: int, group: int) -> Scheme:
    return Scheme("auto_round", {"version": 1, "default": {"bits": bits, "group_size": group, "sym": True}})


SCHEMES: Final = {
    "w4g64": _plain(4, 64),
    "w4g128": _plain(4, 128),
    "w3": _plain(3, 128),
    "w2": _plain(2, 64),
    "w8": _plain(8, 128),
    "mixed": Scheme(
        "auto_round",
        {
            "version": 1,
            "default": {"bits": 4, "group_size": 64, "sym": True},
            "rules": [
                {"match": "*.gate_proj", "bits": 3},
                {"match": "*.up_proj", "bits": 2},
                {"match": "*.down_proj", "bits": 8},
            ],
        },
    ),
    "q4_0": Scheme("gguf:q4_0", {"version": 1}),
    "q8_0": Scheme("gguf:q8_0", {"version": 1}),
}


def original(name: str, work: Path) -> Path:
    """Return the folder of the model `name`: `demo`, `1.1b`, or `tiny` (to try the benchmark)."""
    if name == DEMO:
        folder = work / "demo" / "original"
        if not folder.exists():
            found = open_source(DEMO, lambda event: None, lambda: False).folder
            _whole(folder, lambda place: shutil.copytree(found, place, dirs_exist_ok=True))
        return folder
    shape = dict(LLAMA)
    if name == "tiny":
        shape |= {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
    folder = work / name / "original"
    if not folder.exists():
        _whole(folder, lambda place: _random(place, shape))
    return folder


def quantized(name: str, scheme: str, work: Path) -> Path:
    """Return the folder or the GGUF file of a model quantized with one of SCHEMES; create it if it does not exist."""
    folder = work / name / scheme
    if not folder.exists():
        source = original(name, work)
        _whole(folder, lambda place: _quantize(source, place, SCHEMES[scheme]))
    if is_gguf(SCHEMES[scheme].format):
        (file,) = folder.glob("*.gguf")
        return file
    return folder


def needed_bytes(place: Path, dtype: str = "") -> int:
    """Return the bytes of weights read per token, as stored or in `dtype`: all but an embedding that is not tied."""
    if place.suffix == ".gguf":
        tensors = read_gguf_header(place).tensors
        unread = "token_embd.weight" if "output.weight" in tensors else ""
        return sum(one.nbytes for key, one in tensors.items() if key != unread)
    table = read_folder(place)
    unread = "model.embed_tokens.weight" if "lm_head.weight" in table else ""
    read = [info for key, info in table.items() if key != unread]
    return sum(info.numel * DTYPE_BYTES[dtype] if dtype else info.nbytes for info in read)


def _whole(folder: Path, make: Callable[[Path], object]) -> None:
    """Create a folder under another name and rename it, so that an existing folder is always complete."""
    staging = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    make(staging)
    staging.rename(folder)


def _random(folder: Path, shape: dict[str, Any]) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        LlamaForCausalLM(LlamaConfig(**shape)).save_pretrained(folder)
    finally:
        torch.set_default_dtype(before)
    _tokenizer(folder, shape["vocab_size"])


def _tokenizer(folder: Path, size: int) -> None:
    """Save a tokenizer with letters, and placeholder words up to the size of the vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<s>", "</s>", *letters]
    words += [f"Ġx{number}" for number in range(size - len(words))]
    made = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<s>", "</s>"])
    PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>").save_pretrained(folder)


def _quantize(source: Path, folder: Path, scheme: Scheme) -> None:
    config = read_json(source / "config.json")
    tree = build_tree(config, read_folder(source))
    bits_map: BitsMap = from_json(scheme.map)
    plans = plan_layers(tree, bits_map, (scheme.format,))
    store = TensorStore(source, tree.tensors)
    skeleton = build_skeleton(tree, store)
    plan = registry.plan(scheme.format, tree, plans, config, skeleton.module_name, source, source.parent.name)
    writer = plan.writer(folder)
    try:
        for name, item in plan.layers.items():
            grid = new_grid(store.get(f"{name}.weight"), item.scheme, min_zero=plan.min_zero)
            writer.write(plan.stored(grid.freeze(name)))
        writer.begin(source)
        writer.finish(store, lambda: False)
    finally:
        writer.abort()


def describe(place: Path) -> str:
    """Return a summary of the `quantization_config` of a checkpoint for the record."""
    if place.suffix == ".gguf":
        return place.name
    config = json.loads((place / "config.json").read_text(encoding="utf-8")).get("quantization_config") or {}
    return " ".join(f"{key}={config[key]}" for key in ("bits", "group_size", "packing_format") if key in config)
