"""The shape of every tensor of a native program, as its spec gives it, and the check that the tensors have them.

The compiled program computes addresses from the spec, so every tensor is checked here before it is pointed to.
"""

from __future__ import annotations

from torch import Tensor

from core.errors import CorruptFile
from core.inference.native.matrix import Matrix
from core.inference.native.model_spec import ModelSpec

Shape = tuple[int, ...]


def block_shapes(spec: ModelSpec) -> dict[str, Shape]:
    """Return the shape of every linear layer, [out_features, in_features], and norm of a block, by module name."""
    hidden_size, intermediate_size = spec.hidden_size, spec.intermediate_size
    query_size, key_size = spec.query_size, spec.key_size
    architecture = spec.architecture
    shapes: dict[str, Shape] = {
        "attn_q": (query_size, hidden_size),
        "attn_k": (key_size, hidden_size),
        "attn_v": (key_size, hidden_size),
        "attn_qkv": (query_size + 2 * key_size, hidden_size),
        "attn_output": (hidden_size, query_size),
        "ffn_gate": (intermediate_size, hidden_size),
        "ffn_up": (intermediate_size if "ffn_gate" in architecture.modules else 2 * intermediate_size, hidden_size),
        "ffn_down": (hidden_size, intermediate_size),
        "attn_q_norm": (query_size if architecture.qk_norm_whole else spec.head_dim,),
        "attn_k_norm": (key_size if architecture.qk_norm_whole else spec.head_dim,),
    }
    return {module: shapes.get(name, (hidden_size,)) for name, module in architecture.modules.items()}


def check(name: str, found: Matrix | Tensor, wanted: Shape) -> None:
    """Refuse a tensor of another shape than `wanted`.

    Raises:
        CorruptFile: with both shapes.
    """
    shape = (found.out_features, found.in_features) if isinstance(found, Matrix) else tuple(found.shape)
    if shape != wanted:
        raise CorruptFile(
            f"{name} has the shape {list(shape)}, but config.json gives {list(wanted)}.",
            "The config and the weights do not belong together.",
        )


def check_rope_table(cos: Tensor, sin: Tensor, length: int, head_dim: int) -> None:
    """Refuse a RoPE table that has too few positions, or more components than a head.

    Args:
        cos, sin: float32 [positions, rotary_dim / 2].
        length: of the longest text, in tokens.
        head_dim: components of a head.

    Raises:
        CorruptFile: the table does not fit.
    """
    if cos.shape != sin.shape or cos.dim() != 2 or len(cos) < length or 2 * cos.shape[1] > head_dim:
        raise CorruptFile(
            f"The RoPE table has the shape {list(cos.shape)}, which does not fit {length} tokens and heads of "
            f"{head_dim} components.",
            "Check rope_parameters and head_dim in config.json.",
        )
