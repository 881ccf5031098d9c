"""Opening of any model on disk as a `Checkpoint`: quantized safetensors, unquantized safetensors or a GGUF file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from core.control import ShouldStop, never
from core.errors import UnsupportedModel
from core.events import Emit
from core.formats.dequantized.source import is_quantized, read_source
from core.formats.gguf.importing import import_gguf, stored_types, type_shares
from core.formats.gguf.reader import GgufCheckpoint
from core.formats.plain import PlainCheckpoint
from core.formats.reader import QuantizedCheckpoint
from core.formats.stored import Checkpoint
from core.hub.source import ModelSource, find_source
from core.model.folder import check_folder, only_gguf


def open_checkpoint(path: Path, should_stop: ShouldStop = never) -> Checkpoint:
    """Open the model in a folder or a GGUF file.

    Args:
        path: a folder with safetensors, a `.gguf` file, or a folder whose only model is one GGUF file.
        should_stop: called while the tokenizer of a GGUF file is extracted.

    Raises:
        ModelNotFound: there is no model.
        CorruptFile: files are damaged, incomplete or contradictory.
        UnsupportedModel: the format of the model is not supported.
    """
    file = only_gguf(path) if path.is_dir() else path
    if file is not None:
        return GgufCheckpoint(file, should_stop=should_stop)
    check_folder(path)
    source = read_source(path)
    if source.integers:
        return QuantizedCheckpoint(path)
    if source.refusal:
        raise UnsupportedModel(source.refusal, "Use the original model.")
    return PlainCheckpoint(path)


def open_source(
    model: str, emit: Emit, should_stop: ShouldStop, *, measured: bool = False, imported: bool = True
) -> ModelSource:
    """Find or download `model`, and import it if it is a GGUF file.

    The note of the result describes weights that are quantized in the source.

    Args:
        model, emit, should_stop: as in `core.hub.source.find_source`.
        measured: emit `Progress` of a download or an import. Not for a run, whose `Progress` covers the whole run.
        imported: import a GGUF file to 16 bits; otherwise `folder` is the folder of the file.

    Raises:
        BitwrightError: see `core.hub.source.find_source` and `core.formats.gguf.importing.import_gguf`.
    """
    source = find_source(model, emit, should_stop, measured=measured)
    if source.file is None:
        return _described(source)
    folder = import_gguf(source.file, emit, should_stop, measured=measured) if imported else source.folder
    kind = stored_types(source.file)
    if kind in ("F32", "F16", "BF16"):
        return replace(source, folder=folder)
    note = f"The weights are from a GGUF file, in which they are quantized as {kind} ({type_shares(source.file)})."
    return replace(source, folder=folder, note=note)


def _described(source: ModelSource) -> ModelSource:
    """Return the location of a model folder with a note about its weights if they are quantized."""
    if not is_quantized(source.folder):
        return source
    found = read_source(source.folder)
    return replace(source, note=found.note, quantized_bytes=found.stored_bytes)
