"""One small layer worked out by hand in every scheme, to the bit, as known readers read it.

K = N = g = 32. Row 0 is [-0.8, 0.1, 0.3, -0.25, 0.7, -0.05, 0.45, 0] four times, row 1 its half, row 2 its negative,
all others row 0.
"""

from __future__ import annotations

import pytest
import torch

from core.formats.layout import decode, encode
from core.formats.packing import AUTO_ROUND, AUTO_ROUND_AWQ, AUTO_ROUND_GPTQ, GPTQ, GPTQ_V2, Packing
from core.schemes import LayerScheme
from tests.core.formats.tiny import round_to_nearest

PATTERN = [-0.8, 0.1, 0.3, -0.25, 0.7, -0.05, 0.45, 0.0]

EXAMPLES = {
    # bits, sym: scale of row 0, ints of row 0, words of column 0, words of the zero points
    (4, True): (0.09998, "0 9 11 5 15 7 13 8", "8D7F5B90 8D7F5B90 8D7F5B90 8D7F5B90", "77777777 77777777"),
    (2, True): (0.3999, "0 2 3 1 3 2 3 2", "BB78BB78 BB78BB78", "55555555 55555555"),
    (3, True): (0.19995, "0 5 6 3 7 4 6 4", "A89A77A8 77A89A77 9A77A89A", "DB6DB6DB B6DB6DB6 6DB6DB6D"),
    (8, True): (0.0062485, "0 144 176 88 240 120 200 128", "58B09000 80C878F0", "7F7F7F7F 7F7F7F7F"),
    (4, False): (0.09998, "0 9 11 5 15 7 13 8", "8D7F5B90 8D7F5B90 8D7F5B90 8D7F5B90", "88888788 88888888"),
    (2, False): (0.5, "0 2 3 2 3 2 3 2", "BBB8BBB8 BBB8BBB8", "AAAAAA9A AAAAAAAA"),
    (3, False): (0.21423, "0 4 5 3 7 4 6 4", "609A7760 77609A77 9A77609A", "249248E4 49249249 92492492"),
    (8, False): (0.0058823, "0 153 187 93 255 127 213 136", "5DBB9900 88D57FFF", "88778888 88888888"),
}


def weight() -> torch.Tensor:
    rows = torch.tensor(PATTERN * 4).repeat(32, 1)
    rows[1] /= 2
    rows[2] *= -1
    return rows


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def unsigned(tensor: torch.Tensor) -> list[int]:
    return [value & 0xFFFFFFFF for value in tensor.tolist()]


@pytest.mark.parametrize(("bits", "sym"), EXAMPLES)
def test_worked_example(bits: int, sym: bool) -> None:
    scale, ints, column, zeros = EXAMPLES[bits, sym]
    layer = round_to_nearest("layer", weight(), LayerScheme(bits, 32, sym))
    tensors = encode(AUTO_ROUND_GPTQ if sym else AUTO_ROUND, layer)
    assert layer.scales[0, 0].item() == pytest.approx(scale, rel=2e-4)
    assert layer.ints[0, :8].tolist() == [int(value) for value in ints.split()]
    assert unsigned(tensors["layer.qweight"][:, 0])[: len(words(column))] == words(column)
    assert unsigned(tensors["layer.qzeros"][0])[: len(words(zeros))] == words(zeros)


def test_the_negative_of_a_row_has_the_negative_scale_and_the_same_ints() -> None:
    layer = round_to_nearest("layer", weight(), LayerScheme(4, 32, True))
    assert layer.scales[:3, 0].tolist() == pytest.approx([0.09998, 0.04999, -0.09998], rel=2e-4)
    assert torch.equal(layer.ints[2], layer.ints[0])


@pytest.mark.parametrize(("bits", "zeros"), [(4, [8, 8, 7]), (2, [2, 2, 1]), (3, [4, 4, 3]), (8, [136, 136, 119])])
def test_zero_points_of_the_asymmetric_examples(bits: int, zeros: list[int]) -> None:
    layer = round_to_nearest("layer", weight(), LayerScheme(bits, 32, False))
    assert layer.zeros[:3, 0].tolist() == zeros


def test_awq_example() -> None:
    layer = round_to_nearest("layer", weight(), LayerScheme(4, 32, False))
    tensors = encode(AUTO_ROUND_AWQ, layer)
    assert layer.ints[:8, 0].tolist() == [0, 0, 15, 0, 0, 0, 0, 0]
    assert unsigned(tensors["layer.qweight"][0])[0] == 0x000000F0
    assert unsigned(tensors["layer.qzeros"][0])[0] == 0x88888878


def test_versions_of_gptq_differ_only_in_zero_points() -> None:
    layer = round_to_nearest("layer", weight(), LayerScheme(4, 32, False))
    first, second = encode(GPTQ, layer), encode(GPTQ_V2, layer)
    assert unsigned(second["layer.qzeros"][0])[:2] == words("88888788 88888888")
    assert unsigned(first["layer.qzeros"][0])[:2] == words("77777677 77777777")
    assert all(torch.equal(first[name], second[name]) for name in first if name != "layer.qzeros")


PACKINGS = [AUTO_ROUND, AUTO_ROUND_AWQ, AUTO_ROUND_GPTQ, GPTQ, GPTQ_V2]


@pytest.mark.parametrize("packing", PACKINGS, ids=lambda packing: packing.name)
def test_the_example_decodes_to_its_weights(packing: Packing) -> None:
    layer = round_to_nearest("layer", weight(), LayerScheme(4, 32, False))
    parts = {name.removeprefix("layer."): tensor for name, tensor in encode(packing, layer).items()}
    back = decode(packing, "layer", layer.scheme, parts)
    assert torch.equal(back.dequantize(), layer.dequantize())
    assert float((back.dequantize() - weight()).abs().max()) <= 0.05001
