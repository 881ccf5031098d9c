"""llama.cpp as an independent reader, in a separate process, because it aborts on invalid files."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

_SIDE = Path(__file__).with_name("llama_side.py")


@dataclass(frozen=True)
class Answer:
    """Results of llama.cpp: logits [tokens, vocabulary] of each text, token ids without and with the tokens added
    around a text, token ids without special tokens, text of the tokens, metadata as text, and answers."""

    logits: list[np.ndarray]
    tokens: list[list[int]]
    begun: list[list[int]]
    plain: list[list[int]]
    pieces: list[str]
    metadata: dict[str, str]
    replies: list[str]


def interpreter() -> str:
    """Return an interpreter with llama-cpp-python; skip the test if there is none."""
    named = os.environ.get("BITWRIGHT_LLAMA_PYTHON")
    if named:
        return named
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("needs llama-cpp-python, here or in the interpreter that BITWRIGHT_LLAMA_PYTHON names")
    return sys.executable


def ask(
    model: Path,
    ids: list[list[int]] | None = None,
    texts: list[str] | None = None,
    chats: list[list[dict[str, str]]] | None = None,
    context: int = 256,
) -> Answer:
    """Run the model on texts as token ids, tokenize other texts, and answer conversations.

    Raises:
        AssertionError: llama.cpp cannot read the file; with what it said.
    """
    python = interpreter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        request = {
            "model": str(model), "ids": ids or [], "texts": texts or [], "chats": chats or [], "context": context,
        }  # fmt: skip
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        # The project's own paths are no business of another interpreter.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [python, str(_SIDE), str(folder)], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
        with np.load(folder / "answer.npz") as stored:
            logits = [stored[str(number)] for number in range(len(ids or []))]
    return Answer(logits=logits, **found)
