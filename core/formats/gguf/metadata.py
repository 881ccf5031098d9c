"""The metadata of a GGUF file but for its tokenizer: what the model is called and how it is built.

The keys are those that llama.cpp reads (its src/llama-arch.cpp) and its converter writes. Knows no tensor's values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import gguf
from gguf.constants import GGUFValueType, LlamaFileType

from core.formats.gguf.architectures import Layout
from core.formats.gguf.file import Entry
from core.model.general import read_facts

_BY_TYPE: Final = {
    "f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q3_k": "MOSTLY_Q3_K_M", "q4_k": "MOSTLY_Q4_K_M",
    "q5_k": "MOSTLY_Q5_K_M",
}  # fmt: skip
_HUB: Final = re.compile(r"[\w.-]+/[\w.-]+")
_QUANTIZATION_VERSION: Final = 2
_NO_CAP: Final = 1e30


def file_type(weights: Mapping[str, int], mix: str = "") -> int:
    """`general.file_type`: the mix's number, or that of the type that most weights have.

    Args:
        weights: type -> weights in matrices of it.
        mix: such as `q4_k_m`; "" where none was asked for by name.
    """
    most = max(weights, key=lambda name: weights[name], default="f32")
    name = f"MOSTLY_{mix.upper()}" if mix else _BY_TYPE.get(most, f"MOSTLY_{most.upper()}")
    return int(LlamaFileType[name])


def metadata(layout: Layout, label: str, name: str, folder: Path, kind: int, parameters: int) -> list[Entry]:
    """Everything but the tokenizer, in the order of the file.

    Args:
        layout: of the tensors.
        label: of the model, a Hub id where there is one.
        name: `general.name`, which the tokenizer has a say in.
        folder: of the source, for its licence, tags and the like.
        kind: `file_type`.
        parameters: of the model.
    """
    return [
        Entry.text("general.architecture", layout.family.name),
        Entry.text("general.type", "model"),
        Entry.text("general.name", name),
        Entry.text("general.size_label", gguf.size_label(parameters, parameters, 0, 0)),
        *_origin(label, folder),
        *(entry.under(layout.family.name) for entry in (*_shape(layout), *layout.rope)),
        Entry.count("general.file_type", kind),
        Entry.count("general.quantization_version", _QUANTIZATION_VERSION),
    ]


def _origin(label: str, folder: Path) -> list[Entry]:
    """What the source says of itself, but for its name, and the base model: a label that is a Hub id is that."""
    facts = read_facts(folder)
    facts.pop("name", None)
    if _HUB.fullmatch(label):
        organization, _, name = label.partition("/")
        facts = {key: value for key, value in facts.items() if not key.startswith("base_model.")}
        facts |= {
            "base_model.count": 1,
            "base_model.0.name": name,
            "base_model.0.organization": organization,
            "base_model.0.repo_url": f"https://huggingface.co/{label}",
        }
    return [_entry(f"general.{key}", value) for key, value in facts.items()]


def _entry(key: str, value: str | int | list[str]) -> Entry:
    if isinstance(value, str):
        return Entry.text(key, value)
    if isinstance(value, int):
        return Entry.count(key, value)
    return Entry.list_of(key, GGUFValueType.STRING, value)


def _shape(layout: Layout) -> list[Entry]:
    """Sizes, without the architecture's name."""
    config, name = layout.config, layout.family.name
    rows = next(item.shape[0] for item in layout.placed if item.name == "token_embd.weight")
    blocks = 1 + max(int(item.name.split(".")[1]) for item in layout.placed if item.name.startswith("blk."))
    entries = [
        Entry.count("block_count", blocks),
        Entry.count("context_length", config["max_position_embeddings"]),
        Entry.count("embedding_length", config["hidden_size"]),
        Entry.count("feed_forward_length", config["intermediate_size"]),
        Entry.count("attention.head_count", config["num_attention_heads"]),
        Entry.count("attention.head_count_kv", config["num_key_value_heads"]),
        Entry.count("attention.key_length", config["head_dim"]),
        Entry.count("attention.value_length", config["head_dim"]),
        Entry.float("attention.layer_norm_rms_epsilon", config["rms_norm_eps"]),
        Entry.count("vocab_size", rows),
    ]
    if name in ("gemma2", "gemma3", "phi3"):
        entries += _window(name, config, blocks)
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        # Without the keys llama.cpp caps a gemma2 at numbers of its own: no cap is one that is never reached.
        cap = config.get(key) or (_NO_CAP if name == "gemma2" else None)
        if cap and (name == "gemma2" or (name == "gemma3" and key.startswith("final"))):
            entries.append(Entry.float(key, cap))
    return entries


def _window(name: str, config: dict[str, Any], blocks: int) -> list[Entry]:
    """The sliding window, and which blocks have it where that is not llama.cpp's own rule."""
    window = config.get("sliding_window") or 0
    if not window and name == "gemma2":
        # Its blocks have a window in llama.cpp whatever the file says.
        window = config["max_position_embeddings"]
    entries = [Entry.count("attention.sliding_window", window)]
    if name == "phi3" or not window:
        return entries
    slides = sliding_blocks(config, blocks)
    usual = {"gemma2": 2, "gemma3": 6}[name]
    if slides != [block % usual < usual - 1 for block in range(blocks)]:
        entries.append(Entry.list_of("attention.sliding_window_pattern", GGUFValueType.BOOL, slides))
    return entries


def sliding_blocks(config: dict[str, Any], blocks: int) -> list[bool]:
    """Which blocks look back only as far as the window."""
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == blocks:
        return [kind == "sliding_attention" for kind in kinds]
    pattern = config.get("sliding_window_pattern") or {"gemma2": 2}.get(str(config.get("model_type")), 6)
    return [(block + 1) % pattern != 0 for block in range(blocks)]
