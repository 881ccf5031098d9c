"""A folder's tokenizer as metadata of a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gguf.constants import TokenType

from core.errors import CorruptFile, UnsupportedModel
from core.formats.gguf.tokenizer import Vocabulary, tokenizer
from tests.core.formats.gguf import families

SENTENCEPIECE = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def said(folder: Path, config: dict[str, Any] | None = None, rows: int = 640) -> dict[str, Any]:
    found = tokenizer(folder, config or {}, rows, "model")
    return {entry.key.removeprefix("tokenizer."): entry.value for entry in found.entries}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the small byte-level tokenizer."""
    families.save_byte_level(tmp_path)
    return tmp_path


def change(folder: Path, file: str = "tokenizer.json", **values: Any) -> Path:
    """Other values in a file; a key with `__` is one inside another."""
    path = folder / file
    whole = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for key, value in values.items():
        inside, _, last = key.rpartition("__")
        (whole[inside] if inside else whole)[last] = value
    path.write_text(json.dumps(whole), encoding="utf-8")
    return folder


def settings(folder: Path, **values: Any) -> Path:
    return change(folder, "tokenizer_config.json", **values)


def around(*before: str, behind: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a post-processor that adds special tokens around a text."""
    special = [[{"SpecialToken": {"id": text, "type_id": 0}} for text in texts] for texts in (before, behind)]
    single = [*special[0], {"Sequence": {"id": "A", "type_id": 0}}, *special[1]]
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": {}}


def test_byte_level_tokens_and_merges_are_listed(folder: Path) -> None:
    found = said(folder)
    assert (found["ggml.model"], found["ggml.pre"]) == ("gpt2", "gpt-2")
    assert found["ggml.tokens"][256:260] == ["<|start|>", "<|end|>", "th", "the"]
    assert found["ggml.merges"][:2] == ["t h", "th e"]
    assert "ggml.scores" not in found


def test_tokens_have_types(folder: Path) -> None:
    change(folder, added_tokens=[
        {"id": 256, "content": "<|start|>", "special": True},
        {"id": 257, "content": "<|end|>", "special": False},
        {"id": 300, "content": "<think>", "special": False},
    ])  # fmt: skip
    kinds = said(folder)["ggml.token_type"]
    # One that looks special is one, whatever is said of it: llama.cpp would show it in its answers.
    assert kinds[256:258] == [TokenType.CONTROL, TokenType.CONTROL]
    assert (kinds[0], kinds[300], kinds[301]) == (TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED)


def test_the_list_is_filled_up_to_the_embedding(folder: Path) -> None:
    found = said(folder, rows=700)
    assert len(found["ggml.tokens"]) == len(found["ggml.token_type"]) == 700
    assert found["ggml.tokens"][699] == "[PAD699]"


def test_more_tokens_than_rows_are_refused(folder: Path) -> None:
    with pytest.raises(UnsupportedModel, match="265 tokens and the model's embedding only 200 rows"):
        said(folder, rows=200)


def test_two_tokens_of_one_text_are_refused(folder: Path) -> None:
    change(folder, added_tokens=[{"id": 300, "content": "th", "special": False}])
    with pytest.raises(UnsupportedModel, match="258 and 300 have the same text 'th'"):
        said(folder)


def test_merges_may_be_texts_too(folder: Path) -> None:
    before = said(folder)["ggml.merges"]
    change(folder, model__merges=before)
    assert said(folder)["ggml.merges"] == before


def test_special_tokens_are_the_tokenizer_s_first(folder: Path) -> None:
    config = {"eos_token_id": 5, "pad_token_id": 6, "text_config": {"pad_token_id": 7}}
    found = said(folder, config)
    assert (found["ggml.bos_token_id"], found["ggml.eos_token_id"], found["ggml.padding_token_id"]) == (256, 257, 7)


def test_a_special_token_may_be_described_by_an_object(folder: Path) -> None:
    assert said(settings(folder, eos_token={"content": "the"}))["ggml.eos_token_id"] == 259


def test_the_model_s_config_names_what_the_tokenizer_does_not(folder: Path) -> None:
    assert said(settings(folder, eos_token=None), {"eos_token_id": [9, 10]})["ggml.eos_token_id"] == 9


def test_without_an_end_token_it_is_refused(folder: Path) -> None:
    with pytest.raises(UnsupportedModel, match="end-of-text token"):
        said(settings(folder, eos_token=None))


def test_a_second_end_token_ends_a_turn(folder: Path) -> None:
    change(folder, "generation_config.json", eos_token_id=[257, 30])
    assert said(folder)["ggml.eot_token_id"] == 30


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ([257, 30, 31], {}, (30, 31)),
        ([30, 257], {}, (30, None)),
        (None, {"eos_token_id": [257, 30]}, (30, None)),
        (None, {"text_config": {"eos_token_id": [30, 31]}}, (30, 31)),
        ([257], {"eos_token_id": [257, 30]}, (None, None)),
        ([257, 9999, "x", True], {}, (None, None)),
    ],
)
def test_all_ends_of_the_configs_are_named(
    folder: Path, generation: list[Any] | None, config: dict[str, Any], expected: tuple[int | None, int | None]
) -> None:
    if generation is not None:
        change(folder, "generation_config.json", eos_token_id=generation)
    found = said(folder, config)
    assert (found.get("ggml.eot_token_id"), found.get("ggml.eom_token_id")) == expected


def test_ends_that_llama_cpp_knows_by_their_text_leave_the_names_to_others(folder: Path) -> None:
    change(folder, added_tokens=[{"id": 300, "content": "<|eom_id|>", "special": True}])
    change(folder, "generation_config.json", eos_token_id=[257, 300, 30, 31, 32])
    found = said(folder)
    assert (found["ggml.eot_token_id"], found["ggml.eom_token_id"]) == (30, 31)
    assert any("does not end answers at" in note for note in tokenizer(folder, {}, 640, "model").notes)
    change(folder, "generation_config.json", eos_token_id=[257, 300])
    found = said(folder)
    assert (found.get("ggml.eot_token_id"), found["ggml.eom_token_id"]) == (None, 300)


@pytest.mark.parametrize(
    ("post", "added", "expected"),
    [
        (None, {}, (False, False)),
        (None, {"add_bos_token": True}, (True, False)),
        (around(), {"add_bos_token": True}, (False, False)),
        (around("<|start|>"), {}, (True, False)),
        (around("<|start|>", behind=("<|end|>",)), {}, (True, True)),
        ({"type": "Sequence", "processors": [{"type": "ByteLevel"}, around("<|start|>")]}, {}, (True, False)),
    ],
)
def test_bos_and_eos_around_texts(
    folder: Path, post: dict[str, Any] | None, added: dict[str, Any], expected: tuple[bool, bool]
) -> None:
    found = said(settings(change(folder, post_processor=post), **added))
    assert (found["ggml.add_bos_token"], found["ggml.add_eos_token"]) == expected


@pytest.mark.parametrize(
    ("post", "match"), [(around("the"), "only the bos token"), (around("<|start|>", "the"), "more than one")]
)
def test_other_tokens_beside_texts_are_refused(folder: Path, post: dict[str, Any], match: str) -> None:
    with pytest.raises(UnsupportedModel, match=match):
        said(change(folder, post_processor=post))


def test_the_template_s_own_file_wins(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ from_file }}", encoding="utf-8")
    assert said(folder)["chat_template"] == "{{ from_file }}"


def test_named_templates_are_kept(folder: Path) -> None:
    named = [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("C", encoding="utf-8")
    found = said(settings(folder, chat_template=named))
    assert (found["chat_template"], found["chat_template.tool_use"], found["chat_template.rag"]) == ("A", "B", "C")
    assert found["chat_templates"] == ["rag", "tool_use"]


def test_without_a_template_there_is_none(folder: Path) -> None:
    assert "chat_template" not in said(settings(folder, chat_template=None))


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, "no pre-tokenizer of llama.cpp"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": False}, {"type": "ByteLevel"}]}}, "no pre-tokenizer of llama.cpp"),
        ({"model__ignore_merges": True}, "no pre-tokenizer of llama.cpp"),
        ({"normalizer": {"type": "Lowercase"}}, "changes text by Lowercase"),
        ({"model__end_of_word_suffix": "</w>"}, "subwords"),
        ({"model__merges": [["a b", "c"]]}, "merges with spaces"),
        ({"pre_tokenizer": None, "model__type": "Unigram"}, "kind Unigram"),
    ],
)  # fmt: skip
def test_rules_that_llama_cpp_does_not_have_are_refused(folder: Path, values: dict[str, Any], match: str) -> None:
    with pytest.raises(UnsupportedModel, match=match) as caught:
        said(change(folder, **values))
    assert caught.value.hint


def test_composing_letters_is_noted(folder: Path) -> None:
    assert "NFC" in tokenizer(change(folder, normalizer={"type": "NFC"}), {}, 640, "m").notes[0]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("tokenizer.json", "[]"),
        ("tokenizer.json", "{"),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", '{"model": {"type": "BPE"}, "pre_tokenizer": {"type": "ByteLevel"}}'),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": [], "merges": 1}}'),
        ("tokenizer_config.json", '"text"'),
        ("tokenizer_config.json", '{"chat_template": [1]}'),
    ],
)
def test_truncated_files_are_errors(folder: Path, file: str, text: str) -> None:
    (folder / file).write_text(text, encoding="utf-8")
    with pytest.raises((CorruptFile, UnsupportedModel)):
        said(folder)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="has neither"):
        said(tmp_path)


def test_a_changed_file_is_read_again(folder: Path) -> None:
    said(folder)
    (folder / "chat_template.jinja").write_text("new", encoding="utf-8")
    assert said(folder)["chat_template"] == "new"


def stripping(folder: Path, name: str, strip: bool) -> Vocabulary:
    families.save_json(folder, families.sentencepiece_json(strip=strip), **SENTENCEPIECE)
    return tokenizer(folder, {}, 640, name)


@pytest.mark.parametrize(
    ("name", "strip", "expected"),
    [
        ("Phi-3-mini", True, "Phi-3-mini"),
        ("mine", True, "mine (Phi-3)"),
        ("Phi-3-mini", False, "Phi 3-mini"),
        ("myphi3", False, "myphi 3"),
        ("mine", False, "mine"),
    ],
)
def test_name_makes_llama_cpp_strip_whitespace(tmp_path: Path, name: str, strip: bool, expected: str) -> None:
    assert stripping(tmp_path, name, strip).name == expected


def test_whitespace_that_llama_cpp_keeps_is_noted(folder: Path) -> None:
    change(folder, added_tokens=[{"id": 300, "content": "<mask>", "special": True, "lstrip": True}])
    assert "whitespace beside <mask>" in tokenizer(folder, {}, 640, "m").notes[0]
