"""Quantized checkpoints of other programs, and errors for unsupported or contradictory ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import BadInput, BitwrightError, CorruptFile, ModelNotFound, UnsupportedModel
from core.formats.reader import QuantizedCheckpoint
from core.schemes import LayerScheme
from tests.core.formats.tiny import LLAMA_CONFIG, Output, bits_map, llama_tensors, save_source, write_output

UP = "model.layers.0.mlp.up_proj"
GATE = "model.layers.0.mlp.gate_proj"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Output]:
    base = tmp_path_factory.mktemp("outputs")
    source = save_source(base / "source", llama_tensors(), LLAMA_CONFIG)
    made = {}
    for name in ("auto_round", "auto_gptq"):
        chosen = bits_map(LayerScheme(4, 32, True), {UP: {"bits": 8}})
        made[name] = write_output(source, base / name, name, chosen)
    made["asym"] = write_output(source, base / "asym", "auto_gptq", bits_map(LayerScheme(4, 32, False)))
    return made


@pytest.fixture
def copy(outputs: dict[str, Output], tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies an output with changes of its quantization config and tensors (None removes)."""

    def make(name: str, tensors: dict[str, Any] | None = None, **changes: Any) -> Path:
        folder = tmp_path / "copy"
        shutil.copytree(outputs[name].folder, folder)
        config = json.loads((folder / "config.json").read_text())
        settings = {**config["quantization_config"], **changes}
        config["quantization_config"] = {key: value for key, value in settings.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(config))
        if tensors:
            table = {**load_file(folder / "model.safetensors"), **tensors}
            (folder / "model.safetensors").unlink()
            save_file({key: value for key, value in table.items() if value is not None}, folder / "model.safetensors")
        return folder

    return make


@pytest.mark.parametrize(
    "extra",
    [
        {UP: {"bits": 8}},
        {"layers.0.mlp.up_proj": {"bits": 8}},
        {r".*0\.mlp\.up.*": {"bits": 8}},
        {r".*up_proj.*": {"bits": 8}, "model.layers.1.mlp.up_proj": {"bits": 4}},
        {"*not a pattern": {"bits": 3}, UP: {"bits": 8}},
        {".*": {}, UP: {"bits": 8}},
        {UP.removesuffix("_proj"): {"bits": 8}},
        {"0.mlp.up_proj": {"bits": 8, "group_size": 32, "sym": True, "act_bits": 16, "data_type": "int"}},
    ],
    ids=["exact", "substring", "pattern", "exact-first", "no-pattern", "empty", "part", "full"],
)
def test_extra_config_is_read_as_by_auto_round(copy: Callable[..., Path], extra: dict) -> None:
    checkpoint = QuantizedCheckpoint(copy("auto_round", extra_config=extra))
    assert [name for name, scheme in checkpoint.schemes.items() if scheme.bits == 8] == [UP]


def test_the_name_of_a_module_is_not_a_pattern(copy: Callable[..., Path]) -> None:
    gate = UP.removesuffix("_proj")  # as a pattern it would match up_proj
    folder = copy(
        "auto_round",
        tensors={f"{gate}.weight": torch.zeros(2, 2)},
        extra_config={gate: {"bits": 16}, UP: {"bits": 8}, "mlp.up": {"bits": 4}},
    )
    assert QuantizedCheckpoint(folder).schemes[UP].bits == 8
    assert QuantizedCheckpoint(folder).schemes["model.layers.1.mlp.up_proj"].bits == 4


