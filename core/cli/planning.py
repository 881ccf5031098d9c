"""The sub-command `plan`: one call of `core.api.plan`, with its result printed as a table."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import Any

from core import api
from core.api.planning import MapPlan
from core.cli.terminal import Interrupts, Terminal, sizes_line
from core.errors import BadInput
from core.events import Result
from core.formats import engines
from core.sensitivity.spec import MEASURES
from core.wording import figure, human


def plan(terminal: Terminal, model: str, output: Path, options: dict[str, Any]) -> None:
    """Compute a bits map, save it and print its size and predicted loss increase."""
    given = {**options, "choices": _bits(options["choices"])}
    with terminal.libraries_to_stderr(), Interrupts() as interrupts, terminal.run_view() as view:
        found = api.plan(model, output=output, emit=view.show, should_stop=interrupts.requested, **given)
    if terminal.json:
        terminal.event(Result({**found.to_json(), "file": str(output)}))
        return
    rows = [
        (
            share.scheme.label(),
            str(share.layers),
            human(share.size),
            figure(share.loss_increase) if share.loss_increase else "-",
        )
        for share in found.shares()
    ]
    terminal.table(("bits", "layers", "size", "predicted loss increase"), rows)
    _summary(terminal, found)
    command = ["bitwright", "quantize", model, "--output", "DIR", "--bits-map", str(output)]
    command += [] if options["format"] == "auto_round" else ["--format", options["format"]]
    terminal.line(f"quantize:  {shlex.join(command)}")


def _summary(terminal: Terminal, found: MapPlan) -> None:
    chosen = found.allocation
    sizes = sizes_line(chosen.size.source, chosen.size.total)
    terminal.line(f"output:    {sizes}, {chosen.bits:.3g} bits per weight")
    best = "optimal within the budget" if chosen.exact else f"lower bound within the budget: {figure(chosen.bound)}"
    unit = next(measure.unit for measure in MEASURES if measure.name == found.table.measure)
    predicted = (
        f"loss increase {figure(chosen.loss_increase)} {unit}"
        if unit
        else f"loss increase {figure(chosen.loss_increase)}"
    )
    terminal.line(f"predicted: {predicted}; {best}")
    if found.request.engine:
        terminal.line(f"runs on:   {_verdict(found)}")
    for note in chosen.notes:
        terminal.line(f"note:      {note}")


def _verdict(found: MapPlan) -> str:
    """Return the compatibility of the map with the target engine: each reason once, with its number of layers."""
    title = engines.title(found.request.engine)
    reasons = Counter(issue.reason for issue in found.engine_issues if issue.layer)
    general = [issue.sentence() for issue in found.engine_issues if not issue.layer]
    parts = [*general, *(f"{count} layers: {reason}." for reason, count in reasons.items())]
    return f"{title}, but slowly: {' '.join(parts)}" if parts else title


def _bits(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise BadInput(
            f"{text!r} is not a list of bits.", "Give whole numbers separated by commas, for example 2,3,4,8."
        )
    return tuple(map(int, parts))
