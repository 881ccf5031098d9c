"""Mixtures of experts on paper, named as Qwen3-MoE names them. Knows no Qt."""

from __future__ import annotations

from dataclasses import replace

from core.model.tree import ModelTree
from tests.core.paper_model import llama

ATTENTION = {f"self_attn.{kind}_proj": (64, 64) for kind in "qkvo"}


def mixture(blocks: int, experts: int, *, tied: bool = True, refusal: str = "") -> ModelTree:
    """A model whose blocks have so many experts of three layers each, beside attention and router."""
    shapes = {
        f"mlp.experts.{number}.{kind}_proj": (64, 64) for number in range(experts) for kind in ("down", "gate", "up")
    }
    tree = llama(blocks, tied=tied, shapes={**shapes, "mlp.gate": (experts, 64), **ATTENTION})
    return replace(tree, refusal=refusal)
