"""Detection of the CPU and the accelerators, their state, and the fastest compute dtype on each.

Imports torch inside functions only.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from core.errors import DeviceProblem
from core.inference.cards import intel_cards, nvidia_cards, nvidia_driver
from core.inference.machine import Device

if TYPE_CHECKING:
    import torch

PROBE_SHAPE = (512, 1024, 1024)
"""Rows, input features and output features of the measured product: similar to a linear layer of a small model."""
GAIN = 1.3
"""Minimum speed-up over float32 at which a CPU computes in bfloat16."""
MIN_ROUNDS = 3
_CPU_FLAGS = ("avx2", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm")


@dataclass(frozen=True)
class DtypeProbe:
    """Measured speed of matrix products on a device.

    Attributes:
        dtype: the dtype to compute in, `float32` or `bfloat16`.
        gflops: measured GFLOP/s by dtype.
        load: CPU share of other programs during the measurement, 0 to 1; 0 for other devices.
    """

    dtype: str
    gflops: dict[str, float]
    load: float = 0.0


def list_devices() -> tuple[Device, ...]:
    """Return the CPU and the accelerators; those that this build of torch cannot use have `usable=False`."""
    return (_cpu(), *_accelerators("cuda"), *_accelerators("xpu"))


def choose(device: str) -> Device:
    """Return the device with the id or stable id `device`.

    `auto` selects the accelerator with the most free memory, CUDA before XPU, or the CPU if there is none.

    Raises:
        DeviceProblem: there is no such device, or it is not usable.
    """
    devices = list_devices()
    usable = [found for found in devices if found.usable]
    if device == "auto":
        for kind in ("cuda", "xpu"):
            if of_kind := [found for found in usable if found.kind == kind]:
                return max(of_kind, key=lambda found: found.free_memory)
        return devices[0]
    wanted = f"{device}:0" if device in ("cuda", "xpu") else device
    hint = f"Use --device {' or '.join(['auto', *(found.id for found in usable)])}."
    for found in devices:
        kinds = (found.id, found.kind) == (found.kind, wanted.partition(":")[0])
        if wanted and (wanted in (found.id, found.stable_id) or (kinds and not found.usable)):
            if found.usable:
                return found
            raise DeviceProblem(f"{found.name} cannot be used: {found.reason}", hint)
    raise DeviceProblem(f"There is no device {device!r} on this machine.", hint)


def choose_all(devices: str) -> tuple[Device, ...]:
    """Return the devices of a list such as `cuda:0,cuda:1`, or the one of `choose`.

    Raises:
        DeviceProblem: a device does not exist, is not usable, or is named twice.
    """
    found = tuple(choose(device) for device in devices.split(","))
    if len({device.id for device in found}) < len(found):
        raise DeviceProblem(f"{devices} names a device twice.", "Name each device once.")
    return found


def choose_or_cpu(device: str) -> tuple[Device, str]:
    """Return the device `device`, or the CPU together with the reason as one sentence if it cannot be used."""
    try:
        return choose(device), ""
    except DeviceProblem as error:
        return list_devices()[0], f"{error.message.rstrip('.')}; using the CPU instead."


def physical_cores() -> int:
    """Return the number of physical cores that this process may use: the best thread count for matrix products.

    The environment variable OMP_NUM_THREADS, which torch also reads, limits it.
    """
    logical = psutil.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or logical
    if hasattr(os, "sched_getaffinity"):
        physical = min(physical, len(os.sched_getaffinity(0)))
    quota = _cgroup("cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit():
        physical = min(physical, math.ceil(int(quota[0]) / int(quota[1])))
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if limit.isascii() and limit.isdecimal() and int(limit):
        physical = min(physical, int(limit))
    return max(1, physical)


def probe_dtype(device: Device, seconds: float = 0.3, rows: int = PROBE_SHAPE[0]) -> DtypeProbe:
    """Measure matrix products with `rows` rows on `device` and select the dtype to compute in.

    On a CPU, bfloat16 must be GAIN times faster than float32; where it is emulated, it is many times slower. The
    fastest products of both dtypes are compared, measured in turns, so that other processes do not change the choice:
    the same job then computes in the same dtype. The reported throughput is that of the median product. On an
    accelerator, bfloat16 is selected if the hardware supports it. float16 is never selected because its range is too
    small for the activations of some models. Takes about `seconds`, or MIN_ROUNDS products of each dtype if those take
    longer.

    Raises:
        DeviceProblem: the device failed to compute.
    """
    import torch

    formats = [torch.float32]
    if device.kind == "cpu" or _has_bfloat16(device):
        formats.append(torch.bfloat16)
    before = _processor_times()
    try:
        times = _measure(device, formats, seconds, rows)
    except RuntimeError as error:
        raise DeviceProblem(
            f"{device.name} failed a small matrix product: {str(error).splitlines()[0][:200]}",
            "Use --device cpu, or check the driver.",
        ) from error
    load = _share_of_others(before, _processor_times()) if device.kind == "cpu" else 0.0
    gflop = 2.0 * rows * PROBE_SHAPE[1] * PROBE_SHAPE[2] / 1e9
    chosen = _prefer(device.kind, {dtype: gflop / min(found) for dtype, found in times.items()})
    return DtypeProbe(chosen, {dtype: gflop / statistics.median(found) for dtype, found in times.items()}, load)


def _processor_times() -> tuple[float, float, float]:
    """Return the total, busy and own CPU time in seconds, summed over all processors."""
    import psutil

    every = psutil.cpu_times()
    idle = every.idle + getattr(every, "iowait", 0.0)
    # user time already includes guest time
    passed = sum(every) - getattr(every, "guest", 0.0) - getattr(every, "guest_nice", 0.0)
    own = psutil.Process().cpu_times()
    return passed, passed - idle, own.user + own.system


def _share_of_others(before: tuple[float, float, float], after: tuple[float, float, float]) -> float:
    """Return the share of CPU time, 0 to 1, that other processes used between two results of `_processor_times`."""
    passed, busy, own = (late - early for early, late in zip(before, after, strict=True))
    return min(1.0, max(0.0, (busy - own) / passed)) if passed > 0 else 0.0


def _prefer(kind: str, gflops: dict[str, float]) -> str:
    if "bfloat16" not in gflops:
        return "float32"
    if kind == "cpu" and gflops["bfloat16"] < GAIN * gflops["float32"]:
        return "float32"
    return "bfloat16"


def _measure(device: Device, dtypes: list[torch.dtype], seconds: float, rows: int) -> dict[str, list[float]]:
    """Return the times in seconds of linear layers of PROBE_SHAPE with `rows` rows by dtype, measured in turns."""
    import torch

    _, inputs, outputs = PROBE_SHAPE
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(rows, inputs, generator=generator).to(device.id)
    right = torch.randn(outputs, inputs, generator=generator).to(device.id)
    operands = {dtype: (left.to(dtype), right.to(dtype)) for dtype in dtypes}
    wait = _synchronizer(device)

    def once(dtype: torch.dtype) -> float:
        started = time.perf_counter()
        torch.nn.functional.linear(*operands[dtype])
        wait()
        return max(time.perf_counter() - started, 1e-9)

    deadline = time.perf_counter() + seconds
    for dtype in dtypes:
        once(dtype)  # warm-up: starts threads, loads kernels and packs the weight
    times: dict[str, list[float]] = {_name(dtype): [] for dtype in dtypes}
    rounds = 0
    while rounds < MIN_ROUNDS or time.perf_counter() < deadline:
        for dtype in dtypes:
            times[_name(dtype)].append(once(dtype))
        rounds += 1
    return times


def _synchronizer(device: Device) -> Callable[[], None]:
    import torch

    if device.kind == "cuda":
        return lambda: torch.cuda.synchronize(device.id)
    if device.kind == "xpu":
        return lambda: torch.xpu.synchronize(device.id)
    return lambda: None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _has_bfloat16(device: Device) -> bool:
    import torch

    if device.kind == "xpu":
        return bool(torch.xpu.is_bf16_supported(including_emulation=False))
    with torch.cuda.device(device.id):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


# --- the CPU ---


def _cpu() -> Device:
    import torch

    memory = psutil.virtual_memory()
    total, free = _within_container(memory.total, memory.available)
    flags, name = _cpu_info()
    details: dict[str, Any] = {
        "physical_cores": physical_cores(),
        "logical_cores": psutil.cpu_count() or 1,
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "flags": [flag for flag in _CPU_FLAGS if flag in flags],
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    return Device("cpu", "cpu", name, total, free, details=details, stable_id="cpu")


def _cpu_info(path: Path = Path("/proc/cpuinfo")) -> tuple[frozenset[str], str]:
    """Return the instruction-set flags and the name of the processor; without the file, the name from `platform`."""
    fallback = platform.processor() or platform.machine() or "CPU"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset(), fallback
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        values.setdefault(key.strip().lower(), value.strip())
    flags = values.get("flags") or values.get("features") or ""
    return frozenset(flags.split()), values.get("model name") or fallback


def _within_container(total: int, free: int) -> tuple[int, int]:
    """Return the total and free bytes, reduced to the limit of this process's control group if there is one."""
    limit = _cgroup("memory.max")
    used = _cgroup("memory.current")
    if not limit.isdigit() or int(limit) >= total:
        return total, free
    room = int(limit) - int(used) if used.isdigit() else int(limit)
    return int(limit), max(0, min(free, room))


