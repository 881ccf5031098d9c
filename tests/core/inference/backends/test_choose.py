"""Tests of the choice of a backend for each layer and of the table of backends."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
import torch

from core.errors import BadInput
from core.inference.backends import choose as choosing
from core.inference.backends import llama_cpp
from core.inference.backends.backend import Backend, LayerFacts, MissingRequirement
from core.inference.backends.choose import choose, table, whole_rows
from core.inference.machine import Device
from core.schemes import LayerScheme
from tests.core.inference.backends.stored_layers import CPU

FOUR, EIGHT = LayerScheme(4, 64), LayerScheme(8, 64)
LAYERS = [LayerFacts("a", 64, 128, FOUR), LayerFacts("b", 64, 128, FOUR), LayerFacts("c", 64, 128, EIGHT)]


@dataclass
class StubBackend:
    """A backend with given answers about devices and layers."""

    name: str
    bits: tuple[int, ...] = (2, 3, 4, 8)
    why: MissingRequirement | None = None
    title: str = "Some kernels"
    takes: str = "some layers"
    asked: Counter[str] = field(default_factory=Counter)

    def missing(self, device: Device) -> MissingRequirement | None:
        return self.why

    def refusal(self, facts: LayerFacts, device: Device, dtype: torch.dtype) -> str:
        self.asked[facts.scheme.label()] += 1
        return "" if facts.scheme.bits in self.bits else f"there is no kernel for {facts.scheme.bits} bits"

    build = None


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> dict[str, StubBackend]:
    """Register four backends: a fast one for 4 bits, one that is not installed, and two that support all layers."""
    found = {
        "fast": StubBackend("fast", (4,)),
        "absent": StubBackend("absent", why=MissingRequirement("It is not installed.", "pip install it")),
        "dense": StubBackend("dense"),
        "portable": StubBackend("portable"),
    }
    monkeypatch.setattr(choosing, "_CLASSES", dict.fromkeys(found, ("", "")))
    monkeypatch.setattr(choosing, "_ORDERS", {"cpu": tuple(found)})
    monkeypatch.setattr(choosing, "NAMES", ("auto", *found, "llama.cpp"))
    monkeypatch.setattr(choosing, "_load", found.__getitem__)
    monkeypatch.setattr(llama_cpp, "missing", lambda device: MissingRequirement("It is not here.", "pip install llama"))
    return found


def first(wanted: str = "auto", device: Device = CPU) -> dict[str, str]:
    return {
        name: supporting[0] for name, supporting in choose(LAYERS, device, torch.float32, wanted).candidates.items()
    }


@pytest.mark.usefixtures("few")
def test_each_layer_gets_the_first_backend_that_supports_it() -> None:
    assert first() == {"a": "fast", "b": "fast", "c": "dense"}


@pytest.mark.usefixtures("few")
def test_the_requested_backend_has_priority() -> None:
    assert first("portable") == dict.fromkeys("abc", "portable")


@pytest.mark.usefixtures("few")
def test_a_requested_backend_that_is_missing_does_not_change_the_order() -> None:
    assert first("absent") == first("auto")


@pytest.mark.usefixtures("few")
def test_layers_that_the_requested_backend_does_not_support_get_the_next_one() -> None:
    assert first("fast") == {"a": "fast", "b": "fast", "c": "dense"}


@pytest.mark.usefixtures("few")
def test_weights_stay_packed_if_they_do_not_fit_as_floats() -> None:
    small = replace(CPU, free_memory=64 * 128 * 4)
    assert first(device=small) == {"a": "fast", "b": "fast", "c": "portable"}
    assert first("dense", small) == dict.fromkeys("abc", "dense")


@pytest.mark.usefixtures("few")
def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(BadInput, match="no backend 'faster'"):
        first("faster")


def test_equal_layers_are_checked_once(few: dict[str, StubBackend]) -> None:
    first()
    assert few["dense"].asked == {"W4 g64 sym": 1, "W8 g64 sym": 1}


@pytest.mark.usefixtures("few")
def test_the_table_without_a_model_has_a_row_for_every_backend() -> None:
    rows = {row.name: row for row in table(CPU)}
    assert list(rows) == ["fast", "absent", "dense", "portable", "llama.cpp"]
    assert (rows["fast"].usable, rows["fast"].why_not, rows["fast"].install) == (True, "", "")
    assert (rows["absent"].usable, rows["absent"].install) == (False, "pip install it")
    assert rows["llama.cpp"].why_not == "It is not here."


@pytest.mark.usefixtures("few")
def test_the_table_of_a_model_counts_layers_and_gives_reasons() -> None:
    choice = choose(LAYERS, CPU, torch.float32)
    choice.taken.update(fast=2, dense=1)
    rows = {row.name: row for row in choice.rows({})}
    assert (rows["fast"].layers, rows["fast"].why_not) == (2, "1 of 3 layers: there is no kernel for 8 bits.")
    assert (rows["dense"].layers, rows["dense"].why_not) == (1, "")
    assert (rows["portable"].layers, rows["portable"].why_not) == (0, "Faster here: fast, dense.")
    assert rows["absent"].why_not == "It is not installed."


@pytest.mark.usefixtures("few")
def test_a_backend_that_failed_is_not_usable() -> None:
    choice = choose(LAYERS, CPU, torch.float32)
    choice.failed["fast"] = "It failed at a: no such instruction"
    row = next(row for row in choice.rows({}) if row.name == "fast")
    assert (row.usable, row.why_not) == (False, "It failed at a: no such instruction")


@pytest.mark.usefixtures("few")
def test_the_table_of_a_backend_that_runs_the_whole_model() -> None:
    rows = {row.name: row for row in whole_rows(CPU, "fast", 3, {"llama.cpp": "No GGUF file."})}
    assert (rows["fast"].layers, rows["fast"].why_not) == (3, "")
    assert rows["dense"].why_not == "fast runs the whole model."
    assert rows["llama.cpp"].why_not == "No GGUF file."


@pytest.mark.parametrize("kind", ["cpu", "cuda", "xpu"])
def test_every_backend_is_usable_on_a_device_or_gives_the_reason(kind: str) -> None:
    device = Device(f"{kind}:0" if kind != "cpu" else kind, kind, "Some device", 1 << 40, 1 << 40)
    rows = table(device)
    assert {row.name for row in rows} == set(choosing.NAMES) - {"auto"}
    assert all(row.usable or row.why_not.endswith(".") for row in rows)
    assert all(row.title and row.takes for row in rows)


@pytest.mark.parametrize("name", [name for name in choosing.NAMES if name not in ("auto", "llama.cpp")])
def test_backends_have_the_names_under_which_they_are_registered(name: str) -> None:
    found: Backend = choosing.backend(name)
    assert found.name == name
