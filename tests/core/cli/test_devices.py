"""The sub-command `devices`: every device, usable or not, and its backends, as text and as JSON."""

from __future__ import annotations

import json

import pytest

from core import api
from core.cli import main
from core.inference.backends.backend import BackendRow
from core.inference.machine import Device

Capture = pytest.CaptureFixture[str]

CPU = Device(
    "cpu",
    "cpu",
    "Some processor",
    16_000_000_000,
    8_000_000_000,
    details={"physical_cores": 4, "logical_cores": 8, "flags": ["avx2", "avx512_vnni"]},
    stable_id="cpu",
)
WHY = "its driver is too old."
CARD = Device("cuda:0", "cuda", "Old card", 0, 0, usable=False, reason=WHY, stable_id="cuda:GPU-1", driver="470")
ROWS = (
    BackendRow("native", "Compiled kernels", True, "every scheme"),
    BackendRow("ark", "auto-round-lib", False, "2, 4, 8 bits", "It is not installed.", "pip install auto-round-lib"),
    BackendRow("marlin", "Marlin", False, "4 bits", "CUDA only."),
)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "devices", lambda: (CPU, CARD))
    monkeypatch.setattr(api, "backends", lambda device: ROWS)
    monkeypatch.setenv("COLUMNS", "100")


def shown(capsys: Capture) -> str:
    assert main(["devices"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "line",
    [
        "cpu  Some processor",
        "4 cores (8 threads), AVX2 VNNI, 8 GB of 16 GB free",
        "native   yes  Compiled kernels",
        "ark      no   auto-round-lib",
        "It is not installed.",
        "$ pip install auto-round-lib",
        "not for this kind of device: marlin",
        "cuda:0  Old card",
        "driver 470, cuda:GPU-1",
        "Cannot be used: its driver is too old.",
    ],
)
def test_the_text_output_contains(capsys: Capture, line: str) -> None:
    assert line in shown(capsys)


def test_a_device_that_cannot_be_used_has_no_table(capsys: Capture) -> None:
    assert shown(capsys).count("supported schemes, or reason") == 1


@pytest.mark.parametrize("width", ["40", "100"])
def test_no_line_is_wider_than_the_terminal(capsys: Capture, monkeypatch: pytest.MonkeyPatch, width: str) -> None:
    monkeypatch.setenv("COLUMNS", width)
    table = shown(capsys).partition("\nChat uses")[0]
    assert max(len(line.rstrip()) for line in table.splitlines()) <= int(width)


def test_json_mode_prints_one_object_per_device(capsys: Capture) -> None:
    assert main(["devices", "--json"]) == 0
    found = [json.loads(line)["values"] for line in capsys.readouterr().out.splitlines()]
    assert [(device["id"], device["stable_id"], device["usable"]) for device in found] == [
        ("cpu", "cpu", True),
        ("cuda:0", "cuda:GPU-1", False),
    ]
    assert [row["name"] for row in found[0]["backends"]] == ["native", "ark", "marlin"]
    assert found[0]["backends"][1]["install"] == "pip install auto-round-lib"
    assert found[1]["backends"] == []
