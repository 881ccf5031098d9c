"""Tests of device detection, of the choice of a device and of the measured compute dtype."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from core.errors import DeviceProblem
from core.inference import devices
from core.inference.cards import GraphicsCard
from core.inference.devices import choose, choose_all, choose_or_cpu, list_devices, physical_cores, probe_dtype
from core.inference.machine import Device

ROOT = Path(__file__).resolve().parents[3]
CPU = Device("cpu", "cpu", "Some processor", 16, 8)
SMALL = Device("cuda:0", "cuda", "Small card", 8, 4, stable_id="cuda:GPU-11")
LARGE = Device("cuda:1", "cuda", "Large card", 24, 20, stable_id="cuda:GPU-22")
ARC = Device("xpu:0", "xpu", "Some card", 64, 60)
BROKEN = Device("cuda:0", "cuda", "Old card", 8, 0, usable=False, reason="its driver is too old.")
UNSUPPORTED = Device("cuda", "cuda", "New card", 0, 0, usable=False, reason="this build of torch has no CUDA support.")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(devices, "list_devices", lambda: request.param)


def test_the_cpu_is_always_there() -> None:
    first = list_devices()[0]
    assert (first.id, first.kind, first.usable, first.reason) == ("cpu", "cpu", True, "")


def test_the_cpu_s_memory_is_within_the_machine_s() -> None:
    first = list_devices()[0]
    assert 0 <= first.free_memory <= first.total_memory <= psutil.virtual_memory().total


def test_every_device_is_usable_or_has_a_reason() -> None:
    assert all(device.usable == (device.reason == "") for device in list_devices())


@pytest.mark.parametrize(
    ("machine", "asked", "chosen"),
    [
        ((CPU,), "auto", CPU),
        ((CPU,), "cpu", CPU),
        ((CPU, SMALL), "cpu", CPU),
        ((CPU, SMALL, LARGE), "auto", LARGE),
        ((CPU, SMALL, ARC), "auto", SMALL),
        ((CPU, ARC), "auto", ARC),
        ((CPU, BROKEN), "auto", CPU),
        ((CPU, BROKEN, LARGE), "auto", LARGE),
        ((CPU, SMALL, LARGE), "cuda:1", LARGE),
        ((CPU, SMALL, LARGE), "cuda", SMALL),
        ((CPU, ARC), "xpu", ARC),
    ],
    indirect=["machine"],
)
@pytest.mark.usefixtures("machine")
def test_a_device_is_chosen_by_id_kind_or_auto(asked: str, chosen: Device) -> None:
    assert choose(asked) == chosen


@pytest.mark.parametrize(
    ("machine", "asked", "message"),
    [
        ((CPU,), "cuda:0", "no device 'cuda:0'"),
        ((CPU, SMALL), "cuda:1", "no device 'cuda:1'"),
        ((CPU,), "tpu", "no device 'tpu'"),
        ((CPU,), "", "no device ''"),
        ((CPU, BROKEN), "cuda:0", "driver is too old"),
        ((CPU, UNSUPPORTED), "cuda", "no CUDA support"),
        ((CPU, UNSUPPORTED), "cuda:0", "no CUDA support"),
    ],
    indirect=["machine"],
)
@pytest.mark.usefixtures("machine")
def test_a_missing_or_unusable_device_is_refused_with_the_reason(asked: str, message: str) -> None:
    with pytest.raises(DeviceProblem, match=message):
        choose(asked)


@pytest.mark.parametrize("machine", [(CPU, SMALL, LARGE)], indirect=True)
@pytest.mark.usefixtures("machine")
def test_several_devices_are_chosen_in_their_order() -> None:
    assert choose_all("cuda:1,cuda:0") == (LARGE, SMALL)
    assert choose_all("auto") == (LARGE,)
    with pytest.raises(DeviceProblem, match="names a device twice"):
        choose_all("cuda:0,cuda:0")
    with pytest.raises(DeviceProblem, match="no device 'cuda:2'"):
        choose_all("cuda:0,cuda:2")


@pytest.mark.parametrize("machine", [(CPU, BROKEN, LARGE)], indirect=True)
@pytest.mark.usefixtures("machine")
def test_a_refusal_lists_the_usable_devices() -> None:
    with pytest.raises(DeviceProblem) as caught:
        choose("xpu:0")
    assert caught.value.hint == "Use --device auto or cpu or cuda:1."


@pytest.mark.parametrize(
    ("kind", "gflops", "dtype"),
    [
        ("cpu", {"float32": 100.0, "bfloat16": 16.0}, "float32"),
        ("cpu", {"float32": 100.0, "bfloat16": 129.0}, "float32"),
        ("cpu", {"float32": 100.0, "bfloat16": 131.0}, "bfloat16"),
        ("cuda", {"float32": 100.0, "bfloat16": 101.0}, "bfloat16"),
        ("cuda", {"float32": 100.0}, "float32"),
    ],
)
def test_the_dtype_is_selected_from_the_measurement(kind: str, gflops: dict[str, float], dtype: str) -> None:
    assert devices._prefer(kind, gflops) == dtype


def test_the_probe_measures_both_formats_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "PROBE_SHAPE", (8, 64, 64))
    found = probe_dtype(CPU, seconds=0.01)
    assert min(found.gflops[name] for name in ("float32", "bfloat16")) > 0


def test_a_slow_product_among_others_does_not_change_the_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"float32": [0.1, 0.1, 0.1], "bfloat16": [0.4, 0.05, 0.4]}
    monkeypatch.setattr(devices, "_measure", lambda *_: times)
    found = probe_dtype(CPU)
    assert found.dtype == "bfloat16"
    assert found.gflops["float32"] == pytest.approx(4 * found.gflops["bfloat16"])


def test_a_device_that_fails_to_compute_is_a_device_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> float:
        raise RuntimeError("device-side assert\nand forty lines more")

    monkeypatch.setattr(devices, "_measure", fail)
    with pytest.raises(DeviceProblem) as caught:
        probe_dtype(CPU)
    assert caught.value.message == "Some processor failed a small matrix product: device-side assert"


def test_the_number_of_cores_is_at_most_the_machine_s() -> None:
    assert 1 <= physical_cores() <= (psutil.cpu_count() or 1)


@pytest.mark.parametrize(("limit", "cores"), [("1", 1), ("1000", 64), ("", 64), ("0", 64), ("2,1", 64)])
def test_the_environment_limits_the_number_of_cores(monkeypatch: pytest.MonkeyPatch, limit: str, cores: int) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr(devices, "_cgroup", lambda name: "")
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    assert physical_cores() == cores


@pytest.mark.parametrize(
    ("quota", "cores"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None), ("", None)]
)
def test_a_container_s_share_of_the_cores_counts(
    monkeypatch: pytest.MonkeyPatch, quota: str, cores: int | None
) -> None:
    without = physical_cores() if cores is None else cores
    monkeypatch.setattr(devices, "_cgroup", lambda name: quota)
    assert physical_cores() == without


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [
        ("max", "10", (1000, 800)),
        ("", "", (1000, 800)),
        ("5000", "10", (1000, 800)),
        ("500", "100", (500, 400)),
        ("500", "900", (500, 0)),
        ("500", "", (500, 500)),
    ],
)
def test_a_container_s_limit_of_memory_counts(
    monkeypatch: pytest.MonkeyPatch, limit: str, used: str, expected: tuple[int, int]
) -> None:
    monkeypatch.setattr(devices, "_cgroup", {"memory.max": limit, "memory.current": used}.__getitem__)
    assert devices._within_container(1000, 800) == expected


def test_the_processor_s_name_and_flags_are_read(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nflags\t\t: fpu avx2\n\nprocessor\t: 1\n")
    assert devices._cpu_info(path) == (frozenset({"fpu", "avx2"}), "Some CPU @ 3 GHz")


def test_a_machine_without_cpuinfo_still_has_a_name(tmp_path: Path) -> None:
    flags, name = devices._cpu_info(tmp_path / "none")
    assert (flags, name != "") == (frozenset(), True)


@pytest.mark.parametrize("machine", [(CPU, SMALL, LARGE)], indirect=True)
@pytest.mark.usefixtures("machine")
def test_a_card_is_found_by_its_stable_id() -> None:
    assert choose("cuda:GPU-22") == LARGE


@pytest.mark.parametrize(
    ("machine", "asked", "chosen", "note"),
    [
        ((CPU, SMALL), "cuda:0", SMALL, ""),
        ((CPU, SMALL), "auto", SMALL, ""),
        (
            (CPU, SMALL),
            "cuda:GPU-22",
            CPU,
            "There is no device 'cuda:GPU-22' on this machine; using the CPU instead.",
        ),
        (
            (CPU, BROKEN),
            "cuda:0",
            CPU,
            "Old card cannot be used: its driver is too old; using the CPU instead.",
        ),
        ((CPU,), "", CPU, "There is no device '' on this machine; using the CPU instead."),
    ],
    indirect=["machine"],
)
@pytest.mark.usefixtures("machine")
def test_a_missing_or_broken_device_is_replaced_by_the_cpu(asked: str, chosen: Device, note: str) -> None:
    assert choose_or_cpu(asked) == (chosen, note)


class Properties:
    """Device properties as torch returns them."""

    def __init__(self, **values: Any) -> None:
        self.name = "Some card"
        vars(self).update(values)


@pytest.mark.parametrize(
    ("kind", "properties", "stable"),
    [
        ("cuda", Properties(uuid="8a3b-11"), "cuda:GPU-8a3b-11"),
        ("cuda", Properties(uuid="GPU-8a3b-11"), "cuda:GPU-8a3b-11"),
        ("xpu", Properties(uuid="8680-56a0"), "xpu:8680-56a0"),
        ("cuda", Properties(pci_bus_id=3, pci_device_id=0, pci_domain_id=1), "cuda:pci-0001:03:00.0"),
        ("xpu", Properties(), "xpu:Some-card-2"),
    ],
)
def test_the_stable_id_of_a_card(kind: str, properties: Properties, stable: str) -> None:
    assert devices._stable_id(kind, 2, properties) == stable


class Library:
    """A stand-in for `torch.cuda` with one card; the functions named in `broken` raise."""

    def __init__(self, *broken: str) -> None:
        self._broken = broken

    def _answer(self, name: str, value: Any) -> Any:
        if name in self._broken:
            raise RuntimeError(f"{name} does not answer\nand a long trace")
        return value

    def is_available(self) -> bool:
        return bool(self._answer("driver", True))

    def device_count(self) -> int:
        return 1

    def get_device_name(self, index: int) -> str:
        return str(self._answer("name", "Some card"))

    def get_device_properties(self, index: int) -> Properties:
        found: Properties = self._answer("properties", Properties(uuid="1", major=8, minor=6))
        return found

    def mem_get_info(self, index: int) -> tuple[int, int]:
        found: tuple[int, int] = self._answer("memory", (1, 2))
        return found


@pytest.mark.parametrize(
    ("broken", "name", "reason"),
    [
        ("name", "CUDA device 0", "it failed with: name does not answer"),
        ("properties", "Some card", "it failed with: properties does not answer"),
        ("memory", "Some card", "it failed with: memory does not answer"),
    ],
)
def test_a_card_that_does_not_answer_is_listed_with_the_reason(broken: str, name: str, reason: str) -> None:
    found = devices._accelerator("cuda", Library(broken), 0)
    assert (found.id, found.name, found.usable, found.reason) == ("cuda:0", name, False, reason)


def test_a_broken_driver_is_reported_as_an_unusable_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "cuda", Library("driver"))
    monkeypatch.setattr(devices, "nvidia_cards", lambda: (GraphicsCard("Old card", "cuda:GPU-1", 8, "470.1"),))
    (found,) = devices._accelerators("cuda")
    assert (found.id, found.name, found.usable, found.stable_id) == ("cuda:0", "Old card", False, "cuda:GPU-1")
    assert (found.total_memory, found.driver) == (8, "470.1")
    assert "CUDA" in found.reason


def test_importing_devices_does_not_import_torch() -> None:
    program = "import sys, core.inference.devices; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("passed", "busy", "own", "share"),
    [(4.0, 3.0, 1.0, 0.5), (4.0, 1.0, 1.0, 0.0), (4.0, 1.0, 1.1, 0.0), (0.0, 0.0, 0.0, 0.0)],
)
def test_the_load_is_the_cpu_share_of_other_programs(passed: float, busy: float, own: float, share: float) -> None:
    assert devices._share_of_others((1.0, 1.0, 1.0), (1.0 + passed, 1.0 + busy, 1.0 + own)) == pytest.approx(share)


def test_a_probe_reports_the_load_of_other_programs() -> None:
    assert 0 <= probe_dtype(CPU, seconds=0.02, rows=8).load <= 1
