"""Comparison of the headers of a checkpoint with the model that its config describes, and loading of weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.errors import UnsupportedModel
from core.files import read_json
from core.model.headers import read_folder
from core.model.skeleton import Skeleton, build_skeleton
from core.model.tree import ModelTree, build_tree
from core.model.weights import TensorStore
from tests.core.tiny_model import CONFIG, save_model
from tests.core.tiny_vision import FAMILIES, save_vision_model

Change = Callable[[dict[str, Tensor]], object]


def skeleton_of(folder: Path) -> Skeleton:
    tree = build_tree(read_json(folder / "config.json"), read_folder(folder))
    assert tree.refusal == ""
    return build_skeleton(tree, TensorStore(folder))


def changed(folder: Path, change: Change, **config: object) -> Skeleton:
    save_model(folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}), encoding="utf-8")
    return skeleton_of(folder)


def test_a_complete_checkpoint_passes_the_check(tmp_path: Path) -> None:
    skeleton_of(save_model(tmp_path / "model")).check()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop("model.norm.weight"), r"has no tensor for model\.norm\.weight"),
        (lambda t: t.pop("model.layers.1.input_layernorm.weight"), r"no tensor for model\.layers\.1\.input_layernorm"),
        (
            lambda t: t.update({"model.layers.1.mlp.up_proj.weight": torch.ones(64, 64)}),
            r"up_proj\.weight has the shape \[64, 64\], but config\.json requires \[96, 64\]",
        ),
        (lambda t: t.update({"model.norm.weight": torch.ones(0)}), r"model\.norm\.weight is empty .*ZeRO-3"),
        (lambda t: t.update({"model.norm.weight": torch.ones(64, dtype=torch.int8)}), r"norm\.weight is stored as I8"),
        (
            lambda t: t.update({"model.layers.0.mlp.gate_up.weight": torch.ones(8, 64)}),
            r"has no layer for model\.layers\.0\.mlp\.gate_up",
        ),
    ],
)
def test_a_mismatch_is_reported_with_the_tensor_name(tmp_path: Path, change: Change, sentence: str) -> None:
    with pytest.raises(UnsupportedModel, match=sentence):
        changed(tmp_path / "model", change).check()


def tree_of(folder: Path) -> ModelTree:
    return build_tree(read_json(folder / "config.json"), read_folder(folder))


@pytest.mark.parametrize(("embedding", "reason"), [(torch.zeros(0).bfloat16(), "is empty"), (None, "no token embed")])
def test_a_head_does_not_replace_a_missing_embedding(tmp_path: Path, embedding: Tensor | None, reason: str) -> None:
    folder = save_model(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    if embedding is not None:
        tensors["model.embed_tokens.weight"] = embedding
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert reason in tree_of(folder).refusal


def test_an_embedding_that_differs_from_that_of_the_tree_is_unsupported(tmp_path: Path) -> None:
    head = {"lm_head.weight": torch.ones(288, 64).bfloat16()}
    skeleton = changed(tmp_path / "model", lambda t: t.update(head), tie_word_embeddings=False)
    skeleton.check()
    with pytest.raises(UnsupportedModel, match=r"token embedding of this model is model\.embed_tokens\.weight, not"):
        replace(skeleton, tree=replace(skeleton.tree, embedding="lm_head")).check()


def test_buffers_that_the_model_computes_are_not_loaded(tmp_path: Path) -> None:
    odd = {"model.rotary_emb.inv_freq": torch.zeros(3)}
    skeleton = changed(tmp_path / "model", lambda t: t.update(odd))
    skeleton.check()
    skeleton.fill("", torch.float32, torch.device("cpu"), skip=(skeleton.stack, *skeleton.ends()))
    assert skeleton.model.get_buffer("model.rotary_emb.inv_freq").shape == (8,)


@pytest.mark.parametrize("given", [{"return_dict": []}, {"output_hidden_states": 0.0}, {"output_attentions": True}])
def test_the_config_does_not_change_the_return_values(given: dict[str, object], tmp_path: Path) -> None:
    skeleton = changed(tmp_path / "model", lambda tensors: None, **given)
    skeleton.fill("", torch.float32, torch.device("cpu"))
    found = skeleton.model(input_ids=torch.tensor([[1, 2, 3]]))
    assert found.logits.shape == (1, 3, CONFIG["vocab_size"])
    assert found.hidden_states is found.attentions is None


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_device_and_dtype_of_a_multimodal_model_are_those_of_its_language_model(name: str, tmp_path: Path) -> None:
    skeleton = skeleton_of(save_vision_model(name, tmp_path / name))
    assert skeleton.towers
    skeleton.fill("", torch.float16, torch.device("cpu"), skip=skeleton.towers)
    for module in (skeleton.model, skeleton.model.base_model):
        assert (module.device.type, module.dtype) == ("cpu", torch.float16)
