"""GPTQ with `desc_act` (act-order), from a handmade file to the weight."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from core.errors import CorruptFile
from core.formats.layout import decode, encode, own_order
from core.formats.packing import AUTO_ROUND, AUTO_ROUND_AWQ, AUTO_ROUND_GPTQ, GPTQ, GPTQ_V2, Packing
from core.formats.quantized import QuantizedLinear, natural_groups
from core.formats.reader import QuantizedCheckpoint
from core.schemes import LayerScheme

NAME = "model.layers.0.mlp.up_proj"
CONFIG = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": False, "desc_act": True}

# Inputs sorted by activation: the even ones first. The first 32 of that list are group 0, the next 32 group 1.
ORDER = [*range(0, 96, 2), *range(1, 96, 2)]
G_IDX = [0] * 96
for place, column in enumerate(ORDER):
    G_IDX[column] = place // 32

SCALES = torch.tensor([0.5, -0.25, 2.0], dtype=torch.float16)
ZEROS = [1, 8, 15]
OUTPUTS = 32


def dense() -> torch.Tensor:
    """Return the known weight [32, 96]: output n, input k has level (k + n) % 16 minus the zero point of its group."""
    return torch.tensor(
        [
            [float(SCALES[G_IDX[k]]) * ((k + n) % 16 - ZEROS[G_IDX[k]]) for k in range(96)]
            for n in range(OUTPUTS)
        ]
    )  # fmt: skip


def tensors(zero_bias: int = 1) -> dict[str, torch.Tensor]:
    """Return GPTQ's tensors of that weight: eight inputs in a word, eight outputs in a word of zero points."""

    def word(nibbles: list[int]) -> int:
        value = sum(nibble << (4 * place) for place, nibble in enumerate(nibbles))
        return value - (1 << 32) if value >= 1 << 31 else value

    return {
        f"{NAME}.qweight": torch.tensor(
            [[word([(8 * row + i + n) % 16 for i in range(8)]) for n in range(OUTPUTS)] for row in range(12)],
            dtype=torch.int32,
        ),
        f"{NAME}.qzeros": torch.tensor([[word([zero - zero_bias] * 8)] * 4 for zero in ZEROS], dtype=torch.int32),
        f"{NAME}.scales": SCALES.unsqueeze(1).repeat(1, OUTPUTS),
        f"{NAME}.g_idx": torch.tensor(G_IDX, dtype=torch.int32),
    }


def save(folder: Path, table: dict[str, torch.Tensor], **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(table, folder / "model.safetensors")
    config = {key: value for key, value in {**CONFIG, **changes}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps({"quantization_config": config}))
    return folder


@pytest.mark.parametrize(("version", "bias"), [("gptq", 1), ("gptq_v2", 0)])
def test_act_order_has_the_known_answer(tmp_path: Path, version: str, bias: int) -> None:
    layer = QuantizedCheckpoint(save(tmp_path, tensors(bias), checkpoint_format=version)).layer(NAME)
    assert torch.equal(layer.dequantize(), dense())


def test_g_idx_applies_whatever_the_config_specifies(tmp_path: Path) -> None:
    layer = QuantizedCheckpoint(save(tmp_path, tensors(), desc_act=False)).layer(NAME)
    assert torch.equal(layer.dequantize(), dense())


def test_a_g_idx_of_64_bits_is_read(tmp_path: Path) -> None:
    table = tensors()
    table[f"{NAME}.g_idx"] = table[f"{NAME}.g_idx"].long()
    layer = QuantizedCheckpoint(save(tmp_path, table)).layer(NAME)
    assert layer.g_idx is not None
    assert layer.g_idx.dtype == torch.int32
    assert torch.equal(layer.dequantize(), dense())


def test_layers_with_act_order_are_named(tmp_path: Path) -> None:
    plain = {f"model.other.{name.rpartition('.')[2]}": value for name, value in tensors().items()}
    plain["model.other.g_idx"] = torch.arange(96, dtype=torch.int32) // 32
    assert QuantizedCheckpoint(save(tmp_path, plain | tensors())).act_order == (NAME,)


@pytest.mark.parametrize("value", ["natural", "zeros"])
def test_groups_in_natural_order_have_no_g_idx(tmp_path: Path, value: str) -> None:
    table = tensors()
    natural = torch.arange(96, dtype=torch.int32) // 32
    table[f"{NAME}.g_idx"] = natural if value == "natural" else torch.zeros_like(natural)
    layer = QuantizedCheckpoint(save(tmp_path, table)).layer(NAME)
    assert layer.g_idx is None
    assert float(layer.dequantize()[0, 95]) == 2.0 * (15 - 15)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({0: 3}, "contains the group 3 of 3"),
        ({0: -1}, "contains the group -1 of 3"),
        ({0: 1 << 30}, "contains the group 1073741824 of 3"),
        ({0: 1}, "does not divide the inputs into groups of 32"),
    ],
)
def test_an_invalid_g_idx_is_corrupt(tmp_path: Path, change: dict[int, int], text: str) -> None:
    table = tensors()
    for place, group in change.items():
        table[f"{NAME}.g_idx"][place] = group
    with pytest.raises(CorruptFile, match=text):
        QuantizedCheckpoint(save(tmp_path, table)).layer(NAME)


