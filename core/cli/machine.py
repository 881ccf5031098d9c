"""The sub-command `devices`: the devices of this computer, and the backends that run on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from core import api
from core.cli.terminal import Terminal, one_line
from core.events import Result
from core.inference.backends import choose
from core.wording import human

if TYPE_CHECKING:
    from core.inference.backends.backend import BackendRow
    from core.inference.machine import Device


_FLAGS = {
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx512_bf16": "BF16",
    "amx_bf16": "AMX-BF16",
    "amx_int8": "AMX-INT8",
    "asimd": "NEON",
}
"""Names of instruction sets, by the flags of the Linux kernel; other flags are shown in capitals."""


def devices(terminal: Terminal) -> None:
    """Print every device with its properties and a table of its backends."""
    with terminal.libraries_to_stderr():
        found = [(device, api.backends(device) if device.usable else ()) for device in api.devices()]
    if terminal.json:
        for device, rows in found:
            terminal.event(Result({**asdict(device), "backends": [asdict(row) for row in rows]}))
        return
    for number, (device, rows) in enumerate(found):
        if number:
            terminal.line()
        terminal.show(Group(*_device(device, rows)))
    terminal.line()
    terminal.line("Chat uses the first backend that supports the model, unless --backend NAME selects another.")


def _device(device: Device, rows: tuple[BackendRow, ...]) -> list[RenderableType]:
    head = Text.assemble((device.id, "bold"), "  ", one_line(device.name))
    facts = Text(", ".join(_facts(device)), style="dim")
    parts: list[RenderableType] = [head, Padding(facts, (0, 0, 0, 2))] if facts.plain else [head]
    if not device.usable:
        parts.append(Padding(Text(f"Cannot be used: {one_line(device.reason)}", style="yellow"), (0, 0, 0, 2)))
    if rows:
        own = choose.made_for(device.kind)
        parts.append(Padding(_table([row for row in rows if row.name in own or row.usable]), (1, 0, 0, 2)))
        others = [row.name for row in rows if row.name not in own and not row.usable]
        if others:
            text = f"not for this kind of device: {', '.join(others)}"
            parts.append(Padding(Text(text, style="dim"), (0, 0, 0, 2)))
    return parts


def _facts(device: Device) -> list[str]:
    """Return the known properties of a device: cores, instruction sets, memory, driver and id."""
    details, facts = device.details, []
    if cores := details.get("physical_cores"):
        threads = details.get("logical_cores", cores)
        facts.append(f"{cores} cores" if threads == cores else f"{cores} cores ({threads} threads)")
    if units := details.get("multiprocessors") or details.get("compute_units"):
        facts.append(f"{units} compute units")
    if flags := details.get("flags"):
        facts.append(" ".join(_FLAGS.get(flag, flag.upper()) for flag in flags))
    if capability := details.get("capability"):
        facts.append(f"CUDA capability {capability}")
    if device.total_memory:
        free = f"{human(device.free_memory)} of " if device.usable else ""
        facts.append(f"{free}{human(device.total_memory)}{' free' if free else ''}")
    if device.driver:
        facts.append(f"driver {device.driver}")
    if device.stable_id not in ("", device.id):
        facts.append(device.stable_id)
    return [one_line(fact) for fact in facts]


def _table(rows: Sequence[BackendRow]) -> Table:
    """Return the table of backends: usable ones first, in order of preference, then the others with the reason."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=True, header_style="dim")
    table.add_column("backend", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("supported schemes, or reason", overflow="fold")
    for row in rows:
        if row.usable:
            table.add_row(Text(row.name, style="bold"), Text("yes", style="green"), _about(row))
    for row in rows:
        if not row.usable:
            table.add_row(Text(row.name, style="dim"), Text("no", style="dim"), _about(row))
    return table


def _about(row: BackendRow) -> Text:
    if row.usable:
        return Text.assemble(one_line(row.title), (f"\n{one_line(row.takes)}", "dim"))
    text = Text.assemble((one_line(row.title), "dim"), f"\n{one_line(row.why_not)}")
    if row.install:
        text.append("\n$ ", style="dim").append(one_line(row.install), style="cyan")
    return text
