"""One architecture of each kind is verified; other kinds of models are refused.

All architectures: `python -m tests.coverage.architectures`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from core.model import kinds as refused
from tests.coverage.kinds import CLASSES, DRAFT, ENCODER, HALF, TEXT, kind_of
from tests.coverage.measure import REFUSED, VERIFIED, measure, refusal_of

OTHER = [name for name in CLASSES if kind_of(name) != TEXT]


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        "qwen3",  # dense
        "bloom",  # ALiBi
    ],
)
def test_one_architecture_of_each_kind_is_verified(tmp_path: Path, name: str) -> None:
    row = measure(name, tmp_path)

    assert (row.verdict, row.reason) == (VERIFIED, "")


@pytest.mark.parametrize("name", OTHER)
def test_models_that_are_not_text_decoders_are_refused(name: str) -> None:
    assert refusal_of(name).verdict == REFUSED


@pytest.mark.parametrize(
    ("kind", "listed"), [(ENCODER, refused.ENCODERS), (HALF, refused.HALVES), (DRAFT, refused.DRAFTS)]
)
def test_the_refused_model_types_are_those_that_transformers_sorts_so(kind: str, listed: frozenset[str]) -> None:
    assert {name for name in CLASSES if kind_of(name) == kind} == listed
