"""Calibration samples with pictures, on tiny vision-language models of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from core import recipes
from core.bitsmap import BitsMap
from core.control import Control
from core.errors import BadCalibration, BadInput
from core.events import Done, Event, Log, ignore_event
from core.model.block_runner import first_inputs
from core.model.skeleton import Skeleton, build_skeleton
from core.model.tokenizer import load_tokenizer
from core.model.tree import build_tree
from core.model.weights import TensorStore
from core.quant import pipeline
from core.quant.picture_rows import PictureRow, language_calls, picture_rows
from core.schemes import LayerScheme
from core.spec import JobSpec
from tests.core.tiny_model import save_model
from tests.core.tiny_vision import save_vision_model

Image = pytest.importorskip("PIL.Image")

MODELS = ("gemma3", "qwen3_vl", "smolvlm")
"""Bidirectional attention within pictures; positions on three axes and DeepStack; pictures that are split."""
SEQLEN = 256


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {name: save_vision_model(name, place / name, torch.float32) for name in MODELS}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of four pictures with captions."""
    folder, random = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    for number in range(4):
        pixels = random.integers(0, 255, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"Noise, number {number}.")
    return folder


def skeleton_of(folder: Path) -> Skeleton:
    store = TensorStore(folder)
    tree = build_tree(json.loads((folder / "config.json").read_text()), store.table)
    return build_skeleton(tree, store)


def rows_of(folder: Path, pairs: Path, emit: Any = ignore_event) -> list[PictureRow]:
    text = torch.arange(8 * SEQLEN).remainder(200).view(8, SEQLEN)
    return picture_rows(pairs, folder, load_tokenizer(folder), text, 0, emit, lambda: False)


@pytest.mark.parametrize("name", MODELS)
def test_the_language_model_gets_what_the_whole_model_gives_it(
    folders: dict[str, Path], pairs: Path, name: str
) -> None:
    from transformers import AutoModelForMultimodalLM

    row = rows_of(folders[name], pairs)[0]
    whole = AutoModelForMultimodalLM.from_pretrained(folders[name], dtype=torch.float32).eval()
    skeleton, device = skeleton_of(folders[name]), torch.device("cpu")
    skeleton.fill("", torch.float32, device, skip=skeleton.towers)
    (language,) = language_calls(skeleton, [row], device, lambda: None)
    with torch.no_grad():
        expected: Tensor = whole.base_model(input_ids=row.tokens, **row.inputs)[0]
        found: Tensor = language(skeleton)[0]
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_picture_changes_the_input_of_the_first_block(folders: dict[str, Path], pairs: Path) -> None:
    first, second, *_ = rows_of(folders["qwen3_vl"], pairs)
    skeleton, device = skeleton_of(folders["qwen3_vl"]), torch.device("cpu")
    skeleton.fill("", torch.float32, device, skip=skeleton.towers)
    one, other = language_calls(skeleton, [first, PictureRow(first.tokens, second.inputs)], device, lambda: None)
    states = [first_inputs(skeleton, first.tokens, device, language) for language in (one, other)]
    assert not torch.allclose(states[0], states[1])


@pytest.mark.parametrize("name", MODELS)
def test_towers_are_loaded_only_while_they_run(folders: dict[str, Path], pairs: Path, name: str) -> None:
    skeleton, device = skeleton_of(folders[name]), torch.device("cpu")
    skeleton.fill("", torch.float32, device, skip=skeleton.towers)
    assert skeleton.towers
    list(language_calls(skeleton, rows_of(folders[name], pairs), device, lambda: None))
    towers = [skeleton.model.get_submodule(path) for path in skeleton.towers]
    assert all(parameter.is_meta for tower in towers for parameter in tower.parameters())


def test_samples_are_filled_up_with_text(folders: dict[str, Path], pairs: Path) -> None:
    rows = rows_of(folders["gemma3"], pairs)
    assert [tuple(row.tokens.shape) for row in rows] == [(1, SEQLEN)] * 4
    assert all(row.inputs["token_type_ids"].shape == (1, SEQLEN) for row in rows)
    assert all(row.inputs["token_type_ids"][0, -1] == 0 for row in rows)


def test_a_damaged_picture_is_left_out_and_told(folders: dict[str, Path], pairs: Path, tmp_path: Path) -> None:
    for path in pairs.iterdir():
        (tmp_path / path.name).write_bytes(b"" if path.name == "0.png" else path.read_bytes())
    events: list[Event] = []
    assert len(rows_of(folders["gemma3"], tmp_path, events.append)) == 3
    assert [event.level for event in events if isinstance(event, Log)] == ["warning"]


def test_pairs_without_a_usable_picture_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not a picture")
    (tmp_path / "a.txt").write_text("Nothing.")
    with pytest.raises(BadCalibration, match="No pair"):
        rows_of(folders["gemma3"], tmp_path)


def spec_of(model: Path, pairs: Path, folder: Path) -> JobSpec:
    text = folder / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 200, encoding="utf-8")
    recipe = recipes.load("quick", iters=2, samples=8, seqlen=SEQLEN, batch_size=4)
    bits_map = BitsMap(LayerScheme(4, 32, True))
    return JobSpec(str(model), str(folder / "out"), recipe, bits_map, str(text), pictures=str(pairs))


@pytest.mark.parametrize("name", MODELS)
def test_a_run_with_pictures_copies_the_towers(
    folders: dict[str, Path], pairs: Path, tmp_path: Path, name: str
) -> None:
    events: list[Event] = []
    (tmp_path / "job").mkdir()
    pipeline.run(spec_of(folders[name], pairs, tmp_path), tmp_path / "job", events.append, Control())
    assert isinstance(events[-1], Done)
    assert events[-1].report["calibration"]["pictures"] == 4
    before, after = (load_file(folder / "model.safetensors") for folder in (folders[name], tmp_path / "out"))
    prefixes = tuple(f"{tower['prefix']}." for tower in events[-1].report["towers"])
    copied = [key for key in before if key.startswith(prefixes)]
    assert copied
    assert all(torch.equal(before[key], after[key]) for key in copied)


def test_pictures_for_a_text_model_are_refused(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    spec = spec_of(save_model(tmp_path / "text"), pairs, tmp_path)
    with pytest.raises(BadInput, match="does not read pictures"):
        pipeline.run(spec, tmp_path / "job", ignore_event, Control())
