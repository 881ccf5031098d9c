"""The block-by-block passes give the same activations and gradients as autograd on the whole model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from core.errors import Cancelled
from core.files import read_json
from core.model.chain_finder import find_chain
from core.model.headers import read_folder
from core.model.skeleton import build_skeleton
from core.model.tree import build_tree
from core.model.weights import TensorStore
from core.sensitivity.passes import CapturedActivations, Pass, backward, forward, open_pass
from tests.core.tiny_architectures import make_model
from tests.core.tiny_model import BLOCKS, save_model

TOKENS = torch.randint(1, 280, (3, 20), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model")


@contextlib.contextmanager
def make_pass(folder: Path, scratch: Path, *, stop_after: int = 1000) -> Iterator[tuple[Pass, list[int]]]:
    tree = build_tree(read_json(folder / "config.json"), read_folder(folder))
    steps: list[int] = []
    with open_pass(
        find_chain(build_skeleton(tree, TensorStore(folder, tree.tensors)), TOKENS[:2], torch.device("cpu")),
        TOKENS,
        scratch,
        torch.device("cpu"),
        torch.float32,
        2,
        lambda: len(steps) >= stop_after,
        lambda: steps.append(1),
    ) as model_pass:
        yield model_pass, steps


def following(_scores: Tensor, tokens: Tensor) -> Tensor:
    return tokens


def whole_model(folder: Path) -> dict[str, CapturedActivations]:
    """Return the inputs and output gradients of all linear layers, by autograd on the transformers model."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
    captured: dict[str, tuple[Tensor, Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "layers" in name:

            def hook(_module: object, args: tuple[Tensor], output: Tensor, name: str = name) -> None:
                if not output.requires_grad:  # computed without gradients, as some routers are
                    return
                output.retain_grad()
                captured[name] = args[0].detach(), output

            module.register_forward_hook(hook)
    scores = model(inputs_embeds=model.get_input_embeddings()(TOKENS).requires_grad_(True)).logits
    torch.nn.functional.cross_entropy(scores[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten(), reduction="sum").backward()
    return {
        name: CapturedActivations(inputs.flatten(0, 1), output.grad.flatten(0, 1), TOKENS.numel())  # type: ignore[union-attr]
        for name, (inputs, output) in captured.items()
    }


def test_inputs_and_gradients_are_those_of_the_whole_model(folder: Path, tmp_path: Path) -> None:
    with make_pass(folder, tmp_path) as (model_pass, _):
        forward(model_pass)
        found = {
            name: activations
            for _, captured in backward(model_pass, following)
            for name, activations in captured.items()
        }
        expected = whole_model(folder)
        assert found.keys() == expected.keys()
        for name, activations in expected.items():
            torch.testing.assert_close(found[name].inputs, activations.inputs, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found[name].gradients, activations.gradients, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["gemma4_text", "qwen3_moe", "zaya"])
def test_gradients_are_those_of_the_whole_model_for_other_kinds_of_blocks(name: str, tmp_path: Path) -> None:
    """Keys and values of earlier blocks, experts, and routing of earlier blocks take part in the gradients."""
    make_model(name, tmp_path / "model")
    with make_pass(tmp_path / "model", tmp_path) as (model_pass, _):
        forward(model_pass)
        found = {
            layer: activations
            for _, captured in backward(model_pass, following)
            for layer, activations in captured.items()
        }
        expected = whole_model(tmp_path / "model")
    compared = expected.keys() & found.keys()
    assert len(compared) > 8
    for layer in compared:
        torch.testing.assert_close(found[layer].inputs, expected[layer].inputs, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found[layer].gradients, expected[layer].gradients, rtol=1e-2, atol=1e-4)


def test_the_backward_pass_goes_from_the_last_block_to_the_first(folder: Path, tmp_path: Path) -> None:
    with make_pass(folder, tmp_path) as (model_pass, steps):
        forward(model_pass)
        assert [block for block, _ in backward(model_pass, following)] == list(reversed(range(BLOCKS)))
        assert len(steps) == 2 * BLOCKS


def test_all_blocks_are_unloaded_after_the_passes(folder: Path, tmp_path: Path) -> None:
    with make_pass(folder, tmp_path) as (model_pass, _):
        forward(model_pass)
        list(backward(model_pass, following))
        assert all(value.is_meta for value in model_pass.skeleton.blocks.parameters())


def test_a_stop_cancels_the_pass_after_the_current_block(folder: Path, tmp_path: Path) -> None:
    with make_pass(folder, tmp_path, stop_after=1) as (model_pass, steps):
        with pytest.raises(Cancelled):
            forward(model_pass)
        assert len(steps) == 1
