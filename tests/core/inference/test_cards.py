"""Tests of card detection from the output of nvidia-smi and from the kernel's files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from core.inference.cards import GraphicsCard, intel_cards, nvidia_cards, nvidia_driver

ANSWER = """NVIDIA GeForce RTX 3060, GPU-11aa, 12288, 550.54.14
NVIDIA H100 80GB HBM3, GPU-22bb, [N/A], 550.54.14
"""


def stub_nvidia_smi(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "run", run)


def test_every_card_that_nvidia_smi_lists_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    stub_nvidia_smi(monkeypatch, lambda *_, **__: subprocess.CompletedProcess([], 0, ANSWER, ""))
    assert nvidia_cards() == (
        GraphicsCard("NVIDIA GeForce RTX 3060", "cuda:GPU-11aa", 12 << 30, "550.54.14"),
        GraphicsCard("NVIDIA H100 80GB HBM3", "cuda:GPU-22bb", 0, "550.54.14"),
    )


@pytest.mark.parametrize(
    "error",
    [
        OSError("no such program"),
        subprocess.TimeoutExpired("nvidia-smi", 5),
        subprocess.CalledProcessError(9, "nvidia-smi"),
    ],
)
def test_no_card_is_found_when_nvidia_smi_fails(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    stub_nvidia_smi(monkeypatch, fail)
    assert nvidia_cards() == ()


@pytest.mark.parametrize("text", ["", "No devices were found\n", "a, b\n"])
def test_no_card_is_found_in_unexpected_output(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    stub_nvidia_smi(monkeypatch, lambda *_, **__: subprocess.CompletedProcess([], 0, text, ""))
    assert nvidia_cards() == ()


def test_no_card_is_found_without_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert nvidia_cards() == ()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\nGCC", "550.54.14"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build", "570.86.15"),
        ("something else", ""),
    ],
)
def test_the_version_of_nvidia_s_driver_is_read(tmp_path: Path, text: str, version: str) -> None:
    (tmp_path / "version").write_text(text)
    assert nvidia_driver(tmp_path / "version") == version


def test_no_driver_has_no_version(tmp_path: Path) -> None:
    assert nvidia_driver(tmp_path / "none") == ""


def card(folder: Path, number: int, vendor: str, place: str, driver: str = "") -> None:
    """Create a card as in sysfs, where `card0/device` is a link to the PCI device."""
    device = folder / "bus" / place
    device.mkdir(parents=True)
    (device / "vendor").write_text(f"{vendor}\n")
    if driver:
        (folder / "drivers" / driver).mkdir(parents=True)
        (device / "driver").symlink_to(folder / "drivers" / driver)
    for name in (f"card{number}", f"card{number}-DP-1"):
        (folder / "drm" / name).mkdir(parents=True)
        (folder / "drm" / name / "device").symlink_to(device)


def test_each_intel_card_is_found_once_by_its_pci_address(tmp_path: Path) -> None:
    card(tmp_path, 0, "0x8086", "0000:00:02.0", "i915")
    card(tmp_path, 1, "0x10de", "0000:01:00.0")
    card(tmp_path, 2, "0x8086", "0000:03:00.0")
    assert intel_cards(tmp_path / "drm") == (
        GraphicsCard("Intel graphics", "xpu:pci-0000:00:02.0", 0, "i915"),
        GraphicsCard("Intel graphics", "xpu:pci-0000:03:00.0", 0, ""),
    )


def test_no_intel_card_is_found_on_a_machine_without_cards(tmp_path: Path) -> None:
    assert intel_cards(tmp_path / "none") == ()
