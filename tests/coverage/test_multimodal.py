"""Multimodal models of each kind are verified; the guide lists every class of the installed transformers.

All models: `python -m tests.coverage.multimodal`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from core.recipes import RESOURCES
from tests.coverage.measure import VERIFIED
from tests.coverage.multimodal import measured
from tests.coverage.multimodal_models import CLASSES

GUIDE = RESOURCES / "guide" / "architectures.md"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        "llava",  # the usual case
        "gemma4",  # inputs for each block, an audio tower
        "mllama",  # blocks that read the picture
        "qwen3_vl_moe",  # experts in one tensor
        "qwen3_omni_moe",  # a language model inside a larger one
    ],
)
def test_one_multimodal_model_of_each_kind_is_verified(tmp_path: Path, name: str) -> None:
    row = measured(name, tmp_path)

    assert (row["verdict"], row["reason"]) == (VERIFIED, "")


def test_the_guide_lists_every_multimodal_class_of_the_installed_transformers() -> None:
    """After an update of transformers, run `python -m tests.coverage.multimodal` with the names shown here."""
    text = GUIDE.read_text(encoding="utf-8")

    assert [name for name in CLASSES if f"`{name}`" not in text] == []