def test_a_group_number_of_64_bits_does_not_wrap(tmp_path: Path) -> None:
    table = tensors()
    table[f"{NAME}.g_idx"] = table[f"{NAME}.g_idx"].long()
    table[f"{NAME}.g_idx"][0] += 1 << 32
    with pytest.raises(CorruptFile, match="contains the group 4294967296 of 3"):
        QuantizedCheckpoint(save(tmp_path, table)).layer(NAME)


def test_desc_act_without_g_idx_is_corrupt(tmp_path: Path) -> None:
    table = tensors()
    del table[f"{NAME}.g_idx"]
    with pytest.raises(CorruptFile, match="has no g_idx"):
        QuantizedCheckpoint(save(tmp_path, table))


def test_static_groups_need_no_g_idx(tmp_path: Path) -> None:
    table = tensors()
    del table[f"{NAME}.g_idx"]
    assert QuantizedCheckpoint(save(tmp_path, table, static_groups=True)).layer(NAME).g_idx is None


def test_one_group_per_row_needs_no_g_idx(tmp_path: Path) -> None:
    table = {name: tensor[:1] if name.endswith(("qzeros", "scales")) else tensor for name, tensor in tensors().items()}
    del table[f"{NAME}.g_idx"]
    assert QuantizedCheckpoint(save(tmp_path, table, group_size=-1)).layer(NAME).g_idx is None


def act_order(scheme: LayerScheme, in_features: int, seed: int) -> QuantizedLinear:
    generator = torch.Generator().manual_seed(seed)
    groups = scheme.groups(in_features)
    return QuantizedLinear(
        "layer",
        scheme,
        torch.randint(0, scheme.levels, (32, in_features), generator=generator).to(torch.uint8),
        torch.randn(32, groups, generator=generator).to(torch.float16),
        torch.randint(1, scheme.levels, (32, groups), generator=generator).to(torch.uint8),
        natural_groups(scheme, in_features)[torch.randperm(in_features, generator=generator)],
    )


@given(
    bits=st.sampled_from([2, 3, 4, 8]),
    group_size=st.sampled_from([32, 64]),
    # 160 inputs: the last of the groups of 64 is half as long.
    in_features=st.sampled_from([64, 96, 160]),
    seed=st.integers(0, 1 << 20),
)
def test_any_order_dequantizes_input_by_input(bits: int, group_size: int, in_features: int, seed: int) -> None:
    layer = act_order(LayerScheme(bits, group_size, False), in_features, seed)
    assert layer.g_idx is not None
    weight = layer.dequantize()
    for k, group in enumerate(layer.g_idx.tolist()):
        levels = layer.ints[:, k].float() - layer.zeros[:, group].float()
        assert torch.equal(weight[:, k], layer.scales[:, group].float() * levels)


@given(bits=st.sampled_from([2, 3, 4, 8]), packing=st.sampled_from([GPTQ, GPTQ_V2]), seed=st.integers(0, 1 << 20))
def test_gptq_stores_the_order(bits: int, packing: Packing, seed: int) -> None:
    layer = act_order(LayerScheme(bits, 32, False), 128, seed)
    parts = {name.removeprefix("layer."): tensor for name, tensor in encode(packing, layer).items()}
    order = own_order("layer", layer.scheme, parts["g_idx"], 128)
    back = decode(packing, "layer", layer.scheme, parts, order)
    assert all(torch.equal(a, b) for a, b in zip(layer.parts(), back.parts(), strict=True))


@pytest.mark.parametrize("packing", [AUTO_ROUND, AUTO_ROUND_AWQ, AUTO_ROUND_GPTQ], ids=lambda packing: packing.name)
def test_other_layouts_cannot_store_act_order_groups(packing: Packing) -> None:
    with pytest.raises(ValueError, match="act-order"):
        encode(packing, act_order(LayerScheme(4, 32, False), 64, 1))


def test_a_layer_with_an_invalid_g_idx_is_rejected() -> None:
    layer = act_order(LayerScheme(4, 32, False), 64, 1)
    with pytest.raises(ValueError, match="does not divide"):
        QuantizedLinear("layer", layer.scheme, layer.ints, layer.scales, layer.zeros, torch.ones(64, dtype=torch.int32))


def test_rows_can_be_taken_from_an_act_order_layer() -> None:
    layer = act_order(LayerScheme(4, 32, False), 64, 1)
    order = torch.tensor([3, 0, 31])
    assert torch.equal(layer.take(order).dequantize(), layer.dequantize()[order])