@pytest.mark.parametrize(
    "dynamic",
    [
        {f"+:^{UP}$": {"bits": 8}},
        {r".*\.0\.mlp\.up_proj": {"bits": 8}},
        {r"+:.*\.0\.mlp\.up_proj": {"bits": 8}, r"+:.*up_proj": {"bits": 4}},
        {r"+:mlp\.gate_proj": {"bits": 3}, f"+:{UP}": {"bits": 8}},
        {r"-:.*\.7\..*": {}, f"+:{UP}": {"bits": 8}},
    ],
    ids=["anchored", "bare", "first-wins", "from-the-start", "skip"],
)
def test_dynamic_is_read_as_by_gptqmodel(copy: Callable[..., Path], dynamic: dict) -> None:
    checkpoint = QuantizedCheckpoint(copy("auto_gptq", dynamic=dynamic))
    assert [name for name, scheme in checkpoint.schemes.items() if scheme.bits == 8] == [UP]


def test_packed_tensors_of_a_skipped_layer_are_corrupt(copy: Callable[..., Path]) -> None:
    with pytest.raises(CorruptFile, match=f"specifies 16 bits for {UP}, but its tensors have 8"):
        QuantizedCheckpoint(copy("auto_gptq", dynamic={f"-:{UP}": {}}))


def test_gptq_version_2_stores_zero_points_unchanged(outputs: dict[str, Output], copy: Callable[..., Path]) -> None:
    expected = outputs["asym"].layers[UP].zeros
    folder = copy("asym", checkpoint_format="gptq_v2")
    assert torch.equal(QuantizedCheckpoint(folder).layer(UP).zeros, expected - 1)


@pytest.mark.parametrize("packing", [None, "auto_round:gptq", "auto_round:auto_gptq", "auto"])
def test_names_of_the_layout_of_gptq(
    outputs: dict[str, Output], copy: Callable[..., Path], packing: str | None
) -> None:
    layer = QuantizedCheckpoint(copy("auto_round", packing_format=packing)).layer(UP)
    assert torch.equal(layer.zeros, outputs["auto_round"].layers[UP].zeros)


