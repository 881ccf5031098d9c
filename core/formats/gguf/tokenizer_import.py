"""Conversion of the tokenizer in a GGUF file to a tokenizer folder, based on the conversion of transformers.

Corrects three details of that conversion. transformers uses GPT-2's pre-tokenizer for unknown ones, so unknown ones are
refused here. It encodes special tokens with characters outside of GPT-2's alphabet as bytes and adds them a second time
(sgl-project/sglang#3427), so special tokens are read from the list of the file. And it adds a space before the first
word only; llama.cpp also adds one after every special token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from core.errors import CorruptFile, UnsupportedModel, translated
from core.files import read_json, write_json
from core.model.gguf_header import GgufHeader, StringArray
from core.model.tokenizer import END_MARKS

_GPT2_RULE: Final = frozenset({"gpt-2", "phi-2", "mpt", "olmo"})
_DIGITS_RULE: Final = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell"})
"""GPT-2's pre-tokenizer after splitting off every digit."""

_DEEPSEEK_CODER: Final = "deepseek-coder"
_WHOLE_WORDS_FIRST: Final = frozenset({"llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "tekken"})
"""Pre-tokenizers that do not split words that are tokens; text begins with BOS unless the file states otherwise."""

_VALUES: Final[dict[str, type]] = {
    "ggml.model": str, "ggml.pre": str, "chat_template": str, "ggml.add_bos_token": bool, "ggml.add_eos_token": bool,
    "ggml.add_space_prefix": bool,
}  # fmt: skip

_MAX_TOKENS, _MAX_TOKEN_BYTES = 1 << 20, 1 << 10
"""Limits; real tokenizers have up to 262,144 tokens of up to 512 bytes. Finding merges is quadratic in the length."""

_BYTE_LEVEL, _SENTENCEPIECE = "gpt2", "llama"
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
"""Types of tokens that are matched before pre-tokenization (marks). The first two are not displayed in answers."""

_NAMED: Final = ("bos", "eos", "eot", "eom", "unknown", "padding", "seperator", "mask")
"""Special tokens with a metadata key, in the spelling of llama.cpp."""

_ENDS: Final = ("bos", "eos", "eot", "eom")

_SPACE: Final = "\u2581"
_NO_PREFIX: Final = ("gemma", "gemma2", "gemma3")
"""Architectures with a SentencePiece vocabulary and no space before words, unless the file states otherwise."""


def check_tokenizer(header: GgufHeader, label: str) -> None:
    """Check from the header whether the tokenizer is supported.

    Raises:
        UnsupportedModel: with the reason in one sentence.
        CorruptFile: more tokens than rows of the embedding, or undefined special tokens.
    """
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    kind = header.metadata.get("tokenizer.ggml.model")
    rule = header.metadata.get("tokenizer.ggml.pre")
    hint = "Use the original as a folder or from the Hub."
    for key, wanted in _VALUES.items():
        if not isinstance(header.metadata.get(f"tokenizer.{key}", wanted()), wanted):
            raise CorruptFile(f"{label} has an invalid value of tokenizer.{key}.", "Download the file again.")
    if kind not in (_BYTE_LEVEL, _SENTENCEPIECE):
        raise UnsupportedModel(f"{label} has a tokenizer of the unknown kind {str(kind)[:40]!r}.", hint)
    known = (
        _GPT2_RULE | _DIGITS_RULE | {_DEEPSEEK_CODER} | set(GGUF_PRE_TOKENIZER_SPLITS)
        if kind == _BYTE_LEVEL
        else {"default", None}
    )
    if rule not in known:
        said = f"the unknown pre-tokenizer {str(rule)[:40]!r}" if rule else "a tokenizer without a pre-tokenizer"
        raise UnsupportedModel(f"{label} has {said}, so the split of text into words is not defined.", hint)
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    rows = header.tensors["token_embd.weight"].shape[0]
    if not isinstance(tokens, StringArray) or not 0 < tokens.length <= rows:
        raise CorruptFile(f"{label} has a list of tokens that does not fit its {rows} embeddings.", "")
    if tokens.length > _MAX_TOKENS or tokens.longest > _MAX_TOKEN_BYTES:
        raise UnsupportedModel(
            f"{label} has {tokens.length} tokens of up to {tokens.longest} bytes, more than any known tokenizer.",
            hint,
        )
    for name in _NAMED:
        number = header.metadata.get(f"tokenizer.ggml.{name}_token_id")
        if number is not None and (type(number) is not int or not 0 <= number < tokens.length):
            raise CorruptFile(f"{label} refers to a {name} token that does not exist.", "Download the file again.")


def write_tokenizer(path: Path, header: GgufHeader, folder: Path) -> None:
    """Write the tokenizer and chat template of the GGUF file at `path` into `folder`.

    Raises:
        CorruptFile: the vocabulary is invalid.
    """
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer, get_gguf_tokenizer

    rule = header.metadata.get("tokenizer.ggml.pre")
    with translated(CorruptFile, f"The vocabulary of {header.label} is invalid", "Download the file again."):
        architecture, parts, settings = get_gguf_tokenizer(str(path))
        marks = _marks(header, parts)
        respelled = _respelled(parts["tokens"], marks) if parts["tokenizer_type"] == _BYTE_LEVEL else parts["tokens"]
        backend, extra = convert_gguf_tokenizer(architecture, parts | {"tokens": respelled, "token_type": ()})
        backend = _with_marks(backend, parts["tokens"], respelled, marks, strip=_strips_whitespace(header))
        _apply_rule(backend, rule)
        if parts["tokenizer_type"] == _SENTENCEPIECE:
            _apply_space_prefix(backend, header)
        for name in ("pad_token", "unk_token"):
            # Some files set an ordinary token, such as id 0, which must stay visible in answers.
            if settings.get(name) is not None and parts["tokens"].index(settings[name]) not in marks:
                settings[name] = None
        if rule in _WHOLE_WORDS_FIRST:
            settings.setdefault("add_bos_token", True)
        if context := header.metadata.get(f"{header.architecture}.context_length"):
            settings["model_max_length"] = int(context)
        make: Any = PreTrainedTokenizerFast
        tokenizer = make(tokenizer_object=backend, **settings, **extra)
    tokenizer.save_pretrained(folder)
    saved = read_json(folder / "tokenizer_config.json")
    # The class name that all releases of transformers support; 5.x writes an internal one.
    saved["tokenizer_class"] = "PreTrainedTokenizerFast"
    for key in ("backend", "is_local", "local_files_only"):
        saved.pop(key, None)
    write_json(folder / "tokenizer_config.json", saved)


def _marks(header: GgufHeader, parts: dict[str, Any]) -> dict[int, bool]:
    """Return the tokens that are matched before pre-tokenization, by id, with whether they are hidden in answers.

    These are the tokens with such a type, the end tokens in the metadata, and well-known end-of-turn tokens, which some
    files list as ordinary tokens but llama.cpp treats as special. Without types, all tokens in the metadata are used.
    """
    tokens = parts["tokens"]
    kinds = [int(kind) for kind in parts.get("token_type") or ()]
    found = {number: kind != _USER_DEFINED for number, kind in enumerate(kinds[: len(tokens)])
             if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)}  # fmt: skip
    named = (header.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in (_NAMED if not kinds else _ENDS))
    found |= {number: True for number in named if type(number) is int}
    found |= {number: True for number, text in enumerate(tokens) if text in END_MARKS}
    return {number: hidden for number, hidden in found.items() if tokens[number]}


def _respelled(tokens: list[str], marks: dict[int, bool]) -> list[str]:
    """Return the tokens of a byte-level vocabulary, with other texts for special tokens outside of its alphabet."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    alphabet = set(bytes_to_unicode().values())
    return [
        text if number not in marks or alphabet.issuperset(text) else f"<mark:{number}>"
        for number, text in enumerate(tokens)
    ]


def _with_marks(backend: Any, tokens: list[str], respelled: list[str], marks: dict[int, bool], *, strip: bool) -> Any:
    """Return the tokenizer with exactly the given special tokens as added tokens, with their ids and texts.

    Args:
        strip: special tokens strip whitespace after them, as in Phi-3.
    """
    from tokenizers import Tokenizer

    value = json.loads(backend.to_str())
    vocabulary = value["model"]["vocab"]
    for number in marks:
        if respelled[number] != tokens[number]:
            del vocabulary[respelled[number]]
            vocabulary[tokens[number]] = number
    if value["model"].get("unk_token") not in vocabulary:
        value["model"]["unk_token"] = None
    value["added_tokens"] = [
        {
            "id": number,
            "content": tokens[number],
            "single_word": False,
            "lstrip": False,
            "rstrip": strip and tokens[number] not in ("<unk>", "<s>", "<|endoftext|>"),
            "normalized": False,
            "special": hidden,
        }
        for number, hidden in sorted(marks.items())
        if vocabulary.get(tokens[number]) == number
    ]
    return Tokenizer.from_str(json.dumps(value))


def _strips_whitespace(header: GgufHeader) -> bool:
    """Return whether special tokens strip whitespace after them, which llama.cpp decides by the model's name."""
    name = str(header.metadata.get("general.name", "")).lower()
    return header.metadata.get("tokenizer.ggml.model") == _SENTENCEPIECE and ("phi-3" in name or "phi3" in name)


def _apply_space_prefix(backend: Any, header: GgufHeader) -> None:
    """Add a space at the beginning of text and after special tokens if the file requires it.

    SentencePiece and llama.cpp add one after every special token; a missing `add_space_prefix` means true
    (ggml-org/llama.cpp#8584, huggingface/transformers#29625).
    """
    from tokenizers import decoders, normalizers

    said = header.metadata.get("tokenizer.ggml.add_space_prefix")
    plain = header.architecture in _NO_PREFIX
    if plain and not said:
        return
    prefix = said is not False
    steps = [normalizers.Prepend(_SPACE)] if prefix else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])
    backend.pre_tokenizer = None
    back = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*back, *([decoders.Strip(" ", 1, 0)] if prefix else [])])


def _apply_rule(backend: Any, rule: str | None) -> None:
    from tokenizers import Regex, normalizers, pre_tokenizers

    if rule == _DEEPSEEK_CODER:
        patterns = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+")
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns),
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    elif rule in _DIGITS_RULE:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    elif rule == "qwen2":
        backend.normalizer = normalizers.NFC()
    elif rule in _WHOLE_WORDS_FIRST:
        backend.model.ignore_merges = True
