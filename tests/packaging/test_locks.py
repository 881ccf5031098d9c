"""Tests that the lock files are complete, consistent with pyproject.toml, and used by the set-up."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import lock_file
import pytest
from lock_file import Entry
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import venv_setup

ROOT = Path(__file__).resolve().parent.parent.parent
LOCKS = sorted(lock_file.FOLDER.glob("python*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(params=LOCKS, ids=lambda path: path.stem)
def lock(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def minor(path: Path) -> str:
    return path.stem.removeprefix("python")


def locked(path: Path, part: str) -> dict[str, str]:
    """Return the versions by package name that an installation with `part` gets from a lock file."""
    return {item.name: item.version for item in lock_file.read(path) if item.parts & {lock_file.BASE, part}}


def test_there_is_a_lock_for_this_python() -> None:
    assert lock_file.path_for() in LOCKS


def test_a_lock_contains_the_requirements_of_each_part(lock: Path) -> None:
    asked = {lock_file.BASE: PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    wrong = []
    for part, texts in asked.items():
        if part in venv_setup.OWN_ENVIRONMENT:
            continue
        have = locked(lock, part)
        for wanted in map(Requirement, texts):
            applies = wanted.marker is None or wanted.marker.evaluate(
                {"python_version": minor(lock), "platform_system": "Linux", "platform_machine": "x86_64"}
            )
            name = canonicalize_name(wanted.name)
            if applies and name != "torch" and not wanted.specifier.contains(have.get(name, "0"), prereleases=True):
                wrong.append((part, str(wanted), have.get(name)))
    assert wrong == []


def test_a_lock_does_not_contain_torch(lock: Path) -> None:
    assert "torch" not in {item.name for item in lock_file.read(lock)}


def test_every_package_is_in_the_table_of_licenses(lock: Path) -> None:
    text = (ROOT / "packaging" / "dependencies.md").read_text(encoding="utf-8")
    told = {canonicalize_name(word.strip(" ,|`()")) for word in text.replace("|", " ").replace(",", " ").split()}
    assert {item.name for item in lock_file.read(lock)} - told == set()


def test_the_pins_are_those_of_the_lock() -> None:
    have = {item.name: item.version for item in lock_file.read(lock_file.FOLDER / "python3.11.txt")}
    pins = {canonicalize_name(name): version for name, version in venv_setup.pins().items() if name != "torch"}
    assert {name: (version, have.get(name)) for name, version in pins.items() if have.get(name) != version} == {}


def test_reading_inverts_writing(tmp_path: Path) -> None:
    entries = [
        Entry(frozenset({"base"}), False, "a==1 \\\n    --hash=sha256:00"),
        Entry(frozenset({"x", "y"}), True, "b==2 ; sys_platform == 'linux' \\\n    --hash=sha256:11"),
    ]
    lock_file.write(tmp_path / "lock.txt", entries, "# A header\n# of two lines")
    assert lock_file.read(tmp_path / "lock.txt") == entries
    assert [(item.name, item.version) for item in entries] == [("a", "1"), ("b", "2")]


@pytest.mark.parametrize(
    ("parts", "source", "names"),
    [({"base"}, False, ["a"]), ({"base", "x"}, False, ["a", "b"]), ({"x"}, True, ["c"]), ({"z"}, False, [])],
)
def test_a_selection_has_the_packages_of_its_parts(parts: set[str], source: bool, names: list[str]) -> None:
    entries = [
        Entry(frozenset({"base"}), False, "a==1 \\\n    --hash=sha256:00"),
        Entry(frozenset({"x", "y"}), False, "b==1 \\\n    --hash=sha256:00"),
        Entry(frozenset({"x"}), True, "c==1 \\\n    --hash=sha256:00"),
    ]
    text = lock_file.select(entries, parts, source=source)
    assert [line.partition("==")[0] for line in text.splitlines() if "==" in line] == names


@pytest.mark.parametrize(
    "text", ["# base\na==1\n", "a==1 \\\n    --hash=sha256:00\n", "# base\n--index-url https://x\n"]
)
def test_a_lock_without_a_hash_or_a_part_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock.txt").write_text(f"# Header\n\n{text}")
    with pytest.raises(ValueError, match="invalid entry"):
        lock_file.read(tmp_path / "lock.txt")


def make_wheel(folder: Path) -> str:
    """Create a wheel of an empty package and return it with its hash."""
    path = folder / "tinything-1-py3-none-any.whl"
    metadata = "Metadata-Version: 2.1\nName: tinything\nVersion: 1\nRequires-Dist: not-in-any-lock\n"
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as archive:
        record = []
        for name, text in (("METADATA", metadata), ("WHEEL", wheel)):
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record.append(f"tinything-1.dist-info/{name},sha256={digest},{len(text)}\n")
            archive.writestr(f"tinything-1.dist-info/{name}", text)
        archive.writestr("tinything-1.dist-info/RECORD", "".join(record) + "tinything-1.dist-info/RECORD,,\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("genuine", [True, False])
def test_only_a_file_with_the_locked_hash_is_installed(tmp_path: Path, genuine: bool) -> None:
    digest = make_wheel(tmp_path) if genuine else hashlib.sha256(b"another file").hexdigest()
    make_wheel(tmp_path)
    target = tmp_path / "target"
    (tmp_path / "requirements.txt").write_text(
        lock_file.select(
            [Entry(frozenset({"base"}), False, f"tinything==1 \\\n    --hash=sha256:{digest}")], {"base"}, source=False
        )
    )
    command = [
        *(sys.executable, "-m", "pip", "install", "--no-deps", "--require-hashes", "--only-binary", ":all:"),
        *(
            "--no-index",
            "--find-links",
            str(tmp_path),
            "--target",
            str(target),
            "-r",
            str(tmp_path / "requirements.txt"),
        ),
    ]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environment = {**kept, "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    problem = venv_setup.explain("it", done.stdout + done.stderr)
    assert (done.returncode == 0, target.exists()) == (genuine, genuine)
    assert ("differs from its hash in packaging/locks" in problem.hint) is not genuine


@pytest.mark.parametrize("extra", sorted(venv_setup.OWN_ENVIRONMENT))
def test_an_extra_that_needs_its_own_environment_gives_a_hint(extra: str) -> None:
    with pytest.raises(venv_setup.SetupError) as raised:
        venv_setup.check_extras(frozenset({extra}))
    assert (raised.value.status, f"{extra}/bin/pip install" in raised.value.hint) == (2, True)


def test_every_set_up_installs_the_default_extras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[frozenset[str]] = []
    for name in ("make_environment", "install_torch", "install", "write_stamp"):
        monkeypatch.setattr(venv_setup, name, lambda *_: None)
    for name in ("STAMP", "LOG"):
        monkeypatch.setattr(venv_setup, name, tmp_path / name)
    monkeypatch.setattr(venv_setup, "install_locked", parts.append)
    venv_setup.set_up("cpu", frozenset({"native"}))
    assert parts == [{lock_file.BASE, "native", "vision"}]
    assert set(PROJECT["optional-dependencies"]) >= venv_setup.DEFAULT_EXTRAS
