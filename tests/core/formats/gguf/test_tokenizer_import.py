"""Tokenizers of GGUF files: marks are one token each and hidden, spaces stand where llama.cpp puts them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers
from transformers import AutoTokenizer

from core.formats.gguf import pretokenizers
from core.formats.gguf.model import open_gguf_model
from core.formats.gguf.tokenizer_import import check_tokenizer, write_tokenizer
from core.model.gguf_header import read_gguf_header
from tests.core.formats.gguf import gguf_files

MARKS = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>")


@pytest.fixture(scope="module")
def built() -> Any:
    return gguf_files.build("llama")


def file(folder: Path, built: Any, **changes: Any) -> Path:
    return gguf_files.write(folder / "m.gguf", "llama", built, **changes)


def read(path: Path) -> Any:
    """The tokenizer of a file."""
    header = read_gguf_header(path)
    check_tokenizer(header, path.name)
    folder = path.with_suffix("")
    folder.mkdir()
    write_tokenizer(path, header, folder)
    return AutoTokenizer.from_pretrained(folder)


def with_tokens(added: dict[str, int], *, kinds: bool = True, pad: int = 0) -> dict[str, Any]:
    """Metadata of the byte-level vocabulary with more tokens, by their types, and `pad` unused ones behind."""
    tokens, types, merges = gguf_files.byte_level_vocabulary()
    tokens += added
    types += added.values()
    tokens += [f"[PAD{len(tokens) + number}]" for number in range(pad)]
    types += [5] * pad
    return {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types if kinds else None,
        "tokenizer.ggml.merges": merges,
    }


@pytest.mark.parametrize("pad", [0, 5])
def test_special_token_outside_of_the_alphabet_is_one_token(pad: int, tmp_path: Path, built: Any) -> None:
    changes = with_tokens(dict.fromkeys(MARKS, 3), pad=pad)
    first = changes["tokenizer.ggml.tokens"].index(MARKS[0])
    changes |= {"tokenizer.ggml.bos_token_id": first, "tokenizer.ggml.eos_token_id": first + 1}
    tokenizer = read(file(tmp_path, built, **changes))
    text = "".join(MARKS) + "hi"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids[:4] == list(range(first, first + 4))
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == "hi"
    assert len(tokenizer) == len(changes["tokenizer.ggml.tokens"])
    assert (tokenizer.bos_token, tokenizer.eos_token) == MARKS[:2]


@pytest.mark.parametrize("word", ["<tool→>", "  \n", "<tool>"])
def test_a_token_that_a_user_defined_is_found_whole_and_shown(word: str, tmp_path: Path, built: Any) -> None:
    tokenizer = read(file(tmp_path, built, **with_tokens({word: 4})))
    ids = tokenizer(f"a{word}b", add_special_tokens=False)["input_ids"]
    assert len(ids) == 3
    assert tokenizer.decode(ids, skip_special_tokens=True) == f"a{word}b"


def test_a_well_known_end_is_a_mark_whatever_its_type(tmp_path: Path, built: Any) -> None:
    tokenizer = read(file(tmp_path, built, **with_tokens({"<|eot_id|>": 1})))
    ids = tokenizer("a<|eot_id|>", add_special_tokens=False)["input_ids"]
    assert len(ids) == 2
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a"


def test_a_file_without_types_has_the_marks_that_it_names(tmp_path: Path, built: Any) -> None:
    tokenizer = read(file(tmp_path, built, **with_tokens({}, kinds=False)))
    ids = tokenizer("<|start|>a<|end|>", add_special_tokens=False)["input_ids"]
    assert len(ids) == 3
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a"


@pytest.mark.parametrize("name", ["padding", "unknown"])
def test_an_ordinary_token_is_shown_though_the_file_names_it(name: str, tmp_path: Path, built: Any) -> None:
    tokenizer = read(file(tmp_path, built, **{f"tokenizer.ggml.{name}_token_id": 0}))
    shown = tokenizer.convert_ids_to_tokens(0)
    assert tokenizer.decode([0, 0], skip_special_tokens=True) == 2 * shown


def test_all_ends_of_the_file_end_answers(tmp_path: Path, built: Any) -> None:
    changes = {f"tokenizer.ggml.{name}_token_id": number for name, number in (("eot", 5), ("eom", 6))}
    model = open_gguf_model(file(tmp_path, built, **changes))
    assert model.generation["eos_token_id"] == [257, 5, 6]


CUTS = {
    "hello": (["▁hello"], ["hello"]),
    " hello": (["▁", "▁hello"], ["▁hello"]),
    "hello</s>hello": (["▁hello", "</s>", "▁hello"], ["hello", "</s>", "hello"]),
    "</s>": (["</s>"], ["</s>"]),
    "</s> hello": (["</s>", "▁", "▁hello"], ["</s>", "▁hello"]),
}


@pytest.mark.parametrize("said", [None, True, False])
def test_space_is_added_after_a_special_token(said: bool | None, tmp_path: Path, built: Any) -> None:
    changes = gguf_files.sentencepiece_vocabulary() | {"tokenizer.ggml.add_space_prefix": said}
    tokenizer = read(file(tmp_path, built, **changes))
    for text, cuts in CUTS.items():
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.convert_ids_to_tokens(ids) == cuts[said is False]
        if "<" not in text:
            assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(("name", "pieces"), [("Phi-3 mini", ["</s>", "▁hello"]), ("mini", ["</s>", "▁", "▁hello"])])
def test_special_tokens_of_phi_3_strip_whitespace(name: str, pieces: list[str], tmp_path: Path, built: Any) -> None:
    changes = gguf_files.sentencepiece_vocabulary() | {"general.name": name}
    tokenizer = read(file(tmp_path, built, **changes))
    ids = tokenizer("</s> hello", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == pieces


def test_the_rule_of_deepseek_coder_is_read_as_it_is_written(tmp_path: Path, built: Any) -> None:
    tokens, _, merges = gguf_files.byte_level_vocabulary()
    tokenizer = read(file(tmp_path, built, **{"tokenizer.ggml.pre": "deepseek-coder"}))
    steps = next(steps for (steps, _), name in pretokenizers.NAMES.items() if name == "deepseek-coder")
    cuts = [
        pre_tokenizers.Split(tokenizers.Regex(step[1]), "isolated") if step[0] == "split"
        else pre_tokenizers.Digits(individual_digits=True) if step[0] == "digits"
        else pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        for step in steps
    ]  # fmt: skip
    table = {text: number for number, text in enumerate(tokens)}
    expected = tokenizers.Tokenizer(models.BPE(table, [(left, right) for left, right in map(str.split, merges)]))
    expected.pre_tokenizer, expected.decoder = pre_tokenizers.Sequence(cuts), decoders.ByteLevel()
    for text in ("the thing, in 12 日本\n\n x.y", "a\r\nb 'll"):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == expected.encode(text).ids
    assert "Digits" in json.dumps(json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"])
