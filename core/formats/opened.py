"""Any model on disk behind one interface: quantized safetensors, a GGUF file, or weights as they are.

Decides by what lies there. Knows no format from inside.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from core.formats.gguf.reader import GgufCheckpoint
from core.formats.plain import PlainCheckpoint
from core.formats.reader import QuantizedCheckpoint, is_quantized
from core.formats.stored import Checkpoint
from core.model.corrections import is_stale
from core.model.headers import read_folder
from core.model.source import check_folder, only_gguf, read_config


def open_checkpoint(path: Path, should_stop: Callable[[], bool] = lambda: False) -> Checkpoint:
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
