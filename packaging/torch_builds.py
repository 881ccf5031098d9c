"""Choice of the build of torch for this machine, and of its package index. Standard library only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

DEVICES = ("auto", "cpu", "cuda", "xpu")
BUILDS = {"cpu": "cpu", "cuda": "cu130", "xpu": "xpu"}
"""Device -> local version label of PyTorch's build, which is also the last part of the URL of its index."""


@dataclass(frozen=True)
class Attempt:
    """A requirement for pip, and an index in addition to the configured ones, from which to install torch."""

    requirement: str
    index: str = ""
    warning: str = ""


def find_device() -> str:
    """Return `cuda` if there is an NVIDIA GPU with a driver, `xpu` if there is a supported Intel GPU, else `cpu`."""
    if sys.platform == "darwin":
        return "cpu"
    if has_nvidia():
        return "cuda"
    return "xpu" if has_intel_gpu(Path("/sys/class/drm")) else "cpu"


def has_nvidia() -> bool:
    """Return whether nvidia-smi lists a GPU; the program may also be installed on machines without one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        found = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return found.returncode == 0 and "GPU 0" in found.stdout


def has_intel_gpu(drm: Path) -> bool:
    """Return whether a card in `drm` (/sys/class/drm) is an Intel GPU supported by torch's XPU build.

    The build supports Arc and Data Center GPUs and Core Ultra processors, but not the GPUs of most older laptops. The
    supported ones use the driver `xe`, or `i915` with the PCI ids of DG2 (0x56..), Ponte Vecchio (0x0b..), Meteor Lake
    and Arrow Lake (0x7d..), see include/drm/intel/pciids.h of Linux.
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
    """Return the attempts to install torch for `device`, in order of preference.

    The configured indexes are tried first, then PyTorch's own. Without a label, torch is a CPU build on Windows and
    macOS, and a CUDA build of several GB on Linux, which also runs on a CPU.

    Args:
        device: `cpu`, `cuda` or `xpu`.
        version: version of torch.
        system: value of `sys.platform`.
    """
    if system == "darwin":
        return [Attempt(f"torch=={version}")]
    build = BUILDS[device]
    attempts = [
        Attempt(f"torch=={version}+{build}"),
        Attempt(f"torch=={version}+{build}", f"https://download.pytorch.org/whl/{build}"),
    ]
    if device == "cpu":
        warning = "no CPU build of torch was found; the default build may download several GB"
        attempts.append(Attempt(f"torch=={version}", warning=warning if system == "linux" else ""))
    elif device == "cuda" and system == "linux":
        attempts.append(Attempt(f"torch=={version}"))
    return attempts
