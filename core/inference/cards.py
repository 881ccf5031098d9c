"""Graphics cards as the system sees them, without torch: so that one which torch cannot use is named, with the reason.

Reads files of the Linux kernel and asks nvidia-smi. Never raises; knows no torch.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SECONDS: Final = 5
"""nvidia-smi hangs on a card that has fallen off its bus."""
_INTEL: Final = "0x8086"


@dataclass(frozen=True)
class Card:
    """One card.

    Attributes:
        name: what its maker calls it.
        stable_id: the same after every start of the machine, whatever order cards come in.
        memory: bytes; 0 where nobody says. driver: its version, or "".
    """

    name: str
    stable_id: str
    memory: int = 0
    driver: str = ""


def nvidia_cards() -> tuple[Card, ...]:
    """NVIDIA's cards in the order of their numbers, found without torch."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    fields = "name,uuid,memory.total,driver_version"
    try:
        answer = subprocess.run(
            [program, f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(card for line in answer.stdout.splitlines() if (card := _nvidia(line)) is not None)


def _nvidia(line: str) -> Card | None:
    parts = [part.strip() for part in line.split(",")]
    if len(parts) != 4 or not parts[0]:
        return None
    name, uuid, mebibytes, driver = parts
    memory = int(mebibytes) << 20 if mebibytes.isdigit() else 0
    return Card(name, f"cuda:{uuid}", memory, driver)


def nvidia_driver(path: Path = Path("/proc/driver/nvidia/version")) -> str:
    """Version of NVIDIA's driver for the kernel, such as `550.54.14`; "" where there is none."""
    try:
        words = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0].split()
    except OSError:
        return ""
    return next((word for word in words if word[:1].isdigit() and word.count(".") >= 1), "")


def intel_cards(folder: Path = Path("/sys/class/drm")) -> tuple[Card, ...]:
    """Intel's graphics, built in or not, by their places on the bus."""
    found = []
    for device in sorted(folder.glob("card*/device")):
        if not device.parent.name.removeprefix("card").isdigit():  # card0-DP-1 is a socket of card0
            continue
        try:
            if (device / "vendor").read_text(encoding="utf-8").strip() != _INTEL:
                continue
            place, driver = device.resolve().name, (device / "driver").resolve().name
        except OSError:
            continue
        driver = driver if driver != "driver" else ""
        found.append(Card("Intel graphics", f"xpu:pci-{place}", 0, driver))
    return tuple(found)
