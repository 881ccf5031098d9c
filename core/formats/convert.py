"""From one quantized format to another without changing a weight: unpack, pack again, read back and compare.

What the target cannot hold exactly is refused before its folder appears. Knows checkpoints, not models or runs.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from core.errors import BadInput, Cancelled, OutputProblem, VerificationFailed
from core.events import Done, Emit, FileWritten, Progress, Stage
from core.files import read_json, sync_folder, write_json
from core.formats.quantized import QuantizedLinear
from core.formats.reader import QuantizedCheckpoint, is_quantized
from core.formats.registry import FormatPlan, plan
from core.formats.side_files import carry_over
from core.model.tree import LayerPlan, build_tree
from core.model.weights import TensorStore
from core.model.writer import CheckpointWriter
from core.schemes import UNTOUCHED, LayerScheme


def convert(source: Path, target: Path, format_name: str, emit: Emit, should_stop: Callable[[], bool]) -> None:
    """Write the quantized model in `source` to the new folder `target` as `format_name`; the last event is `Done`.

    Raises:
        BadInput: the source is not quantized, or the format cannot hold it exactly.
        BitwrightError: the source cannot be read, the target cannot be written.
        Cancelled: `should_stop` said so.
    """
    started = time.monotonic()
    emit(Stage("convert"))
    checkpoint = open_quantized(source)
    planned = plan_conversion(checkpoint, format_name)
    staging = target.with_name(f".{target.name}.bitwright-convert")
    if staging.exists():
        raise OutputProblem(f"{staging} is left from an earlier conversion.", "Remove it, if none is running.")
    missing = [parent for parent in target.parents if not parent.exists()]
    published = False
    try:
        staging.mkdir(parents=True)
        files = _write(checkpoint, planned, staging, emit, should_stop)
        emit(Stage("verify"))
        _compare(checkpoint, QuantizedCheckpoint(staging), should_stop)
        if target.is_dir():
            target.rmdir()
        staging.replace(target)
        published = True
        sync_folder(target.parent)
    except OSError as error:
        raise OutputProblem(f"{target} cannot be written: {error.strerror}.", "Choose another folder.") from error
    finally:
        if not published:
            shutil.rmtree(staging, ignore_errors=True)
            _remove_empty(missing)
    report = {"source": str(source), "format": format_name, "layers": len(checkpoint.schemes), "files": files}
    emit(Done(output=str(target), seconds=time.monotonic() - started, report=report))


def open_quantized(source: Path) -> QuantizedCheckpoint:
    """The quantized checkpoint in `source`; BadInput where it is not quantized."""
    path = source / "config.json"
    config = read_json(path) if path.is_file() else None
    beside = any((source / name).is_file() for name in ("quantization_config.json", "quantize_config.json"))
    if isinstance(config, dict) and not is_quantized(config) and not beside:
        raise BadInput(f"The model in {source} is not quantized.", "Use `bitwright quantize` on it.")
    return QuantizedCheckpoint(source)


def plan_conversion(checkpoint: QuantizedCheckpoint, format_name: str) -> FormatPlan:
    """What `format_name` makes of a checkpoint that is quantized already."""
    config = {key: value for key, value in checkpoint.config.items() if key != "quantization_config"}
    tree = build_tree(config, checkpoint.dense_table())
    left_alone = LayerScheme(bits=UNTOUCHED)
    plans = [
        LayerPlan(linear, checkpoint.schemes.get(linear.name, left_alone), "as in the source", "")
        for linear in tree.linears
    ]
    lost = set(checkpoint.schemes) - {item.linear.name for item in plans}
    if lost:
        raise BadInput(f"{min(lost)} is quantized and outside the decoder blocks.", "This cannot be converted yet.")
    names = list(checkpoint.schemes)
    return plan(format_name, tree, plans, config, checkpoint.settings.module_names(names))


def _write(
    checkpoint: QuantizedCheckpoint, planned: FormatPlan, folder: Path, emit: Emit, should_stop: Callable[[], bool]
) -> dict[str, int]:
    store = TensorStore(checkpoint.folder, checkpoint.tensors)
    with CheckpointWriter(folder, planned.tensors) as writer:
        for number, name in enumerate(planned.layers):
            _stop(should_stop)
            for tensor, value in _packed(planned, checkpoint.layer(name)).items():
                writer.write(tensor, value)
            emit(Progress((number + 1) / len(planned.layers), -1, -1))
        for name in planned.copied:
            _stop(should_stop)
            writer.write_pieces(name, store.chunks(name))
    write_json(folder / "config.json", planned.model_config(checkpoint.config))
    write_json(folder / planned.config_file, planned.config())
    carry_over(checkpoint.folder, folder)
    files = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    for path, size in files.items():
        emit(FileWritten(path, size))
    return files


def _packed(planned: FormatPlan, layer: QuantizedLinear) -> dict[str, Any]:
    if planned.min_zero and int(layer.zeros.min()) < planned.min_zero:
        raise BadInput(
            f"{planned.name} cannot store the zero points of {layer.name}, which go down to 0.",
            "Quantize the original model to this format instead.",
        )
    try:
        return planned.encode(layer)
    except ValueError as error:
        raise BadInput(f"{planned.name} cannot hold the source exactly: {error}.", "Quantize the original.") from error


def _compare(before: QuantizedCheckpoint, after: QuantizedCheckpoint, should_stop: Callable[[], bool]) -> None:
    for name in before.schemes:
        _stop(should_stop)
        old, new = before.layer(name), after.layer(name)
        same = all(torch.equal(getattr(old, part), getattr(new, part)) for part in ("ints", "scales", "zeros"))
        if old.scheme != new.scheme or not same:
            raise VerificationFailed(f"{name} reads back different from the source.", "Please report this.")


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _stop(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise Cancelled("The conversion was stopped.")