def _cgroup(name: str, root: Path = Path("/sys/fs/cgroup")) -> str:
    """Return a value of this process's control group (version 2), or "" if there is none."""
    try:
        line = next(
            line
            for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
            if line.startswith("0::")
        )
        return (root / line.removeprefix("0::").lstrip("/") / name).read_text(encoding="utf-8").strip()
    except (OSError, StopIteration):
        return ""


# --- accelerators ---

FAILURES = (RuntimeError, OSError, AssertionError, ValueError, AttributeError)
"""Exceptions that torch raises for a broken driver, card or system library."""


def _accelerators(kind: str) -> list[Device]:
    import torch

    library: Any = torch.cuda if kind == "cuda" else torch.xpu
    try:
        count = library.device_count() if library.is_available() else 0
    except FAILURES:
        count = 0
    if count:
        return [_accelerator(kind, library, index) for index in range(count)]
    cards = nvidia_cards() if kind == "cuda" else intel_cards()
    compiled = bool(torch.version.cuda or torch.version.hip) if kind == "cuda" else torch.version.xpu is not None
    reason = (
        "its driver is missing or too old for this build of torch."
        if compiled
        else f"this build of torch ({torch.__version__}) has no {kind.upper()} support; "
        f"`packaging/bootstrap.py --device {kind}` installs one that has."
    )
    return [
        Device(
            f"{kind}:{number}",
            kind,
            card.name,
            card.memory,
            0,
            usable=False,
            reason=reason,
            stable_id=card.stable_id,
            driver=card.driver,
        )
        for number, card in enumerate(cards)
    ]


