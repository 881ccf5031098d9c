"""Tests of exported files in llama.cpp: logits of transformers, tokens of Hugging Face tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from core.formats.gguf.file import Entry, GgufWriter
from core.formats.gguf.pretokenizers import NAMES
from core.formats.gguf.tokenizer import tokenizer
from tests.core.formats.gguf import families, llama

TEXTS = [
    "", " ", "   ", "Hello world", " the then  there", "in the ring of 1234567890, 12 and 3.14", "don't I'LL we've 'S",
    "\n", "\n\n\n\n\n\n", "a\r\n\r\n b\r c\t\td", "tabs\tand   blanks    at     the end   ", "ÀÉÎõü ß ſ é",
    "नमस्ते दुनिया", "你好，世界！한국어 テストを", "😀👍🏽👨‍👩‍👧‍👦 🇩🇪",
    "\u00a0\u200b\u3000x\ufeff", "ⅣⅫ½²٣۴", "\x00\x01\x7f",
    "def f(x):\n    return x**2  # ok\n\n\n", "http://a.b/c?d=e&f=%20#g", "...!!!???;;", "_ _ __ ___", "𝕳𝖊𝖑𝖑𝖔",
    "<|start|>user<|end|>\n<|start|>x", "<s> the</s> in<|user|>\n the<unk>", "İıŁ ﬁ", "a" * 70,
]  # fmt: skip
GELU_BY_TABLE = ("gemma", "gemma2", "gemma2-uncapped", "gemma3", "gemma3-pattern")


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_logits_are_those_of_transformers(tmp_path: Path, family: str) -> None:
    model = families.build(family)
    folder = families.save(model, tmp_path / "model")
    families.write(folder, tmp_path / "m.gguf", "f32")
    torch.manual_seed(2)
    ids = torch.randint(0, 256, (40,)).tolist()
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0].numpy()
    found = llama.ask(tmp_path / "m.gguf", [ids]).logits[0]
    # ggml looks GELU up in a table of 16-bit numbers; everything else is computed in 32 bits.
    assert np.abs(found - expected).max() < (5e-3 if family in GELU_BY_TABLE else 2e-5)


def test_long_texts_have_their_own_rotary_factors(tmp_path: Path) -> None:
    model = families.build("phi3-long")
    families.write(families.save(model, tmp_path / "model"), tmp_path / "m.gguf", "f32")
    ids = torch.randint(0, 256, (300,), generator=torch.Generator().manual_seed(1)).tolist()
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0].numpy()
    found = llama.ask(tmp_path / "m.gguf", [ids], context=512).logits[0]
    assert np.abs(found - expected).max() < 5e-5


def test_a_tied_model_with_a_head_of_its_own_runs(tmp_path: Path) -> None:
    model = families.build("qwen2")
    folder = families.save(model, tmp_path / "model")
    families.write(folder, tmp_path / "m.gguf", "f32", separate_head=True)
    with torch.no_grad():
        expected = model(torch.tensor([[1, 2, 3]])).logits[0].numpy()
    found = llama.ask(tmp_path / "m.gguf", [[1, 2, 3]]).logits[0]
    assert np.abs(found - expected).max() < 2e-5


@pytest.mark.parametrize(("kind", "bound"), [("f16", 0.05), ("bf16", 0.2)])
def test_sixteen_bits_are_read(tmp_path: Path, kind: str, bound: float) -> None:
    """Bounds for the rounding of llama.cpp, which multiplies in the same 16 bits."""
    model = families.build("llama")
    families.write(families.save(model, tmp_path / "model"), tmp_path / "m.gguf", kind)
    with torch.no_grad():
        expected = model(torch.tensor([[1, 2, 3]])).logits[0].numpy()
    assert np.abs(llama.ask(tmp_path / "m.gguf", [[1, 2, 3]]).logits[0] - expected).max() < bound


def vocabulary_only(folder: Path, name: str, rows: int = 640) -> Path:
    found = tokenizer(folder, {}, rows, name)
    path = folder / "vocabulary.gguf"
    head = [Entry.text("general.architecture", "llama"), Entry.text("general.name", found.name)]
    with GgufWriter(path, [*head, *found.entries], []):
        pass
    return path


def check_tokens(folder: Path, name: str = "model", texts: list[str] = TEXTS) -> llama.Answer:
    """Check that llama.cpp splits texts as the tokenizer in the folder does."""
    reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
    answer = llama.ask(vocabulary_only(folder, name), texts=texts)
    assert answer.tokens == [reference.encode(text, add_special_tokens=False).ids for text in texts]
    assert answer.begun == [reference.encode(text).ids for text in texts]
    return answer


def byte_level(steps: tuple[tuple[Any, ...], ...], whole: bool) -> dict[str, Any]:
    """Return the small byte-level tokenizer with another pre-tokenizer."""
    made: list[dict[str, Any]] = []
    for kind, *rest in steps:
        if kind == "split":
            made.append({"type": "Split", "pattern": {"Regex": rest[0]}, "behavior": rest[1], "invert": False})
        elif kind == "digits":
            made.append({"type": "Digits", "individual_digits": rest[0]})
        else:
            made.append({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": rest[0]})
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": made}, "whole": whole}


# Every merge of two letters there is, so that a cut in another place makes other tokens.
@pytest.mark.parametrize(("steps", "whole"), NAMES, ids=[f"{name}-{i}" for i, name in enumerate(NAMES.values())])
def test_pre_tokenizers_match_those_of_llama_cpp(
    tmp_path: Path, steps: tuple[tuple[Any, ...], ...], whole: bool
) -> None:
    families.save_byte_level(tmp_path)
    value = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    changed = byte_level(steps, whole)
    value["pre_tokenizer"] = changed["pre_tokenizer"]
    value["model"]["ignore_merges"] = changed["whole"]
    letters = sorted((text for text in value["model"]["vocab"] if len(text) == 1), key=value["model"]["vocab"].get)
    vocab = {letter: number for number, letter in enumerate(letters)}
    vocab |= {"<|start|>": 256, "<|end|>": 257}
    merges = [[a, b] for a in letters for b in letters if (ord(a) * 31 + ord(b)) % 3 == 0]
    for a, b in merges:
        vocab[a + b] = len(vocab)
    value["model"] |= {"vocab": vocab, "merges": merges}
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    families.save_json(tmp_path, value, **settings)
    reference = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    # Of these two llama.cpp's own expression cuts combining marks otherwise, which a note says.
    texts = [text for text in TEXTS if "न" not in text or NAMES[steps, whole] not in ("gpt-4o", "tekken")]
    answer = llama.ask(vocabulary_only(tmp_path, "model", len(vocab)), texts=texts)
    assert answer.tokens == [reference.encode(text, add_special_tokens=False).ids for text in texts]
    assert answer.begun == answer.tokens


def test_byte_level_tokens_are_the_same_and_read_back(tmp_path: Path) -> None:
    families.save_byte_level(tmp_path)
    answer = check_tokens(tmp_path)
    assert [piece for piece in answer.pieces if "\x00" not in piece] == [text for text in TEXTS if "\x00" not in text]


def test_special_tokens_are_text_unless_they_are_asked_for(tmp_path: Path) -> None:
    families.save_byte_level(tmp_path)
    answer = llama.ask(vocabulary_only(tmp_path, "model"), texts=["<|end|>"])
    assert answer.tokens == [[257]]
    assert len(answer.plain[0]) > 1


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_tokens_are_the_same(tmp_path: Path, prefix: bool) -> None:
    value = families.sentencepiece_json(prefix=prefix)
    check_tokens(families.save_json(tmp_path, value, bos_token="<s>", eos_token="</s>", unk_token="<unk>"))


def test_runs_of_spaces_in_gemma_are_the_same(tmp_path: Path) -> None:
    value = families.sentencepiece_json(prefix=False, gemma=True, first="<bos>")
    folder = families.save_json(tmp_path, value, bos_token="<bos>", eos_token="</s>")
    check_tokens(folder, texts=[*TEXTS, "a" + " " * 9 + "b", " " * 5, "x\n\n\n\n\n\n\n y"])


@pytest.mark.parametrize("name", ["Phi-3-mini", "another"])
def test_special_tokens_of_phi_3_strip_whitespace(tmp_path: Path, name: str) -> None:
    value = families.sentencepiece_json(strip=True)
    folder = families.save_json(tmp_path, value, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    check_tokens(folder, name, [*TEXTS, "<|user|>\nthe in</s>   x", "<s>  the"])


def test_a_name_like_phi_3_changes_nothing_for_others(tmp_path: Path) -> None:
    """llama.cpp does not load a byte-level tokenizer with that name."""
    families.save_byte_level(tmp_path)
    check_tokens(tmp_path, "my-phi-3-distill")


def test_the_chat_template_is_in_the_file(tmp_path: Path) -> None:
    families.save_byte_level(tmp_path)
    found = llama.ask(vocabulary_only(tmp_path, "model"), texts=["x"]).metadata
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert found["tokenizer.chat_template"] == settings["chat_template"]
    assert found["tokenizer.ggml.eos_token_id"] == "257"
