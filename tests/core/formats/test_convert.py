"""Converting between formats keeps every integer, and refuses what would not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from core.errors import BadInput, BitwrightError, Cancelled
from core.events import Done, Event
from core.formats.convert import convert
from core.formats.reader import QuantizedCheckpoint
from core.jobs.control import never
from core.schemes import LayerScheme
from tests.core.formats.tiny import LLAMA_CONFIG, Output, bits_map, llama_tensors, save_source, write_output

DOWN = "model.layers.1.mlp.down_proj"
MIXED = bits_map(LayerScheme(4, 32), {DOWN: {"bits": 8}, "model.layers.0.self_attn.q_proj": {"bits": 16}})


def source(place: Path, name: str, chosen: LayerScheme) -> Output:
    original = save_source(place / "original", llama_tensors(), LLAMA_CONFIG)
    return write_output(original, place / "source", name, bits_map(chosen))


def same_layers(left: Path, right: Path) -> bool:
    before, after = QuantizedCheckpoint(left), QuantizedCheckpoint(right)
    pairs = [(before.layer(name), after.layer(name)) for name in before.schemes]
    return before.schemes == after.schemes and all(
        torch.equal(getattr(a, part), getattr(b, part)) for a, b in pairs for part in ("ints", "scales", "zeros")
    )


@pytest.mark.parametrize(("first", "second"), [("auto_round", "auto_gptq"), ("auto_gptq", "auto_round")])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_symmetric_layers_go_both_ways(tmp_path: Path, first: str, second: str, bits: int) -> None:
    made = source(tmp_path, first, LayerScheme(bits, 32))
    events: list[Event] = []
    convert(made.folder, tmp_path / "new" / "out", second, events.append, never)
    assert same_layers(made.folder, tmp_path / "new" / "out")
    assert isinstance(events[-1], Done)
    config = json.loads((tmp_path / "new" / "out" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == ("gptq" if second == "auto_gptq" else "auto-round")


def test_mixed_bits_keep_their_schemes(tmp_path: Path) -> None:
    original = save_source(tmp_path / "original", llama_tensors(), LLAMA_CONFIG)
    made = write_output(original, tmp_path / "source", "auto_round", MIXED)
    convert(made.folder, tmp_path / "out", "auto_gptq", lambda _event: None, never)
    after = QuantizedCheckpoint(tmp_path / "out")
    assert after.schemes[DOWN] == LayerScheme(8, 32)
    assert "model.layers.0.self_attn.q_proj.weight" in after.plain
    assert same_layers(made.folder, tmp_path / "out")


def test_other_tensors_and_side_files_come_along(tmp_path: Path) -> None:
    made = source(tmp_path, "auto_gptq", LayerScheme(4, 32))
    (made.folder / "tokenizer.json").write_text("{}")
    (made.folder / "LICENSE").write_text("free")
    (made.folder / "modeling.py").write_text("import os")
    convert(made.folder, tmp_path / "out", "auto_round", lambda _event: None, never)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "quantization_config.json", "model.safetensors", "tokenizer.json", "LICENSE"}
    before, after = QuantizedCheckpoint(made.folder), QuantizedCheckpoint(tmp_path / "out")
    assert [(n, before.tensors[n].shape) for n in before.plain] == [(n, after.tensors[n].shape) for n in after.plain]


def refused(made: Path, target: Path, name: str, error: type[BitwrightError], place: Path) -> BitwrightError:
    before = sorted(place.rglob("*"))
    with pytest.raises(error) as caught:
        convert(made, target, name, lambda _event: None, never)
    assert sorted(place.rglob("*")) == before
    return caught.value


def test_zero_points_that_gptq_cannot_store_are_refused(tmp_path: Path) -> None:
    # random weights of both signs: at 2 bits some group has its zero point at 0 only if all its weights are positive
    tensors = {name: value.abs() for name, value in llama_tensors().items()}
    original = save_source(tmp_path / "original", tensors, LLAMA_CONFIG)
    made = write_output(original, tmp_path / "source", "auto_round", bits_map(LayerScheme(2, 32, sym=False)))
    assert min(int(layer.zeros.min()) for layer in made.layers.values()) == 0
    error = refused(made.folder, tmp_path / "new" / "out", "auto_gptq", BadInput, tmp_path)
    assert "zero points" in error.message


def test_a_model_that_is_not_quantized_is_refused(tmp_path: Path) -> None:
    original = save_source(tmp_path / "original", llama_tensors(), LLAMA_CONFIG)
    error = refused(original, tmp_path / "out", "auto_gptq", BadInput, tmp_path)
    assert "not quantized" in error.message


def test_a_stop_leaves_nothing(tmp_path: Path) -> None:
    made = source(tmp_path, "auto_gptq", LayerScheme(4, 32))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Cancelled):
        convert(made.folder, tmp_path / "new" / "out", "auto_round", lambda _event: None, lambda: True)
    assert sorted(tmp_path.rglob("*")) == before
