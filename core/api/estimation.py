"""Disk space, memory and time of a run before it starts. Imports no torch where the throughput is given."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from core.allocation.request import parse_size
from core.api.inspection import read_headers
from core.control import ShouldStop, never
from core.estimation import costs, preflight, sizes
from core.events import Emit, ignore_event
from core.formats.grids import plan_layers
from core.spec import from_options

PathLike = str | os.PathLike[str]


def estimate(
    model: PathLike,
    *,
    throughput: float | None = None,
    emit: Emit | None = None,
    should_stop: ShouldStop = never,
    **options: Any,
) -> costs.Costs:
    """Return the disk space, memory and time that a run needs, as ranges.

    Args:
        throughput: FLOP/s of matrix products; None measures it on the device, which takes a second and imports torch.
        options: The options of `quantize`.
    """
    from core.inference import devices as machine

    options["memory"] = limit_of(options.get("memory"))
    spec = from_options(model, options.pop("output", "unused"), **options)
    preflight.check_model(spec.model)
    source, tree = read_headers(spec.model, emit or ignore_event, should_stop)
    preflight.check_towers(spec, tree)
    plans = plan_layers(tree, spec.bits_map, spec.formats, like=spec.like)
    device, load = machine.choose_all(spec.device)[0], 0.0
    if throughput is None:
        probe = machine.probe_dtype(device)
        throughput, load = probe.gflops[probe.dtype] * 1e9, probe.load
    found = costs.estimate(tree, plans, spec, throughput, on_device=device.kind != "cpu", load=load)
    total, first = sizes.output_size(tree, plans, spec.formats[0]).total, spec.formats[0]
    return replace(found, warning=sizes.larger_than_source(source.file_bytes or tree.nbytes, tree, total, first))


def limit_of(memory: int | str | None) -> int | None:
    """Return a memory limit in bytes for a number or a text such as `8GB`.

    Raises:
        BadInput: The text is not a size.
    """
    return parse_size(memory) if isinstance(memory, str) else memory
