"""Damaged folders of every packed format either raise a `BitwrightError` or give the values in the files.

The right answer is found by safetensors' own reader and a slow formula. Damage is the same at every run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from core.errors import BitwrightError
from core.formats.layout import encode
from core.formats.packing import AUTO_ROUND, AUTO_ROUND_AWQ, GPTQ, GPTQ_V2, Packing
from core.formats.quantized import QuantizedLinear, natural_groups
from core.formats.reader import QuantizedCheckpoint
from core.model.tree import build_tree
from core.schemes import LayerScheme
from tests.core.formats.mutations import Files, mutate
from tests.core.formats.test_any_layer import slow_weight

CASES = 800
SECONDS_EACH = 5.0
"""Far more than any case takes; a machine may be busy."""

UP, DOWN = "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"


def layer(name: str, scheme: LayerScheme, outputs: int, inputs: int, *, act_order: bool = False) -> QuantizedLinear:
    generator = torch.Generator().manual_seed(len(name))
    shape = (outputs, scheme.groups(inputs))
    zeros = torch.randint(1, scheme.levels, shape, generator=generator)
    return QuantizedLinear(
        name,
        scheme,
        torch.randint(0, scheme.levels, (outputs, inputs), generator=generator).to(torch.uint8),
        torch.randn(shape, generator=generator).to(torch.float16),
        (torch.full_like(zeros, scheme.levels // 2) if scheme.sym else zeros).to(torch.uint8),
        natural_groups(scheme, inputs)[torch.randperm(inputs, generator=generator)] if act_order else None,
    )


def files(folder: Path, packing: Packing, settings: dict[str, Any], *, shards: bool = False, bits: int = 4) -> Files:
    """Return the files of a model with two quantized layers."""
    sym = bool(settings.get("sym", False))
    own = packing.g_idx and bool(settings.get("desc_act"))
    made = encode(packing, layer(UP, LayerScheme(bits, 32, sym), 64, 64, act_order=own))
    made |= encode(packing, layer(DOWN, LayerScheme(4, 32, sym), 32, 64))
    plain = {
        "model.embed_tokens.weight": torch.ones(16, 32, dtype=torch.bfloat16),
        "model.norm.weight": torch.ones(32, dtype=torch.float32),
        f"{DOWN}.bias": torch.ones(32, dtype=torch.float16),
    }
    parts = (
        {"model-1.safetensors": made, "model-2.safetensors": plain} if shards else {"model.safetensors": made | plain}
    )
    for name, tensors in parts.items():
        save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name)
    found = {name: (folder / name).read_bytes() for name in parts}
    if shards:
        index = {"weight_map": {key: name for name, tensors in parts.items() for key in tensors}}
        found["model.safetensors.index.json"] = json.dumps(index).encode()
    config = {"architectures": ["LlamaForCausalLM"], "vocab_size": 16, "num_hidden_layers": 1}
    found["config.json"] = json.dumps({**config, "quantization_config": settings}).encode()
    return found


MODELS: dict[str, Callable[[Path], Files]] = {
    "gptq": lambda folder: files(
        folder,
        GPTQ,
        {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": False, "desc_act": True,
         "dynamic": {rf"+:^{UP}$": {"bits": 8, "group_size": 32}, r"-:.*\.9\..*": {}}},
        bits=8,
    ),
    "gptq_v2": lambda folder: files(
        folder,
        GPTQ_V2,
        {"quant_method": "gptq", "checkpoint_format": "gptq_v2", "bits": 4, "group_size": 32, "sym": True,
         "desc_act": False, "dynamic": {r".*up_proj": {"bits": 2}}},
        shards=True,
        bits=2,
    ),
    "awq": lambda folder: files(
        folder,
        AUTO_ROUND_AWQ,
        {"quant_method": "awq", "version": "gemm", "bits": 4, "group_size": 32, "zero_point": True,
         "modules_to_not_convert": ["lm_head", "visual"], "to_quant_block_names": "model.layers"},
    ),
    "auto_round": lambda folder: files(
        folder,
        AUTO_ROUND,
        {"quant_method": "auto-round", "packing_format": "auto_round", "bits": 4, "group_size": 32, "sym": False,
         "block_name_to_quantize": "model.layers", "extra_config": {".*up.*": {"bits": 3}, DOWN: {"bits": 4}}},
        shards=True,
        bits=3,
    ),
}  # fmt: skip


def read_all(folder: Path) -> str:
    """Read everything in a folder, and compare the result with that of the safetensors library."""
    checkpoint = QuantizedCheckpoint(folder)
    build_tree({key: value for key, value in checkpoint.config.items() if key != "quantization_config"},
               checkpoint.dense_table())  # fmt: skip
    assert set(checkpoint.act_order) <= set(checkpoint.schemes)
    problems = 0
    for name in checkpoint.schemes:
        try:
            found = checkpoint.layer(name)
        except BitwrightError as error:
            problems += 1
            check(error)
            continue
        parts = theirs(checkpoint, name, found.g_idx is not None)
        expected = slow_weight(checkpoint.settings.packing, parts, found.scheme)
        wrapped = checkpoint.settings.packing.zero_bias and bool((found.zeros == 0).any())
        assert wrapped or torch.equal(found.dequantize().double(), expected)
        assert found.ints.shape == checkpoint.shape(name)
    for name in checkpoint.plain:
        try:
            value = checkpoint.store.get(name)
        except BitwrightError as error:
            problems += 1
            check(error)
            continue
        assert value.shape == checkpoint.tensors[name].shape
    return "partly" if problems else "read"


def theirs(checkpoint: QuantizedCheckpoint, name: str, act_order: bool) -> dict[str, torch.Tensor]:
    """Return the tensors of a layer as the safetensors library reads them."""
    parts = {}
    for part in ("qweight", "qzeros", "scales", *(["g_idx"] if act_order else [])):
        file = checkpoint.folder / checkpoint.tensors[f"{name}.{part}"].file
        with safe_open(file, "pt") as stream:
            parts[part] = stream.get_tensor(f"{name}.{part}")
    return parts


def check(error: BitwrightError) -> None:
    """Check that a message is a printable sentence of limited length."""
    assert error.message.endswith(".")
    assert len(error.message) < 1000
    error.message.encode("utf-8")
    assert not any(ord(character) < 32 for character in error.message)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("model", MODELS)
def test_damaged_files_raise_an_error_or_give_their_values(tmp_path: Path, model: str) -> None:
    (tmp_path / "whole").mkdir()
    whole = MODELS[model](tmp_path / "whole")
    folder = tmp_path / "damaged"
    folder.mkdir()
    outcomes: dict[str, int] = {}
    for number in range(CASES):
        for path in folder.iterdir():
            path.unlink()
        for name, data in mutate(whole, number).items():
            (folder / name).write_bytes(data)
        started = time.monotonic()
        try:
            outcome = read_all(folder)
        except BitwrightError as error:
            check(error)
            outcome = error.code
        except SafetensorError as error:
            raise AssertionError(f"case {number}: read what safetensors refuses: {error}") from error
        except Exception as error:
            raise AssertionError(f"case {number} ended in {error!r}") from error
        assert time.monotonic() - started < SECONDS_EACH, f"case {number} took too long"
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    # Some mutations raise errors and some do not.
    assert outcomes["read"] > CASES / 100
    assert outcomes["corrupt-file"] > CASES / 10


@pytest.mark.parametrize("model", MODELS)
def test_the_model_before_mutation_is_read(tmp_path: Path, model: str) -> None:
    (tmp_path / "whole").mkdir()
    for name, data in MODELS[model](tmp_path / "whole").items():
        (tmp_path / name).write_bytes(data)
    assert read_all(tmp_path) == "read"
