"""Check for a display and for the system libraries that Qt needs, before Qt is imported.

Qt's wheel contains everything but some libraries of the system. If one of them is missing, importing Qt fails with an
unhelpful error, or Qt ends the process. This module reports the problem in one sentence with the command that installs
the missing packages. It must not import Qt. `python -m app.qt_libraries` prints the problem to stderr and exits with
code 1 if there is one.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

PACKAGES: dict[str, tuple[str, str, str]] = {
    "libglib-2.0.so.0": ("libglib2.0-0", "glib2", "glib2"),
    "libEGL.so.1": ("libegl1", "libglvnd-egl", "libglvnd"),
    "libGL.so.1": ("libgl1", "libglvnd-glx", "libglvnd"),
    "libfontconfig.so.1": ("libfontconfig1", "fontconfig", "fontconfig"),
    "libfreetype.so.6": ("libfreetype6", "freetype", "freetype2"),
    "libX11.so.6": ("libx11-6", "libX11", "libx11"),
    "libxkbcommon.so.0": ("libxkbcommon0", "libxkbcommon", "libxkbcommon"),
    "libdbus-1.so.3": ("libdbus-1-3", "dbus-libs", "dbus"),
    "libgssapi_krb5.so.2": ("libgssapi-krb5-2", "krb5-libs", "krb5"),
    "libX11-xcb.so.1": ("libx11-xcb1", "libX11-xcb", "libx11"),
    "libxcb.so.1": ("libxcb1", "libxcb", "libxcb"),
    "libxcb-cursor.so.0": ("libxcb-cursor0", "xcb-util-cursor", "xcb-util-cursor"),
    "libxcb-icccm.so.4": ("libxcb-icccm4", "xcb-util-wm", "xcb-util-wm"),
    "libxcb-image.so.0": ("libxcb-image0", "xcb-util-image", "xcb-util-image"),
    "libxcb-keysyms.so.1": ("libxcb-keysyms1", "xcb-util-keysyms", "xcb-util-keysyms"),
    "libxcb-randr.so.0": ("libxcb-randr0", "libxcb", "libxcb"),
    "libxcb-render.so.0": ("libxcb-render0", "libxcb", "libxcb"),
    "libxcb-render-util.so.0": ("libxcb-render-util0", "xcb-util-renderutil", "xcb-util-renderutil"),
    "libxcb-shape.so.0": ("libxcb-shape0", "libxcb", "libxcb"),
    "libxcb-shm.so.0": ("libxcb-shm0", "libxcb", "libxcb"),
    "libxcb-sync.so.1": ("libxcb-sync1", "libxcb", "libxcb"),
    "libxcb-util.so.1": ("libxcb-util1", "xcb-util", "xcb-util"),
    "libxcb-xfixes.so.0": ("libxcb-xfixes0", "libxcb", "libxcb"),
    "libxcb-xkb.so.1": ("libxcb-xkb1", "libxcb", "libxcb"),
    "libxkbcommon-x11.so.0": ("libxkbcommon-x11-0", "libxkbcommon-x11", "libxkbcommon-x11"),
    "libwayland-client.so.0": ("libwayland-client0", "libwayland-client", "wayland"),
    "libwayland-cursor.so.0": ("libwayland-cursor0", "libwayland-cursor", "wayland"),
}
"""Library name to the package that contains it, for apt, dnf and pacman."""
_BASE = tuple(PACKAGES)[:9]
_XCB = tuple(name for name in PACKAGES if name.startswith(("libxcb", "libX11-xcb", "libxkbcommon-x11")))
_WAYLAND = tuple(name for name in PACKAGES if name.startswith("libwayland"))
_INSTALL = {"apt": "sudo apt install", "dnf": "sudo dnf install", "pacman": "sudo pacman -S"}

Loads = Callable[[str], bool]
Finds = Callable[[str], str | None]


def loads(name: str) -> bool:
    """Return whether the system's loader finds the library `name`. It stays loaded, so Qt finds it faster."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def has_display(variables: Mapping[str, str], platform: str) -> bool:
    """Return whether there is a display to open a window on; always true on Windows and macOS."""
    if not platform.startswith(("linux", "freebsd")):
        return True
    return any(variables.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"))


def missing(variables: Mapping[str, str], loads: Loads = loads) -> tuple[str, ...]:
    """Return the missing libraries that Qt needs for this Linux desktop.

    If both Wayland and X11 are present, one with complete libraries is enough: Qt falls back to the other.
    """
    lacking = tuple(name for name in _BASE if not loads(name))
    chosen = variables.get("QT_QPA_PLATFORM", "").partition(":")[0].partition(";")[0]
    wanted = []
    if chosen == "xcb" or (not chosen and variables.get("DISPLAY")):
        wanted.append(_XCB)
    if chosen.startswith("wayland") or (not chosen and variables.get("WAYLAND_DISPLAY")):
        wanted.append(_WAYLAND)
    lists = [tuple(name for name in names if not loads(name)) for names in wanted]
    return lacking + (lists[0] if lists and all(lists) else ())


def install_command(names: tuple[str, ...], which: Finds = shutil.which) -> str:
    """Return the command that installs the libraries `names` with this system's package manager; "" if unknown."""
    for column, program in enumerate(_INSTALL):
        if which(program):
            packages = dict.fromkeys(PACKAGES[name][column] for name in names)
            return f"{_INSTALL[program]} {' '.join(packages)}"
    return ""


def answers(variables: Mapping[str, str]) -> bool:
    """Return whether the display server accepts a connection. If it does not, Qt would end the process."""
    wayland = variables.get("WAYLAND_DISPLAY")
    if wayland and (Path(variables.get("XDG_RUNTIME_DIR", "/")) / wayland).exists():
        return True
    if not variables.get("DISPLAY"):
        return False
    xcb = ctypes.CDLL("libxcb.so.1")
    xcb.xcb_connect.restype, xcb.xcb_connect.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_void_p]
    xcb.xcb_connection_has_error.argtypes = xcb.xcb_disconnect.argtypes = [ctypes.c_void_p]
    connection = xcb.xcb_connect(os.fsencode(variables["DISPLAY"]), None)
    failed = xcb.xcb_connection_has_error(connection)
    xcb.xcb_disconnect(connection)
    return not failed


def problem(variables: Mapping[str, str], platform: str) -> str:
    """Return the reason why no window can be opened here, in one or two sentences; "" if one can."""
    if not has_display(variables, platform):
        return "There is no display to open a window on (neither DISPLAY nor WAYLAND_DISPLAY is set)."
    if not platform.startswith("linux"):
        return ""
    names = missing(variables)
    if names:
        command = install_command(names)
        remedy = f"Install them with: {command}" if command else "Install the packages that contain them."
        return f"The window needs system libraries that are not installed ({', '.join(names)}). {remedy}"
    if not variables.get("QT_QPA_PLATFORM") and not answers(variables):
        display = variables.get("DISPLAY") or variables.get("WAYLAND_DISPLAY")
        return f"The display {display} does not respond, so no window can be opened."
    return ""


def main() -> int:
    """Print the reason why no window can be opened to stderr; return 0 if one can."""
    said = problem(os.environ, sys.platform)
    if said:
        sys.stderr.write(f"{said}\n")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
