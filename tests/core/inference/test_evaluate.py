"""Tests of perplexity on small random models, against the plain formulas."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from core.errors import BadCalibration, BadInput, Cancelled, VerificationFailed
from core.events import Event, Progress
from core.inference import evaluate
from core.inference.evaluate import make_windows, perplexity
from core.inference.runners.module import ModuleRunner

WORDS = 60


def make_model(seed: int = 0, vocabulary: int = WORDS + 3) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


def make_tokenizer(*, bos: bool = False) -> PreTrainedTokenizerFast:
    names = ["<s>", "</s>", "<unk>", *(f"w{number}" for number in range(WORDS))]
    backend = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture
def windows() -> torch.Tensor:
    return torch.randint(0, WORDS, (5, 24), generator=torch.Generator().manual_seed(1))


def text_of(count: int) -> str:
    return " ".join(f"w{number % WORDS}" for number in range(count))


def test_perplexity_equals_that_of_transformers_own_loss(windows: torch.Tensor) -> None:
    model = make_model()
    with torch.no_grad():
        expected = math.exp(float(model(input_ids=windows, labels=windows).loss))
    assert perplexity(model, windows).value == pytest.approx(expected, rel=1e-5)


def test_chunks_do_not_change_the_result(windows: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = perplexity(make_model(), windows)
    monkeypatch.setattr(evaluate, "CHUNK_BYTES", 4 * 5 * (WORDS + 3))
    assert perplexity(make_model(), windows).nll == pytest.approx(whole.nll, rel=1e-6)


def test_the_perplexity_of_uniform_predictions_is_the_vocabulary_size(windows: torch.Tensor) -> None:
    model = make_model()
    torch.nn.init.zeros_(model.lm_head.weight)
    assert perplexity(model, windows).value == pytest.approx(WORDS + 3, rel=1e-5)


def test_all_tokens_but_the_first_of_each_row_are_counted(windows: torch.Tensor) -> None:
    assert perplexity(make_model(), windows).tokens == 5 * 23


def test_the_standard_error_is_that_of_the_rows(windows: torch.Tensor) -> None:
    model = make_model()
    rows = torch.tensor([perplexity(model, row[None]).nll for row in windows], dtype=torch.float64)
    found = perplexity(model, windows)
    assert found.standard_error == pytest.approx(found.value * float(rows.std()) / math.sqrt(5), rel=1e-4)


def test_one_row_has_a_standard_error_too(windows: torch.Tensor) -> None:
    assert 0 < perplexity(make_model(), windows[:1]).standard_error < math.inf


def test_dropout_is_off_while_measuring(windows: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, n_embd=16, n_layer=1, n_head=2, n_positions=32)).train()
    assert perplexity(model, windows).nll == perplexity(model, windows).nll


def test_the_training_mode_of_the_model_is_restored(windows: torch.Tensor) -> None:
    model = make_model().train()
    perplexity(model, windows)
    assert model.training


def test_progress_ends_at_one(windows: torch.Tensor) -> None:
    seen: list[Event] = []
    perplexity(make_model(), windows, emit=seen.append)
    assert [event.fraction for event in seen if isinstance(event, Progress)] == [0.2, 0.4, 0.6, 0.8, 1.0]


def test_a_stop_raises_cancelled(windows: torch.Tensor) -> None:
    with pytest.raises(Cancelled):
        perplexity(make_model(), windows, should_stop=lambda: True)


def test_a_token_outside_the_vocabulary_is_refused(windows: torch.Tensor) -> None:
    with pytest.raises(BadInput, match="vocabulary has 10 tokens"):
        perplexity(make_model(vocabulary=10), windows)


def test_a_broken_model_is_reported(windows: torch.Tensor) -> None:
    model = make_model()
    torch.nn.init.constant_(model.lm_head.weight, math.nan)
    with pytest.raises(VerificationFailed, match="NaN"):
        perplexity(model, windows)


def test_a_runner_has_the_perplexity_of_its_model(windows: torch.Tensor) -> None:
    model = make_model()
    runner = ModuleRunner(model, 512, "cpu")
    seen: list[Event] = []
    found = perplexity(runner, windows, "a text", seen.append)
    expected = perplexity(model, windows, "a text")
    assert math.isclose(found.value, expected.value, rel_tol=1e-5)
    assert (found.tokens, found.sha256, found.text) == (expected.tokens, expected.sha256, expected.text)
    assert [event.fraction for event in seen if isinstance(event, Progress)][-1] == 1
    assert runner.length == 0


def test_measuring_a_runner_can_be_stopped(windows: torch.Tensor) -> None:
    with pytest.raises(Cancelled):
        perplexity(ModuleRunner(make_model(), 512, "cpu"), windows, should_stop=lambda: True)


def test_rows_are_cut_in_order_and_do_not_overlap() -> None:
    found = make_windows(make_tokenizer(), text_of(50), seqlen=16)
    assert found.tokens.tolist() == [[3 + 16 * row + column for column in range(16)] for row in range(3)]


def test_fewer_rows_are_spread_over_the_text() -> None:
    found = make_windows(make_tokenizer(), text_of(60), seqlen=6, max_windows=2)
    assert found.tokens[:, 0].tolist() == [3, 33]


def test_rows_begin_with_begin_of_text_where_the_tokenizer_adds_it() -> None:
    found = make_windows(make_tokenizer(bos=True), text_of(30), seqlen=16)
    assert found.tokens[:, :2].tolist() == [[0, 3], [0, 18]]


def test_a_text_shorter_than_a_row_is_refused() -> None:
    with pytest.raises(BadInput, match="has 9 tokens, fewer than one row of 16"):
        make_windows(make_tokenizer(), text_of(9), seqlen=16)


@pytest.mark.parametrize(("seqlen", "max_windows"), [(1, None), (0, None), (16, 0), (16, -3)])
def test_impossible_rows_are_refused(seqlen: int, max_windows: int | None) -> None:
    with pytest.raises(BadInput):
        make_windows(make_tokenizer(), text_of(99), seqlen, max_windows)


def test_a_file_is_read_as_one_text(tmp_path: Path) -> None:
    path = tmp_path / "held out ü.txt"
    path.write_text(text_of(64))
    assert torch.equal(
        make_windows(make_tokenizer(), path, 16).tokens, make_windows(make_tokenizer(), text_of(64), 16).tokens
    )


def test_records_are_separated(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "w0 w1"}\n{"text": "w2"}')
    assert make_windows(make_tokenizer(), path, 4).tokens.tolist() == [[3, 4, 1, 5]]


def test_binary_junk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\x89PNG\0\0")
    with pytest.raises(BadCalibration, match="PNG"):
        make_windows(make_tokenizer(), path)


def test_the_bundled_text_is_the_default() -> None:
    rows = make_windows(make_tokenizer(), seqlen=32, max_windows=3)
    found = perplexity(make_model(), rows.tokens, rows.text)
    assert (found.text, found.tokens, found.seqlen) == ("builtin", 3 * 31, 32)
