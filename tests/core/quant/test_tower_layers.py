"""Layers of a vision tower in 8 and 4 bits: rounded, written, and read by our reader and by another program."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core import api
from core.bitsmap import BitsMap, Rule
from core.errors import BadInput
from core.formats.opened import open_checkpoint
from core.inference.loader import load_model
from core.model.processor import load_processor
from core.model.tokenizer import load_tokenizer
from core.quant.proof import difference
from core.schemes import LayerScheme
from tests.core.pictures.made_pictures import data_uri, encoded, halves
from tests.core.tiny_vision import save_vision_model
from tests.coverage.measure import dequantized
from tests.coverage.multimodal_measure import LanguageModel

QKV = "model.visual.blocks.0.attn.qkv"
QUICK: dict[str, Any] = {"recipe": "rtn", "group_size": 32, "seqlen": 64, "device": "cpu", "inline": True}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vision_model("qwen3_vl", tmp_path_factory.mktemp("towers") / "source")


@pytest.fixture(scope="module")
def eight(source: Path) -> Path:
    """The model with 4 bits, and 8 in its tower."""
    output = source.parent / "eight"
    run(api.quantize(source, output, bits=4, tower_bits=8, **QUICK))
    return output


def run(events: Iterator[Any]) -> None:
    for _ in events:
        pass


def picture_inputs(source: Path) -> dict[str, Any]:
    processor = load_processor(source, load_tokenizer(source))
    found = processor.inputs(f"A {processor.mark} picture", [data_uri(encoded(halves(64, 40)))])
    return {"input_ids": torch.tensor([found.ids]), **found.arguments}


def picture_logits(model: Any, inputs: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(**inputs).logits
    return found.float()


def test_towers_are_copied_by_default(source: Path, tmp_path: Path) -> None:
    run(api.quantize(source, tmp_path / "out", bits=4, **QUICK))

    assert not [name for name in open_checkpoint(tmp_path / "out").schemes if ".visual." in name]


def test_the_linear_layers_of_the_tower_are_quantized(source: Path, eight: Path) -> None:
    found = {name: scheme.bits for name, scheme in open_checkpoint(eight).schemes.items() if ".visual." in name}

    assert QKV in found
    assert set(found.values()) == {8}
    assert not [name for name in found if "embed" in name or "norm" in name]


def test_the_values_are_those_of_the_source_to_8_bits(source: Path, eight: Path) -> None:
    before = open_checkpoint(source).store.get(f"{QKV}.weight").float()
    layer = open_checkpoint(eight).layer(QKV)
    assert layer is not None

    assert difference(layer.dequantize().float(), before) < 0.01


@pytest.mark.filterwarnings("ignore")
def test_a_picture_gives_the_logits_of_transformers_with_these_weights(source: Path, eight: Path) -> None:
    theirs = dequantized(eight, eight.parent / "plain", LanguageModel)
    inputs = picture_inputs(source)

    ours = load_model(str(eight), "cpu", "float32").model
    assert difference(picture_logits(ours, inputs), picture_logits(theirs, inputs)) < 1e-4


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_auto_round_reads_the_tower(source: Path, eight: Path) -> None:
    from transformers import AutoModelForImageTextToText

    theirs: Any = AutoModelForImageTextToText.from_pretrained(eight, dtype=torch.float32)
    plain = dequantized(eight, eight.parent / "for_peer", LanguageModel)
    inputs = picture_inputs(source)

    assert type(theirs.get_submodule(QKV)).__name__ == "QuantLinear"
    assert difference(picture_logits(theirs, inputs), picture_logits(plain, inputs)) < 0.02


@pytest.mark.parametrize(("name", "bits"), [("auto_gptq", 4), ("auto_awq", 8)])
def test_formats_whose_readers_do_not_look_in_towers_refuse(source: Path, tmp_path: Path, name: str, bits: int) -> None:
    with pytest.raises(BadInput, match=rf"Readers of {name} do not find quantized layers in towers: model\.visual"):
        run(api.quantize(source, tmp_path / "out", bits=4, tower_bits=bits, formats=(name,), **QUICK))
    assert not (tmp_path / "out").exists()


def test_a_layer_of_a_tower_set_by_hand(source: Path, tmp_path: Path) -> None:
    by_hand = BitsMap(LayerScheme(4, 32), layers=(Rule(QKV, bits=4),))
    run(api.quantize(source, tmp_path / "out", bits_map=by_hand, recipe="rtn", seqlen=64, device="cpu", inline=True))

    found = open_checkpoint(tmp_path / "out").schemes
    assert [name for name in found if ".visual." in name] == [QKV]
