"""Program that reads a GGUF file with llama.cpp. Needs llama-cpp-python; does not import core.

Called with a folder: `request.json` there has the keys model, ids (lists of token numbers, each a text), texts, and
chats; `answer.npz` and `answer.json` are written beside it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np


def main(folder: Path) -> None:
    asked = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    # Keys and values in 32 bits: only the weights' types are to make a difference.
    model = llama_cpp.Llama(
        asked["model"], n_ctx=asked["context"], n_threads=1, n_threads_batch=1, type_k=0, type_v=0, verbose=False,
        logits_all=bool(asked["ids"]), vocab_only=not asked["ids"] and not asked["chats"], n_batch=asked["context"],
    )  # fmt: skip
    logits: dict[str, Any] = {}
    for number, ids in enumerate(asked["ids"]):
        model.reset()
        model.eval(ids)
        logits[str(number)] = np.array(model.scores[: len(ids)], dtype=np.float32)
    np.savez(folder / "answer.npz", **logits)
    texts = [text.encode("utf-8") for text in asked["texts"]]
    answer = {
        "tokens": [model.tokenize(text, add_bos=False, special=True) for text in texts],
        "begun": [model.tokenize(text, add_bos=True, special=True) for text in texts],
        "plain": [model.tokenize(text, add_bos=False, special=False) for text in texts],
        "metadata": model.metadata,
        "replies": [
            model.create_chat_completion(chat, max_tokens=24, temperature=0)["choices"][0]["message"]["content"]
            for chat in asked["chats"]
        ],
    }
    answer["pieces"] = [model.detokenize(ids, special=True).decode("utf-8", "replace") for ids in answer["tokens"]]
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


main(Path(sys.argv[1]))
