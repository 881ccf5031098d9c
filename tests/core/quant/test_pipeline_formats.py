"""Whole runs into every kind of format: tuned once, written in each, read back and run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from core.bitsmap import BitsMap
from core.errors import BadInput
from core.formats.opened import open_checkpoint
from core.formats.reader import QuantizedCheckpoint
from tests.core.quant.test_pipeline import entries, report_of, run, spec_of
from tests.core.tiny_model import save_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("source") / "model")


def test_one_tuning_is_written_in_many_formats(model: Path, tmp_path: Path) -> None:
    packings = ("auto_round:auto_gptq", "auto_round:plain", "auto_round:gptqmodel")
    formats = ("auto_round", *packings, "auto_gptq", "gptqmodel", "auto_awq", "gguf", "gguf:q4_0")
    report = report_of(run(spec_of(model, tmp_path, iters=2, formats=formats), tmp_path))
    assert set(report["verification"]) == set(formats)
    assert {item["layers"] for item in report["verification"].values()} == {14}
    first = QuantizedCheckpoint(tmp_path / "out" / "auto_round")
    for name in formats:
        other = open_checkpoint(tmp_path / "out" / name.replace(":", "-"))
        for layer in first.schemes:
            assert torch.equal(first.layer(layer).dequantize(), other.layer(layer).dequantize()), (name, layer)


@pytest.mark.parametrize("kind", ["q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl"])
def test_a_named_type_is_tuned_on_its_own_grid_and_read_by_gguf_py(model: Path, tmp_path: Path, kind: str) -> None:
    report = report_of(run(spec_of(model, tmp_path, iters=4, formats=(f"gguf:{kind}",)), tmp_path))
    assert report["layer_schemes"] == {f"gguf:{kind}": {kind.upper(): 14}}
    (path,) = (tmp_path / "out").glob("*.gguf")
    ours = open_checkpoint(path)
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    found = theirs["blk.1.ffn_down.weight"]
    value = gguf.dequantize(found.data, found.tensor_type)
    assert np.array_equal(value, ours.layer("model.layers.1.mlp.down_proj").dequantize().numpy())
    assert theirs["token_embd.weight"].tensor_type.name == "Q8_0"


def test_tuning_on_a_named_type_beats_its_plain_rounding(model: Path, tmp_path: Path) -> None:
    after = {}
    for name, iters in (("plain", 0), ("tuned", 40)):
        spec = spec_of(model, tmp_path, iters=iters, lr=0.02, samples=16, output=name, formats=("gguf:q4_1",))
        after[name] = [block["loss_after"] for block in report_of(run(spec, tmp_path))["blocks"]]
    assert sum(after["tuned"]) < 0.9 * sum(after["plain"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"formats": ("gguf",), "bits": 8, "sym": False}, "no GGUF type can store"),
        ({"formats": ("auto_awq",), "bits": 3}, "4 bits only"),
        ({"formats": ("auto_round", "gguf:q4_1")}, "in the block type"),
    ],
)
def test_what_a_format_cannot_hold_is_said_before_tuning(
    model: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        run(spec_of(model, tmp_path, **changes), tmp_path)
    assert entries(tmp_path) == set()


def test_tensors_outside_the_architecture_come_along(tmp_path: Path) -> None:
    source = save_model(tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    tensors["mtp.fc.weight"] = torch.full((64, 128), 0.5, dtype=torch.bfloat16)
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    (source / "LICENSE").write_text("Do as you like.", encoding="utf-8")
    report = report_of(run(spec_of(source, tmp_path, iters=1, formats=("auto_round", "gguf")), tmp_path))
    written = load_file(tmp_path / "out" / "auto_round" / "model.safetensors")
    assert torch.equal(written["mtp.fc.weight"], tensors["mtp.fc.weight"])
    for name in ("auto_round", "gguf"):
        assert (tmp_path / "out" / name / "LICENSE").read_text(encoding="utf-8") == "Do as you like."
        assert (tmp_path / "out" / name / "README.md").read_text(encoding="utf-8").startswith("---\n")
    assert any("predict further tokens" in note for note in report["notes"]["gguf"])


def test_a_named_type_has_a_start_and_learned_scales(model: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"formats": ("gguf:q5_1",), "samples": 16}
    after = {}
    for name, iters in (("start", 0), ("tuned", 20)):
        spec = spec_of(model, tmp_path, start="gptq", iters=iters, output=name, **changes)
        report = report_of(run(spec, tmp_path))
        after[name] = sum(block["loss_after"] for block in report["blocks"])
        before = sum(block["loss_before"] for block in report["blocks"])
    assert after["tuned"] < after["start"] < before


def test_a_gguf_file_is_improved_in_its_own_types(model: Path, tmp_path: Path) -> None:
    plain = spec_of(model, tmp_path, iters=0, start="range", output="plain", formats=("gguf:q5_1",))
    before = sum(block["loss_after"] for block in report_of(run(plain, tmp_path))["blocks"])
    (path,) = (tmp_path / "plain").glob("*.gguf")
    named = gguf.GGUFReader(path).fields["general.name"].contents().encode()
    path.write_bytes(path.read_bytes().replace(named, named.swapcase(), 1))  # its own metadata, which must stay
    spec = spec_of(model, tmp_path, start="gptq", iters=20, samples=16, formats=("gguf",))
    report = report_of(run(replace(spec, bits_map=BitsMap(), like=str(path)), tmp_path))
    assert report["like"] == path.name
    assert sum(block["loss_after"] for block in report["blocks"]) < before
    files = [gguf.GGUFReader(file) for file in (path, tmp_path / "out" / path.name)]
    one, other = ([(tensor.name, tensor.tensor_type) for tensor in file.tensors] for file in files)
    assert one == other
    assert files[0].fields.keys() == files[1].fields.keys()
    for key, field in files[0].fields.items():
        assert key.startswith("GGUF.") or field.contents() == files[1].fields[key].contents(), key


def test_the_scales_of_a_named_type_are_learned_end_to_end(model: Path, tmp_path: Path) -> None:
    spec = spec_of(model, tmp_path, start="gptq", iters=0, samples=16, formats=("gguf:q4_1",))
    spec = replace(spec, recipe=replace(spec.recipe, end_to_end=8))
    result = report_of(run(spec, tmp_path))["end_to_end"]
    assert result["kept"]
    assert result["kl_after"] < result["kl_before"]


def test_an_importance_matrix_of_a_run_replaces_its_calibration_text(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "imatrix.gguf"
    searched = spec_of(
        model, tmp_path, iters=0, start="search", output="first", formats=("gguf:q5_0",), save_imatrix=str(path)
    )
    run(searched, tmp_path)
    assert len(gguf.GGUFReader(path).tensors) == 2 * 14
    rounded = spec_of(
        model, tmp_path, iters=0, start="range", output="other", formats=("gguf:q5_0",), imatrix=str(path)
    )
    run(rounded, tmp_path)
    files = [next((tmp_path / name).glob("*.gguf")) for name in ("first", "other")]
    one, other = (open_checkpoint(file) for file in files)
    for layer in one.schemes:
        assert torch.equal(one.layer(layer).dequantize(), other.layer(layer).dequantize())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"start": "gptq", "formats": ("gguf:q4_1",)}, "does not have"),
        ({"start": "range"}, "has no effect"),
        ({"start": "search", "imatrix": "/nowhere.gguf"}, "There is no importance matrix"),
        ({"imatrix": "", "save_imatrix": "/nowhere/at/all.gguf"}, "folder that does not exist"),
    ],
)
def test_importance_matrices_without_effect_or_place_are_refused(
    model: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    settings = {"imatrix": str(tmp_path / "i.gguf"), "iters": 1, **changes}
    with pytest.raises(BadInput, match=words):
        run(spec_of(model, tmp_path, **settings), tmp_path)
