"""Devices and backends as the rows of a table."""

from __future__ import annotations

from dataclasses import replace

from app.frame.device_table import as_text, said_of, sections_of
from core.inference.backends.backend import BackendRow
from core.inference.machine import Device, Machine

DETAILS = {"physical_cores": 4, "flags": ["avx2", "avx512f"]}
CPU = Device("cpu", "cpu", "Test CPU", 16_000_000_000, 8_000_000_000, details=DETAILS, stable_id="cpu")
CARD = Device("cuda", "cuda", "Test card", 0, 0, usable=False, reason="its driver is missing.")
WORKS = BackendRow("native", "Bitwright's kernels", True, "2, 3, 4, 8 bits")
ABSENT = BackendRow("ark", "auto-round-lib", False, "4 bits", "It is not installed.", "pip install auto-round-lib")


def machine() -> Machine:
    return Machine((CARD, CPU), {"cpu": 1.2e11}, "cpu", {"cpu": (WORKS, ABSENT)})


def test_what_works_comes_first() -> None:
    assert [section.title for section in sections_of(machine())] == ["CPU: Test CPU", "cuda: Test card"]


def test_a_device_that_does_not_work_says_why() -> None:
    assert sections_of(machine())[1].reason == "its driver is missing."


def test_facts_are_in_words() -> None:
    facts = dict(sections_of(machine())[0].facts)
    assert facts["Memory"] == "8 GB of 16 GB free"
    assert facts["Cores"] == "4"
    assert facts["Speed"] == "120 GFLOP/s"
    assert facts["Instructions"] == "avx2, avx512f"


def test_a_driver_is_a_fact_of_a_card() -> None:
    card = replace(CARD, usable=True, reason="", driver="555.42", stable_id="GPU-1")
    facts = dict(sections_of(Machine((card,), {}, "cuda"))[0].facts)
    assert (facts["Driver"], facts["Id"]) == ("555.42", "GPU-1")


def test_the_automatic_device_is_told() -> None:
    assert [section.chosen for section in sections_of(machine())] == [True, False]


def test_a_backend_says_that_it_works_or_why_not() -> None:
    assert said_of(WORKS) == ("Available", "good")
    assert said_of(ABSENT) == ("It is not installed.", "muted")


def test_the_text_has_everything_that_helps() -> None:
    text = as_text(sections_of(machine()))
    for part in ("CPU: Test CPU", "its driver is missing.", "native: Available", "pip install auto-round-lib"):
        assert part in text


def test_an_empty_machine_has_no_sections() -> None:
    assert sections_of(Machine()) == ()