@pytest.mark.parametrize("name", ["quantize_config.json", "quantization_config.json"])
def test_settings_in_a_separate_file_are_read(outputs: dict[str, Output], tmp_path: Path, name: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(outputs["auto_gptq"].folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / name).write_text(json.dumps(config.pop("quantization_config")))
    (folder / "config.json").write_text(json.dumps(config))
    assert QuantizedCheckpoint(folder).schemes == QuantizedCheckpoint(outputs["auto_gptq"].folder).schemes


def test_desc_act_with_groups_in_natural_order_is_read(outputs: dict[str, Output], copy: Callable[..., Path]) -> None:
    checkpoint = QuantizedCheckpoint(copy("auto_gptq", desc_act=True))
    assert torch.equal(checkpoint.layer(UP).ints, outputs["auto_gptq"].layers[UP].ints)


def test_bfloat16_scales_without_loss_are_read(outputs: dict[str, Output], copy: Callable[..., Path]) -> None:
    scales = outputs["auto_gptq"].layers[UP].scales.T.contiguous().to(torch.bfloat16)
    layer = QuantizedCheckpoint(copy("auto_gptq", tensors={f"{UP}.scales": scales})).layer(UP)
    assert torch.equal(layer.scales.float(), scales.T.float())


def test_scales_that_do_not_fit_into_float16_are_unsupported(copy: Callable[..., Path]) -> None:
    checkpoint = QuantizedCheckpoint(copy("auto_gptq", tensors={f"{UP}.scales": torch.full((2, 96), 1e-30)}))
    with pytest.raises(UnsupportedModel, match="without loss"):
        checkpoint.layer(UP)


def test_scales_that_are_not_finite_are_corrupt(copy: Callable[..., Path]) -> None:
    scales = torch.full((2, 96), float("nan"), dtype=torch.float16)
    checkpoint = QuantizedCheckpoint(copy("auto_gptq", tensors={f"{UP}.scales": scales}))
    with pytest.raises(CorruptFile, match="not all finite"):
        checkpoint.layer(UP)


def test_a_shorter_last_group_is_read(copy: Callable[..., Path]) -> None:
    # auto-round writes this if 64 does not divide the 96 inputs.
    name = "model.layers.0.mlp.down_proj"
    tensors = {
        f"{name}.qzeros": torch.full((2, 8), 0x77777777, dtype=torch.int32),
        f"{name}.scales": torch.ones(2, 64, dtype=torch.float16),
    }
    folder = copy("auto_round", tensors=tensors, extra_config={UP: {"bits": 8}, name: {"group_size": 64}})
    layer = QuantizedCheckpoint(folder).layer(name)
    assert layer.scheme == LayerScheme(4, 64, True)
    assert torch.equal(layer.dequantize(), layer.ints.float() - 8)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"quant_method": "bitsandbytes"}, UnsupportedModel, "'bitsandbytes', which is not supported yet"),
        ({"quant_method": None, "desc_act": None}, CorruptFile, "has no method"),
        ({"quant_method": 7}, CorruptFile, "has no method"),
        ({"bits": "four"}, CorruptFile, "bits of the whole model is 'four'"),
        ({"bits": None}, CorruptFile, "lacks bits or group_size"),
        ({"bits": True}, CorruptFile, "bits of the whole model is True"),
        ({"bits": 1 << 40}, CorruptFile, "bits of the whole model is 1099511627776"),
        ({"act_bits": True}, UnsupportedModel, "Activations quantized to True bits"),
        ({"bits": 8}, CorruptFile, "specifies 8 bits for model.layers.0.mlp.down_proj, but its tensors have 4"),
        ({"group_size": 64}, CorruptFile, "specifies groups of 64"),
        ({"group_size": 16}, UnsupportedModel, "in groups of 16"),
        ({"group_size": 0}, UnsupportedModel, "in groups of 0"),
        ({"sym": "yes"}, CorruptFile, "sym of the whole model"),
        ({"dynamic": [1]}, CorruptFile, "dynamic is not an object"),
        ({"dynamic": {"+:x": 3}}, CorruptFile, "the entry for"),
        ({"checkpoint_format": "marlin"}, UnsupportedModel, "'marlin'"),
        ({"pack_dtype": "int8"}, UnsupportedModel, "a special kernel"),
        ({"act_bits": 8}, UnsupportedModel, "Activations quantized to 8 bits"),
        ({"data_type": "mx_fp"}, UnsupportedModel, "'mx_fp'"),
    ],
)
def test_invalid_or_unsupported_settings_are_reported(
    copy: Callable[..., Path], changes: dict, error: type[BitwrightError], text: str
) -> None:
    with pytest.raises(error, match=text):
        QuantizedCheckpoint(copy("auto_gptq", **changes))


def test_an_unknown_packing_is_unsupported(copy: Callable[..., Path]) -> None:
    with pytest.raises(UnsupportedModel, match="auto_round:fp8"):
        QuantizedCheckpoint(copy("auto_round", packing_format="auto_round:fp8"))


@pytest.mark.parametrize(
    ("part", "tensor", "text"),
    [
        ("scales", None, "no scales"),
        ("qzeros", None, "no qzeros"),
        ("scales", torch.ones(2, 96, dtype=torch.int32), "the dtype I32"),
        ("qweight", torch.ones(16, 96), "the dtype F32"),
        ("qweight", torch.ones(16, 64, dtype=torch.int32), "are inconsistent"),
        ("qzeros", torch.ones(2, 25, dtype=torch.int32), "are inconsistent"),
        ("qweight", torch.ones(32, 96, dtype=torch.int32), "inputs have 2 scales"),
    ],
)
def test_invalid_tensors_are_corrupt(
    copy: Callable[..., Path], part: str, tensor: torch.Tensor | None, text: str
) -> None:
    with pytest.raises(CorruptFile, match=text):
        QuantizedCheckpoint(copy("auto_gptq", tensors={f"{UP}.{part}": tensor}))


@pytest.mark.parametrize("length", [32, 64])
def test_a_g_idx_of_another_length_or_dtype_is_corrupt(copy: Callable[..., Path], length: int) -> None:
    g_idx = torch.zeros(length, dtype=torch.int32 if length == 32 else torch.float32)
    with pytest.raises(CorruptFile, match="not a list of 64 groups"):
        QuantizedCheckpoint(copy("auto_gptq", tensors={f"{UP}.g_idx": g_idx}))


