"""A job's spec: its file, its limits, and the way from options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from core import spec
from core.bitsmap import BitsMap, Rule
from core.errors import BadInput
from core.model_id import looks_like_path
from core.recipes import Recipe
from core.schemes import LayerScheme
from core.spec import JobSpec, from_options

FULL = JobSpec(
    model="owner/model",
    output="/tmp/ö ut",
    recipe=Recipe("autoround", "For a start.", iters=5, lr=0.5, start="range"),
    bits_map=BitsMap(LayerScheme(2, 64, sym=False), (Rule("*.q_proj", bits=8),), (Rule("lm_head", bits=4),)),
    calibration="text.txt",
    formats=("auto_round", "auto_gptq"),
    device="cuda:1",
    seed=7,
    low_memory=True,
    memory=8_000_000_000,
    compile=True,
    name="mine",
)


def test_a_spec_comes_back_from_its_file(tmp_path: Path) -> None:
    FULL.save(tmp_path / "spec.json")
    assert spec.load(tmp_path / "spec.json") == FULL


@pytest.mark.parametrize(
    "change",
    [
        {"formats": ()}, {"formats": ("auto_round", "auto_round")}, {"formats": ("ggml",)}, {"model": ""},
        {"output": ""}, {"seed": -1}, {"seed": True}, {"seed": 2**63}, {"device": "gpu"}, {"device": "cuda:x"},
        {"device": "cuda,cuda:1"}, {"device": "cuda:0,xpu:1"},
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        JobSpec(**{"model": "m", "output": "o", **change})


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "xpu:12", "cuda:0,cuda:1,cuda:7"])
def test_devices_have_names(device: str) -> None:
    assert JobSpec("m", "o", device=device).device == device


@pytest.mark.parametrize(
    "value",
    [None, [], {}, {"version": 2}, {"version": 1}, {**FULL.to_json(), "extra": 1}, {**FULL.to_json(), "recipe": 5}],
)
def test_json_of_something_else_is_refused(value: Any) -> None:
    with pytest.raises(BadInput):
        spec.from_json(value)


def test_one_format_goes_into_the_output_and_several_below_it() -> None:
    assert JobSpec("m", "/o").output_of("auto_round") == Path("/o")
    assert FULL.output_of("auto_gptq") == Path("/tmp/ö ut/auto_gptq")


def test_options_replace_the_default_of_a_map_but_not_its_rules(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    BitsMap(LayerScheme(2, 64, sym=False), (Rule("*.q_proj", bits=8),)).save(path)
    made = from_options("m", "o", bits_map=path, bits=3)
    assert made.bits_map.default == LayerScheme(3, 64, sym=False)
    assert made.bits_map.rules == (Rule("*.q_proj", bits=8),)


def test_without_options_the_default_of_the_map_stays() -> None:
    assert from_options("m", "o", bits_map=BitsMap(LayerScheme(8, 32))).bits_map.default == LayerScheme(8, 32)
    assert from_options("m", "o").bits_map.default == LayerScheme(4, 128, sym=True)


def test_tuning_options_replace_those_of_a_recipe_by_name_or_value() -> None:
    assert from_options("m", "o", recipe="light", iters=3, lr=None).recipe.iters == 3
    assert from_options("m", "o", recipe=Recipe(iters=9), samples=2).recipe == Recipe(iters=9, samples=2)


def test_paths_become_absolute_and_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "folder").mkdir()
    made = from_options("folder", "out", calibration="./text.txt")
    assert (made.model, made.output) == (str(tmp_path / "folder"), str(tmp_path / "out"))
    assert made.calibration == str(tmp_path / "text.txt")
    assert from_options("owner/name", "out").model == "owner/name"
    assert from_options("demo", "out").model == "demo"
    assert from_options(Path("nothing"), "out").model == str(tmp_path / "nothing")
    assert from_options("~/x", "out").model == os.path.expanduser("~/x")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("owner/name", False), ("gpt2", False), ("./a", True), ("/a", True), ("~/a", True), ("a.gguf", True),
        ("a/b/c", True), ("a\\b", True),
    ],
)  # fmt: skip
def test_what_is_meant_as_a_path(name: str, path: bool) -> None:
    assert looks_like_path(name) is path


@pytest.mark.parametrize("memory", [0, -1, True, 1.5, "8GB"])
def test_a_memory_limit_is_a_positive_number_of_bytes(memory: object) -> None:
    with pytest.raises(BadInput, match="memory limit"):
        JobSpec("m", "o", memory=memory)  # type: ignore[arg-type]


def test_a_file_whose_types_are_used_makes_the_output_gguf(tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    found = from_options("demo", "out", like=path)
    assert (found.formats, found.like) == (("gguf",), str(path))
    assert spec.from_json(found.to_json()) == found
    with pytest.raises(BadInput, match="one GGUF file with the types of the other"):
        from_options("demo", "out", like=path, formats=("auto_round",))
    with pytest.raises(BadInput, match="sets the type of every layer"):
        from_options("demo", "out", like=path, bits=3)
