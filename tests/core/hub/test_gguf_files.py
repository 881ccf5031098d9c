"""One GGUF model of a repository is chosen by its type."""

from __future__ import annotations

import pytest

from core.errors import BadInput, UnsupportedModel
from core.hub.gguf_files import gguf_files, has_gguf, split_type

NAMES = [
    "README.md", "mmproj-F16.gguf", "m-imatrix.gguf", "Small-Q4_K_M.gguf", "Small-UD-Q4_K_XL.gguf", "Small.f16.gguf",
    "Q8_0/Small-Q8_0-00001-of-00002.gguf", "Q8_0/Small-Q8_0-00002-of-00002.gguf",
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("Q4_K_M", ["Small-Q4_K_M.gguf"]),
        ("q4_k_xl", ["Small-UD-Q4_K_XL.gguf"]),
        ("UD-Q4_K_XL", ["Small-UD-Q4_K_XL.gguf"]),
        ("F16", ["Small.f16.gguf"]),
        ("Q8_0", NAMES[-2:]),
        ("Small-Q8_0", NAMES[-2:]),
    ],
)
def test_a_type_selects_a_file_with_all_its_parts(kind: str, files: list[str]) -> None:
    assert gguf_files(NAMES, "o/small", kind) == files


def test_a_single_model_needs_no_type() -> None:
    assert gguf_files(["a.gguf", "mmproj-a.gguf"], "o/a", "") == ["a.gguf"]
    assert gguf_files(NAMES[-2:], "o/a", "") == NAMES[-2:]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("", "o/small contains 4 GGUF models: Q8_0, Q4_K_M, UD-Q4_K_XL, f16."),
        ("Q2_K", "o/small contains no GGUF model of the type Q2_K, but "),
        ("Q4_K_M", "o/small contains 2 GGUF models: Small-Q4_K_M, other-Q4_K_M."),
    ],
)
def test_other_types_are_listed(kind: str, message: str) -> None:
    names = [*NAMES, "other-Q4_K_M.gguf"] if kind == "Q4_K_M" else NAMES
    with pytest.raises(BadInput) as caught:
        gguf_files(names, "o/small", kind)
    assert caught.value.message.startswith(message)
    assert "o/small:" in caught.value.hint


def test_a_missing_part_is_named() -> None:
    with pytest.raises(UnsupportedModel, match=r"lacks Q8_0/Small-Q8_0-00002-of-00002\.gguf"):
        gguf_files(NAMES[:-1], "o/small", "Q8_0")


def test_a_repository_without_gguf_files_has_no_types() -> None:
    with pytest.raises(UnsupportedModel, match="contains no GGUF model"):
        gguf_files(["model.safetensors"], "o/small", "Q8_0")


def test_projectors_are_not_models() -> None:
    assert not has_gguf(NAMES[:3])
    assert has_gguf(NAMES)


def test_the_type_follows_a_colon() -> None:
    assert split_type("o/small:Q8_0") == ("o/small", "Q8_0")
    assert split_type("o/small") == ("o/small", "")
