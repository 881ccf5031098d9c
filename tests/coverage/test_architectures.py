"""One architecture of each kind is verified; the guide lists every class of the installed transformers.

All architectures: `python -m tests.coverage.architectures`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from core.model import kinds as refused
from core.recipes import RESOURCES
from tests.coverage.architectures import ours
from tests.coverage.kinds import CLASSES, DRAFT, ENCODER, HALF, MULTIMODAL, TEXT, kind_of
from tests.coverage.measure import REFUSED, VERIFIED, refusal_of

GUIDE = RESOURCES / "guide" / "architectures.md"
OTHER = [name for name in CLASSES if kind_of(name) not in (TEXT, MULTIMODAL)]


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        "bloom",  # dense, ALiBi
        "qwen3_moe",  # separate experts
        "minimax_m2",  # experts w1, w2, w3
        "gpt_oss",  # experts in one transposed tensor
        "granitemoe",  # experts in one tensor
        "deepseek_v3",  # latent attention, groups of experts
        "gemma4_text",  # shared keys and values, inputs for each block
        "qwen3_5_moe_text",  # Gated DeltaNet
        "granitemoehybrid moe",  # Mamba 2
        "lfm2",  # convolutions
        "nemotron_h moe",  # blocks of one kind of layer each
        "zamba2",  # shared blocks
    ],
)
def test_one_architecture_of_each_kind_is_verified(tmp_path: Path, name: str) -> None:
    # in a child process, since auto-round replaces functions and classes of transformers when it reads a mixture
    row = ours(name, tmp_path)

    assert (row["verdict"], row["reason"]) == (VERIFIED, "")


@pytest.mark.parametrize("name", OTHER)
def test_models_that_are_not_text_decoders_are_refused(name: str) -> None:
    assert refusal_of(name).verdict == REFUSED


@pytest.mark.parametrize(
    ("kind", "listed"), [(ENCODER, refused.ENCODERS), (HALF, refused.HALVES), (DRAFT, refused.DRAFTS)]
)
def test_the_refused_model_types_are_those_that_transformers_sorts_so(kind: str, listed: frozenset[str]) -> None:
    assert {name for name in CLASSES if kind_of(name) == kind} == listed


def test_the_guide_lists_every_class_of_the_installed_transformers() -> None:
    """After an update of transformers, run `python -m tests.coverage.architectures` with the names shown here."""
    text = GUIDE.read_text(encoding="utf-8")

    assert [name for name in CLASSES if f"`{name}`" not in text] == []
