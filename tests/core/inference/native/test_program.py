"""Tests of the program: structs, long texts, stops, and rounding of cache and activations."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import CorruptFile
from core.formats.opened import open_checkpoint
from core.inference.loader import open_tree
from core.inference.native import op_graph, weights
from core.inference.native.program import ROWS, Program
from core.inference.runners import native
from core.inference.runners.native import NativeRunner
from core.model.skeleton import build_skeleton
from tests.core.inference.native.tiny_models import TEXT, kernels, load, logits_of, make

__all__ = ["kernels"]
LONG = (TEXT * 5)[:700]
CONTEXT = 1024


@pytest.fixture
def folder(tmp_path: Path, kernels: Any) -> Path:
    make("llama", tmp_path / "model", max_position_embeddings=CONTEXT)
    return tmp_path / "model"


def test_structs_are_as_long_as_those_in_c(kernels: Any) -> None:
    assert [kernels.bw_struct_size(number) for number in range(len(op_graph.STRUCTS))] == [
        ctypes.sizeof(struct) for struct in op_graph.STRUCTS
    ]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("model", ["llama", "mistral", "gemma2"])
def test_long_texts_whose_keys_are_shared_out(tmp_path: Path, kernels: Any, model: str, threads: int) -> None:
    """With many keys and few rows, several threads compute parts of the same rows, which are then reduced."""
    theirs = make(model, tmp_path / "model", max_position_embeddings=CONTEXT, sliding_window=600)
    runner = load(tmp_path / "model", CONTEXT, threads=threads)
    expected = logits_of(theirs, LONG)
    assert torch.allclose(runner.extend(LONG[:-20]), expected[-21], rtol=0, atol=1e-4)
    assert torch.allclose(runner.extend(LONG[-20:-5]), expected[-6], rtol=0, atol=1e-4)
    for place in range(len(LONG) - 5, len(LONG)):
        assert torch.allclose(runner.extend([LONG[place]]), expected[place], rtol=0, atol=1e-4)


def test_a_text_of_several_steps_is_one_text(folder: Path, tmp_path: Path) -> None:
    model = make("llama", tmp_path / "again", max_position_embeddings=CONTEXT)
    assert len(LONG) > 2 * ROWS
    assert torch.allclose(load(folder, CONTEXT).logits(LONG), logits_of(model, LONG), rtol=0, atol=1e-4)


def test_a_cache_in_16_bits_is_half_as_large_and_nearly_the_same(folder: Path) -> None:
    exact, halves = load(folder, CONTEXT), load(folder, CONTEXT, dtype=torch.float16)
    if not exact.program._library.bw_has_fp16_cache():
        pytest.skip("this machine does not convert 16-bit floats")
    assert exact.memory_bytes - halves.memory_bytes == 3 * 2 * CONTEXT * 2 * 16 * 2
    assert torch.allclose(exact.logits(TEXT), halves.logits(TEXT), rtol=0, atol=0.01)


def ids(tokens: list[int]) -> torch.Tensor:
    return torch.tensor(tokens, dtype=torch.int32)


@pytest.fixture
def slow(tmp_path: Path, kernels: Any) -> Program:
    """Return a program whose step of 256 tokens takes several times the interval between stop checks."""
    make("llama", tmp_path / "slow", hidden_size=384, intermediate_size=1536, num_hidden_layers=8)
    return load(tmp_path / "slow", threads=1).program


def test_a_stop_between_operations_ends_the_step(slow: Program) -> None:
    assert slow.step(ids([5] * ROWS), 0, None, lambda: False)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return True

    assert not slow.step(ids([5] * ROWS), 0, None, stop)
    assert asked == [1]


def test_an_error_of_the_question_whether_to_stop_is_the_callers(slow: Program) -> None:
    def broken() -> bool:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        slow.step(ids([5] * ROWS), 0, None, broken)


def test_a_profile_says_where_the_time_goes(folder: Path) -> None:
    runner = load(folder)
    runner.program.profile(True)
    runner.extend(TEXT)
    spent = dict(zip(op_graph.KINDS, runner.program.op_nanoseconds.tolist(), strict=True))
    assert all(
        spent[kind] > 0 for kind in ("embedding", "rmsnorm", "matmul", "gated_activation", "qk_norm_rope", "attention")
    )
    assert spent["logits"] == 0


def test_threads_do_not_change_the_logits(folder: Path) -> None:
    one, many = (load(folder, threads=threads).logits(TEXT) for threads in (1, 4))
    assert torch.equal(one, many)


def test_memory_counts_weights_cache_and_buffers(folder: Path) -> None:
    runner: NativeRunner = load(folder, 256)
    stored = 4 * (2 * 300 * 64 + 3 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 96 + 2 * 64) + 64)
    cache = 4 * 3 * 2 * 256 * 32
    assert runner.memory_bytes > stored + cache


@pytest.mark.parametrize(
    ("tokens", "position", "sentence"),
    [
        ([300], 0, "outside of the vocabulary"),
        ([-1], 0, "outside of the vocabulary"),
        ([5], 256, "beyond the end of the cache"),
        ([5] * 9, 250, "beyond the end of the cache"),
        ([5], -1, "beyond the end of the cache"),
        ([5] * (ROWS + 1), 0, "shorter than its shape"),
        ([], 0, "a size or a kind"),
    ],
)
def test_steps_that_do_not_fit_are_refused_by_the_compiled_program(
    folder: Path, tokens: list[int], position: int, sentence: str
) -> None:
    program = load(folder, 256).program
    with pytest.raises(CorruptFile, match=sentence):
        program.step(ids(tokens), position, torch.empty(1, 300))
    assert program.step(ids([5]), 255, torch.empty(1, 300))


def test_logits_without_room_are_refused_by_the_compiled_program(folder: Path) -> None:
    program = load(folder, 256).program
    with pytest.raises(CorruptFile, match="shorter than its shape"):
        program.step(ids([5] * 3), 0, torch.empty(2, 300))


@pytest.mark.parametrize("name", ["self_attn.k_proj", "mlp.down_proj", "input_layernorm"])
def test_weights_of_another_shape_than_the_spec_has_reach_no_pointer(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a previous check of the folder against its config."""
    checkpoint = open_checkpoint(folder)
    skeleton = build_skeleton(open_tree(checkpoint), checkpoint.store)
    other = torch.ones((4,) if "norm" in name else (16, 96))
    real = checkpoint.store.get

    def get(key: str) -> torch.Tensor:
        return other if key == f"model.layers.1.{name}.weight" else real(key)

    monkeypatch.setattr(checkpoint.store, "get", get)
    with pytest.raises(CorruptFile, match=rf"{name} of block 1 has the shape .*, but config.json gives"):
        native.build(checkpoint, skeleton, 256)


def test_tables_of_positions_that_are_too_short_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = weights._rope_table
    monkeypatch.setattr(weights, "_rope_table", lambda module, name, length: real(module, name, length - 1))
    with pytest.raises(CorruptFile, match="RoPE table"):
        load(folder, 256)
