"""Checks of a job before it starts, within milliseconds and without torch.

Reads local headers and folders only; checks that need the network or other libraries are part of the run. Leaves no
files.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from core.calibration import text
from core.claim import is_filled_in_place, is_free, refuse_if_claimed, staging_places
from core.errors import BadInput, DiskFull, ModelNotFound, OutputProblem, UnsupportedModel
from core.estimation.memory_plan import ITEMSIZE, MemoryPlan, check_limit, memory_needs, plan_memory
from core.estimation.sizes import output_size
from core.files import existing_parent, free_bytes
from core.formats.dequantized.source import read_source
from core.formats.grids import plan_layers
from core.home import home
from core.model.folder import check_folder, only_gguf
from core.model.plans import nothing_quantized
from core.model.tree import TOWER, LayerPlan, ModelTree
from core.model_id import DEMO, looks_like_path
from core.schemes import UNTOUCHED
from core.spec import JobSpec
from core.wording import human

_SIDE_FILES = 40_000_000


def check(spec: JobSpec) -> None:
    """Check a job and raise the first error found.

    Raises:
        BitwrightError: the model is missing, damaged or not supported; the bits map names layers that do not exist;
            the calibration text is missing or not a text; the GGUF file of `like` is missing or damaged; the output
            folder is not empty or not writable; or there is too little disk space.
    """
    check_output(Path(spec.output))
    check_model(spec.model)
    text.check(spec.calibration)
    if spec.like:
        from core.formats.gguf.file_types import read_header  # imports numpy, which takes a noticeable time

        read_header(Path(spec.like))
    if is_folder(spec.model):
        tree = read_tree(Path(spec.model))
        if tree.refusal:
            raise UnsupportedModel(tree.refusal, "`bitwright inspect` shows what is in it.")
        check_room(spec, tree)


def check_model(model: str) -> None:
    """Raise `ModelNotFound` if `model` is a path that does not exist."""
    if looks_like_path(model) and not os.path.lexists(model):
        kind = "file" if model.endswith(".gguf") else "folder"
        raise ModelNotFound(f"There is no {kind} {model}.", "Check the path, or give a Hub id such as owner/name.")


def is_folder(model: str) -> bool:
    """Return whether `model` is a local folder of safetensors, not one with a single GGUF file."""
    return model != DEMO and os.path.isdir(model) and only_gguf(Path(model)) is None


def read_tree(folder: Path) -> ModelTree:
    """Return the module tree of a local model folder.

    Raises:
        ModelNotFound, UnsupportedModel: config or weights are missing or not supported.
        CorruptFile: config or weights are damaged.
    """
    check_folder(folder)
    return read_source(folder).tree()


def check_output(output: Path) -> None:
    """Raise `OutputProblem` if `output` is not empty, in use, or cannot be created."""
    try:
        if output.is_symlink():
            # The finished output is renamed to this path, which would replace the link, not its target.
            raise OutputProblem(f"The output {output} is a symbolic link.", "Choose its target, or another folder.")
        if output.exists() and not output.is_dir():
            raise OutputProblem(f"The output {output} is a file.", "Choose a folder that does not exist yet.")
        refuse_if_claimed(output)
        if output.is_dir() and not is_free(output):
            raise OutputProblem(
                f"The output folder {output} is not empty.", "Choose a folder that is empty or does not exist yet."
            )
        _try_writing(output)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise OutputProblem(
            f"The output folder {output} cannot be created: {reason}.",
            "Choose another folder, or change its permissions.",
        ) from error


def check_towers(spec: JobSpec, tree: ModelTree) -> None:
    """Raise BadInput if a job has bits for towers, and the model has no tower with linear layers."""
    if spec.bits_map.towers != UNTOUCHED and not tree.of_block(TOWER):
        raise BadInput("This model has no tower with linear layers.", "Omit --tower-bits, or `towers` in the bits map.")


def check_room(spec: JobSpec, tree: ModelTree) -> None:
    """Check the disk space and the memory limit.

    Raises:
        DiskFull: the volume of the output, or of the files of the run, has too little free space.
        BadInput: no layer is quantized, or the run cannot stay below the memory limit of the job; or as
            `check_towers`.
    """
    check_towers(spec, tree)
    plans = plan_layers(tree, spec.bits_map, spec.formats, like=spec.like)
    nothing = nothing_quantized(plans)
    if nothing:
        raise BadInput(*nothing)
    plan = _memory_plan(tree, plans, spec)
    outputs = sum(output_size(tree, plans, name).total + _SIDE_FILES for name in spec.formats)
    check_disk(Path(spec.output), outputs, home(), plan.files if plan else 0)


def _memory_plan(tree: ModelTree, plans: Sequence[LayerPlan], spec: JobSpec) -> MemoryPlan | None:
    """Return the choices of a run; None if they depend on the free memory."""
    if spec.memory is None and not spec.low_memory:
        return None
    needs = memory_needs(tree, plans, spec, ITEMSIZE)
    return plan_memory(needs, sys.maxsize) if spec.memory is None else check_limit(needs, spec.memory)


def check_disk(output: Path, nbytes: int, folder: Path, files: int) -> None:
    """Check the disk space of a run, whose output and whose own files may be on the same volume.

    Args:
        nbytes: size of all outputs.
        folder: of the files that the run reads and writes until it ends (`core.estimation.memory_plan`).
        files: their size.

    Raises:
        DiskFull: a volume has too little free space.
    """
    check_free(output, nbytes)
    shared = existing_parent(output).stat().st_dev == existing_parent(folder).stat().st_dev
    needed, free = files + (nbytes if shared else 0), free_bytes(folder)
    if files and free < needed:
        what = (
            f"The output and the temporary files need about {human(needed)}"
            if shared
            else f"The temporary files of this run need about {human(needed)}"
        )
        raise DiskFull(
            f"{what}, but {folder} has only {human(free)} free.",
            "Free some space, try a larger --memory or fewer --samples, or set BITWRIGHT_HOME to a folder on another "
            "volume.",
        )


def check_free(output: Path, needed: int) -> None:
    """Raise `DiskFull` if the volume of `output` has less than `needed` bytes free."""
    free = free_bytes(output)
    if free < needed:
        raise DiskFull(
            f"The output needs about {human(needed)}, but {output} has only {human(free)} free.",
            "Free some space, or choose an output folder on another volume.",
        )


def _try_writing(output: Path) -> None:
    """Create and remove a folder at the path of the staging folder, or in the nearest existing folder.

    Permissions alone are not sufficient, because of network volumes, read-only mounts and quotas.
    """
    token = secrets.token_hex(14)[:27]  # the length of a job's id
    parent = existing_parent(output.parent)
    probe = staging_places(output if parent == output.parent else parent / output.name, token)[
        is_filled_in_place(output)
    ]
    probe.mkdir()
    probe.rmdir()
