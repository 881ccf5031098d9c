"""Headers of a checkpoint held against the model that its config describes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.errors import UnsupportedModel
from core.files import read_json
from core.model.headers import read_folder
from core.model.skeleton import Skeleton, build_skeleton
from core.model.tree import build_tree
from core.model.weights import TensorStore
from tests.core.tiny_model import CONFIG, save_model

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


def head(tensors: dict[str, Tensor]) -> Tensor:
    return tensors.setdefault("lm_head.weight", torch.ones(288, 64).bfloat16())


def test_a_whole_checkpoint_fits(tmp_path: Path) -> None:
    skeleton_of(save_model(tmp_path / "model")).check()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop("model.norm.weight"), r"has no tensor for model\.norm\.weight"),
        (lambda t: t.pop("model.layers.1.input_layernorm.weight"), r"no tensor for model\.layers\.1\.input_layernorm"),
        (
            lambda t: t.update({"model.layers.1.mlp.up_proj.weight": torch.ones(64, 64)}),
            r"up_proj\.weight has the shape \[64, 64\], but config\.json says \[96, 64\]",
        ),
        (lambda t: t.update({"model.norm.weight": torch.ones(0)}), r"model\.norm\.weight is empty .*ZeRO-3"),
        (lambda t: t.update({"model.norm.weight": torch.ones(64, dtype=torch.int8)}), r"norm\.weight is stored as I8"),
        (
            lambda t: t.update({"model.layers.0.mlp.lora_A.weight": torch.ones(8, 64)}),
            r"has no layer for model\.layers\.0\.mlp\.lora_A",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change: Change, sentence: str) -> None:
    with pytest.raises(UnsupportedModel, match=sentence):
        changed(tmp_path / "model", change).check()


@pytest.mark.parametrize("gone", [lambda t: t.pop("model.embed_tokens.weight"), None])
def test_a_head_is_never_taken_for_a_missing_embedding(tmp_path: Path, gone: Change | None) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        head(tensors)
        if gone is not None:
            gone(tensors)
        else:
            tensors["model.embed_tokens.weight"] = torch.zeros(0).bfloat16()

    skeleton = changed(tmp_path / "model", change, tie_word_embeddings=False)
    with pytest.raises(UnsupportedModel, match=r"model\.embed_tokens\.weight"):
        skeleton.check()


def test_a_head_with_as_many_rows_as_the_vocabulary_is_not_the_embedding(tmp_path: Path) -> None:
    import transformers

    config = transformers.MoshiConfig(
        vocab_size=96, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, ffn_dim=128,
        head_dim=16,
    )  # fmt: skip
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match=r"token embedding of this model is model\.embed_tokens\.weight"):
        skeleton_of(tmp_path).check()


def test_tables_that_the_model_makes_itself_are_not_taken_from_the_checkpoint(tmp_path: Path) -> None:
    odd = {"model.rotary_emb.inv_freq": torch.zeros(3)}
    skeleton = changed(tmp_path / "model", lambda t: t.update(odd))
    skeleton.check()
    skeleton.fill("", torch.float32, torch.device("cpu"), skip=(skeleton.stack, *skeleton.ends()))
    assert skeleton.model.get_buffer("model.rotary_emb.inv_freq").shape == (8,)
