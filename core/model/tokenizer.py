"""The tokenizer of a model folder, without ever running code that came with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.errors import UnsupportedModel


def load_tokenizer(folder: Path) -> Any:
    """The transformers tokenizer.

    Raises:
        UnsupportedModel: there is none that transformers can read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise UnsupportedModel(
            f"The tokenizer in {folder} cannot be read: {str(error).splitlines()[0]}",
            "Fetch tokenizer.json and tokenizer_config.json of the model again.",
        ) from error
