"""Tests of calibration rows with small tokenizers: concatenation, separators, order, hashes, errors."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from core.calibration import encoding, text, tokens
from core.calibration.documents import Document
from core.calibration.encoding import Encoder
from core.errors import BadCalibration, Cancelled
from core.events import Event, Log

BOS, EOS, UNKNOWN = 0, 1, 2
WORDS = 500
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<s> {{ message['role'] }} {{ message['content'] }} {% endfor %}"
)


def make_tokenizer(*, bos: bool = False, template: str | None = None) -> PreTrainedTokenizerFast:
    """Words w0, w1, ... have the ids 3, 4, ...; with `bos`, every text begins with id 0."""
    names = ["<s>", "</s>", "<unk>", *(f"w{number}" for number in range(WORDS)), "user", "assistant"]
    backend = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    made.chat_template = template
    return made


def write_records(path: Path, documents: list[list[int]]) -> str:
    lines = ("{" + f'"text": "{" ".join(f"w{word}" for word in document)}"' + "}" for document in documents)
    path.write_text("\n".join(lines))
    return str(path)


def load(calibration: str, samples: int, seqlen: int, seed: int = 0, **options: Any) -> tokens.Calibration:
    tokenizer = options.pop("tokenizer", None) or make_tokenizer()
    return tokens.load(calibration, tokenizer, samples, seqlen, seed, lambda _: None, **options)


@pytest.fixture
def many(tmp_path: Path) -> str:
    """200 documents of 5 words; document d holds the words d, d, d, d, d."""
    return write_records(tmp_path / "many.jsonl", [[number] * 5 for number in range(200)])


def test_the_shape_of_the_rows(many: str) -> None:
    assert (load(many, 7, 16).tokens.shape, load(many, 7, 16).tokens.dtype) == ((7, 16), torch.int64)


def test_short_documents_are_packed_with_separators(tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.jsonl", [[5, 6], [5, 6], [5, 6]])
    assert load(path, 1, 9).tokens.tolist() == [[8, 9, EOS] * 3]


def test_no_document_is_dropped(many: str) -> None:
    rows = load(many, 50, 24).tokens
    assert set(rows.flatten().tolist()) == {EOS, *range(3, 203)}


def test_documents_that_the_rows_hold_are_counted(many: str) -> None:
    assert load(many, 50, 24).documents == 200


def test_a_row_of_one_document_counts_one(tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.jsonl", [list(range(40))])
    assert load(path, 1, 8).documents == 1


def test_all_tokens_of_a_small_text_are_available(many: str) -> None:
    assert load(many, 2, 16).available == 200 * 6


def test_the_same_seed_gives_the_same_rows(many: str) -> None:
    assert load(many, 9, 16, seed=3).sha256 == load(many, 9, 16, seed=3).sha256


def test_another_seed_gives_other_rows(many: str) -> None:
    assert load(many, 9, 16, seed=3).sha256 != load(many, 9, 16, seed=4).sha256


def test_the_hash_is_of_little_endian_ids() -> None:
    """Against `printf '\\x01\\0\\0\\0\\0\\0\\0\\0\\x02\\0\\0\\0\\0\\0\\0\\0' | sha256sum`."""
    expected = "0c730b69905c5ef7a4ca5269f72365400bde2dd2c04eaf9bbb3d1c4a265a0131"
    assert tokens.sha256_of(torch.tensor([[1, 2]])) == expected


def test_rows_begin_with_begin_of_text_where_the_tokenizer_adds_it(many: str) -> None:
    rows = load(many, 20, 16, tokenizer=make_tokenizer(bos=True)).tokens
    assert rows[:, 0].tolist() == [BOS] * 20


def test_begin_of_text_is_only_at_the_start_of_a_row(many: str) -> None:
    rows = load(many, 20, 16, tokenizer=make_tokenizer(bos=True)).tokens
    assert not bool((rows[:, 1:] == BOS).any())


def test_rows_come_from_the_whole_of_one_large_text(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_text("\n\n".join(" ".join([f"w{number}"] * 300) for number in range(WORDS)))
    found = load(str(path), 24, 32).tokens.flatten()
    thirds = {int(word - 3) * 3 // WORDS for word in found if word > UNKNOWN}
    assert thirds == {0, 1, 2}


def test_a_text_beyond_the_budget_is_sampled_from_all_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "MIN_TOKENS", 64)
    path = write_records(tmp_path / "a.jsonl", [[number] * 20 for number in range(WORDS)])
    found = load(path, 4, 8)
    assert found.available < 1000
    assert max(found.tokens.flatten().tolist()) > WORDS // 2


def test_a_text_of_long_words_is_read_again_until_it_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MIN_TOKENS", 8)
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join('{"text": "' + "x" * 3000 + '"}' for _ in range(40)))
    assert load(str(path), 4, 8).tokens.shape == (4, 8)


def test_the_error_for_too_little_text_has_both_token_counts(tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.jsonl", [[1] * 99])
    with pytest.raises(BadCalibration, match="has 100 tokens; 8 samples of 32 need 256"):
        load(path, 8, 32)


@settings(max_examples=30)
@given(st.integers(10, 400), st.integers(1, 30), st.integers(8, 64), st.booleans())
def test_the_values_suggested_for_too_little_text_fit(available: int, samples: int, seqlen: int, bos: bool) -> None:
    prefix = int(bos)
    if available // (seqlen - prefix) >= samples:
        return
    hint = tokens._too_short("x", available, samples, seqlen, prefix).hint
    for choice in hint.removeprefix("Use ").split(" or "):
        words = choice.split()
        given_samples = int(words[words.index("--samples") + 1]) if "--samples" in words else samples
        given_seqlen = int(words[words.index("--seqlen") + 1]) if "--seqlen" in words else seqlen
        if "--samples" in words or "--seqlen" in words:
            assert available // (given_seqlen - prefix) >= given_samples


def test_a_token_outside_the_vocabulary_is_refused(many: str) -> None:
    with pytest.raises(BadCalibration, match="has only 50 tokens"):
        load(many, 20, 16, vocab_size=50)


def test_a_stop_ends_the_loading(many: str) -> None:
    with pytest.raises(Cancelled):
        load(many, 2, 16, should_stop=lambda: True)


def test_conversations_go_through_the_chat_template(tmp_path: Path) -> None:
    encoder = Encoder(make_tokenizer(template=TEMPLATE))
    found = encoder.encode([Document(messages=(("user", "w1"), ("assistant", "w2")))])
    assert found == [[BOS, WORDS + 3, 4, BOS, WORDS + 4, 5]]


def test_a_conversation_that_the_template_does_not_accept_is_plain_text() -> None:
    encoder = Encoder(make_tokenizer(template=TEMPLATE))
    assert encoder.encode([Document(messages=(("system", "w1"),))]) == [[UNKNOWN, 4]]
    assert encoder.template_message.startswith(
        "The chat template of the model does not accept 1 of 1 conversations (no system)"
    )


@pytest.mark.parametrize(
    "template", ["{{ 1 // 0 }}", "{{ messages[9].content }}", "{% for", "{{ raise_exception('x') }}"]
)
def test_a_warning_counts_the_conversations_that_a_template_rejects(tmp_path: Path, template: str) -> None:
    path = tmp_path / "chats.jsonl"
    turns = [{"role": "user", "content": "w1 w2 w3 w4"}, {"role": "assistant", "content": "w5 w6 w7 w8"}]
    path.write_text("\n".join([json.dumps({"messages": turns})] * 9))
    log: list[Event] = []
    tokens.load(str(path), make_tokenizer(template=template), 2, 16, 0, log.append)
    assert [event.level for event in log if isinstance(event, Log)] == ["warning"]
    assert "does not accept 9 of 9 conversations" in getattr(log[0], "message", "")


def test_a_model_without_a_chat_template_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join([json.dumps({"messages": [{"role": "user", "content": "w1 w2 w3 w4"}]})] * 9))
    log: list[Event] = []
    tokens.load(str(path), make_tokenizer(), 2, 16, 0, log.append)
    assert [getattr(event, "message", "") for event in log] == [
        "The model has no chat template: 9 conversations are used as plain text."
    ]


def test_the_separator_of_training_is_preferred_to_the_end_of_a_turn() -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|endoftext|>"]})
    assert Encoder(tokenizer).separator == (tokenizer.convert_tokens_to_ids("<|endoftext|>"),)


def test_without_an_end_token_begin_of_text_separates() -> None:
    tokenizer = make_tokenizer(bos=True)
    tokenizer.eos_token = None
    assert encoding.Encoder(tokenizer).separator == (BOS,)


def test_the_varied_part_of_the_bundled_text_is_drawn_early() -> None:
    """It is a twentieth of the text, and more than a quarter of the first 150,000 characters drawn."""
    documents = list(text.records(text.parse("builtin"), lambda _: None))
    random.Random(0).shuffle(documents)
    draw = tokens._draw(documents, 42, 1 << 24, 8000, hub=False)
    seen = varied = 0
    for piece in draw.pieces:
        seen += len(piece.document.plain())
        varied += len(piece.document.plain()) if piece.document.weight > 1 else 0
        if seen > 150_000:
            break
    assert varied > seen / 4
