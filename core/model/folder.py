"""A model folder: its config, and in one sentence what is wrong with it. Reads no weight."""

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
"""Files in sub-folders that are looked at for a hint."""


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a model folder.

    Raises:
        CorruptFile: it is not a JSON object.
        ModelNotFound: there is none.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelNotFound(f"{folder} holds no config.json.", "Give the folder that holds the model.")
    config = read_json(path)
    if not isinstance(config, dict):
        raise CorruptFile(f"{path} is not a JSON object.", "Fetch the file again.")
    return config


def label_of(folder: Path) -> str:
    """Return what people call the model in a folder: its name, or in the Hub's cache that of the repository."""
    real = folder.resolve()
    repository = real.parent.parent.name
    if real.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/")
    return real.name


def only_gguf(folder: Path) -> Path | None:
    """Return the one GGUF model in a folder that has no config.json; None if there is none, or a choice.

    An image projector (`mmproj`) is part of a model, not one; the parts of a split file are one, named by the first.
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
    """The GGUF models in a folder; of those in parts the first part that is there."""
    found: dict[Path, Path] = {}
    for name in names:
        if name.lower().endswith(".gguf") and "mmproj" not in name.lower():
            found.setdefault(parts_of(folder / name)[0], folder / name)
    return list(found.values())


def check_folder(folder: Path) -> None:
    """Refuse a folder that does not hold a config and safetensors, with what it holds instead.

    Raises:
        ModelNotFound, UnsupportedModel, CorruptFile: in one sentence.
    """
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise ModelNotFound(f"{folder} cannot be read: {error.strerror}.", "Check its rights.") from error
    lost = next((name for name in sorted(names) if _is_lost(folder / name)), None)
    if lost is not None:
        raise CorruptFile(
            f"{folder / lost} is a link that leads nowhere.", "Fetch the file that it stands for, or remove the link."
        )
    if "config.json" not in names:
        _explain_no_config(folder, names)
    read_config(folder)
    weights = [name for name in names if name.endswith(".safetensors")]
    if weight_files(weights):
        return
    if "adapter_config.json" in names:
        raise UnsupportedModel(f"{folder} holds an adapter, not a whole model.", _MERGE)
    if any(name.endswith((".bin", ".pt", ".pth")) for name in names):
        raise UnsupportedModel(
            f"{folder} has its weights as pickled PyTorch files, which can run code when they are read.",
            "Convert it to safetensors first: load it with transformers and call save_pretrained.",
        )
    if weights:
        raise UnsupportedModel(
            f"{folder} has its weights as {min(weights)} only, which is not in transformers' layout.",
            "Use the model.safetensors files of the same model.",
        )
    inside = _models_inside(folder, (".safetensors",))
    raise ModelNotFound(
        f"{folder} has a config.json and no weights.",
        f"Put its safetensors files from {inside[0]} beside it." if inside else "Fetch its safetensors files.",
    )


def _explain_no_config(folder: Path, names: set[str]) -> None:
    """Say what a folder without config.json holds, where it is something known."""
    if "adapter_config.json" in names:
        raise UnsupportedModel(f"{folder} holds an adapter, not a whole model.", _MERGE)
    files = _ggufs(folder, sorted(names))
    if files:
        raise ModelNotFound(
            f"{folder} holds no config.json, and {len(files)} GGUF files.", f"Give the GGUF file itself: {files[0]}"
        )
    if "params.json" in names:
        raise UnsupportedModel(
            f"{folder} is in the layout of the model's makers (params.json), not in that of transformers.",
            "Use the folder or the repository that has a config.json.",
        )
    inside = _models_inside(folder, ("config.json", ".gguf"))
    if inside:
        raise ModelNotFound(f"{folder} holds no config.json; a folder in it does.", f"Give that: {inside[0]}")


def _models_inside(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """Folders in a folder, or snapshots of a repository in the Hub's cache, with a file whose name ends so."""
    paths = [*islice(folder.glob("*/*"), _LOOKED_AT), *islice(folder.glob("snapshots/*/*"), _LOOKED_AT)]
    found = {path.parent for path in paths if path.name.endswith(endings)}
    return sorted(path for path in found if not path.name.startswith("."))


def _is_lost(path: Path) -> bool:
    """Whether a file that a model needs is a link to nothing."""
    needed = path.suffix.lower() in (".json", ".safetensors", ".model", ".jinja", ".gguf", ".txt")
    return needed and path.is_symlink() and not path.exists()


def check_architecture(config: Mapping[str, Any]) -> None:
    """Refuse a model that the installed transformers cannot build from its own code.

    Raises:
        UnsupportedModel: an unknown model type, or one that is not a causal language model.
        CorruptFile: the config names no model type.
    """
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )

    kind = config.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise CorruptFile("The model's config.json names no model_type.", "Fetch the file again.")
    if kind not in CONFIG_MAPPING:
        if isinstance(config.get("auto_map"), dict):
            raise UnsupportedModel(
                f"The architecture {kind[:60]!r} runs only with code that comes with the model, which Bitwright does "
                "not run.",
                "Choose a model that transformers knows.",
            )
        raise UnsupportedModel(
            f"The architecture {kind[:60]!r} is unknown to the installed transformers.",
            "Choose another model, or update transformers if this one is new.",
        )
    shown = (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )
    if not any(kind in names for names in shown):
        raise UnsupportedModel(f"The architecture {kind[:60]!r} is no language model.", "Choose another model.")
