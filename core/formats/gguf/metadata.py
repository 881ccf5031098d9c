"""The metadata of a GGUF file except the tokenizer: names, origin and sizes of the model.

The keys are those that llama.cpp reads (its src/llama-arch.cpp) and its converter writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import gguf
from gguf.constants import GGUFValueType, LlamaFileType

from core.errors import CorruptFile
from core.formats.gguf.file import Entry, StoredEntry
from core.formats.gguf.tensor_map import TensorMap
from core.model.architectures.config import sliding_layers, sliding_pattern
from core.model.architectures.table import SOFTCAPS, Architecture
from core.model.general import read_facts
from core.model.gguf_header import GgufHeader

_BY_TYPE: Final = {
    "f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q3_k": "MOSTLY_Q3_K_M", "q4_k": "MOSTLY_Q4_K_M",
    "q5_k": "MOSTLY_Q5_K_M",
}  # fmt: skip
_HUB: Final = re.compile(r"[\w.-]+/[\w.-]+")
_QUANTIZATION_VERSION: Final = 2
_OWN: Final = ("general.architecture", "general.quantization_version", "general.alignment")
"""General entries that belong to the file that is written."""
_TEMPLATE: Final = "tokenizer.chat_template"
_NO_CAP: Final = 1e30
"""A softcap that no logit reaches: llama.cpp replaces a missing one by its default."""


def file_type(weights: Mapping[str, int], mix: str = "") -> int:
    """Return `general.file_type`: the number of the mix, or of the type that most weights have.

    Args:
        weights: number of weights in matrices of each type.
        mix: such as `q4_k_m`; "" for none.
    """
    most = max(weights, key=lambda name: weights[name], default="f32")
    name = f"MOSTLY_{mix.upper()}" if mix else _BY_TYPE.get(most, f"MOSTLY_{most.upper()}")
    return int(LlamaFileType[name])


def metadata(tensors: TensorMap, label: str, name: str, folder: Path, kind: int, parameters: int) -> list[Entry]:
    """Return the metadata except the tokenizer, in the order of the file.

    Args:
        tensors: of the file.
        label: of the model, a Hub id where there is one.
        name: `general.name`, which may depend on the tokenizer.
        folder: of the source, for its license and tags.
        kind: number of the file type.
        parameters: number of parameters.
    """
    return [
        Entry.text("general.architecture", tensors.rules.name),
        Entry.text("general.type", "model"),
        Entry.text("general.name", name),
        Entry.text("general.size_label", gguf.size_label(parameters, parameters, 0, 0)),
        *_origin(label, folder),
        *(entry.under(tensors.rules.name) for entry in (*_sizes(tensors), *tensors.rope)),
        Entry.count("general.file_type", kind),
        Entry.count("general.quantization_version", _QUANTIZATION_VERSION),
    ]


def entries_like(entries: Sequence[Entry | StoredEntry], header: GgufHeader) -> tuple[Entry | StoredEntry, ...]:
    """Return metadata with the general entries and the tokenizer of another file of the same model.

    The entries of the architecture stay, since they describe the tensors that are written. A chat template that the
    other file does not have stays as well.

    Raises:
        CorruptFile: the file changed since its header was read.
    """
    taken = [key for key in header.spans if key.startswith("general.") and key not in _OWN]
    if "tokenizer.ggml.tokens" in header.spans:
        taken += [key for key in header.spans if key.startswith("tokenizer.")]
    replaced = {"tokenizer." if key.startswith("tokenizer.") else "general." for key in taken}
    kept = [
        entry
        for entry in entries
        if entry.key not in taken and (entry.key in (*_OWN, _TEMPLATE) or not entry.key.startswith(tuple(replaced)))
    ]
    return (kept[0], *_stored(header, taken), *kept[1:])


def _stored(header: GgufHeader, keys: Sequence[str]) -> Iterator[StoredEntry]:
    try:
        with header.path.open("rb") as stream:
            for key in keys:
                begin, end = header.spans[key]
                stream.seek(begin)
                raw = stream.read(end - begin)
                if raw[8 : 8 + len(key.encode())] != key.encode() or len(raw) != end - begin:
                    raise CorruptFile(f"{header.label} changed while it was read.", "Start again.")
                yield StoredEntry(key, raw)
    except OSError as error:
        raise CorruptFile(f"{header.path} can no longer be read: {error.strerror}.", "Start again.") from error


def _origin(label: str, folder: Path) -> list[Entry]:
    """Return license, tags and base model of the source; a label that is a Hub id names the base model."""
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


def _sizes(tensors: TensorMap) -> list[Entry]:
    """Return the sizes of the model; keys without the architecture's name."""
    architecture, gguf = tensors.architecture, tensors.rules
    rows = next(item.shape[0] for item in tensors.mapped if item.name == "token_embd.weight")
    blocks = 1 + max(int(item.name.split(".")[1]) for item in tensors.mapped if item.name.startswith("blk."))
    config = {**tensors.config, "num_hidden_layers": blocks, "vocab_size": rows}
    entries = [
        Entry.float(key, config[name]) if key.endswith("epsilon") else Entry.count(key, config[name])
        for key, name in gguf.config_keys.items()
    ]
    if gguf.sliding_window:
        entries += _window(architecture, config, blocks)
    for key in SOFTCAPS:
        cap = config.get(key) if key in architecture.softcaps else None
        if cap or gguf.own_defaults:
            entries.append(Entry.float(key, cap or _NO_CAP))
    return entries


def _window(architecture: Architecture, config: dict[str, Any], blocks: int) -> list[Entry]:
    """Return the sliding window, and the blocks that have it where they are not llama.cpp's default ones."""
    assert architecture.gguf is not None
    window = config.get("sliding_window") or 0
    if not window and architecture.gguf.own_defaults:
        window = config["max_position_embeddings"]
    entries = [Entry.count("attention.sliding_window", window)]
    if not window or not architecture.gguf.applies_window:
        return entries
    slides = sliding_layers(architecture, config | {"sliding_window": window}, blocks)
    if slides != sliding_pattern(architecture.full_attention_every, blocks):
        entries.append(Entry.list_of("attention.sliding_window_pattern", GGUFValueType.BOOL, slides))
    return entries
