"""Quantized blocks that are kept until the end-to-end stage has learned their scales.

A block is kept as integers of 8 bits, in memory or in mapped files, with scales; its weights are dequantized when it is
run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from core.formats.stored import StoredLayer
from core.inference.memory import drop_pages
from core.model.tree import LayerPlan
from core.quant.activations import Activations
from core.quant.latent_grid import LatentGrid
from core.quant.level_grid import LevelGrid
from core.quant.parameter_grid import GridRows, ParameterGrid, RowPlaces, layers_of


@dataclass(frozen=True)
class Storage:
    """The place of all kept blocks with the state of their scales, and of their inputs during a step.

    Attributes:
        folder: of memory-mapped files; None for memory.
        mapped: addresses of the tensors in files.
    """

    folder: Path | None = None
    mapped: set[int] = field(default_factory=set)

    def store(self, value: Tensor, name: str) -> Tensor:
        """Return a copy of a tensor in a file, or the same tensor if it stays in memory.

        Tensors of a device with its own memory stay there.

        Args:
            name: of the file.
        """
        if self.folder is None or value.device.type != "cpu" or not value.numel():
            return value
        stored = Activations(value.shape, value.dtype, self.folder / f"{name}.cache").data
        stored.copy_(value)
        self.mapped.add(stored.data_ptr())
        drop_pages(stored)
        return stored

    def release(self, values: Iterable[Tensor]) -> None:
        """Free the resident memory of tensors in files until they are used again."""
        for value in values:
            if value.data_ptr() in self.mapped:
                drop_pages(value)


@dataclass(frozen=True)
class KeptGrid:
    """Quantized rows of a parameter.

    Attributes:
        places: the rows of the parameter.
        rows: the linear layers, in the order of the grid.
        content: the grid whose scales are learned; or the rows as they are written, of which nothing is learned, such
            as experts with few tokens.
    """

    places: RowPlaces
    rows: list[GridRows]
    content: LevelGrid | StoredLayer

    @property
    def bits(self) -> int:
        """Bits of the integers."""
        return self.rows[0].item.scheme.bits

    def layers(self) -> list[tuple[GridRows, StoredLayer]]:
        """Return the rows of each linear layer as they are written."""
        content = self.content
        return layers_of(self.rows, content.freeze("rows") if isinstance(content, LevelGrid) else content)

    @torch.no_grad()
    def write(self, parameter: Tensor) -> None:
        """Write the dequantized rows into the parameter."""
        content = self.content
        if isinstance(content, LevelGrid):
            self.places.fill(parameter, content.on(parameter.device).quantize_into)
        else:
            self.places.fill(parameter, lambda rows: rows.copy_(content.dequantize()))

    def slopes(self, gradient: Tensor) -> Tensor:
        """Return the gradients of the factors of the grid, for that of the parameter."""
        if not isinstance(self.content, LevelGrid):
            raise TypeError("the scales of these rows are not learned")
        return self.content.on(gradient.device).slopes(self.places.read(gradient))


@dataclass(frozen=True)
class KeptBlock:
    """A quantized block.

    Attributes:
        plans: of its quantized layers, in the order of the output.
        grids: name of each quantized parameter of the model -> its grids.
    """

    plans: list[LayerPlan]
    grids: Mapping[str, list[KeptGrid]]

    def learned(self, parameter: str) -> list[tuple[KeptGrid, LevelGrid]]:
        """Return the grids of a parameter whose scales are learned."""
        return [(kept, kept.content) for kept in self.grids[parameter] if isinstance(kept.content, LevelGrid)]

    def parts(self) -> Iterator[tuple[GridRows, StoredLayer]]:
        """Yield the rows of all linear layers as they are written."""
        for grids in self.grids.values():
            for kept in grids:
                yield from kept.layers()


def keep_block(
    plans: list[LayerPlan],
    layers: Sequence[ParameterGrid],
    parameters: Mapping[str, nn.Parameter],
    storage: Storage,
) -> KeptBlock:
    """Return a block without its weights.

    Args:
        layers: grids of the block after tuning.
        parameters: name in the model -> quantized parameter.
        storage: for the levels.
    """
    names = {id(parameter): name for name, parameter in parameters.items()}
    kept: dict[str, list[KeptGrid]] = {}
    for layer in layers:
        name = names[id(layer.parameter)]
        grid = layer.grid.settled() if isinstance(layer.grid, LatentGrid) else layer.grid
        same = kept.setdefault(name, [])
        if isinstance(grid, LevelGrid):
            same.append(KeptGrid(layer.places, layer.rows, _stored(grid, f"{name}-{len(same)}", storage)))
        else:
            same.append(KeptGrid(layer.places, layer.rows, grid.freeze("rows")))
    return KeptBlock(plans, kept)


def _stored(grid: LevelGrid, name: str, storage: Storage) -> LevelGrid:
    """Return a grid whose tensors are in the storage."""
    start = grid.start

    def put(value: Tensor, what: str) -> Tensor:
        return storage.store(value, f"{name}-{what}")

    kept = replace(
        start,
        levels=put(start.levels.cpu(), "levels"),
        scale=put(start.scale, "start"),
        zero=put(start.zero, "zero"),
        base=None if start.base is None else put(start.base, "base"),
    )
    now = replace(kept, scale=put(grid.scale, "scale"), blocks=grid.now.blocks)
    if grid.now.base is not None:
        now = replace(now, base=put(grid.now.base, "present-base"))
    return type(grid)(kept, put(grid.factor, "factor"), now)
