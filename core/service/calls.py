"""What `core.service.child` can be asked, by name. Every call gets JSON values and returns JSON values.

Turns arguments into calls of the rest of `core` and their results into plain values; decides nothing itself. Imports
torch only where a call needs it. Knows no pipes and no processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.api.serve_call import serve
from core.codec import encode
from core.errors import BadInput, BitwrightError, DeviceProblem
from core.estimation import preflight
from core.events import Done, Emit, Log
from core.hub.source import ModelSource
from core.inference.machine import Machine
from core.jobs import store
from core.model.folder import check_architecture, read_config
from core.model.headers import TensorInfo
from core.model.tree import read_tensors
from core.model_id import DEMO, absolute, looks_like_path
from core.service.chat_calls import Chat
from core.wording import human

Arguments = Mapping[str, Any]
Asked = Callable[[], bool]
Values = dict[str, Any]


def table() -> dict[str, Callable[[Arguments, Emit, Asked], Values]]:
    """All calls by their names; those of a chat share one loaded model."""
    return {
        "open_model": open_model,
        "download": download,
        "devices": devices,
        "search": search,
        "card": card,
        "preview_text": preview_text,
        "outputs": outputs,
        "sensitivity": sensitivity,
        "conversions": conversions,
        "convert": convert,
        "serve": serve,
        **Chat().table(),
    }


def open_model(arguments: Arguments, emit: Emit, should_stop: Asked) -> Values:
    """What a model consists of, from its config and headers; a model that is only on the Hub is not downloaded.

    A GGUF file is imported first, once, with `Progress` of that.
    A model that cannot be quantized is no error here: its tree says why, and can be shown.
    """
    from core.formats.opened import open_source
    from core.hub.download import cached
    from core.hub.remote import read_remote

    name = absolute(arguments["model"])
    preflight.check_model(name)
    if _is_here(name):
        source = open_source(name, emit, should_stop, measured=True)
        return _opened(name, source.label, source.origin, _about(source), source.folder)
    folder = cached(name)
    if folder is not None:
        return _opened(name, name, "hub", "", folder)
    remote = read_remote(name, emit, should_stop, check_architecture)
    return {
        "name": name,
        "label": name,
        "origin": "hub",
        "note": "",
        "folder": "",
        "config": remote.config,
        "tensors": _rows(remote.tensors),
        "download_bytes": remote.download_bytes,
    }


def download(arguments: Arguments, emit: Emit, should_stop: Asked) -> Values:
    """Fetch a model, with `Progress` of the download; one that lies on this machine is only found."""
    from core.formats.opened import open_source
    from core.hub import download as hub

    name = absolute(arguments["model"])
    preflight.check_model(name)
    if _is_here(name):
        return {"folder": str(open_source(name, emit, should_stop, measured=True).folder)}
    return {"folder": str(hub.download(name, emit, should_stop, check_architecture, measured=True))}


def devices(arguments: Arguments, emit: Emit, should_stop: Asked) -> Values:
    """The devices of this machine, how fast the usable ones multiply, which one `auto` means, and their backends."""
    from core.inference import devices as machine
    from core.inference.backends import choose

    found, throughput, dtypes, load = [], {}, {}, {}
    for device in machine.list_devices():
        known = device
        if device.usable and not should_stop():
            try:
                probe = machine.probe_dtype(device)
                throughput[device.id] = probe.gflops[probe.dtype] * 1e9
                dtypes[device.id] = probe.dtype
                load[device.id] = probe.load
            except DeviceProblem as error:
                known = replace(device, usable=False, reason=error.message)
        found.append(known)
    chosen = machine.choose("auto").id
    rows = {} if should_stop() else {device.id: choose.table(device) for device in found if device.usable}
    known_machine = Machine(tuple(found), throughput, chosen if chosen in throughput else "cpu", rows, load, dtypes)
    return encode(known_machine)


def search(arguments: Arguments, emit: Emit, should_stop: Asked) -> Values:
    """Language models on the Hub by a text, or in its cache where it does not answer."""
    from core.hub import search as hub

    found = hub.search(
        str(arguments.get("text", "")),
        int(arguments.get("limit", 30)),
        str(arguments.get("sort", "downloads")),
        bool(arguments.get("hide_quantized", True)),
        should_stop,
    )
    return found.to_json()


def card(arguments: Arguments, emit: Emit, should_stop: Asked) -> Values:
    """A model's card as Markdown, its licence, and what states that; "" where there is none."""
    from core.hub.card import read_card

    found = read_card(absolute(arguments["model"]), should_stop)
    return {"text": found.text, "license": found.license, "stated_by": found.stated_by}


def preview_text(arguments: Arguments, emit: Emit, should_stop: Asked) -> Values:
    """The rows that a run would tune on; without token counts where the model is not on this machine."""
    from core.calibration.preview import preview

    found = preview(
        absolute(arguments["calibration"]),
        _folder_of(str(arguments.get("model") or ""), emit, should_stop),
        int(arguments["samples"]),
        int(arguments["seqlen"]),
        int(arguments["seed"]),
        emit,
        should_stop,
    )
    return found.to_json()


