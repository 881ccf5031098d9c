"""Preparation of a run: model, bits map, formats, device, dtype, disk space.

Invalid requests are found here, before anything is written to the output.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from core.calibration.pairs import read_pairs
from core.control import ShouldStop
from core.errors import BadInput, UnsupportedModel
from core.estimation.memory_plan import check_limit, memory_needs, plan_memory
from core.estimation.preflight import check_disk, check_output, check_towers
from core.estimation.sizes import larger_than_source
from core.events import Emit, Log
from core.formats.dequantized.source import read_source
from core.formats.dequantized.store import open_store
from core.formats.gguf.imatrix import importance_of, read_imatrix
from core.formats.gguf.tensor_map import map_tensors
from core.formats.grids import plan_layers
from core.formats.opened import open_source
from core.formats.registry import plan
from core.formats.side_files import foreign_links
from core.formats.stored import FormatPlan
from core.hub.source import ModelSource
from core.inference.devices import choose_all, physical_cores, probe_dtype
from core.model.fingerprint import FingerprintedStore
from core.model.plans import nothing_quantized
from core.model.skeleton import Skeleton, build_skeleton
from core.model.tokenizer import load_tokenizer
from core.model.towers import inputs_of
from core.model.tree import TOWER, LayerPlan, Linear, ModelTree
from core.quant.device_kernels import GPUS, missing
from core.quant.scale_range import within_float16
from core.spec import JobSpec

_SHARE = 75
"""Percentage of the free memory that a run without a limit plans with."""
SPARE = 64 << 20
"""Bytes of disk space that remain free in addition to the output."""


@dataclass(frozen=True)
class ResolvedSettings:
    """Settings of a job on this machine, recorded in the job and reused on resume.

    Attributes:
        device, dtype: device and dtype of the matrix products; the residual stream is always float32.
        threads: CPU threads of torch.
        micro_batch, accumulate: samples per forward pass, and passes per step.
        cache_dtype: dtype of the hidden states between blocks.
        spill: keep the hidden states, and the blocks until the end-to-end stage, in files instead of memory.
        gram_bytes: bytes of the Gram matrices that may be in memory at the same time.
        resident: all blocks stay loaded in the end-to-end stage.
        planned_memory: bytes of host memory that the run is planned to need at most.
        further_devices: devices that share the samples of each tuning step with `device`.
    """

    device: str
    dtype: str
    threads: int
    micro_batch: int
    accumulate: int
    cache_dtype: str
    spill: bool
    gram_bytes: int
    resident: bool
    planned_memory: int
    further_devices: tuple[str, ...] = ()

    @property
    def torch_device(self) -> torch.device:
        """`device` as a torch.device."""
        return torch.device(self.device)

    @property
    def tuning_devices(self) -> tuple[torch.device, ...]:
        """`device` and `further_devices`."""
        return tuple(torch.device(device) for device in (self.device, *self.further_devices))

    def micro_batches(self, batch: int) -> int:
        """Return the number of forward passes of equal size, on all devices, for a batch of samples."""
        share = self.micro_batch * len(self.tuning_devices)
        return next(count for count in range(1, batch + 1) if batch % count == 0 and batch <= count * share)

    @property
    def compute_dtype(self) -> torch.dtype:
        """`dtype` as a torch.dtype."""
        return getattr(torch, self.dtype)


@dataclass(frozen=True)
class PreparedRun:
    """Inputs of a run after all checks."""

    source: ModelSource
    tree: ModelTree
    store: FingerprintedStore
    skeleton: Skeleton
    plans: tuple[LayerPlan, ...]
    formats: dict[str, FormatPlan]
    resolved: ResolvedSettings
    tokenizer: Any
    source_config: dict[str, Any]
    importance: dict[str, Tensor]

    def quantized(self, block: int) -> list[LayerPlan]:
        """Return the plans of the layers of a block (or HEAD, TOWER) with fewer than 16 bits."""
        return [item for item in self.plans if item.linear.block == block and item.scheme.quantized]


def prepare(spec: JobSpec, job: Path, emit: Emit, should_stop: ShouldStop) -> PreparedRun:
    """Open the model, apply the bits map and the formats, and choose the device.

    Args:
        job: folder for the files of the run.

    Raises:
        BitwrightError: the request is invalid.
    """
    check_output(Path(spec.output))
    source = open_source(spec.model, emit, should_stop)
    tensors = read_source(source.folder)
    tree = tensors.tree()
    if tree.refusal:
        raise UnsupportedModel(tree.refusal, "`bitwright inspect` shows what is in it.")
    if source.note:
        emit(Log("info", source.note))
    store = FingerprintedStore(open_store(source.folder, tensors, tree.tensors))
    skeleton = build_skeleton(tree, store)
    skeleton.check()
    wanted = plan_layers(tree, spec.bits_map, spec.formats, like=spec.like)
    nothing = nothing_quantized(wanted)
    if nothing:
        raise BadInput(*nothing)
    plans = within_float16(tree, wanted, store)
    _check_imatrix(spec, tree, plans)
    _check_pictures(spec, tree)
    check_towers(spec, tree)
    _check_head(tree, plans, skeleton)
    _check_kinds(tree, plans, skeleton)
    about = (tree.config, skeleton.module_name, source.folder, source.label)
    formats = {name: plan(name, tree, plans, *about, like=spec.like) for name in spec.formats}
    resolved, files = resolve(spec, tree, plans)
    check_disk(Path(spec.output), SPARE + sum(item.nbytes for item in formats.values()), job, files)
    if tree.left_out:
        emit(Log("warning", f"{len(tree.left_out)} tensors of an adapter are not copied, such as {tree.left_out[0]}"))
    for name in foreign_links(source.folder):
        emit(Log("warning", f"{name} is not copied to the output: it links to a file outside the model's folder."))
    for item in plans:
        if item.fallback:
            emit(Log("warning", f"{item.linear.name}: {item.fallback}"))
    for name, planned in formats.items():
        if large := larger_than_source(source.file_bytes or tree.nbytes, tree, planned.nbytes, name):
            emit(Log("warning", f"{name}: {large}"))
        for note in planned.notes:
            emit(Log("info", f"{name}: {note}"))
    _check_compilers(spec, resolved, emit)
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
        importance=_importance(spec, tree, plans, emit),
    )


def _check_head(tree: ModelTree, plans: Sequence[LayerPlan], skeleton: Skeleton) -> None:
    """Reject a quantized copy of a tied head if the model has another name for its head, so that no reader finds it."""
    head = tree.tied_head
    named = head is not None and any(item.linear.name == head.name and item.scheme.quantized for item in plans)
    if head is not None and named and skeleton.module_name(head.name) != skeleton.head():
        raise UnsupportedModel(
            f"transformers names the output head of this model {skeleton.head()}, not {head.name}.",
            "Leave it in 16 bits.",
        )


def _check_imatrix(spec: JobSpec, tree: ModelTree, plans: Sequence[LayerPlan]) -> None:
    """Reject importance matrices that cannot be written, or have no effect."""
    if spec.save_imatrix:
        path = Path(spec.save_imatrix)
        map_tensors(tree)  # raises UnsupportedModel if its tensors have no names in GGUF
        if path.exists() or not path.parent.is_dir():
            why = "exists already" if path.exists() else "is in a folder that does not exist"
            raise BadInput(f"The importance matrix {path} {why}.", "Choose another path for --save-imatrix.")
    if not spec.imatrix:
        return
    if spec.recipe.start == "gptq":
        raise BadInput(
            "The start gptq measures how inputs are correlated, which an importance matrix does not have.",
            "Use --imatrix with the recipe rtn, opt-rtn or one of AutoRound.",
        )
    if spec.recipe.start == "range" and not any(item.scheme.quantized and item.scheme.type for item in plans):
        raise BadInput(
            "An importance matrix has no effect on this run, which searches for no scales.",
            "Use the recipe opt-rtn, or a format such as gguf:q4_k_m.",
        )


def _check_pictures(spec: JobSpec, tree: ModelTree) -> None:
    """Reject pairs of pictures and text that do not exist, or that the model cannot read."""
    if not spec.pictures:
        return
    if "pictures" not in inputs_of(tree.towers):
        raise BadInput("This model does not read pictures.", "Omit --pictures.")
    read_pairs(Path(spec.pictures), 1, spec.seed)


def _importance(spec: JobSpec, tree: ModelTree, plans: Sequence[LayerPlan], emit: Emit) -> dict[str, Tensor]:
    """Return the mean squares of the inputs of linear layers from the importance matrix of a job, by name."""
    if not spec.imatrix:
        return {}
    path = Path(spec.imatrix)
    found = importance_of(read_imatrix(path), map_tensors(tree), path.name)
    missing = [item.linear.name for item in plans if item.scheme.quantized and item.linear.name not in found]
    if missing:
        emit(Log("warning", f"{path.name} has no values for {len(missing)} layers, such as {missing[0]}"))
    return found


def _check_kinds(tree: ModelTree, plans: Sequence[LayerPlan], skeleton: Skeleton) -> None:
    """Reject layers of other classes than Linear and Conv1D, which readers do not replace by quantized layers.

    Falcon's FalconLinear is an example: auto-round leaves such a layer with its random initial weights, without an
    error.
    """
    if tree.config.get("model_type") == "rwkv":
        raise UnsupportedModel(
            "transformers rescales weights of RWKV when it loads them, which fails with quantized layers, so other "
            "programs could not load the checkpoint.",
            "The original model works with `bitwright chat`.",
        )
    for item in plans:
        if not item.scheme.quantized:
            continue
        if ".experts." in item.linear.name:
            continue  # readers have modules of their own for experts
        kind = _module_kind(item.linear, skeleton)
        if kind not in (nn.Linear, Conv1D):
            raise UnsupportedModel(
                f"{item.linear.name} is a {kind.__name__} in transformers, which other programs do not replace by a "
                "quantized linear layer.",
                "Leave such layers in 16 bits, or use another model.",
            )


def _module_kind(linear: Linear, skeleton: Skeleton) -> type[nn.Module]:
    """Return the class of the module that has the weight of a layer.

    Raises:
        UnsupportedModel: transformers joins or divides the weight, in a tower.
    """
    if linear.block == TOWER and len(skeleton.slices(linear)) != 1:
        raise UnsupportedModel(f"transformers divides {linear.name} when it loads it.", "Leave the tower in 16 bits.")
    owner = skeleton.parameter_name(linear).rpartition(".")[0]
    return type(skeleton.model.get_submodule(owner))


def resolve(spec: JobSpec, tree: ModelTree, plans: Sequence[LayerPlan]) -> tuple[ResolvedSettings, int]:
    """Return the settings of a job on this machine, and the bytes of its files; measures the fastest dtype.

    Raises:
        BadInput: the run cannot stay below the memory limit of the job.
    """
    device, *further = devices = choose_all(spec.device)
    threads = physical_cores()
    torch.set_num_threads(threads)
    dtype = probe_dtype(device).dtype
    needs = memory_needs(tree, plans, spec, getattr(torch, dtype).itemsize)
    place = torch.device(device.id)
    own = None if place.type == "cpu" else _SHARE * min(found.free_memory for found in devices) // 100
    if spec.memory is None:
        memory = psutil.virtual_memory().available + psutil.Process().memory_info().rss
        planned = plan_memory(needs, _SHARE * memory // 100, own)
    else:
        planned = check_limit(needs, spec.memory, own)
    settings = ResolvedSettings(
        device=device.id,
        dtype=dtype,
        threads=threads,
        # samples with pictures differ in their masks and positions
        micro_batch=1 if spec.pictures else planned.micro_batch,
        accumulate=spec.recipe.accumulate,
        cache_dtype="bfloat16" if spec.low_memory else "float32",
        spill=planned.spill,
        gram_bytes=planned.gram_bytes,
        resident=planned.resident,
        planned_memory=planned.host,
        further_devices=tuple(found.id for found in further),
    )
    passes = spec.recipe.accumulate * settings.micro_batches(needs.batch)
    return replace(settings, accumulate=passes), planned.files


def _check_compilers(spec: JobSpec, resolved: ResolvedSettings, emit: Emit) -> None:
    """Check the compiler for `--compile`, and log why the steps of the tuning run without kernels on a GPU."""
    device = resolved.torch_device
    if spec.compile and resolved.further_devices:
        raise BadInput("--compile works with one device only.", "Name one device, or run without --compile.")
    if spec.compile and device.type == "cpu":
        check_compiler()
    if device.type in GPUS and (reason := missing(device)):
        emit(Log("warning", f"The steps of the tuning run as torch operations, which takes longer. {reason}"))


def check_compiler() -> None:
    """Raise BadInput if the C++ compiler that torch.compile needs on a CPU is missing."""
    wanted = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([wanted] if wanted else ["g++", "clang++", "cl"])):
        raise BadInput(
            "--compile requires a C++ compiler on a CPU, and none was found.",
            "Install one (on Debian or Ubuntu: sudo apt install g++), or run without --compile.",
        )


def settings_of(spec: JobSpec, resolved: ResolvedSettings) -> dict[str, Any]:
    """Return the settings for the `Started` event and the report."""
    return {"recipe": spec.recipe.to_json(), "default_scheme": spec.bits_map.default.to_json(), **asdict(resolved)}
