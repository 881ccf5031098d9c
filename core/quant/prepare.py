"""Everything that is decided before the first block: model, map, formats, device, dtype, room on disk.

Whatever is wrong with a request is found here, before anything is written into its output. Knows the whole
request; computes nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from core.control import ShouldStop
from core.errors import BadInput, UnsupportedModel
from core.estimation.preflight import check_free, check_output
from core.estimation.sizes import larger_than_source
from core.events import Emit, Log
from core.formats.grids import plan_layers
from core.formats.opened import open_source
from core.formats.registry import plan
from core.formats.side_files import foreign_links
from core.formats.stored import FormatPlan
from core.hub.source import ModelSource
from core.inference.devices import choose, physical_cores, probe_dtype
from core.model.fingerprint import FingerprintedStore
from core.model.folder import read_config
from core.model.plans import nothing_quantized
from core.model.skeleton import Skeleton, build_skeleton
from core.model.tokenizer import load_tokenizer
from core.model.tree import LayerPlan, ModelTree, build_tree, read_tensors
from core.quant.scale_range import within_float16
from core.spec import JobSpec

SPARE = 64 << 20
"""Bytes of disk that a run leaves alone, on top of what it writes."""


@dataclass(frozen=True)
class ResolvedSettings:
    """What this machine makes of a spec; recorded in the job, reused on resume.

    Attributes:
        device, dtype: where and in what the products are computed; the residual stream is always fp32.
        threads: of torch on the host.
        micro_batch, accumulate: samples per pass and passes per step.
        cache_dtype: of the hidden states kept between blocks.
        spill: keep them in a file instead of memory.
    """

    device: str
    dtype: str
    threads: int
    micro_batch: int
    accumulate: int
    cache_dtype: str
    spill: bool

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)

    @property
    def compute_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)


@dataclass(frozen=True)
class PreparedRun:
    """A request that can run."""

    source: ModelSource
    tree: ModelTree
    store: FingerprintedStore
    skeleton: Skeleton
    plans: tuple[LayerPlan, ...]
    formats: dict[str, FormatPlan]
    resolved: ResolvedSettings
    tokenizer: Any
    source_config: dict[str, Any]

    def quantized(self, block: int) -> list[LayerPlan]:
        """The layers of one block (-1: outside the blocks) that get fewer than 16 bits."""
        return [item for item in self.plans if item.linear.block == block and item.scheme.quantized]


def prepare(spec: JobSpec, emit: Emit, should_stop: ShouldStop) -> PreparedRun:
    """Open the model, fix the map and the formats, choose the device.

    Raises:
        BitwrightError: the request cannot work, in one sentence.
    """
    check_output(Path(spec.output))
    source = open_source(spec.model, emit, should_stop)
    config = read_config(source.folder)
    tree = build_tree(config, read_tensors(source.folder, config))
    if tree.refusal:
        raise UnsupportedModel(tree.refusal, "`bitwright inspect` shows what is in it.")
    store = FingerprintedStore(source.folder, tree.tensors)
    skeleton = build_skeleton(tree, store)
    skeleton.check()
    wanted = plan_layers(tree, spec.bits_map, spec.formats)
    nothing = nothing_quantized(wanted)
    if nothing:
        raise BadInput(*nothing)
    plans = within_float16(tree, wanted, store)
    _check_head(tree, plans, skeleton)
    _check_kinds(tree, plans, skeleton)
    about = (tree.config, skeleton.module_name, source.folder, source.label)
    formats = {name: plan(name, tree, plans, *about) for name in spec.formats}
    check_free(Path(spec.output), SPARE + sum(item.nbytes for item in formats.values()))
    if tree.left_out:
        emit(Log("warning", f"{len(tree.left_out)} tensors of an adapter are left out, such as {tree.left_out[0]}"))
    for name in foreign_links(source.folder):
        emit(Log("warning", f"{name} is left out of the output: it is a link to a file that is not the model's."))
    for item in plans:
        if item.fallback:
            emit(Log("warning", f"{item.linear.name}: {item.fallback}"))
    for name, planned in formats.items():
        if large := larger_than_source(source.file_bytes or tree.nbytes, tree, planned.nbytes, name):
            emit(Log("warning", f"{name}: {large}"))
        for note in planned.notes:
            emit(Log("info", f"{name}: {note}"))
    resolved = resolve(spec, tree)
    if spec.compile and resolved.torch_device.type == "cpu":
        check_compiler()
    return PreparedRun(
        source=source,
        tree=tree,
        store=store,
        skeleton=skeleton,
        plans=tuple(plans),
        formats=formats,
        resolved=resolved,
        tokenizer=load_tokenizer(source.folder),
        source_config=tree.config,
    )


def _check_head(tree: ModelTree, plans: Sequence[LayerPlan], skeleton: Skeleton) -> None:
    """Refuse a copy for a tied head under a name that the model itself does not use, where no reader would find it."""
    head = tree.tied_head
    named = head is not None and any(item.linear.name == head.name and item.scheme.quantized for item in plans)
    if head is not None and named and skeleton.module_name(head.name) != skeleton.head():
        raise UnsupportedModel(
            f"The output head of this model is called {skeleton.head()} once it is loaded, not {head.name}.",
            "Leave it in 16 bits.",
        )


def _check_kinds(tree: ModelTree, plans: Sequence[LayerPlan], skeleton: Skeleton) -> None:
    """Refuse layers of a class of their own: readers put quantized layers in place of torch's Linear and Conv1D alone.

    With Falcon's FalconLinear, auto-round leaves the layer as it was made, with random weights, and says nothing.
    """
    if tree.config.get("model_type") == "rwkv":
        raise UnsupportedModel(
            "transformers divides weights of RWKV by powers of two before it runs them, which fails with quantized "
            "layers: other programs could not load the checkpoint.",
            "The model can be talked to as it is (bitwright chat).",
        )
    for item in plans:
        if not item.scheme.quantized:
            continue
        kind = type(skeleton.model.get_submodule(skeleton.module_name(item.linear.name)))
        if kind not in (nn.Linear, Conv1D):
            raise UnsupportedModel(
                f"{item.linear.name} is a {kind.__name__} in transformers, not a plain linear layer: other programs "
                "would not put a quantized one in its place.",
                "Leave such layers in 16 bits, or use another model.",
            )


def resolve(spec: JobSpec, tree: ModelTree) -> ResolvedSettings:
    """Device, dtype, threads and batches of a spec on this machine, by measurement."""
    device = choose(spec.device)
    threads = physical_cores()
    torch.set_num_threads(threads)
    recipe = spec.recipe
    batch = min(recipe.batch_size, recipe.samples)
    accumulate = recipe.accumulate
    if spec.low_memory:
        accumulate, batch = accumulate * batch, 1
    hidden = int(tree.config.get("hidden_size") or tree.config.get("n_embd") or 4096)
    wide = 4 * 2 * recipe.samples * recipe.seqlen * hidden
    tight = spec.low_memory or wide > psutil.virtual_memory().available // 4
    return ResolvedSettings(
        device=device.id,
        dtype=probe_dtype(device).dtype,
        threads=threads,
        micro_batch=batch,
        accumulate=accumulate,
        cache_dtype="bfloat16" if tight else "float32",
        spill=spec.low_memory or wide // 2 > psutil.virtual_memory().available // 4,
    )


def check_compiler() -> None:
    """Refuse torch.compile on a CPU where the C++ compiler that it calls is missing."""
    wanted = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([wanted] if wanted else ["g++", "clang++", "cl"])):
        raise BadInput(
            "--compile needs a C++ compiler on a CPU, and none was found.",
            "Install one (on Debian or Ubuntu: sudo apt install g++), or leave --compile out.",
        )


def settings_of(spec: JobSpec, resolved: ResolvedSettings) -> dict[str, Any]:
    """What the `Started` event and the report say of the settings."""
    return {"recipe": spec.recipe.to_json(), "default_scheme": spec.bits_map.default.to_json(), **asdict(resolved)}
