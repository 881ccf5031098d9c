"""The tensors of a GGUF file that is written: names, order of rows and shifts of the checkpoint's tensors, and back.

llama.cpp's loader requires an exact set of tensors (its src/models/*.cpp), so a tensor without a name in the file is
refused. Works on names, shapes and the config; types and bytes are in `core.formats.gguf.export`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor

from core.errors import UnsupportedModel
from core.formats.gguf.file import Entry
from core.formats.gguf.rope import rope_entries
from core.model.architectures.config import activation, complete, gguf_query_scalar, sliding_layers
from core.model.architectures.rope import interleaved_rows
from core.model.architectures.table import (
    SOFTCAPS,
    WRITTEN_TO_GGUF,
    Architecture,
    GgufRules,
    gguf_refusal,
    heads_key,
    shift_of,
)
from core.model.towers import text_config, tower_of
from core.model.tree import ModelTree

_HINT: Final = "Choose another format, such as auto_round."
_BUFFERS: Final = (".inv_freq", ".masked_bias")
_BLOCK: Final = re.compile(r"blk\.(\d+)\..+\.(weight|bias)")


@dataclass(frozen=True)
class MappedTensor:
    """One tensor of a checkpoint and its place in a GGUF file.

    Attributes:
        source: its name in the checkpoint.
        linear: the linear layer whose weight it is, as in a bits map; "" for norms and biases. The embedding has its
            own name, and an output matrix made from a tied embedding that of the head.
        name: in the file.
        shape: rows first, the same in both.
        heads: number of heads whose rows are interleaved in the file; 0 for rows in their own order.
        shift: what the file's values exceed the checkpoint's by.
    """

    source: str
    linear: str
    name: str
    shape: tuple[int, ...]
    heads: int = 0
    shift: float = 0.0

    @property
    def is_matrix(self) -> bool:
        """True if the file may have it in any type; all others are 32-bit floats."""
        return len(self.shape) == 2

    @cached_property
    def order(self) -> Tensor | None:
        """int64 [rows]: row i of the file is row order[i] of the checkpoint; None where they are the same."""
        if not self.heads:
            return None
        return torch.from_numpy(interleaved_rows(self.shape[0], self.heads))

    @cached_property
    def back(self) -> Tensor | None:
        """int64 [rows]: row i of the checkpoint is row back[i] of the file; None where they are the same."""
        return None if self.order is None else torch.argsort(self.order)

    def store(self, value: Tensor) -> Tensor:
        """Return the file's values: rows in the file's order; float32 if the values are shifted."""
        value = value if self.order is None else value[self.order]
        return value.float() + self.shift if self.shift else value

    def restore(self, value: Tensor) -> Tensor:
        """Return the checkpoint's values: the inverse of `store`.

        Exact unless the shift has lost low bits: 1 + a norm weight in float32 loses what lies below 2^-23, so a
        bfloat16 smaller than 2^-16 may come back changed.
        """
        value = value.float() - self.shift if self.shift else value
        return value if self.back is None else value[self.back]


@dataclass(frozen=True)
class TensorMap:
    """All tensors of a file.

    Attributes:
        architecture: of the model; it has GGUF rules.
        config: of the language model, complete.
        mapped: tensors that the checkpoint has, in the order of the file.
        computed: tensors that follow from the config, by name: float32 [n], such as Llama 3's RoPE divisors.
        rope: metadata of RoPE, keys without the architecture's name.
        left_out: tensors of the checkpoint that the file does not need.
        notes: for the user, one sentence each.
    """

    architecture: Architecture
    config: dict[str, Any]
    mapped: tuple[MappedTensor, ...]
    computed: dict[str, tuple[float, ...]]
    rope: tuple[Entry, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def rules(self) -> GgufRules:
        """The conventions of llama.cpp for the architecture."""
        return rules_of(self.architecture)


def written_architecture(config: Mapping[str, Any]) -> Architecture:
    """Return the architecture that a config's model is written as.

    Raises:
        UnsupportedModel: no GGUF files are written for it.
    """
    model_type = str(text_config(config).get("model_type"))
    refusal = gguf_refusal(model_type)
    if refusal:
        raise UnsupportedModel(refusal, _HINT)
    return WRITTEN_TO_GGUF[model_type]


def rules_of(architecture: Architecture) -> GgufRules:
    """Return the GGUF rules of an architecture that is read or written."""
    assert architecture.gguf is not None
    return architecture.gguf


def map_tensors(tree: ModelTree, *, separate_head: bool = False) -> TensorMap:
    """Return the place in the file of each tensor of a checkpoint.

    Args:
        tree: of the checkpoint.
        separate_head: a tied model gets an output matrix besides the embedding, with the same values.

    Raises:
        UnsupportedModel: an architecture, or a detail of one, that GGUF files cannot hold.
    """
    architecture = written_architecture(tree.config)
    config = complete(architecture, text_config(tree.config))
    _check(architecture, config)
    rope = rope_entries(architecture, config)
    base = tree.prefix.rpartition(".")[0]
    mapped: list[MappedTensor] = []
    left_out = []
    for source, info in tree.tensors.items():
        if source.endswith(_BUFFERS) or tower_of(tree.towers, source) is not None:
            left_out.append(source)
            continue
        name = architecture.gguf_name(source, base, tree.lm_head or "lm_head")
        if not _is_written(rules_of(architecture), name):
            raise UnsupportedModel(
                f"GGUF files of the architecture {rules_of(architecture).name} have no place for {source[:80]!r}.",
                _HINT,
            )
        mapped.append(_mapped(architecture, config, source, name, info.shape))
    if tree.tied and separate_head:
        mapped.append(_separate_head(rules_of(architecture), tree))
    mapped.sort(key=_position)
    _check_shapes(architecture, config, mapped, tree.blocks)
    notes = (*rope.notes, *_notes(architecture, config, tree.blocks), *_left(tree, left_out))
    return TensorMap(architecture, config, tuple(mapped), rope.tensors, rope.entries, tuple(left_out), notes)


def _is_written(gguf: GgufRules, name: str) -> bool:
    return bool(name) and (name.endswith(".weight") or name.split(".")[-2] in gguf.biased)


def _mapped(
    architecture: Architecture, config: dict[str, Any], source: str, name: str, shape: tuple[int, ...]
) -> MappedTensor:
    key = heads_key(rules_of(architecture), name)
    heads = config[key] if key else 0
    if key and (not heads or shape[0] % (2 * heads)):
        raise UnsupportedModel(f"The rows of {source} are not those of {heads} heads.", _HINT)
    linear = source.removesuffix(".weight") if len(shape) == 2 and source.endswith(".weight") else ""
    return MappedTensor(source, linear, name, tuple(shape), heads, shift_of(architecture, name))


def _separate_head(gguf: GgufRules, tree: ModelTree) -> MappedTensor:
    head = tree.tied_head
    if not gguf.separate_head or head is None:
        raise UnsupportedModel(
            f"In GGUF files of the architecture {gguf.name} the head is always the embedding.",
            f"Remove {tree.tied_head.name if tree.tied_head else 'lm_head'} from the bits map.",
        )
    return MappedTensor(tree.weight_of(head), head.name, "output.weight", (head.out_features, head.in_features))


def _position(tensor: MappedTensor) -> tuple[int, int]:
    """Return the sort key of a tensor in the file: embedding, blocks, the rest."""
    found = _BLOCK.fullmatch(tensor.name)
    if found:
        return 1, int(found[1])
    return (0, 0) if tensor.name.startswith("token_embd") else (2, 0)


def _check(architecture: Architecture, config: dict[str, Any]) -> None:
    """Refuse settings that llama.cpp would compute differently."""
    for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim"):
        if type(config.get(key)) is not int or config[key] < 1:
            raise UnsupportedModel(f"The config does not give {key}.", "Fetch config.json again.")
    gguf = rules_of(architecture)
    function = activation(config) or architecture.activations[0]
    if function not in architecture.activations:
        raise UnsupportedModel(
            f"The model has the activation {str(function)[:40]!r}, which llama.cpp does not compute for {gguf.name}.",
            _HINT,
        )
    query_size, hidden_size = config["num_attention_heads"] * config["head_dim"], config["hidden_size"]
    if not architecture.has_head_dim and query_size != hidden_size:
        raise UnsupportedModel(
            f"In llama.cpp, heads times head_dim of {gguf.name} must equal hidden_size; here they are {query_size} "
            f"and {hidden_size}.",
            _HINT,
        )
    if config.get("use_bidirectional_attention"):
        raise UnsupportedModel("The model attends in both directions, which is not written.", _HINT)
    if architecture.query_pre_attn_scalar:
        scalar = gguf_query_scalar(architecture, config, config.get("num_hidden_layers"))
        if config["query_pre_attn_scalar"] != scalar:
            raise UnsupportedModel(
                f"The model scales its attention by {config['query_pre_attn_scalar']}, and llama.cpp would by "
                f"{scalar}.",
                _HINT,
            )
    ignored = set(SOFTCAPS) - set(architecture.softcaps) if architecture.softcaps else set()
    if any(config.get(key) for key in ignored):
        raise UnsupportedModel(f"The model caps its attention, which llama.cpp does not do for {gguf.name}.", _HINT)


def _check_shapes(architecture: Architecture, config: dict[str, Any], mapped: list[MappedTensor], blocks: int) -> None:
    """Check the shapes of the linear layers against the config, and that every block is complete."""
    names = {tensor.name: tensor for tensor in mapped}
    hidden_size, intermediate_size = config["hidden_size"], config["intermediate_size"]
    query_size = config["num_attention_heads"] * config["head_dim"]
    key_size = config["num_key_value_heads"] * config["head_dim"]
    fused = "ffn_gate" not in architecture.modules
    expected = {
        "attn_q": (query_size, hidden_size),
        "attn_k": (key_size, hidden_size),
        "attn_v": (key_size, hidden_size),
        "attn_qkv": (query_size + 2 * key_size, hidden_size),
        "attn_output": (hidden_size, query_size),
        "ffn_gate": (intermediate_size, hidden_size),
        "ffn_up": (2 * intermediate_size if fused else intermediate_size, hidden_size),
        "ffn_down": (hidden_size, intermediate_size),
    }
    wanted = [f"blk.{block}.{part}.weight" for block in range(blocks) for part in architecture.modules]
    for name in ("token_embd.weight", "output_norm.weight", *wanted):
        if name not in names:
            raise UnsupportedModel(
                f"The checkpoint has no tensor for {name} of a GGUF file.",
                "Fetch the model again, or choose another.",
            )
        shape = expected.get(name.split(".")[-2])
        if shape is not None and names[name].shape != shape:
            raise UnsupportedModel(
                f"{names[name].source} has the shape {list(names[name].shape)} and the config gives {list(shape)}.",
                "Fetch config.json again.",
            )


def _left(tree: ModelTree, left_out: list[str]) -> list[str]:
    counts = Counter(tower.kind for name in left_out if (tower := tower_of(tree.towers, name)) is not None)
    further, others = counts.pop("mtp", 0), counts.total()
    notes = []
    if further:
        notes.append(f"{further} tensors that predict further tokens (MTP) have no place in the file and are left out.")
    if others:
        notes.append(
            f"{others} tensors of towers and projectors are left out, so the file holds the language model alone. "
            "llama.cpp reads them from a separate file (mmproj)."
        )
    return notes


def _notes(architecture: Architecture, config: dict[str, Any], blocks: int) -> list[str]:
    window = config.get("sliding_window")
    if rules_of(architecture).applies_window or not any(sliding_layers(architecture, config, blocks)):
        return []
    if window >= config["max_position_embeddings"]:
        return []
    last = f"The model attends to the last {window} tokens and llama.cpp to all of them"
    return [f"{last}: longer texts may give other results."]
