"""Searches on a local Hub, and in the cache when the Hub cannot be reached."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save

from core.errors import BadInput, Cancelled, HubUnreachable
from core.events import Event
from core.hub.download import download
from core.hub.records import FoundModel, SearchResults
from core.hub.search import is_quantized, search
from tests.core.hub.local_hub import Hub, closed_port, point_at, serve

ITEM: dict[str, Any] = {
    "id": "some/model",
    "author": "some",
    "downloads": 1234,
    "likes": 5,
    "gated": "manual",
    "lastModified": "2026-01-02T03:04:05.000Z",
    "tags": ["transformers", "license:apache-2.0"],
    "safetensors": {"parameters": {"BF16": 100}, "total": 100},
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    files = {
        "config.json": json.dumps({"model_type": "llama"}).encode(),
        "model.safetensors": save({"x": np.zeros((3, 4), np.float32)}),
        "README.md": b"---\nlicense: mit\n---\n",
    }
    with serve(Hub(files, listing=[ITEM])) as running:
        point_at(running.endpoint, tmp_path / "cache", monkeypatch)
        yield running


def find(text: str = "model", limit: int = 10, sort: str = "downloads", hide_quantized: bool = True) -> SearchResults:
    return search(text, limit, sort, hide_quantized, lambda: False)


def names(answer: SearchResults) -> list[str]:
    return [model.id for model in answer.models]


def go_offline(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    point_at(f"http://127.0.0.1:{closed_port()}", cache, monkeypatch)


def test_the_attributes_of_a_result_are_those_of_the_hub(hub: Hub) -> None:
    found = FoundModel(
        id="some/model", author="some", downloads=1234, likes=5, gated=True, license="apache-2.0", parameters=100,
        updated="2026-01-02T03:04:05.000Z", tags=("transformers", "license:apache-2.0"), cached=False,
    )  # fmt: skip
    assert find() == SearchResults((found,), offline=False)


def test_missing_and_invalid_entries_are_tolerated(hub: Hub) -> None:
    hub.listing = [{"id": "bare"}, {"id": 7}, "nonsense"]
    assert [(model.id, model.author, model.parameters, model.license) for model in find().models] == [
        ("bare", "", None, "")
    ]


def test_the_queries_select_models_of_text_and_pictures_with_safetensors(hub: Hub) -> None:
    find("llama 3", sort="updated")
    for query in hub.queries:
        assert (query["search"], query["sort"], query["filter"]) == (["llama 3"], ["lastModified"], ["safetensors"])
    assert [query["pipeline_tag"] for query in hub.queries] == [
        ["text-generation"], ["image-text-to-text"], ["any-to-any"],
    ]  # fmt: skip


def test_a_model_of_several_tasks_is_listed_once(hub: Hub) -> None:
    assert names(find()) == ["some/model"]


@pytest.mark.parametrize(("sort", "field"), [("downloads", "downloads"), ("updated", "lastModified")])
def test_models_of_all_tasks_are_sorted_together(hub: Hub, sort: str, field: str) -> None:
    values = [7, 9, 3] if sort == "downloads" else ["2026-01-07", "2026-01-09", "2026-01-03"]
    hub.listing = [{"id": f"some/model{number}", field: value} for number, value in enumerate(values)]
    hub.listing.append({"id": "some/unknown"})
    assert names(find(sort=sort)) == ["some/model1", "some/model0", "some/model2", "some/unknown"]


def test_the_number_of_results_is_limited(hub: Hub) -> None:
    hub.listing = [{"id": f"some/model{number}"} for number in range(50)]
    assert len(find(limit=7).models) == 7


def test_hidden_quantized_models_are_replaced_by_others(hub: Hub) -> None:
    hub.listing = [{"id": f"some/model{number}-GGUF"} for number in range(4)] + [{"id": "some/model"}]
    assert names(find(limit=2)) == ["some/model"]


def test_quantized_models_are_included_on_request(hub: Hub) -> None:
    hub.listing = [{"id": "some/model-GGUF"}]
    assert names(find(hide_quantized=False)) == ["some/model-GGUF"]


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("a/Qwen3-8B-GGUF", ()), ("a/x-AWQ", ()), ("a/x-GPTQ-Int4", ()), ("a/x-4bit", ()), ("a/x-4.25bpw-exl2", ()),
        ("mlx-community/x", ()), ("a/x-w4a16", ()), ("a/x_Q4_K_M", ()), ("a/x-bnb-4bit", ()), ("a/x-FP8", ()),
        ("a/x", ("gptq",)), ("a/x", ("base_model:quantized:b/x",)), ("a/x", ("8-bit",)), ("a/x-int8", ()),
    ],
)  # fmt: skip
def test_a_quantized_model_is_detected_by_its_name_or_tags(name: str, tags: tuple[str, ...]) -> None:
    assert is_quantized(model(name, tags))


@pytest.mark.parametrize(
    "name", ["Qwen/Qwen3-8B", "HuggingFaceTB/SmolLM2-135M-Instruct", "a/quantum-7b", "openai/gpt2"]
)
def test_an_original_is_not_taken_for_a_quantized_model(name: str) -> None:
    assert not is_quantized(model(name, ("transformers", "base_model:finetune:b/x")))


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (("8-bit", "mxfp4"), False),
        (("fp8",), False),
        (("fp8", "base_model:finetune:b/x"), True),
        (("8-bit",), True),
        (("fp8", "compressed-tensors"), True),
    ],
)
def test_a_model_that_was_published_in_fp8_or_mxfp4_is_an_original(tags: tuple[str, ...], expected: bool) -> None:
    assert is_quantized(model("a/x", tags)) is expected


def model(name: str, tags: tuple[str, ...]) -> FoundModel:
    return FoundModel(name, "a", 0, 0, False, "", None, "", tags, False)


def test_a_model_in_the_cache_is_marked(hub: Hub) -> None:
    download("some/model", list[Event]().append, lambda: False)
    assert find().models[0].cached


def test_an_incomplete_model_in_the_cache_is_not_marked(hub: Hub) -> None:
    folder = download("some/model", list[Event]().append, lambda: False)
    (folder / "model.safetensors").unlink()
    assert not find().models[0].cached


def test_without_the_hub_the_cache_is_searched(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("some/model", "some/other"):
        download(name, list[Event]().append, lambda: False)
    go_offline(monkeypatch, tmp_path / "cache")
    answer = find("MODEL")
    assert (names(answer), answer.offline) == (["some/model"], True)
    assert (answer.models[0].parameters, answer.models[0].license, answer.models[0].cached) == (12, "mit", True)


def test_offline_mode_searches_the_cache(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    download("some/model", list[Event]().append, lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    answer = find("")
    assert (names(answer), answer.offline) == (["some/model"], True)


def test_quantized_models_in_the_cache_are_hidden_by_their_config(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files["config.json"] = json.dumps({"quantization_config": {"quant_method": "gptq"}}).encode()
    download("some/model", list[Event]().append, lambda: False)
    go_offline(monkeypatch, tmp_path / "cache")
    assert (names(find()), names(find(hide_quantized=False))) == ([], ["some/model"])


def test_an_empty_cache_gives_no_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_offline(monkeypatch, tmp_path / "none")
    assert find() == SearchResults((), offline=True)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_error_of_the_hub_counts_as_offline(hub: Hub, status: int) -> None:
    hub.status = status
    assert find().offline


def test_a_rejected_token_is_reported(hub: Hub) -> None:
    hub.status = 401
    with pytest.raises(HubUnreachable) as caught:
        find()
    assert "rejected" in caught.value.message


def test_an_unknown_sort_order_is_rejected() -> None:
    with pytest.raises(BadInput):
        find(sort="beauty")


def test_should_stop_ends_the_wait(hub: Hub) -> None:
    hub.silent = 3.0
    with pytest.raises(Cancelled):
        search("model", 5, "downloads", True, lambda: True)
