"""Model folders: reading the config and checking that the files of a supported model are present. Reads no weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

from core.errors import CorruptFile, ModelNotFound, UnsupportedModel
from core.files import read_json
from core.model.headers import weight_files
from core.model.parts import parts_of

_MERGE: Final = "Merge it into its model first: with PEFT, merge_and_unload() and save_pretrained()."
_LOOKED_AT: Final = 1000
"""Limit on the files in sub-folders that are searched for a hint."""


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config.json of a model folder.

    Raises:
        CorruptFile: config.json is not a JSON object.
        ModelNotFound: there is no config.json.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelNotFound(f"{folder} contains no config.json.", "Specify the folder that contains the model.")
    config = read_json(path)
    if not isinstance(config, dict):
        raise CorruptFile(f"{path} is not a JSON object.", "Download the file again.")
    return config


def label_of(folder: Path) -> str:
    """Return the display name of a model folder: its own name, or the repository name inside the Hub cache."""
    real = folder.resolve()
    repository = real.parent.parent.name
    if real.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/")
    return real.name


def only_gguf(folder: Path) -> Path | None:
    """Return the GGUF model of a folder without config.json; None if there is not exactly one.

    Image projectors (`mmproj`) do not count, and the parts of a split file count once, by their first part.
    """
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError:
        return None
    if {"config.json", "adapter_config.json"} & set(names):
        return None
    found = _ggufs(folder, names)
    return found[0] if len(found) == 1 else None


def _ggufs(folder: Path, names: Iterable[str]) -> list[Path]:
    """Return the GGUF models in a folder; of a split file, the first part that exists."""
    found: dict[Path, Path] = {}
    for name in names:
        if name.lower().endswith(".gguf") and "mmproj" not in name.lower():
            found.setdefault(parts_of(folder / name)[0], folder / name)
    return list(found.values())


def check_folder(folder: Path) -> None:
    """Raise an error if a folder has no config.json or no safetensors weights.

    Raises:
        ModelNotFound: files are missing.
        UnsupportedModel: the folder contains an adapter, or weights in another format or layout.
        CorruptFile: config.json is damaged, or a file is a broken symbolic link.
    """
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise ModelNotFound(f"{folder} cannot be read: {error.strerror}.", "Check its permissions.") from error
    lost = next((name for name in sorted(names) if _is_lost(folder / name)), None)
    if lost is not None:
        raise CorruptFile(
            f"{folder / lost} is a broken symbolic link.", "Download the file that it points to, or remove the link."
        )
    if "config.json" not in names:
        _explain_no_config(folder, names)
    read_config(folder)
    weights = [name for name in names if name.endswith(".safetensors")]
    if weight_files(weights):
        return
    if "adapter_config.json" in names:
        raise UnsupportedModel(f"{folder} contains an adapter, not a complete model.", _MERGE)
    if any(name.endswith((".bin", ".pt", ".pth")) for name in names):
        raise UnsupportedModel(
            f"{folder} stores its weights as pickled PyTorch files, which can execute code when they are loaded.",
            "Convert the model to safetensors first: load it with transformers and call save_pretrained.",
        )
    if weights:
        raise UnsupportedModel(
            f"{folder} stores its weights only as {min(weights)}, which is not in the layout of transformers.",
            "Use the model.safetensors files of the same model.",
        )
    inside = _models_inside(folder, (".safetensors",))
    raise ModelNotFound(
        f"{folder} has a config.json but no weights.",
        f"Move the safetensors files from {inside[0]} to this folder." if inside else "Download its safetensors files.",
    )


def _explain_no_config(folder: Path, names: set[str]) -> None:
    """Raise an error that describes the content of a folder without config.json, if it is of a known kind."""
    if "adapter_config.json" in names:
        raise UnsupportedModel(f"{folder} contains an adapter, not a complete model.", _MERGE)
    files = _ggufs(folder, sorted(names))
    if files:
        raise ModelNotFound(
            f"{folder} contains no config.json but {len(files)} GGUF files.",
            f"Specify one GGUF file, such as {files[0]}",
        )
    if "params.json" in names:
        raise UnsupportedModel(
            f"{folder} is in the publisher's original layout (params.json), not in the layout of transformers.",
            "Use the folder or the repository that has a config.json.",
        )
    inside = _models_inside(folder, ("config.json", ".gguf"))
    if inside:
        raise ModelNotFound(
            f"{folder} contains no config.json, but a sub-folder does.", f"Specify the sub-folder: {inside[0]}"
        )


def _models_inside(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """Return the sub-folders, or snapshots in the Hub cache, that have a file with one of the `endings`."""
    paths = [*islice(folder.glob("*/*"), _LOOKED_AT), *islice(folder.glob("snapshots/*/*"), _LOOKED_AT)]
    found = {path.parent for path in paths if path.name.endswith(endings)}
    return sorted(path for path in found if not path.name.startswith("."))


def _is_lost(path: Path) -> bool:
    """Return whether a path is a broken symbolic link whose name is that of a model file."""
    needed = path.suffix.lower() in (".json", ".safetensors", ".model", ".jinja", ".gguf", ".txt")
    return needed and path.is_symlink() and not path.exists()


def check_architecture(config: Mapping[str, Any]) -> None:
    """Raise an error for an architecture that the installed transformers does not implement.

    Raises:
        UnsupportedModel: the model type is unknown, or is not a causal language model.
        CorruptFile: the config has no model type.
    """
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )

    kind = config.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise CorruptFile("The model's config.json has no model_type.", "Download the file again.")
    if kind not in CONFIG_MAPPING:
        if isinstance(config.get("auto_map"), dict):
            raise UnsupportedModel(
                f"The architecture {kind[:60]!r} needs code that comes with the model, which Bitwright does not run.",
                "Choose an architecture that transformers implements.",
            )
        raise UnsupportedModel(
            f"The architecture {kind[:60]!r} is unknown to the installed transformers.",
            "Choose another model, or update transformers if this one is new.",
        )
    shown = (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )
    if not any(kind in names for names in shown):
        raise UnsupportedModel(f"The architecture {kind[:60]!r} is not a language model.", "Choose another model.")
