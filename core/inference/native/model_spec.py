"""The sizes and settings from which the native program of a model is built, and the check that it can be built.

Architectures come from `core.model.architectures.table`. A model with anything else is refused with one sentence, so
that another runner computes it. Depends on neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from core.model.architectures.config import (
    activation,
    attention_scale,
    head_dim,
    multiplier,
    num_kv_heads,
    sliding_layers,
    softcap,
)  # fmt: skip
from core.model.architectures.rope import rope_types
from core.model.architectures.table import NATIVE, Architecture
from core.model.tree import TOWER, ModelTree

SILU, GELU_TANH, GELU = 0, 1, 2
_ACTIVATIONS: Final = {
    "silu": SILU, "swish": SILU, "gelu_pytorch_tanh": GELU_TANH, "gelu_new": GELU_TANH, "gelu": GELU,
}  # fmt: skip
_ROPE_TYPES: Final = ("default", "linear", "llama3", "yarn", "proportional", "dynamic", "longrope")
"""Kinds of RoPE whose angles one table holds; LongRoPE has one for short texts and one for long ones."""
_HEAD_STEP: Final = 16
"""`head_dim` is a multiple of this."""
_INPUT_STEP: Final = 32
"""The inputs of every matrix product are a multiple of this."""
_MAX_KEY_SIZE: Final = 8192
"""Most components of all keys of a token that the kernels have room for."""


@dataclass(frozen=True)
class BlockSpec:
    """Settings that differ between the blocks of a model.

    Attributes:
        window: number of tokens that attention covers, the current one included; 0 for all.
        rope: name of the RoPE table; None for a block without RoPE.
    """

    window: int
    rope: str | None


@dataclass(frozen=True)
class ModelSpec:
    """Everything that the program of a model is built from, except the weights.

    Attributes:
        architecture: entry of the table.
        hidden_size, intermediate_size, vocab_size: as in the config.
        num_heads, num_kv_heads, head_dim: of attention.
        attention_scale, attention_softcap: applied to the products of queries and keys; 0 for no softcap.
        activation: SILU, GELU_TANH or GELU.
        epsilon: of all norms.
        embedding_scale, residual_scale: factors of the embeddings and of the output of attention and MLP.
        logit_scale, logit_softcap: of the logits; 0 for no softcap.
        short_context: longest text, in tokens, for which the first of two sets of RoPE tables is used (LongRoPE); 0 for
            models with one set.
        blocks: in their order.
    """

    architecture: Architecture
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    attention_scale: float
    attention_softcap: float
    activation: int
    epsilon: float
    embedding_scale: float
    residual_scale: float
    logit_scale: float
    logit_softcap: float
    short_context: int
    blocks: tuple[BlockSpec, ...]

    @property
    def query_size(self) -> int:
        """Components of all queries of a token."""
        return self.num_heads * self.head_dim

    @property
    def key_size(self) -> int:
        """Components of all keys of a token, and of all values."""
        return self.num_kv_heads * self.head_dim


def refusal(config: Mapping[str, Any], tree: ModelTree) -> str:
    """Return why the native program cannot compute a model, as one sentence; "" if it can.

    Args:
        config: of the language model, with all keys (`to_dict()` of a transformers config).
        tree: of the checkpoint, or of the original of a quantized one.
    """
    if config["model_type"] not in NATIVE:
        return f"The native program does not support the architecture {config['model_type']!r}."
    heads, kv_heads, size = config["num_attention_heads"], num_kv_heads(config), head_dim(config)
    if size < _HEAD_STEP or size % _HEAD_STEP or heads % kv_heads or kv_heads * size > _MAX_KEY_SIZE:
        return (
            f"The native program does not support {heads} attention heads of {size} components with {kv_heads} "
            "key-value heads."
        )
    if activation(config) not in _ACTIVATIONS:
        return f"The native program does not support the activation {activation(config)!r}."
    if config.get("use_bidirectional_attention"):
        return "The native program does not support bidirectional attention."
    kinds = rope_types(config)
    if "longrope" in kinds and _short_context(config) < 1:
        return "The native program needs original_max_position_embeddings for RoPE of the type longrope."
    unknown = next((kind for kind in kinds if kind not in _ROPE_TYPES), None)
    if unknown is not None:
        return f"The native program does not support RoPE of the type {unknown!r}."
    of_text = (linear for linear in tree.nameable if linear.block != TOWER)
    odd = next((linear for linear in of_text if linear.in_features % _INPUT_STEP), None)
    if odd is not None:
        return (
            f"The native program does not support {odd.name}: {odd.in_features} inputs are not divisible by "
            f"{_INPUT_STEP}."
        )
    return _tensor_problem(NATIVE[config["model_type"]], tree)


def model_spec(config: Mapping[str, Any]) -> ModelSpec:
    """Return the spec of a model that is not refused; `config` as for `refusal`."""
    architecture = NATIVE[config["model_type"]]
    blocks = config["num_hidden_layers"]
    scaled = architecture.scaled_embedding
    return ModelSpec(
        architecture=architecture,
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        vocab_size=config["vocab_size"],
        num_heads=config["num_attention_heads"],
        num_kv_heads=num_kv_heads(config),
        head_dim=head_dim(config),
        attention_scale=attention_scale(architecture, config),
        attention_softcap=softcap(architecture, config, "attn_logit_softcapping"),
        activation=_ACTIVATIONS[str(activation(config))],
        epsilon=float(config["rms_norm_eps"]),
        embedding_scale=config["hidden_size"] ** 0.5
        if scaled
        else multiplier(architecture, config, "embedding_multiplier"),
        residual_scale=multiplier(architecture, config, "residual_multiplier"),
        logit_scale=1.0 / multiplier(architecture, config, "logits_scaling"),
        logit_softcap=softcap(architecture, config, "final_logit_softcapping"),
        short_context=_short_context(config),
        blocks=tuple(
            BlockSpec(config["sliding_window"] if slides else 0, _rope_table(architecture, config, number))
            for number, slides in enumerate(sliding_layers(architecture, config, blocks))
        ),
    )


def linears(architecture: Architecture) -> tuple[str, ...]:
    """Return the names of the linear layers of a block."""
    return tuple(module for module, name in architecture.block_tensors.items() if not name.endswith("norm"))


def norms(architecture: Architecture) -> tuple[str, ...]:
    """Return the names of the norms of a block."""
    return tuple(module for module, name in architecture.block_tensors.items() if name.endswith("norm"))


def _rope_table(architecture: Architecture, config: Mapping[str, Any], block: int) -> str | None:
    without = config.get("no_rope_layers")
    if without and not without[block]:
        return None
    return str(config["layer_types"][block]) if architecture.rope_per_layer_type else ""


def _short_context(config: Mapping[str, Any]) -> int:
    if "longrope" not in rope_types(config):
        return 0
    return int(config["rope_parameters"].get("original_max_position_embeddings") or 0)


def _tensor_problem(architecture: Architecture, tree: ModelTree) -> str:
    """Return one sentence about a tensor of the blocks that the program would ignore, or needs and is missing."""
    needed = {f"{name}.weight" for name in architecture.block_tensors}
    known = needed | {f"{name}.bias" for name in linears(architecture)}
    for block in range(tree.blocks):
        start = f"{tree.prefix}.{block}."
        found = {name.removeprefix(start) for name in tree.block_tensors(block) if not name.endswith(".inv_freq")}
        if found - known:
            return f"The native program does not support the tensor {start}{min(found - known)}."
        if needed - found:
            return f"The checkpoint has no {start}{min(needed - found)}, which the native program needs."
    return ""
