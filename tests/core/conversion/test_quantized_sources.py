"""Checkpoints in FP8 and similar formats are converted as the 16-bit weights that they are unpacked to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.conversion.convert import convert, survey
from core.errors import BadInput
from core.events import Done, Event
from tests.core.formats.dequantized.stored import save_quantized_model, store_of


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))


def run(source: Path, target: Path, name: str, *, inexact: bool = False) -> dict[str, Any]:
    events: list[Event] = []
    convert(str(source), target, name, events.append, lambda: False, inexact=inexact)
    assert isinstance(events[-1], Done)
    return events[-1].report


def with_exponents(source: Path) -> Path:
    """Replace the scales by powers of two."""
    tensors = load_file(source / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_inv")]:
        tensors[name] = torch.full(tensors[name].shape, 118, dtype=torch.uint8).view(torch.float8_e8m0fnu)
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    return source


def test_fp8_is_written_as_it_is_unpacked_with_permission_to_round(tmp_path: Path) -> None:
    source = save_quantized_model(tmp_path / "source", "fp8")
    reason = r"stored as FP8 \(blocks of 32x32\), and are rounded when they are unpacked to 16 bits"
    with pytest.raises(BadInput, match=reason):
        run(source, tmp_path / "out", "bf16")
    report = run(source, tmp_path / "out", "bf16", inexact=True)
    store, written = store_of(source), load_file(tmp_path / "out" / "model.safetensors")
    assert set(written) == set(store.table)
    assert all(torch.equal(tensor, store.get(name)) for name, tensor in written.items())
    assert (report["source_kind"], report["exact"]) == ("FP8 (blocks of 32x32)", False)
    assert "quantization_config" not in (tmp_path / "out" / "config.json").read_text(encoding="utf-8")


def test_scales_that_are_powers_of_two_make_it_exact(tmp_path: Path) -> None:
    report = run(with_exponents(save_quantized_model(tmp_path / "source", "fp8")), tmp_path / "out", "bf16")
    assert report["exact"]


def test_the_survey_names_the_format_and_refuses_integers(tmp_path: Path) -> None:
    found = survey(str(save_quantized_model(tmp_path / "source", "nvfp4")), lambda _: None, lambda: False)
    verdicts = {option.format: option.verdict for option in found.options}
    assert (found.source.kind, found.source.unpacked) == ("NVFP4", True)
    assert (verdicts["bf16"], verdicts["gguf:q8_0"], verdicts["auto_round"]) == ("inexact", "inexact", "no")
