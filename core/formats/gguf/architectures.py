"""Where the tensors of a checkpoint go in a GGUF file: names, order of rows, what is added to them, and back again.

The facts are those of llama.cpp's converter and loader (its conversion/*.py and src/models/*.cpp): a file must have
exactly the tensors that the loader asks for, so what has no place here is refused. Knows names and shapes of tensors
and the config, not the types that they are stored in; bytes and tokenizers are other modules' work.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor

from core.errors import UnsupportedModel
from core.formats.gguf import rotary
from core.formats.gguf.families import Family, family_of, full_config
from core.formats.gguf.file import Entry
from core.model.tree import ModelTree

_HINT: Final = "Choose another format, such as auto_round."
_BUFFERS: Final = (".inv_freq", ".masked_bias")
_BLOCK: Final = re.compile(r"blk\.(\d+)\.(.+)\.(weight|bias)")


@dataclass(frozen=True)
class Placed:
    """One tensor of a checkpoint and its place in a GGUF file.

    Attributes:
        source: its name in the checkpoint.
        linear: the linear layer whose weight it is, as a bits map names it; "" for norms and biases. The embedding has
            its own name, and a head made out of a tied embedding that of the head.
        name: in the file.
        shape: rows first, the same in both.
        heads: the rows are that many heads, each with its halves interleaved in the file; 0 for rows as they are.
        shift: what the file's values have more than the checkpoint's.
    """

    source: str
    linear: str
    name: str
    shape: tuple[int, ...]
    heads: int = 0
    shift: float = 0.0

    @property
    def is_matrix(self) -> bool:
        """Whether the file may hold it in any type; everything else is 32-bit floats."""
        return len(self.shape) == 2

    @cached_property
    def order(self) -> Tensor | None:
        """int64 [rows]: row i of the file is row order[i] of the checkpoint; None where they are the same."""
        if not self.heads:
            return None
        return torch.arange(self.shape[0]).reshape(self.heads, 2, -1).transpose(1, 2).reshape(-1)

    @cached_property
    def back(self) -> Tensor | None:
        """int64 [rows]: row i of the checkpoint is row back[i] of the file; None where they are the same."""
        return None if self.order is None else torch.argsort(self.order)

    def store(self, value: Tensor) -> Tensor:
        """The file's values of the checkpoint's: rows in the file's order; float32 where something is added."""
        value = value if self.order is None else value[self.order]
        return value.float() + self.shift if self.shift else value

    def restore(self, value: Tensor) -> Tensor:
        """The checkpoint's values of the file's: the inverse of `store`.

        Exact for what `store` could hold: in float32, one more than a norm loses what lies below 2^-23, so that a
        bfloat16 smaller than 2^-16 may not come back.
        """
        value = value.float() - self.shift if self.shift else value
        return value if self.back is None else value[self.back]


