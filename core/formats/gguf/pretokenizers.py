"""Pre-tokenizers of byte-level BPE: the steps in tokenizer.json and the names that llama.cpp has for them.

tokenizer.json has a list of steps with regular expressions, a GGUF file a name (`tokenizer.ggml.pre`) for which
src/llama-vocab.cpp of llama.cpp has the expression. Tokenizers with other steps are refused: a similar name would split
numbers or line ends differently, which silently degrades the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from core.errors import UnsupportedModel

_Step = tuple[Any, ...]
_ENDINGS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES: Final = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_REST: Final = r" ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES
_UPPER: Final = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER: Final = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_FIRST: Final = r"[^\r\n\p{L}\p{N}]?"
_CASED: Final = f"{_FIRST}{_UPPER}*{_LOWER}+%s|{_FIRST}{_UPPER}+{_LOWER}*%s|"
_SLASH: Final = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _SPACES

_LLAMA3: Final = _ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + _REST
_CL100K: Final = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
_QWEN2: Final = _ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + _REST
_QWEN35: Final = _ENDINGS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + _SPACES
_GPT4O: Final = _CASED % (f"{_ENDINGS}?", f"{_ENDINGS}?") + r"\p{N}{1,3}|" + _SLASH
_TEKKEN: Final = _CASED % ("", "") + r"\p{N}|" + _SLASH

_GPT2_STEP: Final[_Step] = ("bytes", True)
_BYTES: Final[_Step] = ("bytes", False)


def _split(pattern: str) -> _Step:
    return ("split", pattern, "Isolated")


NAMES: Final[dict[tuple[tuple[_Step, ...], bool], str]] = {
    ((_GPT2_STEP,), False): "gpt-2",
    ((("digits", True), _GPT2_STEP), False): "smollm",
    ((_split(_LLAMA3), _BYTES), True): "llama-bpe",
    ((_split(_CL100K), _BYTES), True): "llama-bpe",
    # The same split, but words that are tokens are not kept whole; llama.cpp calls it DBRX.
    ((_split(_LLAMA3), _BYTES), False): "dbrx",
    ((_split(_CL100K), _BYTES), False): "dbrx",
    ((_split(_QWEN2), _BYTES), False): "qwen2",
    ((_split(_QWEN35), _BYTES), False): "qwen35",
    ((_split(_GPT4O), _BYTES), False): "gpt-4o",
    ((_split(_TEKKEN), _BYTES), True): "tekken",
    ((
        _split(r"[\r\n]"), _split(r"\s?\p{L}+"), _split(r"\s?\p{P}+"), _split("[一-龥ࠀ-一가-퟿]+"), ("digits", True),
        _BYTES,
    ), False): "deepseek-coder",
}  # fmt: skip
"""Name by (steps, whether words that are tokens are kept whole). Some names also imply that text begins with BOS; the
file states this explicitly."""


def differs(name: str) -> list[str]:
    """Return notes about differences between llama.cpp's expression for a name and the tokenizer's."""
    if name not in ("gpt-4o", "tekken"):
        return []
    return ["llama.cpp cuts words with combining marks, as in Hindi or pointed Hebrew, slightly otherwise."]


def rule(tokenizer: dict[str, Any]) -> str:
    """Return the name of a byte-level tokenizer's pre-tokenizer.

    Args:
        tokenizer: contents of tokenizer.json.

    Raises:
        UnsupportedModel: llama.cpp has no name for the steps.
    """
    steps = tuple(_steps(tokenizer.get("pre_tokenizer")))
    whole = bool(tokenizer["model"].get("ignore_merges"))
    name = NAMES.get((steps, whole))
    if name is None:
        raise UnsupportedModel(
            "The tokenizer splits text by a rule that no pre-tokenizer of llama.cpp implements.",
            "Choose another format, such as auto_round.",
        )
    return name


def _steps(value: Any) -> Iterator[_Step]:
    """Return the steps of a pre-tokenizer, flattened, without options that have no effect."""
    if value is None:
        return
    kind = value.get("type")
    if kind == "Sequence":
        for item in value.get("pretokenizers") or []:
            yield from _steps(item)
    elif kind == "ByteLevel" and not value.get("add_prefix_space"):
        yield ("bytes", value.get("use_regex", True))
    elif kind == "Digits":
        yield ("digits", bool(value.get("individual_digits")))
    elif kind == "Split" and not value.get("invert"):
        yield ("split", (value.get("pattern") or {}).get("Regex"), value.get("behavior"))
    else:
        yield (kind, repr(value))