def _accelerator(kind: str, library: Any, index: int) -> Device:
    """Return an accelerator that torch lists; it is usable if a small addition succeeds."""
    import torch

    identity = f"{kind}:{index}"
    name = stable = driver = ""
    try:
        name = str(library.get_device_name(index))
        properties = library.get_device_properties(index)
        stable = _stable_id(kind, index, properties)
        driver = nvidia_driver() if kind == "cuda" else str(getattr(properties, "driver_version", ""))
        free, total = library.mem_get_info(index)
        torch.ones(1, device=identity).add(1).item()
    except FAILURES as error:
        reason = f"it failed with: {(str(error).strip() or type(error).__name__).splitlines()[0][:200]}"
        name = name or f"{kind.upper()} device {index}"
        return Device(identity, kind, name, 0, 0, usable=False, reason=reason, stable_id=stable, driver=driver)
    details: dict[str, Any] = {"torch": torch.__version__}
    if kind == "cuda":
        details["capability"] = f"{properties.major}.{properties.minor}"
        details["runtime"] = torch.version.cuda or torch.version.hip or ""
        details["multiprocessors"] = getattr(properties, "multi_processor_count", 0)
    else:
        details["compute_units"] = getattr(properties, "max_compute_units", 0)
    return Device(identity, kind, name, total, free, details=details, stable_id=stable, driver=driver)


def _stable_id(kind: str, index: int, properties: Any) -> str:
    """Return the card's UUID in nvidia-smi's notation, else its PCI address, else its name and index."""
    uuid = getattr(properties, "uuid", None)
    if uuid:
        text = str(uuid)
        return f"{kind}:{text if text.startswith('GPU-') or kind != 'cuda' else f'GPU-{text}'}"
    bus, slot = (getattr(properties, key, None) for key in ("pci_bus_id", "pci_device_id"))
    if isinstance(bus, int) and isinstance(slot, int):
        return f"{kind}:pci-{getattr(properties, 'pci_domain_id', 0) or 0:04x}:{bus:02x}:{slot:02x}.0"
    name = "-".join(str(getattr(properties, "name", kind)).split())
    return f"{kind}:{name}-{index}"
