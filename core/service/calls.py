"""Handlers of the requests in `core.service.messages`, except those of a chat.

A handler imports torch only if it needs it. Independent of pipes and processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from core import api
from core.api.endpoint import serve_until_stopped
from core.calibration.preview import Preview
from core.control import ShouldStop
from core.conversion.survey import ConversionSurvey
from core.errors import BitwrightError, DeviceProblem
from core.estimation import preflight
from core.events import Done, Emit, Log
from core.formats.dequantized.source import from_headers, read_source
from core.hub.records import ModelCard, SearchResults
from core.hub.source import ModelSource
from core.inference.machine import Machine
from core.jobs import store
from core.model.folder import check_architecture
from core.model_id import DEMO, absolute, looks_like_path
from core.sensitivity.table import SensitivityTable
from core.service.chat_calls import ChatCalls
from core.service.messages import (
    ConvertedModel,
    ConvertModel,
    DownloadModel,
    FetchCard,
    ListOutputs,
    MeasureMachine,
    MeasureSensitivity,
    ModelFolder,
    ModelHeaders,
    OpenModel,
    OutputList,
    OutputModel,
    PreviewText,
    Request,
    SearchHub,
    ServeModel,
    SurveyConversions,
)
from core.serving.summary import ServerSummary
from core.wording import human

Handler = Callable[[Any, Emit, ShouldStop], Any]
"""A function that takes a request, the callback for its events and the stop callback, and returns the result."""


def handlers() -> dict[type[Request[Any]], Handler]:
    """Return the handler of each request class; those of a chat share one loaded model."""
    return {
        OpenModel: open_model,
        DownloadModel: download_model,
        MeasureMachine: measure_machine,
        SearchHub: search_hub,
        FetchCard: fetch_card,
        PreviewText: preview_text,
        ListOutputs: list_outputs,
        MeasureSensitivity: measure_sensitivity,
        SurveyConversions: survey_conversions,
        ConvertModel: convert_model,
        ServeModel: serve_model,
        **ChatCalls().handlers(),
    }


def open_model(request: OpenModel, emit: Emit, should_stop: ShouldStop) -> ModelHeaders:
    """Read the headers of a model; see `OpenModel`."""
    from core.formats.opened import open_source
    from core.hub.download import cached
    from core.hub.remote import read_remote

    name = absolute(request.model)
    preflight.check_model(name)
    place = None if _is_here(name) else cached(name)
    if _is_here(name) or (place is not None and place.is_file()):
        source = open_source(name, emit, should_stop, measured=True)
        return _headers(name, source.label, source.origin, _about(source), source.folder, source.file_bytes)
    if place is not None:
        return _headers(name, name, "hub", "", place)
    remote = read_remote(name, emit, should_stop, check_architecture)
    found = from_headers(dict(remote.config), dict(remote.tensors))
    tensors = tuple(found.table.values())
    return ModelHeaders(
        name,
        name,
        "hub",
        found.note,
        "",
        found.config,
        tensors,
        remote.download_bytes,
        found.refusal,
        found.stored_bytes,
    )


def download_model(request: DownloadModel, emit: Emit, should_stop: ShouldStop) -> ModelFolder:
    """Download a model unless it is on this machine, with `Progress` events."""
    from core.formats.opened import open_source

    name = absolute(request.model)
    preflight.check_model(name)
    return ModelFolder(open_source(name, emit, should_stop, measured=True).folder)


def measure_machine(request: MeasureMachine, emit: Emit, should_stop: ShouldStop) -> Machine:
    """Find the devices of this machine and their backends, and measure the usable ones."""
    from core.inference import devices
    from core.inference.backends import choose

    found, throughput, dtypes, load = [], {}, {}, {}
    for device in devices.list_devices():
        known = device
        if device.usable and not should_stop():
            try:
                probe = devices.probe_dtype(device)
                throughput[device.id] = probe.gflops[probe.dtype] * 1e9
                dtypes[device.id] = probe.dtype
                load[device.id] = probe.load
            except DeviceProblem as error:
                known = replace(device, usable=False, reason=error.message)
        found.append(known)
    chosen = devices.choose("auto").id
    backends = {} if should_stop() else {device.id: choose.table(device) for device in found if device.usable}
    return Machine(tuple(found), throughput, chosen if chosen in throughput else "cpu", backends, load, dtypes)


def search_hub(request: SearchHub, emit: Emit, should_stop: ShouldStop) -> SearchResults:
    """Search for language models on the Hub, or in its local cache if the Hub does not respond."""
    from core.hub import search as hub

    return hub.search(request.text, request.limit, request.sort, request.hide_quantized, should_stop)


def fetch_card(request: FetchCard, emit: Emit, should_stop: ShouldStop) -> ModelCard:
    """Read the model card and the license of a model."""
    from core.hub.card import read_card

    return read_card(absolute(request.model), should_stop)


def preview_text(request: PreviewText, emit: Emit, should_stop: ShouldStop) -> Preview:
    """Read the sequences that a run would tune on; token counts are missing if the model is not on this machine."""
    from core.calibration.preview import preview

    folder = _folder_of(request.model, emit, should_stop)
    calibration = absolute(request.calibration)
    return preview(calibration, folder, request.samples, request.seqlen, request.seed, emit, should_stop)


def list_outputs(request: ListOutputs, emit: Emit, should_stop: ShouldStop) -> OutputList:
    """List the existing checkpoints of finished runs, newest run first, each folder once."""
    found: dict[Path, OutputModel] = {}
    for job in store.list_jobs():
        if job.state != "done" or job.spec is None:
            continue
        for name in job.spec.formats:
            folder = job.spec.output_of(name)
            if folder in found or not _has_model(folder):
                continue
            found[folder] = OutputModel(
                folder,
                format=name if len(job.spec.formats) > 1 else "",
                scheme=job.spec.bits_map.default.label(),
                model=job.spec.model,
                created=job.created.timestamp(),
            )
    return OutputList(tuple(found.values()))


def measure_sensitivity(request: MeasureSensitivity, emit: Emit, should_stop: ShouldStop) -> SensitivityTable:
    """Measure the sensitivity of all layers, or read it from the cache; see `MeasureSensitivity`."""
    from core.sensitivity.analyse import analyse

    spec = request.spec
    spec = replace(spec, model=absolute(spec.model), calibration=absolute(spec.calibration))
    download_model(DownloadModel(spec.model), emit, should_stop)
    return analyse(spec, emit, should_stop)


def survey_conversions(request: SurveyConversions, emit: Emit, should_stop: ShouldStop) -> ConversionSurvey:
    """List the formats that a model can be converted to; a model on the Hub is downloaded first."""
    return api.conversions(request.model, emit=emit, should_stop=should_stop)


def convert_model(request: ConvertModel, emit: Emit, should_stop: ShouldStop) -> ConvertedModel:
    """Convert a model to another format, with `Stage` and `Progress` events."""
    done: Done | None = None
    for event in api.convert(
        request.model, request.output, request.format, inexact=request.inexact, should_stop=should_stop
    ):
        if isinstance(event, Done):
            done = event
        else:
            emit(event)
    assert done is not None  # a conversion ends with `Done` or raises
    return ConvertedModel(done.output, done.seconds, done.report)


def serve_model(request: ServeModel, emit: Emit, should_stop: ShouldStop) -> ServerSummary:
    """Load a model and serve it to other programs until the call is stopped."""
    return serve_until_stopped(
        absolute(request.model),
        host=request.host,
        port=request.port,
        token=request.token,
        device=request.device,
        backend=request.backend,
        context=request.context,
        emit=emit,
        should_stop=should_stop,
    )


def _headers(name: str, label: str, origin: str, note: str, folder: Path, file_bytes: int = 0) -> ModelHeaders:
    found = read_source(folder)
    return ModelHeaders(
        name,
        label,
        origin,
        note or found.note,
        str(folder),
        found.config,
        tuple(found.table.values()),
        refusal=found.refusal,
        file_bytes=file_bytes or found.stored_bytes,
    )


def _about(source: ModelSource) -> str:
    """Return notes about quantized weights: their types, and whether the embedding becomes larger."""
    if not source.file_bytes:
        return source.note
    words = [source.note]
    tree = preflight.read_tree(source.folder)
    embedding = tree.tensors.get(f"{tree.embedding}.weight")
    if embedding is not None and embedding.nbytes > source.file_bytes // 2:
        words.append(
            f"The embedding takes {human(embedding.nbytes)} in 16 bits. Only named GGUF types quantize it, so the "
            "output can be larger than the file."
        )
    return " ".join(filter(None, words))


def _is_here(name: str) -> bool:
    """Return whether `name` refers to the demo or to a path on this machine, not to a model on the Hub."""
    return name == DEMO or looks_like_path(name) or os.path.lexists(name)


def _folder_of(model: str, emit: Emit, should_stop: ShouldStop) -> Path | None:
    """Return the folder of a model on this machine; None for others, which are not downloaded."""
    from core.formats.opened import open_source
    from core.hub.download import cached

    name = absolute(model)
    if not name:
        return None
    place = None if _is_here(name) else cached(name)
    if not _is_here(name) and (place is None or place.is_dir()):
        return place
    try:
        return open_source(name, emit, should_stop).folder
    except BitwrightError as error:
        if error.code == "cancelled":
            raise
        emit(Log("warning", f"Tokens are not counted: {error.message}"))
        return None


def _has_model(folder: Path) -> bool:
    """Return whether a folder has a checkpoint: safetensors with their config, or a GGUF file."""
    return (folder / "config.json").is_file() or any(folder.glob("*.gguf"))
