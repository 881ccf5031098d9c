"""What goes along with a checkpoint, and what stays behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.formats.side_files import carry_over

CARRIED = (
    "tokenizer.json", "tokenizer.model", "chat_template.jinja", "generation_config.json", "preprocessor_config.json",
    "vocab.txt", "LICENSE", "LICENSE.md", "NOTICE.txt", "USE_POLICY.md", "additional_chat_templates/rag.jinja",
)  # fmt: skip
LEFT = (
    "config.json", "quantize_config.json", "model.safetensors", "model.safetensors.index.json", "README.md",
    "modeling_own.py", ".gitattributes", "original/params.json", "bitwright.json", "license_check.py",
)  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in (*CARRIED, *LEFT):
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    return tmp_path / "source"


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_everything_but_weights_code_and_cards_comes_along(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    carry_over(source, target)
    assert names(target) == set(CARRIED)
    assert (target / "LICENSE").read_text(encoding="utf-8") == "LICENSE"


def test_beside_a_file_that_holds_all_else_only_the_licence_lies(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    carry_over(source, target, legal_only=True)
    assert names(target) == {"LICENSE", "LICENSE.md", "NOTICE.txt", "USE_POLICY.md"}
