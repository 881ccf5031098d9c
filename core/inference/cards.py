"""Detection of graphics cards without torch, used to report the cards that torch cannot use.

Reads files of the Linux kernel and the output of nvidia-smi. Does not import torch. No function here raises.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SECONDS: Final = 5
"""Timeout of nvidia-smi, which hangs when a card has dropped off the bus."""
_INTEL: Final = "0x8086"


@dataclass(frozen=True)
class GraphicsCard:
    """A graphics card.

    Attributes:
        name: product name.
        stable_id: identifier that does not depend on the enumeration order of the cards.
        memory: bytes; 0 if unknown.
        driver: driver version, or "".
    """

    name: str
    stable_id: str
    memory: int = 0
    driver: str = ""


def nvidia_cards() -> tuple[GraphicsCard, ...]:
    """Return the NVIDIA cards that nvidia-smi lists, in index order."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    fields = "name,uuid,memory.total,driver_version"
    try:
        done = subprocess.run(
            [program, f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(card for line in done.stdout.splitlines() if (card := _nvidia(line)) is not None)


def _nvidia(line: str) -> GraphicsCard | None:
    parts = [part.strip() for part in line.split(",")]
    if len(parts) != 4 or not parts[0]:
        return None
    name, uuid, mebibytes, driver = parts
    memory = int(mebibytes) << 20 if mebibytes.isdigit() else 0
    return GraphicsCard(name, f"cuda:{uuid}", memory, driver)


def nvidia_driver(path: Path = Path("/proc/driver/nvidia/version")) -> str:
    """Return the version of NVIDIA's kernel driver, such as `550.54.14`, or "" if there is none."""
    try:
        words = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0].split()
    except OSError:
        return ""
    return next((word for word in words if word[:1].isdigit() and word.count(".") >= 1), "")


def intel_cards(folder: Path = Path("/sys/class/drm")) -> tuple[GraphicsCard, ...]:
    """Return Intel's integrated and discrete graphics, identified by PCI address."""
    found = []
    for device in sorted(folder.glob("card*/device")):
        if not device.parent.name.removeprefix("card").isdigit():  # card0-DP-1 is a connector of card0
            continue
        try:
            if (device / "vendor").read_text(encoding="utf-8").strip() != _INTEL:
                continue
            address, driver = device.resolve().name, (device / "driver").resolve().name
        except OSError:
            continue
        driver = driver if driver != "driver" else ""
        found.append(GraphicsCard("Intel graphics", f"xpu:pci-{address}", 0, driver))
    return tuple(found)
