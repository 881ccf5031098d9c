"""The small files of a model that go along unchanged: tokenizer, templates, processors, generation config, licence.

Weights, code, adapters, the source's own card and what an output writes anew are left behind; so is what a link brings
in from elsewhere on the machine, as outputs are published.
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
_WRITTEN_ANEW = (FACTS, "config.json", "quantization_config.json", "quantize_config.json", "bitwright.json")
_OF_CODE = ("tokenizer_config.json", "processor_config.json", "preprocessor_config.json", "generation_config.json")
_BESIDE = ("adapter_", "adapter.", "trainer_state", "training_args", "all_results", "train_results", "eval_results")
"""What files are called that training left and that are no part of the model; transformers with peft would load an
adapter on top of the output (huggingface/peft#1381)."""


def carry_over(source: Path, target: Path, *, legal_only: bool = False) -> None:
    """Copy the side files of the model in `source` into `target`; hidden files and other folders stay.

    JSON is copied without a byte-order mark, and without the names of Python files that the output does not have.

    Args:
        legal_only: just the licence and its like, for an output that has everything else inside.

    Raises:
        DiskFull, OutputProblem: one cannot be copied.
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
            raise (DiskFull if full else OutputProblem)(problem, "Check room and rights.") from error


def foreign_links(source: Path) -> list[str]:
    """Return the names of the side files that `carry_over` leaves out as links to something outside of the model."""
    return [path.name for path in _side_files(source, legal_only=False) if not _is_inside(path, source)]


def _side_files(source: Path, *, legal_only: bool) -> list[Path]:
    paths = sorted([*source.iterdir(), *(source / _TEMPLATES).glob("*")])
    return [
        path
        for path in paths
        if path.is_file() and not path.name.startswith(".") and (_is_legal(path) or (not legal_only and _wanted(path)))
    ]


def _is_inside(path: Path, source: Path) -> bool:
    """Return whether a file of a model lies, links followed, with the model.

    That is in its folder, in the blobs of the same model in the Hub's cache, or where its config.json is linked from.
    """
    real, folder = path.resolve(), source.resolve()
    homes = [folder, (folder / "config.json").resolve().parent]
    if folder.parent.name == "snapshots":
        homes.append(folder.parent.parent / "blobs")
    return any(real.is_relative_to(home) for home in homes)


def _changed(path: Path) -> bytes | None:
    """Return the text that a JSON file shall have in an output; None for its own."""
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
