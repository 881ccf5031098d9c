"""Size of the cache of a conversation: keys and values of attention, and states of recurrent layers.

Which blocks have attention is read from the config (`layer_types` and similar lists), or from the names of their
tensors. Imports no torch.
"""

from __future__ import annotations

from typing import Any, Final

from core.model.towers import text_config
from core.model.tree import ModelTree

_KINDS: Final = ("layer_types", "layers_block_type")
"""Config keys of lists with the kind of each block."""
_KEY_LAYERS: Final = frozenset({
    "k_proj", "key", "key_proj", "wk", "Wk", "Wqkv", "qkv_proj", "gqkv_proj", "query_key_value", "c_attn", "wkv",
    "kv_proj", "kv_a_proj_with_mqa", "kv_b_proj", "k_lin", "project_k", "wk_dv",
})  # fmt: skip
"""Last part of the names of layers that compute keys."""
_STATES: Final = (
    ("linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim"),
    ("mamba_n_heads", "mamba_d_head", "mamba_d_state"),
    ("mamba_num_heads", "mamba_head_dim", "ssm_state_size"),
    ("num_heads", "head_dim", "state_size"),
    ("intermediate_size", "state_size"),
)
"""Config keys whose product is the size of the state of a recurrent layer: Gated DeltaNet, Mamba 2, Mamba."""


def cache_bytes(tree: ModelTree, tokens: int) -> int:
    """Return the bytes of the cache of a conversation.

    Keys and values take 2 bytes per channel, token and block with attention; in blocks with a sliding window only the
    tokens of the window count, and blocks that use the keys of earlier blocks have none. Of multi-head latent
    attention (DeepSeek), the latent vector and the rotary key are stored. States of recurrent layers take 4 bytes per
    number.
    """
    kept = sum(min(tokens, limit) for limit in _limits(tree, tokens))
    return 2 * kept * _numbers_per_token(tree) + 4 * _recurrent_blocks(tree) * _state_size(tree)


def _limits(tree: ModelTree, tokens: int) -> list[int]:
    """Return for each block the largest number of tokens whose keys it stores."""
    text = text_config(tree.config)
    kinds: Any = next((text[key] for key in _KINDS if isinstance(text.get(key), list)), None)
    if kinds is not None and len(kinds) == tree.blocks and all(isinstance(kind, str) for kind in kinds):
        window = _number(tree, "sliding_window", "attention_chunk_size") or tokens
        limits = [_limit(kind, tokens, window) for kind in kinds]
    else:
        limits = [tokens if _has_attention(tree, block) else 0 for block in range(tree.blocks)]
        if not any(limits) and not _recurrent_blocks(tree):
            limits = [tokens] * tree.blocks
    shared = _number(tree, "num_kv_shared_layers")
    return limits[: len(limits) - shared] if shared < len(limits) else limits


def _limit(kind: str, tokens: int, window: int) -> int:
    if "sliding" in kind or "chunked" in kind:
        return window
    recurrent = any(word in kind for word in ("linear", "lightning", "recurrent"))
    return tokens if kind == "hybrid" or ("attention" in kind and not recurrent) else 0


def _has_attention(tree: ModelTree, block: int) -> bool:
    start = f"{tree.prefix}.{block}."
    for linear in tree.of_block(block):
        parent, _, last = linear.kind.rpartition(".")
        if last in _KEY_LAYERS:
            beside = f"{start}{parent}."
            return not any(
                name.startswith(beside) and ("A_log" in name or "conv1d" in name or ".time_" in name)
                for name in tree.block_tensors(block)
            )
    return False


def _recurrent_blocks(tree: ModelTree) -> int:
    return sum(any(name.endswith("A_log") for name in tree.block_tensors(block)) for block in range(tree.blocks))


def _state_size(tree: ModelTree) -> int:
    for keys in _STATES:
        numbers = [_number(tree, key) for key in keys]
        if all(numbers):
            size = 1
            for number in numbers:
                size *= number
            return size
    return 0


def _numbers_per_token(tree: ModelTree) -> int:
    """Return the numbers that a block stores for a token."""
    latent = _number(tree, "kv_lora_rank")
    if latent:
        return latent + _number(tree, "qk_rope_head_dim")
    hidden = _number(tree, "hidden_size", "n_embd")
    heads = _number(tree, "num_attention_heads", "n_head")
    width = _number(tree, "head_dim") or (hidden // heads if heads else 0)
    shared = _number(tree, "num_key_value_heads") or heads
    return 2 * (shared * width or hidden)


def _number(tree: ModelTree, *keys: str) -> int:
    """Return the first of the config's values under `keys` that is a positive integer, or 0."""
    config = text_config(tree.config)
    values = (config.get(key) for key in keys)
    return next((value for value in values if type(value) is int and value > 0), 0)
