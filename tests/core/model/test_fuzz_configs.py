"""Damaged configs and tokenizers either load or raise a `BitwrightError`, within bounded time.

The mutations are the same in every run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from core.errors import BitwrightError
from core.formats.gguf.tokenizer import tokenizer as as_metadata
from core.formats.opened import open_checkpoint
from core.inference.generation.turn_ends import end_tokens
from core.inference.loader import open_tree
from core.model.skeleton import build_skeleton
from core.model.tokenizer import load_tokenizer
from tests.core.formats.mutations import mutate
from tests.core.tiny_model import save_model

CASES = 60
"""Mutations of each kind."""

SECONDS_EACH = 10.0
"""Limit on processor time, far above that of any case."""

TEXT = "Hello, wörld 世界"


def check(error: BitwrightError) -> None:
    assert error.message.endswith("."), error.message
    assert error.message.isprintable()
    assert len(error.message) < 1000


def read_model(folder: Path) -> None:
    """Load a model and fill it from its checkpoint."""
    checkpoint = open_checkpoint(folder)
    tree = open_tree(checkpoint)
    skeleton = build_skeleton(tree, checkpoint.store)
    skeleton.fill("", torch.float32, torch.device("cpu"))


def read_tokenizer(folder: Path) -> None:
    """Load a tokenizer and use it once."""
    tokenizer = load_tokenizer(folder)
    tokenizer.decode(tokenizer(TEXT)["input_ids"])
    end_tokens(tokenizer, folder)


def write_gguf(folder: Path) -> None:
    as_metadata(folder, {"model_type": "llama"}, 300, "m")


KINDS: dict[str, tuple[tuple[str, ...], Callable[[Path], None]]] = {
    "config": (("config.json",), read_model),
    "tokenizer": (("tokenizer.json",), read_tokenizer),
    "settings": (("tokenizer_config.json", "special_tokens_map.json", "generation_config.json"), read_tokenizer),
    "gguf": (("tokenizer.json", "tokenizer_config.json", "generation_config.json"), write_gguf),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_load_or_raise_a_bitwright_error(kind: str, tmp_path: Path) -> None:
    names, read = KINDS[kind]
    folder = save_model(tmp_path / "m")
    (folder / "special_tokens_map.json").write_text('{"eos_token": "<eos>"}')
    (folder / "generation_config.json").write_text('{"eos_token_id": [0, 3], "bos_token_id": 1}')
    whole = {name: (folder / name).read_bytes() for name in names}
    ends: dict[str, int] = {}
    for number in range(CASES):
        for name, data in mutate(whole, number).items():
            (folder / name).write_bytes(data)
        started = time.process_time()
        try:
            read(folder)
            end = "read"
        except BitwrightError as error:
            check(error)
            end = error.code
        except BaseException as error:  # panics of the tokenizers library do not derive from Exception
            raise AssertionError(f"case {number} ended in {error!r}") from error
        assert time.process_time() - started < SECONDS_EACH, f"case {number} took too long"
        ends[end] = ends.get(end, 0) + 1
    assert ends["read"] > 1
    assert len(ends) > 1
