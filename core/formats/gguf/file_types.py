"""The types of the tensors of a GGUF file, for a run that writes another file with the same types.

Such a run replaces a file by one of the same size with integers of less error. Does not depend on torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from core.block_types import TYPES
from core.errors import BadInput, UnsupportedModel
from core.formats.gguf.types import FLOATS
from core.model.architectures.table import WRITTEN_TO_GGUF, gguf_refusal
from core.model.gguf_header import GgufHeader, read_gguf_header
from core.model.towers import text_config
from core.model.tree import ModelTree

_OUTPUT: Final = "output.weight"
_SAME_MODEL: Final = "Give a GGUF file of the model that is quantized."


@dataclass(frozen=True)
class FileTypes:
    """The types of the matrices of a model in a GGUF file.

    Attributes:
        header: of the file.
        linears: type of each linear layer by name, such as `q4_k` or `f16`; the head only if the file has it.
        embedding: type of the token embedding.
    """

    header: GgufHeader
    linears: Mapping[str, str]
    embedding: str

    @property
    def separate_head(self) -> bool:
        """True if the file has an output matrix besides the embedding."""
        return _OUTPUT in self.header.tensors


def read_file_types(path: Path, tree: ModelTree) -> FileTypes:
    """Read the types of the tensors of a model from the header of a GGUF file.

    Args:
        path: of the file, or of any part of a split one.
        tree: of the original model.

    Raises:
        BadInput: the file is missing, of another model, or has types that are not written.
        CorruptFile: the file is damaged.
        UnsupportedModel: no GGUF files are written for the architecture.
    """
    model_type = str(text_config(tree.config).get("model_type"))
    if refusal := gguf_refusal(model_type):
        raise UnsupportedModel(refusal, "Quantize without --like, in another format.")
    architecture = WRITTEN_TO_GGUF[model_type]
    header = read_header(path)
    assert architecture.gguf is not None
    if header.architecture != architecture.gguf.name:
        raise BadInput(
            f"{header.label} is of another model: its architecture is {header.architecture[:40]!r}, and that of this "
            f"model is {architecture.gguf.name!r}.",
            _SAME_MODEL,
        )
    base, found = tree.prefix.rpartition(".")[0], {}
    for source, info in tree.tensors.items():
        name = architecture.gguf_name(source, base, tree.lm_head or "lm_head")
        if len(info.shape) == 2 and source.endswith(".weight") and name:
            found[source.removesuffix(".weight")] = _type_in(header, name, info.shape)
    if tree.tied_head is not None and _OUTPUT in header.tensors:
        shape = (tree.tied_head.out_features, tree.tied_head.in_features)
        found[tree.tied_head.name] = _type_in(header, _OUTPUT, shape)
    unknown = Counter(kind for kind in found.values() if kind not in TYPES and kind not in FLOATS)
    if unknown:
        listed = ", ".join(f"{kind.upper()} ({count})" for kind, count in unknown.most_common())
        raise BadInput(
            f"{header.label} has tensors in types that Bitwright does not write: {listed}.",
            "Choose a file with other types, such as Q4_K_M.",
        )
    embedding = found.pop(tree.embedding)
    return FileTypes(header, {name: kind for name, kind in found.items() if kind}, embedding)


def read_header(path: Path) -> GgufHeader:
    """Return the header of a GGUF file.

    Raises:
        BadInput: there is no such file.
        CorruptFile, UnsupportedModel: as `read_gguf_header`.
    """
    if not path.is_file():
        raise BadInput(f"There is no GGUF file {path}.", "Check the path that is given with --like.")
    return read_gguf_header(path)


def _type_in(header: GgufHeader, name: str, shape: tuple[int, ...]) -> str:
    """Return the type of a tensor in lower case; "" for an output matrix that the file does not have.

    Raises:
        BadInput: the tensor is missing or has another shape.
    """
    tensor = header.tensors.get(name)
    if tensor is None and name == _OUTPUT:
        return ""  # llama.cpp's converter leaves out a head that equals the embedding
    if tensor is None or tensor.shape != tuple(shape):
        problem = "no tensor" if tensor is None else f"the shape {list(tensor.shape)} instead of {list(shape)}"
        raise BadInput(f"{header.label} is of another model: it has {problem} for {name}.", _SAME_MODEL)
    return tensor.kind.name.lower()
