"""Tests of loading original and quantized models as modules and as runners."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from core.errors import BadInput, BitwrightError, Cancelled, ModelNotFound, OutOfMemory, UnsupportedModel
from core.events import Event, Log
from core.formats.side_files import carry_over
from core.inference import devices, starting
from core.inference.loader import load_model, load_runner
from core.inference.machine import Device
from core.inference.native import library
from core.schemes import LayerScheme
from tests.core.formats.dequantized.stored import save_quantized_model
from tests.core.formats.gguf import gguf_files
from tests.core.formats.tiny import bits_map, open_tree, write_output
from tests.core.model.test_block_runner import saved
from tests.core.tiny_model import BLOCKS, SHAPES, save_model


def test_an_original_has_the_logits_of_transformers(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    loaded = load_model(str(folder), "cpu", "float32")
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.arange(5, 45).view(1, -1)
    with torch.no_grad():
        assert torch.allclose(loaded.model(ids).logits, theirs(ids).logits, atol=1e-5)
    assert loaded.schemes == {}
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight


@pytest.mark.parametrize("family", ["gpt2", "qwen2", "opt"])
def test_a_quantized_model_computes_with_its_dequantized_weights(tmp_path: Path, family: str) -> None:
    source = tmp_path / "source"
    saved(source, family)
    save_model(tmp_path / "tokenizer")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (source / name).write_bytes((tmp_path / "tokenizer" / name).read_bytes())
    written = write_output(source, tmp_path / "out", "auto_round", bits_map(LayerScheme(4, 32)))
    carry_over(source, written.folder)
    loaded = load_model(str(written.folder), "cpu", "float32")

    tensors = load_file(source / "model.safetensors")
    tree = open_tree(source)
    for linear in tree.linears:
        if linear.name in written.layers:
            weight = written.layers[linear.name].dequantize()
            tensors[f"{linear.name}.weight"] = weight.t().contiguous() if linear.transposed else weight
    theirs = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    state = theirs.state_dict()
    state.update({name: tensors[name] for name in state if name in tensors})
    theirs.load_state_dict(state)
    ids = torch.arange(5, 35).view(1, -1)
    with torch.no_grad():
        assert torch.allclose(loaded.model(ids).logits, theirs(ids).logits, atol=1e-4)
    assert sum(loaded.schemes.values()) == len(written.layers)


@pytest.mark.parametrize("kind", ["F16", "Q4_1", "Q8_0"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
@pytest.mark.usefixtures("own_home")
def test_a_gguf_file_computes_with_its_dequantized_weights(tmp_path: Path, family: str, kind: str) -> None:
    original = gguf_files.build(family)
    path = gguf_files.write(tmp_path / "m.gguf", family, original, kind=gguf.GGMLQuantizationType[kind])
    rounded = copy.deepcopy(original)
    with torch.no_grad():
        for name, parameter in rounded.named_parameters():
            if parameter.dim() == 2:
                weight = parameter.T if family == "gpt2" and ".h." in name else parameter
                blocks = gguf.quantize(np.ascontiguousarray(weight.numpy()), gguf.GGMLQuantizationType[kind])
                weight.copy_(torch.tensor(gguf.dequantize(blocks, gguf.GGMLQuantizationType[kind])))
    loaded = load_model(str(path), "cpu", "float32")
    ids = torch.arange(5, 35).view(1, -1)
    with torch.no_grad():
        assert torch.allclose(loaded.model(ids).logits, rounded(ids).logits, atol=1e-5)
    assert not list(tmp_path.glob("home/**/*.safetensors"))
    assert set(loaded.schemes) == (set() if kind == "F16" else {kind})
    assert loaded.weight_bytes < path.stat().st_size
    assert loaded.tokenizer.decode(loaded.tokenizer("there 12")["input_ids"]) == "there 12"


@pytest.mark.usefixtures("own_home")
def test_a_folder_with_one_gguf_file_opens_that_file(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    gguf_files.write(tmp_path / "out" / "m.gguf", "qwen2", gguf_files.build("qwen2"))
    assert load_model(str(tmp_path / "out"), "cpu", "float32").label == "m.gguf"


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        load_model(str(tmp_path / "nothing"), "cpu", "float32")


def test_loading_can_be_stopped(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    with pytest.raises(Cancelled):
        load_model(str(folder), "cpu", "float32", should_stop=lambda: True)


# --- tensors whose shapes differ from the config ---

BLOCK = "model.layers.0."
OTHER_SHAPES = {
    f"{BLOCK}self_attn.q_proj.weight": (512, 64),
    f"{BLOCK}self_attn.k_proj.weight": (16, 64),
    f"{BLOCK}self_attn.v_proj.weight": (64, 64),
    f"{BLOCK}self_attn.o_proj.weight": (64, 128),
    f"{BLOCK}mlp.gate_proj.weight": (384, 64),
    f"{BLOCK}mlp.up_proj.weight": (64, 64),
    f"{BLOCK}mlp.down_proj.weight": (64, 512),
    f"{BLOCK}input_layernorm.weight": (4,),
    f"{BLOCK}self_attn.q_proj.bias": (4,),
    "model.norm.weight": (128,),
    "model.embed_tokens.weight": (10, 64),
    "lm_head.weight": (4000, 64),
}


def reshaped(folder: Path, name: str, shape: tuple[int, ...]) -> None:
    """Replace a tensor of a checkpoint by one of another shape."""
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, name: torch.ones(shape).bfloat16()}, folder / "model.safetensors", {"format": "pt"})


def set_config(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


@pytest.mark.parametrize("name", list(OTHER_SHAPES))
@pytest.mark.parametrize("load", [load_model, load_runner])
def test_a_tensor_whose_shape_differs_from_the_config_is_refused(tmp_path: Path, load: Any, name: str) -> None:
    folder = save_model(tmp_path / "model")
    set_config(folder, tie_word_embeddings=False)
    reshaped(folder, "lm_head.weight", (288, 64))
    reshaped(folder, name, OTHER_SHAPES[name])
    message = re.escape(f"{name} has the shape {list(OTHER_SHAPES[name])}")
    with pytest.raises(
        UnsupportedModel,
        match=rf"{message}|are inconsistent: the embedding {re.escape(name)} has 10 rows and the head 288",
    ):
        load(str(folder), "cpu")


@pytest.mark.parametrize("form", ["auto_round", "auto_gptq", "gptqmodel", "auto_awq"])
@pytest.mark.parametrize("load", [load_model, load_runner])
def test_a_quantized_layer_whose_shape_differs_from_the_config_is_refused(tmp_path: Path, load: Any, form: str) -> None:
    source = save_model(tmp_path / "source")
    written = write_output(source, tmp_path / "out", form, bits_map(LayerScheme(4, 32)))
    carry_over(source, written.folder)
    set_config(written.folder, num_key_value_heads=4)
    with pytest.raises(UnsupportedModel, match=r"k_proj.weight has the shape \[32, 64\], but config.json requires"):
        load(str(written.folder), "cpu")


@pytest.mark.parametrize("load", [load_model, load_runner])
@pytest.mark.usefixtures("own_home")
def test_a_gguf_file_whose_sizes_differ_from_its_metadata_is_refused(tmp_path: Path, load: Any) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", "llama", gguf_files.build("llama"))
    header = path.read_bytes()
    key = b"llama.feed_forward_length"
    place = header.index(key) + len(key) + 4
    length = int.from_bytes(header[place : place + 4], "little")
    path.write_bytes(header[:place] + (2 * length).to_bytes(4, "little") + header[place + 4 :])
    with pytest.raises(BitwrightError, match=rf"{length}.*{2 * length}"):
        load(str(path), "cpu")


@pytest.mark.parametrize("load", [load_model, load_runner])
def test_heads_that_are_no_multiple_of_the_kv_heads_are_refused(tmp_path: Path, load: Any) -> None:
    folder = save_model(tmp_path / "model")
    set_config(folder, num_key_value_heads=3, head_dim=16)
    with pytest.raises(UnsupportedModel, match="4 attention heads, which is not a multiple of its 3 key-value heads"):
        load(str(folder), "cpu")


# --- runners ---

IDS = list(range(5, 45))
SCHEMES = [
    LayerScheme(bits, group, sym) for bits in (2, 3, 4, 8) for group, sym in ((32, True), (32, False), (-1, True))
]
EXACT = ("dense", "portable")


@pytest.fixture
def plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the native kernels cannot be compiled."""
    monkeypatch.setattr(library, "why_not", lambda: "There is no compiler.")


