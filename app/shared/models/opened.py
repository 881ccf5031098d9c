"""A model whose headers have been read, with its layer tree."""

from __future__ import annotations

from dataclasses import dataclass, replace

from core.model.tree import ModelTree, build_tree
from core.service.messages import ModelHeaders


@dataclass(frozen=True)
class OpenedModel:
    """A model whose headers have been read.

    Attributes:
        name: the name in a job: Hub id, folder, `.gguf` file or `demo`.
        label: short name for display.
        origin: `hub`, `folder`, `gguf` or `demo`; note: a remark about its weights, or "".
        folder: the folder of its files on this machine, "" while they are only on the Hub.
        tree: its layers, from headers alone.
        download_bytes: bytes that a run downloads first.
        file_bytes: size of quantized weights in their files; 0 for weights that are not quantized.
    """

    name: str
    label: str
    origin: str
    note: str
    folder: str
    tree: ModelTree
    download_bytes: int = 0
    file_bytes: int = 0

    @classmethod
    def from_headers(cls, headers: ModelHeaders) -> OpenedModel:
        """Build the layer tree from the headers of a model; takes time, for a background thread."""
        tree = build_tree(headers.config, {info.name: info for info in headers.tensors})
        tree = replace(tree, refusal=headers.refusal) if headers.refusal else tree
        return cls(
            headers.name,
            headers.label,
            headers.origin,
            headers.note,
            headers.folder,
            tree,
            headers.download_bytes,
            headers.file_bytes,
        ).prepared()

    @property
    def source_bytes(self) -> int:
        """Size of the weights in their files, with which the size of an output is compared."""
        return self.file_bytes or self.tree.nbytes

    def prepared(self) -> OpenedModel:
        """Return this model with everything computed that is otherwise computed on first use."""
        self.tree.prepared()
        return self
