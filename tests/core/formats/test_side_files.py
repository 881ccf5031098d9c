"""Side files that are copied to an output, and files that are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.formats.side_files import carry_over, foreign_links

CARRIED = (
    "tokenizer.json", "tokenizer.model", "chat_template.jinja", "generation_config.json", "preprocessor_config.json",
    "vocab.txt", "LICENSE", "LICENSE.md", "NOTICE.txt", "USE_POLICY.md", "additional_chat_templates/rag.jinja",
)  # fmt: skip
LEFT = (
    "config.json", "quantize_config.json", "model.safetensors", "model.safetensors.index.json", "README.md",
    "adapter_config.json", "trainer_state.json", "modeling_own.py", ".gitattributes", "original/params.json",
    "bitwright.json", "license_check.py",
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


def test_all_files_except_weights_code_and_cards_are_copied(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    carry_over(source, target)
    assert names(target) == set(CARRIED)
    assert (target / "LICENSE").read_text(encoding="utf-8") == "LICENSE"


def test_legal_only_copies_only_license_files(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    carry_over(source, target, legal_only=True)
    assert names(target) == {"LICENSE", "LICENSE.md", "NOTICE.txt", "USE_POLICY.md"}


def made(tmp_path: Path, name: str, data: bytes) -> bytes:
    """Return the copy of one file."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / name).write_bytes(data)
    carry_over(source, target)
    return (target / name).read_bytes()


def test_references_to_code_are_removed(tmp_path: Path) -> None:
    value = {"auto_map": {"AutoTokenizer": ["tokenization_own.Own", None]}, "eos_token": "é"}
    assert json.loads(made(tmp_path, "tokenizer_config.json", json.dumps(value).encode())) == {"eos_token": "é"}


def test_a_byte_order_mark_is_removed(tmp_path: Path) -> None:
    assert made(tmp_path, "special_tokens_map.json", b"\xef\xbb\xbf{}") == b"{}"


@pytest.mark.parametrize("data", [b'{"a":   1}', b"[1", b"\xff\xfe", b""], ids=["odd", "cut", "binary", "empty"])
def test_other_files_are_copied_unchanged(tmp_path: Path, data: bytes) -> None:
    assert made(tmp_path, "tokenizer_config.json", data) == data


def linked(source: Path, target: Path) -> set[str]:
    target.mkdir()
    carry_over(source, target)
    return names(target)


def test_a_link_to_a_file_outside_the_model_is_not_copied(source: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (source / "secret.json").symlink_to(tmp_path / "secret.json")
    (source / "secret-2.json").symlink_to("../secret.json")
    assert foreign_links(source) == ["secret-2.json", "secret.json"]
    assert linked(source, tmp_path / "target") == set(CARRIED)


def test_a_linked_folder_of_templates_outside_the_model_is_not_copied(source: Path, tmp_path: Path) -> None:
    (source / "additional_chat_templates").rename(tmp_path / "elsewhere")
    (source / "additional_chat_templates").symlink_to(tmp_path / "elsewhere")
    assert foreign_links(source) == ["rag.jinja"]


def test_the_blobs_of_the_hub_cache_are_part_of_the_model(tmp_path: Path) -> None:
    blobs, folder = tmp_path / "models--o--n" / "blobs", tmp_path / "models--o--n" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    folder.mkdir(parents=True)
    (blobs / "1").write_text("{}")
    (folder / "tokenizer.json").symlink_to("../../blobs/1")
    assert linked(folder, tmp_path / "target") == {"tokenizer.json"}


def test_links_to_the_folder_of_config_json_are_copied(source: Path, tmp_path: Path) -> None:
    (tmp_path / "farm").mkdir()
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / "farm" / name).symlink_to(source / name)
    assert linked(tmp_path / "farm", tmp_path / "target") == {"tokenizer.json"}
