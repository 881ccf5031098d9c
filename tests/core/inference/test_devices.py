"""The devices of this machine, the choice among given ones, and the measured number format."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from core.errors import DeviceProblem
from core.inference import devices
from core.inference.devices import Device, choose, list_devices, physical_cores, probe_dtype

ROOT = Path(__file__).resolve().parents[3]
CPU = Device("cpu", "cpu", "Some processor", 16, 8)
SMALL = Device("cuda:0", "cuda", "Small card", 8, 4)
LARGE = Device("cuda:1", "cuda", "Large card", 24, 20)
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


def test_every_device_is_usable_or_says_why_not() -> None:
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
def test_the_choice(asked: str, chosen: Device) -> None:
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
def test_what_cannot_be_chosen(asked: str, message: str) -> None:
    with pytest.raises(DeviceProblem, match=message):
        choose(asked)


@pytest.mark.parametrize("machine", [(CPU, BROKEN, LARGE)], indirect=True)
@pytest.mark.usefixtures("machine")
def test_a_refusal_names_what_works() -> None:
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
def test_the_format_that_a_measurement_leads_to(kind: str, gflops: dict[str, float], dtype: str) -> None:
    assert devices._prefer(kind, gflops) == dtype


def test_the_probe_measures_both_formats_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "PROBE_SHAPE", (8, 64, 64))
    found = probe_dtype(CPU, seconds=0.01)
    assert min(found.gflops[name] for name in ("float32", "bfloat16")) > 0


def test_a_device_that_fails_to_compute_is_a_device_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> float:
        raise RuntimeError("device-side assert\nand forty lines more")

    monkeypatch.setattr(devices, "_measure", fail)
    with pytest.raises(DeviceProblem) as caught:
        probe_dtype(CPU)
    assert caught.value.message == "Some processor failed a small matrix product: device-side assert"


def test_cores_are_within_what_the_machine_has() -> None:
    assert 1 <= physical_cores() <= (psutil.cpu_count() or 1)


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


def test_an_intel_card_is_found_without_torch(tmp_path: Path) -> None:
    vendor = tmp_path / "card0" / "device" / "vendor"
    vendor.parent.mkdir(parents=True)
    vendor.write_text("0x8086\n")
    assert devices._intel(tmp_path) == "Intel GPU"


def test_another_maker_s_card_is_not_intel_s(tmp_path: Path) -> None:
    vendor = tmp_path / "card0" / "device" / "vendor"
    vendor.parent.mkdir(parents=True)
    vendor.write_text("0x10de\n")
    assert devices._intel(tmp_path) == ""


def test_importing_this_loads_no_torch() -> None:
    program = "import sys, core.inference.devices; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"
