"""Conversion of a model into another format. Imports no torch until the work begins."""

from __future__ import annotations

import os
from collections.abc import Iterator

from core.control import ShouldStop, never
from core.conversion.survey import ConversionSurvey
from core.errors import BadInput
from core.estimation import preflight
from core.events import Emit, Event, ignore_event
from core.files import expanded
from core.formats.names import FORMATS, PLAIN
from core.model_id import absolute
from core.threads import stream

PathLike = str | os.PathLike[str]


def convert(
    source: PathLike, target: PathLike, format: str, *, inexact: bool = False, should_stop: ShouldStop = never
) -> Iterator[Event]:
    """Write a model in another format, one layer at a time and without a GPU; the last event is `Done`.

    The weights are kept bit for bit where the format can hold them; otherwise the report has the error that was added.

    Args:
        source: Hub id, folder, `.gguf` file, or `demo`; quantized or not.
        target: The new folder.
        format: One of the output formats, or bf16, f16 or f32 for floating-point weights.
        inexact: Allow weights to change.

    Raises:
        BitwrightError: The target exists, or the format cannot hold the source, or only inexactly without `inexact`.
    """
    if format not in (*FORMATS, *PLAIN):
        raise BadInput(f"Unknown output format {format!r}.", f"Choose from {', '.join((*FORMATS, *PLAIN))}.")
    name, goal = absolute(source), expanded(target).absolute()
    preflight.check_model(name)
    preflight.check_output(goal)

    def work(emit: Emit, stop: ShouldStop) -> None:
        from core.conversion import convert as conversion

        conversion.convert(name, goal, format, emit, stop, inexact=inexact)

    return stream(work, should_stop)


def conversions(source: PathLike, *, emit: Emit | None = None, should_stop: ShouldStop = never) -> ConversionSurvey:
    """Return the formats that `convert` can write a model in, each with a verdict and the bytes of its tensors.

    Only headers are read; a model on the Hub is downloaded first.

    Raises:
        BitwrightError: There is no such model, or it cannot be read.
    """
    name = absolute(source)
    preflight.check_model(name)
    from core.conversion import convert as conversion

    return conversion.survey(name, emit or ignore_event, should_stop)