def test_a_symmetric_layer_with_other_zero_points_is_corrupt(copy: Callable[..., Path]) -> None:
    # The file stores zero points minus 1, but its config specifies version 2.
    checkpoint = QuantizedCheckpoint(copy("auto_gptq", checkpoint_format="gptq_v2"))
    with pytest.raises(CorruptFile, match="but its zero points are not in the middle"):
        checkpoint.layer(UP)


def test_packed_and_unpacked_weights_of_one_layer_are_corrupt(copy: Callable[..., Path]) -> None:
    with pytest.raises(CorruptFile, match="has both packed and unpacked weights"):
        QuantizedCheckpoint(copy("auto_gptq", tensors={f"{UP}.weight": torch.zeros(96, 64)}))


def test_zero_points_without_packed_weights_are_corrupt(copy: Callable[..., Path]) -> None:
    with pytest.raises(CorruptFile, match=f"belong to {UP}.qzeros are missing"):
        QuantizedCheckpoint(copy("auto_gptq", tensors={f"{UP}.qweight": None}))


def test_the_store_contains_the_other_tensors(copy: Callable[..., Path]) -> None:
    checkpoint = QuantizedCheckpoint(copy("auto_gptq"))
    assert list(checkpoint.store.table) == checkpoint.plain
    assert torch.equal(checkpoint.store.get("lm_head.weight"), llama_tensors()["lm_head.weight"])


@pytest.mark.parametrize("name", ["gptq_model-4bit-32g", "model.v1"])
def test_the_weights_file_in_the_config_is_read(outputs: dict[str, Output], tmp_path: Path, name: str) -> None:
    """Early versions of AutoGPTQ stored their weights file and config in the folder of the original model."""
    folder = save_source(tmp_path, llama_tensors(), LLAMA_CONFIG)
    quantized = outputs["auto_gptq"].folder
    shutil.copyfile(quantized / "model.safetensors", folder / f"{name}.safetensors")
    settings = json.loads((quantized / "config.json").read_text())["quantization_config"]
    settings = {key: value for key, value in settings.items() if key != "quant_method"}
    (folder / "quantize_config.json").write_text(json.dumps({**settings, "model_file_base_name": name}))
    assert QuantizedCheckpoint(folder).schemes == QuantizedCheckpoint(quantized).schemes


@pytest.mark.parametrize("name", ["../secret", "a/b", "", 3])
def test_a_weights_file_outside_the_folder_is_ignored(copy: Callable[..., Path], name: Any) -> None:
    folder = copy("auto_gptq", model_file_base_name=name)
    shutil.copyfile(folder / "model.safetensors", folder.parent / "secret.safetensors")
    assert {info.file for info in QuantizedCheckpoint(folder).tensors.values()} == {"model.safetensors"}


def test_a_config_without_packed_tensors_is_corrupt(tmp_path: Path) -> None:
    config = {**LLAMA_CONFIG, "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32}}
    with pytest.raises(CorruptFile, match="no packed tensors"):
        QuantizedCheckpoint(save_source(tmp_path, llama_tensors(), config))


def test_an_unquantized_model_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not quantized"):
        QuantizedCheckpoint(save_source(tmp_path, llama_tensors(), LLAMA_CONFIG))


def test_a_missing_model_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"config\.json is missing"):
        QuantizedCheckpoint(tmp_path)


@pytest.mark.parametrize("text", ["[]", '{"quantization_config": 3}', "{"])
def test_an_invalid_config_is_corrupt(tmp_path: Path, text: str) -> None:
    folder = save_source(tmp_path, llama_tensors(), {})
    (folder / "config.json").write_text(text)
    with pytest.raises(CorruptFile):
        QuantizedCheckpoint(folder)