def quantized(tmp_path: Path, scheme: LayerScheme) -> Path:
    source = save_model(tmp_path / "source")
    written = write_output(source, tmp_path / "out", "auto_round", bits_map(scheme))
    carry_over(source, written.folder)
    return written.folder


def expected(folder: Path) -> torch.Tensor:
    """Return the logits after the last token, computed with dequantized weights in float32."""
    with torch.no_grad():
        logits: torch.Tensor = load_model(str(folder), "cpu", "float32").model(torch.tensor([IDS])).logits
    return logits[0, -1]


@pytest.mark.parametrize("scheme", SCHEMES, ids=[scheme.label() for scheme in SCHEMES])
@pytest.mark.parametrize("backend", ["dense", "portable", "int4pack", "auto"])
@pytest.mark.usefixtures("plain_torch")
def test_a_backend_s_logits_are_those_of_the_dequantized_model(
    tmp_path: Path, scheme: LayerScheme, backend: str
) -> None:
    folder = quantized(tmp_path, scheme)
    loaded = load_runner(str(folder), "cpu", backend, "float32")
    found, exact = loaded.runner.extend(IDS), expected(folder)
    apart = float((found - exact).norm() / exact.norm())
    used = "int4pack" if backend == "auto" else backend
    # For comparison: the whole model computed in bfloat16 differs by 0.010 to 0.018.
    assert apart < (1e-5 if backend in EXACT else 0.03)
    head = {"dense": 1}
    assert loaded.counts == ({"dense": 15} if backend == "dense" else {used: 14, **head})
    assert (loaded.schemes, loaded.dtype) == ({scheme.label(): 14}, "float32")


