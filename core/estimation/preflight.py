"""What can be known to be wrong with a job before anything is started, found in milliseconds and without torch.

Reads headers and folders of this machine; what needs the network or a library is left to the run itself.
Leaves nothing behind.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from core.calibration import text
from core.claim import is_filled_in_place, is_free, refuse_if_claimed, staging_places
from core.errors import BadInput, DiskFull, ModelNotFound, OutputProblem, UnsupportedModel
from core.estimation.sizes import output_size
from core.files import existing_parent, free_bytes
from core.formats.grids import plan_layers
from core.model.folder import check_folder, only_gguf, read_config
from core.model.plans import nothing_quantized
from core.model.tree import ModelTree, build_tree, read_tensors
from core.model_id import DEMO, looks_like_path
from core.spec import JobSpec
from core.wording import human

_SIDE_FILES = 40_000_000


def check(spec: JobSpec) -> None:
    """Raise what is wrong with `spec`, if it can be seen from here.

    Raises:
        BitwrightError: the model is not there, cut or not supported; the map names what does not exist; the text
            is missing or not text; the output folder is taken or cannot be written; the disk is too small.
    """
    check_output(Path(spec.output))
    check_model(spec.model)
    text.check(spec.calibration)
    if is_folder(spec.model):
        tree = read_tree(Path(spec.model))
        if tree.refusal:
            raise UnsupportedModel(tree.refusal, "`bitwright inspect` shows what is in it.")
        check_room(spec, tree)


def check_model(model: str) -> None:
    """Raise ModelNotFound where `model` is meant as a path and nothing is there."""
    if looks_like_path(model) and not os.path.lexists(model):
        kind = "file" if model.endswith(".gguf") else "folder"
        raise ModelNotFound(f"There is no {kind} {model}.", "Check the path, or give a Hub id such as owner/name.")


def is_folder(model: str) -> bool:
    """Return whether `model` is a folder of safetensors here, not one that stands for the GGUF file in it."""
    return model != DEMO and os.path.isdir(model) and only_gguf(Path(model)) is None


def read_tree(folder: Path) -> ModelTree:
    """The layer tree of a local model folder.

    Raises:
        ModelNotFound, UnsupportedModel: no config or no weights that can be read.
        CorruptFile: either does not hold what it promises.
    """
    check_folder(folder)
    config = read_config(folder)
    return build_tree(config, read_tensors(folder, config))


def check_output(output: Path) -> None:
    """Raise OutputProblem where `output` is taken, or cannot be made."""
    try:
        if output.is_symlink():
            # the finished output is renamed into place, which would replace the link and not what it points to
            raise OutputProblem(f"The output {output} is a link.", "Choose the folder that it points to, or another.")
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
            f"The output folder {output} cannot be made: {reason}.", "Choose another folder, or change its rights."
        ) from error


def check_room(spec: JobSpec, tree: ModelTree) -> None:
    """Raise DiskFull where the volume of the output has too little room, BadInput where no layer is quantized."""
    plans = plan_layers(tree, spec.bits_map, spec.formats)
    nothing = nothing_quantized(plans)
    if nothing:
        raise BadInput(*nothing)
    check_free(Path(spec.output), sum(output_size(tree, plans, name).total + _SIDE_FILES for name in spec.formats))


def check_free(output: Path, needed: int) -> None:
    """Raise DiskFull where the volume of `output` has less than `needed` bytes of room."""
    free = free_bytes(output)
    if free < needed:
        raise DiskFull(
            f"The output needs about {human(needed)} and there are {human(free)} free at {output}.",
            "Free some room, or choose an output folder on another volume.",
        )


def _try_writing(output: Path) -> None:
    """Make and remove a folder where the staging folder will be, or in the nearest folder that exists.

    The rights alone do not tell: network volumes, read-only mounts and quotas have their own opinion.
    """
    token = secrets.token_hex(14)[:27]  # as long as a job's id
    parent = existing_parent(output.parent)
    probe = staging_places(output if parent == output.parent else parent / output.name, token)[
        is_filled_in_place(output)
    ]
    probe.mkdir()
    probe.rmdir()
