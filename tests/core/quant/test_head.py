"""The head: rounded against what reaches it, written as a layer of its own, and computing what the run computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.bitsmap import BitsMap, Rule
from core.block_types import TYPES
from core.errors import Cancelled, UnsupportedModel
from core.estimation.preflight import read_tree
from core.estimation.sizes import output_size
from core.events import Log
from core.formats.gguf.blocks import BlockLinear
from core.formats.quantized import QuantizedLinear
from core.formats.reader import QuantizedCheckpoint
from core.formats.stored import StoredLayer
from core.inference.loader import load_model
from core.model.headers import read_folder
from core.model.tree import resolve_schemes
from core.quant import head
from core.quant.grid import new_grid
from core.quant.head import round_head
from core.quant.prepare import prepare
from core.schemes import LayerScheme
from core.spec import JobSpec
from tests.core.quant.test_pipeline import report_of, run, spec_of
from tests.core.tiny_model import CONFIG, save_model


def inputs(width: int) -> torch.Tensor:
    """Samples [512, width] whose parts go together, as those of a hidden state do."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(width // 4, width, generator=generator)
    noise = torch.randn(512, width, generator=generator)
    return torch.randn(512, width // 4, generator=generator) @ mixing + 0.3 * noise


def never() -> bool:
    return False


@pytest.mark.parametrize("scheme", [LayerScheme(b, 32, sym) for b in (2, 3, 4, 8) for sym in (True, False)])
def test_feedback_brings_the_answers_nearer(scheme: LayerScheme) -> None:
    generator = torch.Generator().manual_seed(2)
    weight, x = torch.randn(96, 64, generator=generator), inputs(64)

    def error(layer: StoredLayer) -> float:
        return float((x @ (layer.dequantize() - weight).T).square().mean())

    plain = new_grid(weight, scheme).freeze("head")
    assert isinstance(plain, QuantizedLinear)
    better = round_head(weight, "head", scheme, x.T @ x / len(x), 0, never)
    assert isinstance(better, QuantizedLinear)
    assert error(better) < 0.6 * error(plain)


def test_rows_are_rounded_in_parts_as_they_are_together(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x = torch.randn(40, 64, generator=torch.Generator().manual_seed(2)), inputs(64)
    moments = x.T @ x / len(x)
    whole = round_head(weight, "head", LayerScheme(4, 32), moments, 0, never)
    monkeypatch.setattr(head, "_OPERATIONS", 16 * 64 * 64)
    assert len(list(head._chunks(weight, never))) == 3
    parts = round_head(weight, "head", LayerScheme(4, 32), moments, 0, never)
    assert (parts.ints == whole.ints).float().mean() > 0.99  # products of other shapes are summed in another order
    assert torch.allclose(parts.dequantize(), whole.dequantize(), atol=0.2)


@pytest.mark.parametrize("name", sorted(TYPES))
def test_feedback_brings_the_answers_of_a_block_type_nearer(name: str) -> None:
    weight, x = torch.randn(48, 256, generator=torch.Generator().manual_seed(2)), inputs(256)

    def error(layer: StoredLayer) -> float:
        return float((x @ (layer.dequantize() - weight).T).square().mean())

    scheme, moments = LayerScheme.of_type(name), x.T @ x / len(x)
    plain = new_grid(weight, scheme, importance=moments.diagonal()).freeze("head")
    better = round_head(weight, "head", scheme, moments, 0, never)
    assert isinstance(better, BlockLinear)
    assert error(better) < 0.8 * error(plain)


@pytest.mark.parametrize("name", sorted(TYPES))
def test_uncorrelated_inputs_of_a_block_type_leave_little_to_gain(name: str) -> None:
    weight, scheme = torch.randn(48, 256, generator=torch.Generator().manual_seed(2)), LayerScheme.of_type(name)
    found = round_head(weight, "head", scheme, torch.eye(256), 0, never)
    nearest = new_grid(weight, scheme, importance=torch.ones(256)).freeze("head")
    errors = [(layer.dequantize() - weight).square().sum() for layer in (found, nearest)]
    assert 0.9 * errors[1] < errors[0] <= 1.0001 * errors[1]


def test_an_input_that_never_varies_does_no_harm() -> None:
    moments = torch.eye(64)
    moments[3] = moments[:, 3] = 0
    found = round_head(torch.randn(32, 64), "head", LayerScheme(4, 32), moments, 0, never)
    assert torch.isfinite(found.dequantize()).all()


def test_the_head_can_be_stopped() -> None:
    with pytest.raises(Cancelled):
        round_head(torch.randn(32, 64), "head", LayerScheme(4, 32), torch.eye(64), 0, lambda: True)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("source") / "tied")


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_model(tmp_path_factory.mktemp("source") / "untied")
    (folder / "config.json").write_text(json.dumps({**CONFIG, "tie_word_embeddings": False}))
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].flip(0).clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def with_head(model: Path, folder: Path, bits: int = 8, **changes: Any) -> JobSpec:
    spec = spec_of(model, folder, **{"iters": 1, **changes})
    return JobSpec(**{**vars(spec), "bits_map": BitsMap(spec.bits_map.default, layers=(Rule("lm_head", bits=bits),))})