@pytest.mark.parametrize("scheme", SCHEMES[::3], ids=[scheme.label() for scheme in SCHEMES[::3]])
def test_the_native_program_s_logits_are_close(tmp_path: Path, scheme: LayerScheme) -> None:
    if library.why_not():
        pytest.skip(library.why_not())
    folder = quantized(tmp_path, scheme)
    loaded = load_runner(str(folder), "cpu")
    found, exact = loaded.runner.extend(IDS), expected(folder)
    assert loaded.runner.name == "native"
    assert loaded.counts == {"native": 15}
    assert float((found - exact).norm() / exact.norm()) < 0.04  # rows are rounded to 8 bits


@pytest.mark.usefixtures("plain_torch")
def test_an_original_runs_without_quantized_layers(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    loaded = load_runner(str(folder), "cpu", dtype="float32")
    assert torch.allclose(loaded.runner.extend(IDS), expected(folder), atol=1e-5)
    assert (loaded.runner.name, loaded.counts, loaded.schemes) == ("module", {"dense": 15}, {})


@pytest.mark.usefixtures("plain_torch")
@pytest.mark.parametrize(("kind", "unpacked"), [("fp8", "FP8"), ("", "")])
def test_a_runner_names_the_format_that_was_unpacked(tmp_path: Path, kind: str, unpacked: str) -> None:
    folder = save_quantized_model(tmp_path / "model", kind) if kind else save_model(tmp_path / "model")
    assert load_runner(str(folder), "cpu", dtype="float32").unpacked.partition(" ")[0] == unpacked


@pytest.mark.usefixtures("plain_torch")
def test_packed_layers_take_less_memory_than_floats(tmp_path: Path) -> None:
    folder = quantized(tmp_path, LayerScheme(4, 32))
    sizes = {name: load_runner(str(folder), "cpu", name, "float32").memory_bytes for name in ("dense", "portable")}
    weights = sum(rows * columns for rows, columns in SHAPES.values()) * BLOCKS
    assert sizes["dense"] - sizes["portable"] == weights * 4 - weights // 2 - weights // 32 * 2


@pytest.mark.parametrize("wanted", ["marlin", "llama.cpp"])
@pytest.mark.usefixtures("plain_torch")
def test_a_backend_that_cannot_run_here_is_a_row_with_the_reason(tmp_path: Path, wanted: str) -> None:
    folder = quantized(tmp_path, LayerScheme(4, 32))
    loaded = load_runner(str(folder), "cpu", wanted, "float32")
    row = next(row for row in loaded.rows if row.name == wanted)
    assert (row.layers, bool(row.why_not)) == (0, True)
    assert sum(loaded.counts.values()) == 15


def test_an_unknown_architecture_is_refused_before_its_tokenizer_is_read(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "unheard_of"}), encoding="utf-8")
    with pytest.raises(UnsupportedModel, match="'unheard_of' is unknown"):
        load_runner(str(folder), "cpu")


