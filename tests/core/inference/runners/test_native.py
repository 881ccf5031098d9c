"""Tests of the native runner: packed checkpoints against dequantized weights, and the contract of a runner."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from core.errors import BadInput, Cancelled
from core.formats.opened import open_checkpoint
from core.formats.quantized import QuantizedLinear
from core.formats.stored import Checkpoint, StoredLayer
from core.inference.loader import open_tree
from core.inference.runners import native
from core.inference.runners.native import NativeRunner
from core.model.skeleton import build_skeleton
from core.schemes import LayerScheme
from tests.core.formats.gguf import gguf_files
from tests.core.formats.tiny import bits_map, write_output
from tests.core.inference.native.tiny_models import TEXT, kernels, load, logits_of, make

__all__ = ["kernels"]
SCHEMES = [
    LayerScheme(bits, group, sym) for bits in (2, 3, 4, 8) for group, sym in ((32, True), (32, False), (-1, True))
]


def with_weights(model: Any, layers: Mapping[str, StoredLayer]) -> Any:
    """Return a copy of the transformers model with the dequantized weights of these layers."""
    model = copy.deepcopy(model)
    for name, layer in layers.items():
        model.get_submodule(name).weight.data = layer.dequantize()
    return model


def build(checkpoint: Checkpoint, **options: Any) -> NativeRunner:
    skeleton = build_skeleton(open_tree(checkpoint), checkpoint.store)
    assert native.refusal(skeleton) == ""
    return native.build(checkpoint, skeleton, 256, **{"threads": 2, "dtype": torch.float32, **options})


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("scheme", SCHEMES, ids=[scheme.label() for scheme in SCHEMES])
def test_packed_weights_compute_as_dequantized_ones(tmp_path: Path, kernels: Any, scheme: LayerScheme) -> None:
    model = make("llama", tmp_path / "source")
    written = write_output(tmp_path / "source", tmp_path / "out", "auto_round", bits_map(scheme))
    expected = logits_of(with_weights(model, written.layers), TEXT)
    assert apart(load(written.folder, planes=2).logits(TEXT), expected) < 2e-4
    assert apart(load(written.folder).logits(TEXT), expected) < 0.03


@pytest.mark.parametrize("name", ["qwen3", "gemma3", "phi3", "olmo2"])
def test_packed_weights_of_other_architectures(tmp_path: Path, kernels: Any, name: str) -> None:
    model = make(name, tmp_path / "source")
    written = write_output(tmp_path / "source", tmp_path / "out", "auto_round", bits_map(LayerScheme(4, 32)))
    expected = logits_of(with_weights(model, written.layers), TEXT)
    runner = load(written.folder, planes=2)
    assert apart(runner.logits(TEXT), expected) < 2e-4
    assert apart(torch.stack([runner.extend([token]) for token in TEXT]), expected) < 2e-4


def test_layers_of_different_bit_widths_and_the_head_are_packed(tmp_path: Path, kernels: Any) -> None:
    layers = {
        "model.layers.0.self_attn.k_proj": {"bits": 8},
        "model.layers.1.mlp.up_proj": {"bits": 2, "sym": False},
        "model.layers.2.mlp.down_proj": {"bits": 16},
        "lm_head": {"bits": 4, "group_size": 64},
    }
    chosen = bits_map(LayerScheme(3, 32), layers)
    # 300 outputs are not divisible by 32, and the head would not be quantized
    model = make("llama", tmp_path / "source", vocab_size=320)
    written = write_output(tmp_path / "source", tmp_path / "out", "auto_round", chosen)
    assert written.layers["lm_head"].scheme.bits == 4
    expected = logits_of(with_weights(model, written.layers), TEXT)
    assert apart(load(written.folder, planes=2).logits(TEXT), expected) < 2e-4


@dataclass(frozen=True)
class ActOrderCheckpoint:
    """A checkpoint whose quantized layers have act-order."""

    real: Checkpoint

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def layer(self, name: str) -> StoredLayer:
        layer = self.real.layer(name)
        assert isinstance(layer, QuantizedLinear)
        # queries and keys share one order, values have another: the same activations are quantized twice
        seed = torch.Generator().manual_seed(1 if name.endswith(("q_proj", "k_proj")) else len(name))
        groups = torch.arange(layer.in_features, dtype=torch.int32) // layer.scheme.group_of(layer.in_features)
        return replace(layer, g_idx=groups[torch.randperm(layer.in_features, generator=seed)])


def test_act_order_is_computed(tmp_path: Path, kernels: Any) -> None:
    model = make("llama", tmp_path / "source")
    written = write_output(tmp_path / "source", tmp_path / "out", "auto_round", bits_map(LayerScheme(4, 32)))
    checkpoint: Any = ActOrderCheckpoint(open_checkpoint(written.folder, lambda: False))
    expected = logits_of(with_weights(model, {name: checkpoint.layer(name) for name in written.layers}), TEXT)
    assert apart(build(checkpoint, planes=2).logits(TEXT), expected) < 2e-4


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("kind", ["F16", "Q4_1", "Q8_0"])
@pytest.mark.usefixtures("own_home")
def test_a_gguf_file_computes_as_dequantized(tmp_path: Path, kernels: Any, family: str, kind: str) -> None:
    original = copy.deepcopy(gguf_files.build(family))  # its weights are replaced by those of the file
    number = gguf.GGMLQuantizationType[kind]
    path = gguf_files.write(tmp_path / "m.gguf", family, original, kind=number)
    with torch.no_grad():
        for parameter in original.parameters():
            if parameter.dim() == 2:
                blocks = gguf.quantize(np.ascontiguousarray(parameter.numpy()), number)
                parameter.copy_(torch.tensor(gguf.dequantize(blocks, number)))
    ids = list(range(5, 35))
    runner = build(open_checkpoint(path, lambda: False), planes=2)
    assert apart(runner.logits(ids), logits_of(original, ids)) < 2e-4


@pytest.mark.usefixtures("own_home")
def test_the_tied_head_of_a_gguf_file_stays_packed(
    tmp_path: Path, kernels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # gemma2 has a tied head
    original = gguf_files.build("gemma2")
    path = gguf_files.write(tmp_path / "m.gguf", "gemma2", original, kind=gguf.GGMLQuantizationType.Q8_0)
    checkpoint = open_checkpoint(path, lambda: False)
    packed = build(checkpoint).memory_bytes
    monkeypatch.setattr(checkpoint, "embedding_pieces", lambda name, rows: None)
    assert packed < build(checkpoint).memory_bytes


def test_a_tied_head_and_the_embedding_share_one_copy_in_their_dtype(tmp_path: Path, kernels: Any) -> None:
    sizes = {}
    for tied in (True, False):
        model = make("llama", tmp_path / f"{tied}", tie_word_embeddings=tied, vocab_size=4096)
        for parameter in model.parameters():
            parameter.data = parameter.to(torch.bfloat16)
        model.save_pretrained(tmp_path / f"{tied}")
        for parameter in model.parameters():
            parameter.data = parameter.to(torch.float32)
        runner = load(tmp_path / f"{tied}")
        assert apart(runner.logits(TEXT), logits_of(model, TEXT)) < 1e-5
        sizes[tied] = runner.memory_bytes
    assert sizes[False] - sizes[True] == 4096 * 64 * 2


@pytest.fixture
def runner(tmp_path: Path, kernels: Any) -> NativeRunner:
    make("llama", tmp_path / "model")
    return load(tmp_path / "model")


def test_a_new_runner_has_its_name_context_and_an_empty_cache(runner: NativeRunner) -> None:
    assert (runner.name, runner.context, runner.length) == ("native", 256, 0)


def test_a_second_call_continues_the_text(runner: NativeRunner) -> None:
    whole = runner.extend(TEXT)
    runner.truncate(0)
    runner.extend(TEXT[:90])
    assert runner.length == 90
    assert torch.allclose(runner.extend(TEXT[90:]), whole, rtol=0, atol=1e-5)
    assert runner.length == len(TEXT)


def test_truncating_beyond_the_end_changes_nothing(runner: NativeRunner) -> None:
    runner.extend(TEXT[:5])
    runner.truncate(9)
    assert runner.length == 5


def test_logits_of_all_tokens_leave_an_empty_cache(runner: NativeRunner) -> None:
    runner.extend(TEXT[:5])
    assert runner.logits(TEXT).shape == (len(TEXT), 300)
    assert runner.length == 0


@pytest.mark.parametrize(
    ("ids", "message"),
    [([], "no text to process"), ([300], "has 300 tokens"), ([-1], "token id -1"), ([5] * 257, "257 tokens")],
)
def test_invalid_inputs_are_refused_and_leave_the_cache(runner: NativeRunner, ids: list[int], message: str) -> None:
    for process in (runner.extend, runner.logits):
        with pytest.raises(BadInput, match=message):
            process(ids)
    assert runner.length == 0


def test_tokens_that_exceed_the_context_are_refused(runner: NativeRunner) -> None:
    runner.extend(TEXT)
    with pytest.raises(BadInput, match="300 tokens do not fit into a context of 256"):
        runner.extend(TEXT)
    assert runner.length == len(TEXT)


def test_a_stop_before_the_first_piece_leaves_an_empty_cache(runner: NativeRunner) -> None:
    with pytest.raises(Cancelled):
        runner.extend(TEXT, lambda: True)
    assert runner.length == 0


def test_a_stop_keeps_the_processed_pieces(tmp_path: Path, kernels: Any) -> None:
    make("llama", tmp_path / "long", max_position_embeddings=1024)
    runner = load(tmp_path / "long", 1024)
    answers = iter([False] * 1)
    with pytest.raises(Cancelled):
        runner.extend(TEXT * 6, lambda: next(answers, True))
    assert runner.length in (0, runner.program.rows)
    kept = runner.length
    text = (TEXT * 6)[: kept + 10]
    whole = load(tmp_path / "long", 1024).extend(text)
    assert torch.allclose(runner.extend(text[kept:]), whole, rtol=0, atol=1e-5)


def test_closing_frees_the_weights_immediately(runner: NativeRunner) -> None:
    runner.extend(TEXT)
    program = weakref.ref(runner.program)
    gc.disable()
    try:
        runner.close()
        assert program() is None
    finally:
        gc.enable()


def test_loading_reports_progress_and_can_be_stopped(tmp_path: Path, kernels: Any) -> None:
    make("llama", tmp_path / "model")
    reported: list[tuple[int, int]] = []
    load(tmp_path / "model", progress=lambda done, blocks: reported.append((done, blocks)))
    assert reported == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(Cancelled):
        load(tmp_path / "model", should_stop=lambda: True)


def test_a_text_that_crosses_the_short_context_is_processed_again(tmp_path: Path, kernels: Any) -> None:
    """Cached keys with the RoPE of a short text cannot be used for a long one."""
    model = make("longrope, a long text", tmp_path / "model")
    runner = load(tmp_path / "model")
    for end in (50, 64, 65, 100, 101):
        found = runner.extend(TEXT[runner.length : end])
        assert runner.length == end
        assert torch.allclose(found, logits_of(model, TEXT[:end])[-1], rtol=0, atol=1e-4)
    runner.truncate(40)
    assert torch.allclose(runner.extend(TEXT[40:60]), logits_of(model, TEXT[:60])[-1], rtol=0, atol=1e-4)
    assert torch.allclose(runner.logits(TEXT), logits_of(model, TEXT), rtol=0, atol=1e-4)
