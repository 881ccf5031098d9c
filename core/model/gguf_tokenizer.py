"""From a GGUF file's metadata to a tokenizer folder, by way of transformers' own conversion.

Adds what that leaves to chance: transformers cuts text by GPT-2's rule wherever it does not know the file's
pre-tokenizer, so only those are let through whose rule is known. Knows nothing of weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from core.errors import CorruptFile, UnsupportedModel
from core.files import read_json, write_json
from core.model.gguf_header import GgufHeader, StringArray

_GPT2_RULE: Final = frozenset({"gpt-2", "phi-2", "mpt", "olmo"})
_DIGITS_RULE: Final = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell"})
"""GPT-2's rule after every digit has been cut off by itself."""

_WHOLE_WORDS_FIRST: Final = frozenset({"llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "tekken"})
"""A word that is a token is taken whole, merges or not; and text starts with BOS unless the file says otherwise."""

_VALUES: Final[dict[str, type]] = {
    "ggml.model": str, "ggml.pre": str, "chat_template": str, "ggml.add_bos_token": bool, "ggml.add_eos_token": bool,
    "ggml.add_space_prefix": bool,
}  # fmt: skip

_MAX_TOKENS, _MAX_TOKEN_BYTES = 1 << 20, 1 << 10
"""Real ones have up to 262,144 tokens of up to 512 bytes. To find merges takes the square of a token's length."""

_BYTE_LEVEL, _SENTENCEPIECE = "gpt2", "llama"


def check_tokenizer(header: GgufHeader, label: str) -> None:
    """Refuse a tokenizer whose rules are not known, by the header alone.

    Raises:
        UnsupportedModel: with the reason in one sentence.
        CorruptFile: more tokens than the embedding has rows, or special tokens that are not there.
    """
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    kind = header.metadata.get("tokenizer.ggml.model")
    rule = header.metadata.get("tokenizer.ggml.pre")
    hint = "Use the original as a folder or from the Hub."
    for key, wanted in _VALUES.items():
        if not isinstance(header.metadata.get(f"tokenizer.{key}", wanted()), wanted):
            raise CorruptFile(f"{label} has a value of tokenizer.{key} that cannot be.", "Fetch the file again.")
    if kind not in (_BYTE_LEVEL, _SENTENCEPIECE):
        raise UnsupportedModel(f"{label} has a tokenizer of the unknown kind {str(kind)[:40]!r}.", hint)
    known = _GPT2_RULE | _DIGITS_RULE | set(GGUF_PRE_TOKENIZER_SPLITS) if kind == _BYTE_LEVEL else {"default", None}
    if rule not in known:
        said = f"the unknown pre-tokenizer {str(rule)[:40]!r}" if rule else "a tokenizer without a pre-tokenizer"
        raise UnsupportedModel(f"{label} has {said}: how to cut text into words would be a guess.", hint)
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    rows = header.tensors["token_embd.weight"].shape[0]
    if not isinstance(tokens, StringArray) or not 0 < tokens.length <= rows:
        raise CorruptFile(f"{label} has a list of tokens that does not fit its {rows} embeddings.", "")
    if tokens.length > _MAX_TOKENS or tokens.longest > _MAX_TOKEN_BYTES:
        raise UnsupportedModel(
            f"{label} has {tokens.length} tokens of up to {tokens.longest} bytes, which is beyond any tokenizer known.",
            hint,
        )
    for name in ("bos", "eos", "unknown", "padding", "eot"):
        number = header.metadata.get(f"tokenizer.ggml.{name}_token_id")
        if number is not None and (type(number) is not int or not 0 <= number < tokens.length):
            raise CorruptFile(f"{label} names a {name} token that it does not have.", "Fetch the file again.")


def write_tokenizer(path: Path, header: GgufHeader, folder: Path) -> None:
    """Write the tokenizer and chat template of the GGUF file at `path` into `folder`.

    Raises:
        CorruptFile: its vocabulary makes no tokenizer.
    """
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer, get_gguf_tokenizer

    try:
        architecture, parts, settings = get_gguf_tokenizer(str(path))
        backend, extra = convert_gguf_tokenizer(architecture, parts)
        backend = _without_strangers(backend, len(parts["tokens"]))
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise CorruptFile(f"The vocabulary of {path.name} makes no tokenizer.", "Fetch the file again.") from error
    rule = header.metadata.get("tokenizer.ggml.pre")
    _apply_rule(backend, rule)
    if rule in _WHOLE_WORDS_FIRST:
        settings.setdefault("add_bos_token", True)
    if context := header.metadata.get(f"{header.architecture}.context_length"):
        settings["model_max_length"] = int(context)
    make: Any = PreTrainedTokenizerFast
    tokenizer = make(tokenizer_object=backend, **settings, **extra)
    tokenizer.save_pretrained(folder)
    saved = read_json(folder / "tokenizer_config.json")
    # The name that every release of transformers knows; 5.x writes its new internal one.
    saved["tokenizer_class"] = "PreTrainedTokenizerFast"
    for key in ("backend", "is_local", "local_files_only"):
        saved.pop(key, None)
    write_json(folder / "tokenizer_config.json", saved)


def _without_strangers(backend: Any, count: int) -> Any:
    """The same tokenizer without tokens that the file does not have: transformers adds those its classes begin with."""
    from tokenizers import Tokenizer

    value = json.loads(backend.to_str())
    kept = [token for token in value["added_tokens"] if token["id"] < count]
    if len(kept) == len(value["added_tokens"]):
        return backend
    return Tokenizer.from_str(json.dumps(value | {"added_tokens": kept}))


def _apply_rule(backend: Any, rule: str | None) -> None:
    from tokenizers import normalizers, pre_tokenizers

    if rule in _DIGITS_RULE:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    elif rule == "qwen2":
        backend.normalizer = normalizers.NFC()
    elif rule in _WHOLE_WORDS_FIRST:
        backend.model.ignore_merges = True
