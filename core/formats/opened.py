"""Any model on disk behind one interface: quantized safetensors, a GGUF file, or weights as they are.

Decides by what lies there. Knows no format from inside.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from core.control import ShouldStop, never
from core.events import Emit
from core.formats.gguf.importing import import_gguf, stored_types, type_shares
from core.formats.gguf.reader import GgufCheckpoint
from core.formats.plain import PlainCheckpoint
from core.formats.reader import QuantizedCheckpoint, is_quantized
from core.formats.stored import Checkpoint
from core.hub.source import ModelSource, find_source
from core.model.corrections import is_stale
from core.model.folder import check_folder, only_gguf, read_config
from core.model.headers import read_folder


def open_checkpoint(path: Path, should_stop: ShouldStop = never) -> Checkpoint:
    """The model in a folder, or in a GGUF file.

    Args:
        path: a folder with safetensors, a `.gguf` file, or a folder whose only model is one `.gguf` file.
        should_stop: asked while the tokenizer of a GGUF file is unpacked.

    Raises:
        ModelNotFound: there is no model.
        CorruptFile: files torn, incomplete or in contradiction.
        UnsupportedModel: sound, but in a way that is not read.
    """
    file = only_gguf(path) if path.is_dir() else path
    if file is not None:
        return GgufCheckpoint(file, should_stop=should_stop)
    check_folder(path)
    config = read_config(path)
    packed = is_quantized(config) and not is_stale(config, read_folder(path))
    return QuantizedCheckpoint(path) if packed else PlainCheckpoint(path)


def open_source(
    model: str, emit: Emit, should_stop: ShouldStop, *, measured: bool = False, imported: bool = True
) -> ModelSource:
    """Find or download what `model` names, and import it where it is a GGUF file.

    Args:
        model, emit, should_stop: as in `core.hub.source.find_source`.
        measured: `Progress` of a download or an import is wanted, too. Not for a run, whose `Progress` is its own.
        imported: whether a GGUF file is imported to 16 bits; else `folder` is the one it lies in.

    Raises:
        BitwrightError: see `core.hub.source.find_source` and `core.formats.gguf.importing.import_gguf`.
    """
    source = find_source(model, emit, should_stop, measured=measured)
    if source.file is None:
        return source
    folder = import_gguf(source.file, emit, should_stop, measured=measured) if imported else source.folder
    kind = stored_types(source.file)
    if kind in ("F32", "F16", "BF16"):
        return replace(source, folder=folder)
    note = f"The weights came from a GGUF file, quantized there as {kind} ({type_shares(source.file)})."
    return replace(source, folder=folder, note=note)