def test_an_unknown_backend_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no backend 'warp'"):
        load_runner(str(save_model(tmp_path / "model")), "cpu", "warp")


@pytest.mark.usefixtures("plain_torch")
def test_a_missing_device_is_replaced_by_the_cpu(tmp_path: Path) -> None:
    loaded = load_runner(str(save_model(tmp_path / "model")), "cuda:7", dtype="float32")
    assert (loaded.device, loaded.device_note) == (
        "cpu",
        "There is no device 'cuda:7' on this machine; using the CPU instead.",
    )


@pytest.mark.usefixtures("plain_torch")
def test_a_device_that_fails_while_loading_is_replaced_by_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Device("cuda:0", "cuda", "Old card", 1 << 40, 1 << 40)
    machine = (*devices.list_devices(), card)
    monkeypatch.setattr(devices, "list_devices", lambda: machine)
    events: list[Event] = []
    loaded = load_runner(str(save_model(tmp_path / "model")), "cuda:0", dtype="float32", emit=events.append)
    assert loaded.device == "cpu"
    assert loaded.device_note.startswith("Old card failed (")
    assert [event.message for event in events if isinstance(event, Log)] == [loaded.device_note]


@pytest.mark.parametrize(("wanted", "context"), [(None, 256), (100, 100), (9999, 256), (0, 256)])
@pytest.mark.usefixtures("plain_torch")
def test_the_context_is_the_requested_one_within_the_model_s(tmp_path: Path, wanted: int | None, context: int) -> None:
    folder = save_model(tmp_path / "model")
    assert load_runner(str(folder), "cpu", dtype="float32", context=wanted).context == context


@pytest.mark.parametrize(("free", "context"), [(1 << 40, 131072), (1 << 30, 8192), (1 << 20, 1024)])
def test_the_default_context_fits_into_the_free_memory(free: int, context: int) -> None:
    config = {
        "max_position_embeddings": 131072, "num_hidden_layers": 16, "num_attention_heads": 32, "head_dim": 64,
        "num_key_value_heads": 8, "hidden_size": 2048,
    }  # fmt: skip
    device = Device("cpu", "cpu", "Some processor", 1 << 41, free)
    assert starting.context_for(config, device, None) == context


def test_only_the_blocks_with_attention_have_keys_and_values() -> None:
    dense = {"num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 16}
    hybrid = {**dense, "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"]}
    latent = {**dense, "kv_lora_rank": 64, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 24}
    assert starting._token_bytes(dense) == 2 * 2 * 4 * 2 * 16
    assert starting._token_bytes(hybrid) == 2 * 2 * 1 * 2 * 16
    assert starting._token_bytes(latent) == 2 * 4 * 8 * (16 + 8 + 24)


def test_a_model_that_does_not_fit_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Device("cpu", "cpu", "Some processor", 1 << 40, 1000)
    monkeypatch.setattr(devices, "list_devices", lambda: (small,))
    with pytest.raises(OutOfMemory, match=r"model needs .* of memory, but Some processor has only 1 kB free"):
        load_runner(str(save_model(tmp_path / "model")), "cpu", dtype="float32")


@pytest.mark.usefixtures("plain_torch")
def test_loading_a_runner_can_be_stopped(tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        load_runner(str(save_model(tmp_path / "model")), "cpu", dtype="float32", should_stop=lambda: True)