def outputs(arguments: Arguments, emit: Emit, should_stop: Asked) -> Values:
    """The checkpoints that finished jobs made and that are still there, the newest job first, each folder once."""
    found: dict[str, Values] = {}
    for job in store.list_jobs():
        if job.state != "done" or job.spec is None:
            continue
        for name in job.spec.formats:
            folder = job.spec.output_of(name)
            if str(folder) in found or not _has_model(folder):
                continue
            found[str(folder)] = {
                "folder": str(folder),
                "format": name if len(job.spec.formats) > 1 else "",
                "scheme": job.spec.bits_map.default.label(),
                "model": job.spec.model,
                "made": job.created.timestamp(),
            }
    return {"outputs": list(found.values())}


def sensitivity(arguments: Arguments, emit: Emit, should_stop: Asked) -> Values:
    """A table of predicted loss increase (`core.sensitivity.table`), measured or found again, for the fields of a spec.

    A model that is only on the Hub is fetched first, with `Progress` of that; `Stage("analyse")` stands before the
    `Progress` of the measurement.
    """
    from core.schemes import LayerScheme
    from core.sensitivity.analyse import analyse
    from core.sensitivity.spec import AnalysisSpec

    try:
        given = {**arguments, "schemes": tuple(LayerScheme(**scheme) for scheme in arguments["schemes"])}
        given |= {"model": absolute(given["model"]), "calibration": absolute(given.get("calibration", "builtin"))}
        spec = AnalysisSpec(**given)
    except (KeyError, TypeError) as error:
        raise BadInput(f"This measurement is not possible: {error}.", "Use the standard settings.") from error
    download({"model": spec.model}, emit, should_stop)
    return analyse(spec, emit, should_stop).to_json()


def conversions(arguments: Arguments, emit: Emit, should_stop: Asked) -> Values:
    """What a model can become, format by format; a model that is only on the Hub is fetched first, with `Progress`."""
    from core import api

    return api.conversions(arguments["model"], emit=emit, should_stop=should_stop)


def convert(arguments: Arguments, emit: Emit, should_stop: Asked) -> Values:
    """Write a model in another format, with `Stage` and `Progress`: where it is, the seconds, and the report."""
    from core import api

    values: Values = {}
    for event in api.convert(
        arguments["model"],
        arguments["output"],
        str(arguments["format"]),
        inexact=arguments.get("inexact") is True,
        should_stop=should_stop,
    ):
        if isinstance(event, Done):
            values = {"output": event.output, "seconds": event.seconds, "report": event.report}
        else:
            emit(event)
    return values


def _opened(name: str, label: str, origin: str, note: str, folder: Path) -> Values:
    config = read_config(folder)
    return {
        "name": name,
        "label": label,
        "origin": origin,
        "note": note,
        "folder": str(folder),
        "config": config,
        "tensors": _rows(read_tensors(folder, config)),
        "download_bytes": 0,
    }


def _about(source: ModelSource) -> str:
    """What should be known of the weights: how a GGUF file has them, and that its embedding may grow."""
    if not source.file_bytes:
        return source.note
    words = [source.note, f"The file has {human(source.file_bytes)}."]
    tree = preflight.read_tree(source.folder)
    embedding = tree.tensors.get(f"{tree.embedding}.weight")
    if embedding is not None and embedding.nbytes > source.file_bytes // 2:
        words.append(
            f"Its embedding takes {human(embedding.nbytes)} in 16 bits, where it stays in all formats but the GGUF "
            "types by name: a result can be larger than the file."
        )
    return " ".join(filter(None, words))


def _rows(tensors: Mapping[str, TensorInfo]) -> list[list[Any]]:
    return [[info.name, info.dtype, list(info.shape), info.file, info.start, info.end] for info in tensors.values()]


def _is_here(name: str) -> bool:
    """Whether `name` means something on this machine rather than a model on the Hub."""
    return name == DEMO or looks_like_path(name) or os.path.lexists(name)


def _folder_of(model: str, emit: Emit, should_stop: Asked) -> Path | None:
    """The folder of a model, if it is on this machine; nothing is downloaded for it."""
    from core.formats.opened import open_source
    from core.hub.download import cached

    name = absolute(model)
    if not name:
        return None
    if not _is_here(name):
        return cached(name)
    try:
        return open_source(name, emit, should_stop).folder
    except BitwrightError as error:
        if error.code == "cancelled":
            raise
        emit(Log("warning", f"Tokens are not counted: {error.message}"))
        return None


def _has_model(folder: Path) -> bool:
    """Whether a checkpoint is in a folder: safetensors with their config, or a GGUF file."""
    return (folder / "config.json").is_file() or any(folder.glob("*.gguf"))
