"""Quantization of linear layers in vision and audio towers and in projectors.

A run with text alone has no inputs for them, so their scales are searched for the error of the weights. Each weight is
read when it is rounded; the tower is not built.
"""

from __future__ import annotations

import torch

from core.formats.stored import StoredLayer
from core.model.tree import LayerPlan
from core.model.weights import read_linear
from core.quant.blocks import BlockJob
from core.quant.level_grid import level_grid
from core.quant.start.scale_search import search


@torch.no_grad()
def round_tower_layer(job: BlockJob, item: LayerPlan) -> StoredLayer:
    """Return the quantized weight of a layer of a tower.

    Raises:
        CorruptFile: the files of the model changed during the run.
    """
    skeleton = job.skeleton
    weight = read_linear(skeleton.store, skeleton.tree, item.linear).to(job.resolved.torch_device).float()
    return level_grid(search(weight, item.scheme, None, job.min_zero)).freeze(item.linear.name)
