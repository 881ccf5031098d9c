"""Which architectures the native program computes, and what it has to know of each: plain numbers and names.

Everything here is read from a transformers config and the names of a checkpoint's tensors. A model with anything that
is not listed gets one sentence instead, and other runners take it. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from core.model.tree import ModelTree

SILU, GELU_TANH, GELU = 0, 1, 2
_FUNCTIONS: Final = {
    "silu": SILU, "swish": SILU, "gelu_pytorch_tanh": GELU_TANH, "gelu_new": GELU_TANH, "gelu": GELU,
}  # fmt: skip
_ROTATIONS: Final = ("default", "linear", "llama3", "yarn", "proportional", "dynamic", "longrope")
"""Rotary positions whose angles one table holds, of longrope one for short texts and one for long ones."""
_TILE: Final = 16
_STEP: Final = 32
"""What the inputs of every product are a multiple of."""
_MOST_KEYS: Final = 8192
"""Width of all keys of a token that the kernels have room for."""


@dataclass(frozen=True)
class _Family:
    """How the blocks of some model types differ from Llama's.

    Attributes:
        before_attention, after_attention, before_mlp, after_mlp: names of the norms; "" where there is none. Those
            after are of what is added, those before of what is read.
        fused: queries, keys and values are one layer, gates and ups another (Phi-3).
        head_norms: queries and keys are normed before they are turned.
        whole_norms: that over all heads at once (OLMo 2).
        norm_offset: what norms add to their weights (Gemma stores them around 0).
        scaled_embedding: embeddings are multiplied by the root of their width (Gemma).
        query_scalar: the scores are scaled by `query_pre_attn_scalar`, not by the size of a head.
        windows: `sliding_window` counts; the others may have the key and do not use it.
    """

    before_attention: str = "input_layernorm"
    after_attention: str = ""
    before_mlp: str = "post_attention_layernorm"
    after_mlp: str = ""
    fused: bool = False
    head_norms: bool = False
    whole_norms: bool = False
    norm_offset: float = 0.0
    scaled_embedding: bool = False
    query_scalar: bool = False
    windows: bool = False


_LLAMA: Final = _Family()
_GEMMA2: Final = _Family(
    after_attention="post_attention_layernorm",
    before_mlp="pre_feedforward_layernorm",
    after_mlp="post_feedforward_layernorm",
    norm_offset=1.0,
    scaled_embedding=True,
    query_scalar=True,
    windows=True,
)
_GEMMA3: Final = replace(_GEMMA2, head_norms=True)
_OLMO2: Final = _Family(
    before_attention="",
    after_attention="post_attention_layernorm",
    before_mlp="",
    after_mlp="post_feedforward_layernorm",
    head_norms=True,
    whole_norms=True,
)
FAMILIES: Final = {
    "llama": _LLAMA,
    "granite": _LLAMA,
    "mistral": _Family(windows=True),
    "qwen2": _Family(windows=True),
    "smollm3": _Family(windows=True),
    "qwen3": _Family(head_norms=True, windows=True),
    "phi3": _Family(fused=True, windows=True),
    "gemma": _Family(norm_offset=1.0, scaled_embedding=True),
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA3,
    "olmo2": _OLMO2,
}


@dataclass(frozen=True)
class Block:
    """What blocks of one model may differ in.

    Attributes:
        window: tokens that attention sees, the own one included; 0 for all.
        rotation: name of the table that turns queries and keys; None where they are not turned.
    """

    window: int
    rotation: str | None


@dataclass(frozen=True)
class Design:
    """All that the program of a model is built from, but the weights.

    Attributes:
        family: names of the norms and the like.
        width, inner, vocabulary: of the hidden states, of the gates, of the logits.
        heads, groups, head: query heads, key-value heads, width of one.
        score_scale, score_cap: of the products of queries and keys; a cap of 0 is none.
        function: SILU, GELU_TANH or GELU, of the gates.
        epsilon: of all norms.
        embedding_scale, residual_scale: of the embeddings, of what a block adds.
        logit_scale, logit_cap: of the logits; a cap of 0 is none.
        short: tokens of a text up to which the short one of two tables of rotations holds (longrope); 0 where there is
            only one.
        blocks: in their order.
    """

    family: _Family
    width: int
    inner: int
    vocabulary: int
    heads: int
    groups: int
    head: int
    score_scale: float
    score_cap: float
    function: int
    epsilon: float
    embedding_scale: float
    residual_scale: float
    logit_scale: float
    logit_cap: float
    short: int
    blocks: tuple[Block, ...]


def refusal(config: Any, tree: ModelTree) -> str:
    """Why the native program cannot compute this model, as one sentence; "" where it can.

    Args:
        config: the transformers config of the language model (`get_text_config()` of a nested one).
        tree: of the checkpoint, or of the original of a quantized one.
    """
    if config.model_type not in FAMILIES:
        return f"The native program does not know the architecture {config.model_type!r}."
    heads, head = config.num_attention_heads, _head(config)
    groups = getattr(config, "num_key_value_heads", None) or heads
    if head < _TILE or head % _TILE or heads % groups or groups * head > _MOST_KEYS:
        return f"The native program does not take {heads} heads of width {head} over {groups} of keys."
    if _function(config) is None:
        return f"The native program does not know the activation {_activation(config)!r}."
    if getattr(config, "use_bidirectional_attention", None):
        return "The native program does not know attention in both directions."
    if "longrope" in _rotation_kinds(config) and _short(config) < 1:
        return "The native program needs original_max_position_embeddings of longrope positions."
    odd = next((kind for kind in _rotation_kinds(config) if kind not in _ROTATIONS), None)
    if odd is not None:
        return f"The native program does not know rotary positions of the kind {odd!r}."
    narrow = next((linear for linear in tree.nameable if linear.in_features % _STEP), None)
    if narrow is not None:
        return (
            f"The native program does not take {narrow.name}: {narrow.in_features} inputs are not divisible by {_STEP}."
        )
    return _odd_tensors(FAMILIES[config.model_type], tree)


def design(config: Any) -> Design:
    """The design of a model that `refusal` says nothing against."""
    family = FAMILIES[config.model_type]
    heads, head = config.num_attention_heads, _head(config)
    scale = float(head) ** -0.5
    if family.query_scalar:
        scale = float(config.query_pre_attn_scalar) ** -0.5
    if config.model_type == "granite":
        scale = float(config.attention_multiplier)
    function = _function(config)
    assert function is not None
    return Design(
        family=family,
        width=config.hidden_size,
        inner=config.intermediate_size,
        vocabulary=config.vocab_size,
        heads=heads,
        groups=getattr(config, "num_key_value_heads", None) or heads,
        head=head,
        score_scale=scale,
        # Gemma 3 has the key in its config and does not use it.
        score_cap=float(getattr(config, "attn_logit_softcapping", None) or 0) if config.model_type == "gemma2" else 0.0,
        function=function,
        epsilon=float(config.rms_norm_eps),
        embedding_scale=config.hidden_size**0.5
        if family.scaled_embedding
        else _of(config, "embedding_multiplier", "granite", 1.0),
        residual_scale=_of(config, "residual_multiplier", "granite", 1.0),
        logit_scale=1.0 / _of(config, "logits_scaling", "granite", 1.0),
        logit_cap=_of(config, "final_logit_softcapping", ("gemma2", "gemma3"), 0.0),
        short=_short(config),
        blocks=tuple(_block(config, number) for number in range(config.num_hidden_layers)),
    )


def linears(family: _Family) -> tuple[str, ...]:
    """Names of the linear layers of a block."""
    if family.fused:
        return ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
    attention = tuple(f"self_attn.{letter}_proj" for letter in "qkvo")
    return (*attention, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


def norms(family: _Family) -> tuple[str, ...]:
    """Names of the norms of a block."""
    names = (family.before_attention, family.after_attention, family.before_mlp, family.after_mlp)
    heads = ("self_attn.q_norm", "self_attn.k_norm") if family.head_norms else ()
    return (*(name for name in names if name), *heads)


def _block(config: Any, number: int) -> Block:
    types = getattr(config, "layer_types", None)
    kind = types[number] if types else None
    window = getattr(config, "sliding_window", None) or 0 if FAMILIES[config.model_type].windows else 0
    if kind is not None and kind != "sliding_attention":
        window = 0
    by_kind = config.model_type == "gemma3_text"
    turned = bool(config.no_rope_layers[number]) if getattr(config, "no_rope_layers", None) else True
    return Block(window, (str(kind) if by_kind else "") if turned else None)


def _of(config: Any, key: str, family: str | tuple[str, ...], usual: float) -> float:
    """Return a factor that one family has; others may have the key in their config, and transformers ignores it."""
    value = getattr(config, key, None) if str(config.model_type).startswith(family) else None
    return float(value) if value else usual


def _head(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _activation(config: Any) -> str:
    return str(getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", None))


def _function(config: Any) -> int | None:
    return _FUNCTIONS.get(_activation(config))


def _short(config: Any) -> int:
    if "longrope" not in _rotation_kinds(config):
        return 0
    return int(config.rope_parameters.get("original_max_position_embeddings") or 0)


def _rotation_kinds(config: Any) -> list[str]:
    """The rope types of a config, which has one or one for each kind of layer."""
    values = getattr(config, "rope_parameters", None) or {}
    if "rope_type" in values:
        return [str(values["rope_type"])]
    return [str(part.get("rope_type")) for part in values.values() if isinstance(part, dict)]


def _odd_tensors(family: _Family, tree: ModelTree) -> str:
    """What the blocks of a checkpoint have that the program would leave out, or lack that it needs."""
    needed = {f"{name}.weight" for name in (*linears(family), *norms(family))}
    known = needed | {f"{name}.bias" for name in linears(family)}
    for block in range(tree.blocks):
        start = f"{tree.prefix}.{block}."
        found = {name.removeprefix(start) for name in tree.block_tensors(block) if not name.endswith(".inv_freq")}
        if found - known:
            return f"The native program does not know what {start}{min(found - known)} is for."
        if needed - found:
            return f"The checkpoint has no {start}{min(needed - found)}, which the native program needs."
    return ""
