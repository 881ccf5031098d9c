"""Which build of torch fits this machine, and where to get it. Standard library only; installs nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

DEVICES = ("auto", "cpu", "cuda", "xpu")
BUILDS = {"cpu": "cpu", "cuda": "cu130", "xpu": "xpu"}
"""Device to the local version label of PyTorch's build; the label also ends the address of that build's index."""


@dataclass(frozen=True)
class Attempt:
    """One way to get a build of torch: what to ask pip for, from which index besides the configured ones."""

    requirement: str
    index: str = ""
    warning: str = ""


def find_device() -> str:
    """`cuda` where an NVIDIA driver answers, `xpu` where there is an Intel GPU that torch drives, else `cpu`."""
    if sys.platform == "darwin":
        return "cpu"
    if has_nvidia():
        return "cuda"
    return "xpu" if has_intel_gpu(Path("/sys/class/drm")) else "cpu"


def has_nvidia() -> bool:
    """Whether nvidia-smi is there and lists a GPU (the program alone is also on machines without a card)."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        found = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return found.returncode == 0 and "GPU 0" in found.stdout


def has_intel_gpu(drm: Path) -> bool:
    """Whether a card below `drm` (/sys/class/drm) is an Intel GPU that torch's XPU build drives.

    Nearly every laptop has an Intel GPU of some kind; the build is for Arc and Data Center cards and for the
    Core Ultra. Those run on the driver `xe`, or on `i915` with the PCI ids of DG2 (0x56..), Ponte Vecchio
    (0x0b..), Meteor and Arrow Lake (0x7d..), the ids as in Linux, include/drm/intel/pciids.h.
    """
    for device in sorted(drm.glob("card*/device")):
        try:
            vendor = (device / "vendor").read_text().strip()
            number = (device / "device").read_text().strip().lower()
        except OSError:
            continue
        driver = os.path.basename(os.path.realpath(device / "driver"))
        if vendor == "0x8086" and (driver == "xe" or number.startswith(("0x56", "0x0b", "0x7d"))):
            return True
    return False


def torch_attempts(device: str, version: str, system: str) -> list[Attempt]:
    """The ways to get torch for `device`, best first; `system` is sys.platform.

    The configured indexes come first, then PyTorch's own published ones. A plain torch is a CPU build on
    Windows and macOS; on Linux it is a CUDA build, which also runs on a CPU but brings gigabytes along.
    """
    if system == "darwin":
        return [Attempt(f"torch=={version}")]
    build = BUILDS[device]
    attempts = [
        Attempt(f"torch=={version}+{build}"),
        Attempt(f"torch=={version}+{build}", f"https://download.pytorch.org/whl/{build}"),
    ]
    if device == "cpu":
        warning = "no CPU build of torch could be found; the general one may download several GB"
        attempts.append(Attempt(f"torch=={version}", warning=warning if system == "linux" else ""))
    elif device == "cuda" and system == "linux":
        attempts.append(Attempt(f"torch=={version}"))
    return attempts
