"""Copying of the side files of a model: tokenizer, templates, processors, generation config and license.

Weights, code, adapters, the model card of the source and files that an output writes itself are not copied. Links to
files outside the model are not followed, since outputs may be published.
"""

from __future__ import annotations

import codecs
import errno
import json
import shutil
from pathlib import Path

from core.errors import CorruptFile, DiskFull, OutputProblem
from core.files import read_json
from core.model.general import FILE as FACTS

_CARRIED = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".bpe", ".vocab")
_TEMPLATES = "additional_chat_templates"
_LEGAL = ("license", "licence", "notice", "use_policy", "copying")
_WRITTEN_ANEW = (
    FACTS, "config.json", "quantization_config.json", "quantize_config.json", "quant_config.json",
    "hf_quant_config.json", "bitwright.json",
)  # fmt: skip
_OF_CODE = ("tokenizer_config.json", "processor_config.json", "preprocessor_config.json", "generation_config.json")
_BESIDE = ("adapter_", "adapter.", "trainer_state", "training_args", "all_results", "train_results", "eval_results")
"""Name prefixes of files left by training that are not part of the model. With peft installed, transformers would load
an adapter on top of the output (huggingface/peft#1381)."""


def carry_over(source: Path, target: Path, *, legal_only: bool = False) -> None:
    """Copy the side files of the model in `source` to `target`, without hidden files and sub-folders.

    JSON files are copied without byte-order marks and without references to Python files.

    Args:
        source, target: folders.
        legal_only: copy only license files, for an output that contains everything else.

    Raises:
        DiskFull, OutputProblem: a file cannot be copied.
    """
    for path in _side_files(source, legal_only=legal_only):
        if not _is_inside(path, source):
            continue
        destination = target / path.relative_to(source)
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            changed = _changed(path)
            if changed is None:
                shutil.copyfile(path, destination)
            else:
                destination.write_bytes(changed)
        except OSError as error:
            problem = f"{path.name} could not be copied: {error.strerror}."
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise (DiskFull if full else OutputProblem)(problem, "Check free space and permissions.") from error


def foreign_links(source: Path) -> list[str]:
    """Return the names of the side files that `carry_over` omits because they link to files outside the model."""
    return [path.name for path in _side_files(source, legal_only=False) if not _is_inside(path, source)]


def _side_files(source: Path, *, legal_only: bool) -> list[Path]:
    paths = sorted([*source.iterdir(), *(source / _TEMPLATES).glob("*")])
    return [
        path
        for path in paths
        if path.is_file() and not path.name.startswith(".") and (_is_legal(path) or (not legal_only and _wanted(path)))
    ]


def _is_inside(path: Path, source: Path) -> bool:
    """Return whether the target of a file is part of the model.

    It must be in the model folder, in the blobs of the same model in the Hub cache, or in the folder that config.json
    links to.
    """
    real, folder = path.resolve(), source.resolve()
    homes = [folder, (folder / "config.json").resolve().parent]
    if folder.parent.name == "snapshots":
        homes.append(folder.parent.parent / "blobs")
    return any(real.is_relative_to(home) for home in homes)


def _changed(path: Path) -> bytes | None:
    """Return the changed content of a JSON file in an output; None to copy the file."""
    if path.suffix != ".json":
        return None
    with path.open("rb") as stream:
        marked = stream.read(3) == codecs.BOM_UTF8
    if path.name in _OF_CODE:
        try:
            value = read_json(path)
        except CorruptFile:
            value = None
        if isinstance(value, dict) and "auto_map" in value:
            del value["auto_map"]
            return json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
    return path.read_bytes()[3:] if marked else None


def _is_legal(path: Path) -> bool:
    return path.stem.lower().startswith(_LEGAL) and path.suffix.lower() in ("", ".txt", ".md", ".pdf", ".rst", ".html")


def _wanted(path: Path) -> bool:
    return (
        path.suffix in _CARRIED
        and path.name not in _WRITTEN_ANEW
        and not path.name.startswith(_BESIDE)
        and not path.name.endswith(".index.json")
    )