@dataclass(frozen=True)
class Layout:
    """All tensors of a file.

    Attributes:
        family: the architecture.
        config: the language model's config with the family's defaults filled in.
        placed: tensors that the checkpoint has, in the order of the file.
        computed: tensors that follow from the config, by name: float32 [n], such as Llama 3's rotary factors.
        rope: metadata about rotary positions, keys without the architecture's name.
        left_out: the checkpoint's tensors that the file has no place for and does not need.
        notes: what a user should know, one sentence each.
    """

    family: Family
    config: dict[str, Any]
    placed: tuple[Placed, ...]
    computed: dict[str, tuple[float, ...]]
    rope: tuple[Entry, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def describe(tree: ModelTree, *, own_head: bool = False) -> Layout:
    """Every tensor of a model's checkpoint, and where it goes.

    Args:
        tree: of the checkpoint.
        own_head: a tied model gets an output matrix besides the embedding, made out of the same values.

    Raises:
        UnsupportedModel: an architecture, or a detail of one, that llama.cpp has no place for.
    """
    family = family_of(tree.config)
    config = full_config(tree.config)
    _check(family, config)
    positions = rotary.rotary(family.name, config)
    outer = tree.prefix.rpartition(".")[0]
    placed: list[Placed] = []
    left_out = []
    for source, info in tree.tensors.items():
        if source.endswith(_BUFFERS) or _predicts_further(tree, source):
            left_out.append(source)
            continue
        name = file_name(family, source, outer, tree.lm_head or "lm_head")
        if not name:
            raise UnsupportedModel(
                f"GGUF files of the architecture {family.name} have no place for {source[:80]!r}.", _HINT
            )
        placed.append(_placed(family, config, source, name, info.shape))
    if tree.tied and own_head:
        placed.append(_own_head(family, tree))
    placed.sort(key=_position)
    _check_shapes(family, config, placed, tree.blocks)
    return Layout(
        family, config, tuple(placed), positions.tensors, positions.entries, tuple(left_out),
        (*positions.notes, *_notes(family, config), *_left(tree, left_out)),
    )  # fmt: skip


def _predicts_further(tree: ModelTree, source: str) -> bool:
    """Whether a tensor belongs to a head for further tokens (MTP), without which the model is whole."""
    if "mtp" in source.split("."):
        return True
    number = source.removeprefix(f"{tree.prefix}.").partition(".")[0]
    return source.startswith(f"{tree.prefix}.") and number.isdecimal() and int(number) >= tree.blocks


def file_name(family: Family, source: str, outer: str = "model", head: str = "lm_head") -> str:
    """A tensor's name in the file, or "" if it has no place there.

    Args:
        source: its name in the checkpoint.
        outer: the module that holds embedding, blocks and last norm; "" if they are at the top.
        head: name of the output head.
    """
    start = f"{outer}." if outer else ""
    fixed = {
        f"{start}embed_tokens.weight": "token_embd.weight",
        f"{start}norm.weight": "output_norm.weight",
        f"{head}.weight": "output.weight" if family.own_head else "",
    }
    if source in fixed:
        return fixed[source]
    found = re.fullmatch(re.escape(start) + r"layers\.(\d+)\.(.+)\.(weight|bias)", source)
    part = family.parts.get(found[2]) if found else None
    if not found or not part or (found[3] == "bias" and part not in family.biased):
        return ""
    return f"blk.{found[1]}.{part}.{found[3]}"


def origin(config: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> Placed | None:
    """The place of a tensor of a file, looked up from the file's side; None for one that no checkpoint has.

    Args:
        config: of the model; checkpoints are taken to have `model.` before all but the head.
        name: in the file.
        shape: rows first.

    Raises:
        UnsupportedModel: an architecture that is not written.
    """
    family = family_of(config)
    fixed = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    }
    source = fixed.get(name)
    found = _BLOCK.fullmatch(name)
    if found:
        names = {part: inside for inside, part in family.parts.items()}
        source = f"model.layers.{found[1]}.{names[found[2]]}.{found[3]}" if found[2] in names else None
    return None if source is None else _placed(family, full_config(config), source, name, shape)


def _placed(family: Family, config: dict[str, Any], source: str, name: str, shape: tuple[int, ...]) -> Placed:
    part = name.split(".")[-2]
    heads = 0
    if family.paired and part in ("attn_q", "attn_k"):
        heads = config["num_attention_heads" if part == "attn_q" else "num_key_value_heads"]
        if not heads or shape[0] % (2 * heads):
            raise UnsupportedModel(f"The rows of {source} are not those of {heads} heads.", _HINT)
    shift = 1.0 if family.shifted and part.endswith("norm") else 0.0
    linear = source.removesuffix(".weight") if len(shape) == 2 and source.endswith(".weight") else ""
    return Placed(source, linear, name, tuple(shape), heads, shift)


def _own_head(family: Family, tree: ModelTree) -> Placed:
    head = tree.tied_head
    if not family.own_head or head is None:
        raise UnsupportedModel(
            f"In GGUF files of the architecture {family.name} the head is always the embedding.",
            f"Remove {tree.tied_head.name if tree.tied_head else 'lm_head'} from the bits map.",
        )
    return Placed(tree.weight_of(head), head.name, "output.weight", (head.out_features, head.in_features))


def _position(placed: Placed) -> tuple[int, int]:
    """Where a tensor stands in the file: as they are read when the model runs."""
    found = _BLOCK.fullmatch(placed.name)
    if found:
        return 1, int(found[1])
    return (0, 0) if placed.name.startswith("token_embd") else (2, 0)


def _check(family: Family, config: dict[str, Any]) -> None:
    """Refuse what llama.cpp would compute otherwise."""
    for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim"):
        if type(config.get(key)) is not int or config[key] < 1:
            raise UnsupportedModel(f"The config does not say what {key} is.", "Fetch config.json again.")
    activation = config.get("hidden_activation") or config.get("hidden_act") or family.activations[0]
    if activation not in family.activations:
        raise UnsupportedModel(
            f"The model has the activation {str(activation)[:40]!r}, which llama.cpp does not compute for "
            f"{family.name}.",
            _HINT,
        )
    heads, size, width = config["num_attention_heads"], config["head_dim"], config["hidden_size"]
    if family.name in ("qwen2", "phi3") and heads * size != width:
        raise UnsupportedModel(
            f"The attention of {family.name} must be as wide as the model in llama.cpp; here it is {heads * size} and "
            f"{width}.",
            _HINT,
        )
    if config.get("use_bidirectional_attention"):
        raise UnsupportedModel("The model attends in both directions, which is not written.", _HINT)
    if family.name in ("gemma2", "gemma3"):
        _check_scale(family.name, config)
    if family.name == "gemma3" and config.get("attn_logit_softcapping"):
        raise UnsupportedModel("The model caps its attention, which llama.cpp does not do for gemma3.", _HINT)


def _check_scale(name: str, config: dict[str, Any]) -> None:
    """No key says how attention is scaled: llama.cpp takes the head size, but for the largest model the width."""
    largest = {"gemma2": 46, "gemma3": 62}[name]
    size = config["head_dim"]
    if config.get("num_hidden_layers") == largest:
        size = config["hidden_size"] // config["num_attention_heads"]
    if config["query_pre_attn_scalar"] != size:
        raise UnsupportedModel(
            f"The model scales its attention by {config['query_pre_attn_scalar']}, and llama.cpp would by {size}.",
            _HINT,
        )


def _check_shapes(family: Family, config: dict[str, Any], placed: list[Placed], blocks: int) -> None:
    """Hold the attention's shapes against the config, and see that every block is whole."""
    names = {item.name: item for item in placed}
    width, query = config["hidden_size"], config["num_attention_heads"] * config["head_dim"]
    value, inner = config["num_key_value_heads"] * config["head_dim"], config["intermediate_size"]
    expected = {
        "attn_q": (query, width), "attn_k": (value, width), "attn_v": (value, width), "attn_output": (width, query),
        "attn_qkv": (query + 2 * value, width), "ffn_gate": (inner, width), "ffn_down": (width, inner),
        "ffn_up": (2 * inner if "mlp.gate_up_proj" in family.parts else inner, width),
    }  # fmt: skip
    wanted = [f"blk.{block}.{part}.weight" for block in range(blocks) for part in family.parts.values()]
    for name in ("token_embd.weight", "output_norm.weight", *wanted):
        if name not in names:
            raise UnsupportedModel(
                f"The checkpoint lacks what a GGUF file has as {name}.", "Fetch the model again, or choose another."
            )
        shape = expected.get(name.split(".")[-2])
        if shape is not None and names[name].shape != shape:
            raise UnsupportedModel(
                f"{names[name].source} has the shape {list(names[name].shape)} where the config says {list(shape)}.",
                "Fetch config.json again.",
            )


def _left(tree: ModelTree, left_out: list[str]) -> list[str]:
    further = [name for name in left_out if _predicts_further(tree, name)]
    if not further:
        return []
    return [f"{len(further)} tensors that predict further tokens (MTP) have no place in the file and are left out."]


def _notes(family: Family, config: dict[str, Any]) -> list[str]:
    window = config.get("sliding_window")
    used = config.get("use_sliding_window", family.name != "qwen2" and family.name != "qwen3")
    if family.name not in ("llama", "phi3", "qwen2", "qwen3") or not window or not used:
        return []
    if window >= config["max_position_embeddings"]:
        return []
    return [f"llama.cpp attends to everything where this model looks back {window} tokens: beyond them it may differ."]
