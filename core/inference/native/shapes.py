"""The shapes that a design gives to every tensor of its program, and the check that the tensors have them.

All addresses in the compiled program follow from the design, so nothing is pointed to that did not pass here.
"""

from __future__ import annotations

from torch import Tensor

from core.errors import CorruptFile
from core.inference.native.architectures import Design
from core.inference.native.matrix import Matrix

Shape = tuple[int, ...]


def block_shapes(design: Design) -> dict[str, Shape]:
    """The shape of every linear layer, [outputs, inputs], and of every norm that a block may have, by name."""
    width, inner, family = design.width, design.inner, design.family
    queries, keys = design.heads * design.head, design.groups * design.head
    norms = (family.before_attention, family.after_attention, family.before_mlp, family.after_mlp)
    return {
        "self_attn.q_proj": (queries, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.qkv_proj": (queries + 2 * keys, width),
        "self_attn.o_proj": (width, queries),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.gate_up_proj": (2 * inner, width),
        "mlp.down_proj": (width, inner),
        "self_attn.q_norm": (queries if family.whole_norms else design.head,),
        "self_attn.k_norm": (keys if family.whole_norms else design.head,),
        **{name: (width,) for name in norms if name},
    }


def check(name: str, found: Matrix | Tensor, wanted: Shape) -> None:
    """Refuse a tensor of another shape.

    Raises:
        CorruptFile: it has one; with both shapes.
    """
    shape = (found.outputs, found.inputs) if isinstance(found, Matrix) else tuple(found.shape)
    if shape != wanted:
        raise CorruptFile(
            f"{name} has the shape {list(shape)}, but config.json says {list(wanted)}.",
            "The config and the weights do not belong together.",
        )


def check_rotation(cosine: Tensor, sine: Tensor, length: int, head: int) -> None:
    """Refuse tables of rotary positions that do not cover a text, or turn more than a head has.

    Args:
        cosine, sine: float32 [positions, half of the turned width].
        length: tokens of the longest text; head: components of one.

    Raises:
        CorruptFile: they do not fit.
    """
    if cosine.shape != sine.shape or cosine.dim() != 2 or len(cosine) < length or 2 * cosine.shape[1] > head:
        raise CorruptFile(
            f"The rotary positions have the shape {list(cosine.shape)}, which does not fit {length} tokens in heads of "
            f"{head}.",
            "Check rope_parameters and head_dim in config.json.",
        )