@pytest.mark.parametrize("which", ["tied", "untied"])
@pytest.mark.parametrize("bits", [3, 8])
def test_a_named_head_is_written_and_verified(
    request: pytest.FixtureRequest, tmp_path: Path, which: str, bits: int
) -> None:
    model = request.getfixturevalue(which)
    report = report_of(run(with_head(model, tmp_path, bits), tmp_path))
    assert QuantizedCheckpoint(tmp_path / "out").schemes["lm_head"].bits == bits
    assert report["verification"]["auto_round"]["layers"] == 15
    assert report["verification"]["auto_round"]["perplexity"] == pytest.approx(
        report["perplexity"]["quantized"], rel=1e-3
    )
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False


def test_the_embedding_of_a_tied_model_stays_as_it_is(tied: Path, tmp_path: Path) -> None:
    run(with_head(tied, tmp_path), tmp_path)
    name = "model.embed_tokens.weight"
    before, after = load_file(tied / "model.safetensors")[name], load_file(tmp_path / "out" / "model.safetensors")[name]
    assert torch.equal(before, after)
    loaded = load_model(str(tmp_path / "out"), "cpu", "float32").model
    assert not torch.equal(loaded.lm_head.weight, loaded.model.embed_tokens.weight)
    step = before.float().abs().amax() / 128
    assert float((loaded.lm_head.weight - before.float()).abs().max()) < 2 * float(step)


@pytest.mark.parametrize("name", ["auto_round", "auto_gptq"])
def test_the_size_was_known_to_the_byte(tied: Path, tmp_path: Path, name: str) -> None:
    spec = with_head(tied, tmp_path, formats=(name,))
    run(spec, tmp_path)
    tree = read_tree(tied)
    expected = output_size(tree, resolve_schemes(tree, spec.bits_map), name).total
    assert sum(info.nbytes for info in read_folder(tmp_path / "out").values()) == expected


def test_a_run_says_what_becomes_of_a_tied_head(tied: Path, tmp_path: Path) -> None:
    events = run(with_head(tied, tmp_path), tmp_path)
    assert any(isinstance(event, Log) and "a separate 8-bit copy" in event.message for event in events)


def test_a_quantized_tied_head_loses_little(tied: Path, tmp_path: Path) -> None:
    report = report_of(run(with_head(tied, tmp_path, bits=8), tmp_path))
    alone = report_of(run(spec_of(tied, tmp_path, iters=1, output="without"), tmp_path))
    assert report["perplexity"]["quantized"] == pytest.approx(alone["perplexity"]["quantized"], rel=0.01)


def test_a_head_that_the_model_calls_otherwise_is_refused(tmp_path: Path) -> None:
    from transformers import BioGptConfig, BioGptForCausalLM

    config = BioGptConfig(
        vocab_size=288, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=256,
    )  # fmt: skip
    folder = save_model(tmp_path / "biogpt")
    made: Any = BioGptForCausalLM(config)
    made.to(torch.bfloat16).save_pretrained(folder)
    with pytest.raises(UnsupportedModel, match="output_projection"):
        prepare(with_head(folder, tmp_path), tmp_path, lambda event: None, never)
