"""Tests that a text processed in parts gives the logits of one pass, or that the model is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.events import Event, Log
from core.inference.loader import load_model, load_runner
from core.inference.runners import stepping
from core.inference.runners.module import ModuleRunner
from tests.core.tiny_architectures import make_model

pytestmark = pytest.mark.usefixtures("own_home")

TEXT = [int(token) for token in torch.randint(1, 250, (190,), generator=torch.Generator().manual_seed(3))]
PARTS = (140, 30, *[1] * 20)
"""Tokens of a first question longer than a piece, of a second question, and of an answer."""


@pytest.mark.parametrize("name", ["mamba", "mamba2", "falcon_mamba", "recurrent_gemma", "jamba", "rwkv"])
def test_recurrent_states_are_kept_from_token_to_token(tmp_path: Path, name: str) -> None:
    """Mamba uses `cache_params`; some models lose their state if more than one token follows."""
    agrees(tmp_path, name)


@pytest.mark.parametrize("name", ["ctrl", "modernbert-decoder"])
def test_a_tied_head_keeps_its_bias(tmp_path: Path, name: str) -> None:
    agrees(tmp_path, name)


def agrees(folder: Path, name: str) -> list[Event]:
    """Compare the logits after each part of a conversation with those of one pass; return the events of loading."""
    events: list[Event] = []
    make_model(name, folder / "model")
    with torch.no_grad():
        whole = (
            load_model(str(folder / "model"), "cpu", "float32")
            .model(input_ids=torch.tensor([TEXT]), use_cache=False)
            .logits[0]
        )
    runner = load_runner(str(folder / "model"), "cpu", dtype="float32", emit=events.append).runner
    assert isinstance(runner, ModuleRunner)
    position = 0
    for count in PARTS:
        found = runner.extend(TEXT[position : position + count])
        position += count
        assert torch.allclose(found, whole[position - 1], rtol=1e-3, atol=1e-3), f"behind token {position}"
    return events


@pytest.mark.parametrize("name", ["openai-gpt", "xlstm"])
def test_a_model_without_a_working_cache_processes_the_whole_text_for_every_token(tmp_path: Path, name: str) -> None:
    events = agrees(tmp_path, name)
    assert [event.message for event in events if isinstance(event, Log) and "cannot use a cache" in event.message]


def test_positions_are_given_to_a_model_that_counts_them_from_0_in_every_call(tmp_path: Path) -> None:
    agrees(tmp_path, "bamba")


@pytest.mark.parametrize(("noise", "calls"), [(0.02, "whole"), (0.2, "pieces"), (5.0, "pieces")])
def test_differences_as_from_rounding_are_accepted(monkeypatch: pytest.MonkeyPatch, noise: float, calls: str) -> None:
    """A mixture chooses other experts after a rounding error, so that its logits differ more."""
    monkeypatch.setattr(stepping, "_takes_positions", lambda *_: True)
    monkeypatch.setattr(stepping, "cache_key", lambda model: "past_key_values")
    monkeypatch.setattr(stepping, "_rounding_noise", lambda *_: noise)
    monkeypatch.setattr(stepping, "_difference", lambda *_: (0.25, "they differ"))
    assert stepping._measure(None, 100, "cpu", stepping._ROUNDED)[0].calls == calls
    monkeypatch.setattr(stepping, "_difference", lambda *_: (0.7, "they differ"))
    assert stepping._measure(None, 100, "cpu", stepping._ROUNDED)[0].calls == "whole"


def test_noise_is_larger_for_less_precise_embeddings(tmp_path: Path) -> None:
    make_model("qwen3_moe", tmp_path / "model")
    noise = [
        stepping._rounding_noise(load_model(str(tmp_path / "model"), "cpu", dtype).model, 60, "cpu")
        for dtype in ("float32", "bfloat16")
    ]
    assert 1e-6 < noise[0] < noise[1]


def test_the_result_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_model("gpt2", tmp_path / "model")
    load_runner(str(tmp_path / "model"), "cpu", dtype="float32")
    monkeypatch.setattr(stepping, "_difference", lambda *_, **__: pytest.fail("checked again"))
    load_runner(str(tmp_path / "model"), "cpu", dtype="float32")
