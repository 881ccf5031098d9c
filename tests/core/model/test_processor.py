"""Processors of vision-language models, loaded without torchvision."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core.errors import BadInput, BitwrightError, MissingDependency, UnsupportedModel
from core.model import processor as module
from core.model.processor import PictureInputs, PictureProcessor, load_processor
from core.model.tokenizer import load_tokenizer
from tests.core.pictures.made_pictures import data_uri, encoded, halves
from tests.core.tiny_vision import FAMILIES, save_tokenizer

PICTURE = data_uri(encoded(halves(64, 40)))


def save(name: str, folder: Path) -> Path:
    """Write the files of a family that its processor needs."""
    folder.mkdir(parents=True)
    family = FAMILIES[name]
    save_tokenizer(family, folder)
    (folder / "config.json").write_text(json.dumps({"model_type": name, "architectures": ["AnyModel"]}))
    (folder / "preprocessor_config.json").write_text(json.dumps(family.image_processor))
    if family.processor:
        (folder / "processor_config.json").write_text(json.dumps(family.processor))
    return folder


def load(folder: Path) -> PictureProcessor:
    return load_processor(folder, load_tokenizer(folder))


@pytest.fixture(params=sorted(FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save(request.param, tmp_path / request.param)


@pytest.fixture
def qwen(tmp_path: Path) -> Path:
    return save("qwen3_vl", tmp_path / "qwen")


def test_torchvision_is_not_needed(folder: Path) -> None:
    processor = load(folder)
    found = processor.inputs(f"a{processor.mark}b", [PICTURE])
    assert "torchvision" not in sys.modules
    assert len(found.ids) > 4
    assert 1 < found.end < len(found.ids)
    assert found.arguments["pixel_values"].is_floating_point()
    assert "attention_mask" not in found.arguments


def test_text_after_the_last_picture_is_not_part_of_it(folder: Path) -> None:
    processor = load(folder)
    short, long = (processor.inputs(f"{processor.mark}{text}", [PICTURE]) for text in ("b", "bcdef"))
    assert short.end == long.end
    assert short.ids[: short.end] == long.ids[: long.end]


def test_number_of_marks_must_be_that_of_pictures(folder: Path) -> None:
    processor = load(folder)
    with pytest.raises(BadInput, match="1 pictures, but 2 places"):
        processor.inputs(processor.mark * 2, [PICTURE])


def test_colours_reach_the_model(qwen: Path) -> None:
    """The tower gets the two halves of the picture, scaled to -1 .. 1, in the order of its patches."""
    values = load(qwen).inputs("<|image_pad|>", [PICTURE]).arguments["pixel_values"]
    colours = values.reshape(len(values), 3, -1).mean(dim=2)
    assert torch.allclose(colours.unique(dim=0), torch.tensor([[-1.0, -1, 1], [1, -1, -1]]), atol=0.02)


def test_the_last_result_is_kept(qwen: Path) -> None:
    processor = load(qwen)
    first = processor.inputs("<|image_pad|>", [PICTURE])
    assert processor.inputs("<|image_pad|>", [PICTURE]) is first
    other = data_uri(encoded(halves(64, 40).rotate(180)))
    assert processor.inputs("<|image_pad|>", [other]).digests != first.digests


def test_arguments_for_fewer_and_more_tokens() -> None:
    kinds = torch.tensor([[0, 1, 1, 0]])
    inputs = PictureInputs((5, 6, 6, 7), ("a",), 3, {"kinds": kinds, "grid": torch.ones(1, 3)}, frozenset({"kinds"}))
    assert inputs.sized(3)["kinds"].tolist() == [[0, 1, 1]]
    assert inputs.sized(6)["kinds"].tolist() == [[0, 1, 1, 0, 0, 0]]
    assert inputs.sized(6)["grid"].shape == (1, 3)


def test_extreme_ratio_is_one_sentence(qwen: Path) -> None:
    narrow = data_uri(encoded(Image.new("RGB", (20_000, 40))))
    with pytest.raises(BadInput, match=r"does not accept the pictures: .*aspect ratio") as caught:
        load(qwen).inputs("<|image_pad|>", [narrow])
    assert caught.value.hint


def test_class_is_found_by_model_type_if_no_file_names_it(qwen: Path) -> None:
    settings = json.loads((qwen / "preprocessor_config.json").read_text())
    del settings["processor_class"]
    (qwen / "preprocessor_config.json").write_text(json.dumps(settings))
    assert load(qwen).mark == "<|image_pad|>"


def test_image_processor_inside_processor_config(qwen: Path) -> None:
    settings = json.loads((qwen / "preprocessor_config.json").read_text())
    (qwen / "preprocessor_config.json").unlink()
    kind = settings.pop("processor_class")
    whole = {"processor_class": kind, "image_processor": settings, "video_processor": {"fps": 2}}
    (qwen / "processor_config.json").write_text(json.dumps(whole))
    assert load(qwen).inputs("<|image_pad|>", [PICTURE]).arguments["image_grid_thw"].tolist() == [[1, 4, 8]]


@pytest.mark.parametrize("file", ["preprocessor_config.json", "processor_config.json"])
def test_code_of_the_model_is_never_run(qwen: Path, file: str) -> None:
    path = qwen / file
    settings = json.loads(path.read_text()) if path.exists() else {}
    settings["auto_map"] = {
        "AutoProcessor": "evil.Processor", "AutoImageProcessor": "evil.Image", "AutoTokenizer": ["evil.Tok", None],
    }  # fmt: skip
    path.write_text(json.dumps(settings))
    (qwen / "evil.py").write_text(f"open({str(qwen / 'ran')!r}, 'w')\nclass Processor: ...\nclass Image: ...\n")
    assert load(qwen).mark == "<|image_pad|>"
    assert not (qwen / "ran").exists()


def test_audio_tokenizer_of_another_repository_is_not_loaded(qwen: Path) -> None:
    settings = {"audio_tokenizer": {"audio_tokenizer_class": "DacModel", "audio_tokenizer_name_or_path": "a/b"}}
    (qwen / "processor_config.json").write_text(json.dumps({"processor_class": "Qwen3VLProcessor", **settings}))
    assert load(qwen).mark == "<|image_pad|>"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"processor_class": "Llama4Processor", "image_processor_type": "Llama4ImageProcessor"}, "orchvision"),
        ({"image_processor_type": "NoSuchImageProcessor"}, "cannot be read"),
        ({"processor_class": "NoSuchProcessor"}, "no picture processor"),
        ({"processor_class": "../../etc"}, "no picture processor"),
        ({"size": {"shortest_edge": "large"}}, "cannot be read|does not accept"),
        ({"patch_size": 0}, "cannot be read|does not accept"),
        ({"merge_size": -1}, "cannot be read|does not accept"),
    ],
)
def test_processor_that_cannot_be_used_is_one_sentence(qwen: Path, changes: dict[str, Any], words: str) -> None:
    path = qwen / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises((UnsupportedModel, BadInput), match=words) as caught:
        load(qwen).inputs("<|image_pad|>", [PICTURE])
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"image_processor_type": 3}'])
def test_damaged_settings_are_one_sentence(qwen: Path, text: str) -> None:
    (qwen / "preprocessor_config.json").write_text(text)
    with pytest.raises(BitwrightError):
        load(qwen)


def test_missing_settings_are_one_sentence(qwen: Path) -> None:
    (qwen / "preprocessor_config.json").unlink()
    with pytest.raises(UnsupportedModel, match="cannot be read"):
        load(qwen)


def test_without_pillow_the_sentence_has_the_command(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "missing_pillow", lambda: MissingDependency("Pillow is missing.", "pip install pillow"))
    with pytest.raises(MissingDependency):
        load(qwen)


def test_libraries_for_videos_are_only_replaced_while_a_processor_is_made(tmp_path: Path) -> None:
    load(save("smolvlm", tmp_path / "smolvlm"))
    from transformers.models.smolvlm import processing_smolvlm

    assert processing_smolvlm.num2words is None or callable(processing_smolvlm.num2words)


def test_small_pictures_are_enlarged_in_their_ratio() -> None:
    assert module._enlarged(Image.new("RGB", (10, 20))).size == (40, 80)
    assert module._enlarged(Image.new("RGB", (32, 20_000))).size == (32, 20_000)
    assert np.asarray(module._enlarged(halves(4, 2)))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("attributes", "mark"),
    [
        ({"image_token": "<image>"}, "<image>"),
        ({"image_token": "<IMG_CONTEXT>", "image_placeholder_token": "<image>"}, "<image>"),
        ({"image_token": None}, ""),
        ({}, ""),
    ],
)
def test_mark_is_that_of_the_prompt_before_it_is_expanded(attributes: dict[str, Any], mark: str) -> None:
    assert module._mark_of(SimpleNamespace(**attributes)) == mark


def test_end_of_pictures_whose_tokens_are_unknown_is_where_the_rest_of_the_text_starts(qwen: Path) -> None:
    processor = load(qwen)
    processor._picture_ids = frozenset()
    assert processor._end("a<|image_pad|>bcd", [1, 7, 7, 7, 2, 3, 4]) == 4
    processor._picture_ids = frozenset({2})
    assert processor._end("a<|image_pad|>bcd", [1, 7, 7, 7, 2, 3, 4]) == 5


def test_settings_that_processors_share_can_be_logged() -> None:
    shared = module._SharedSettings({"merge_size": 2})
    assert (shared.merge_size, json.loads(json.dumps(shared))) == (2, {"merge_size": 2})
    with pytest.raises(AttributeError):
        _ = shared.fps
