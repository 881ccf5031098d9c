"""Loading the tokenizer of a model folder, without running code that comes with the model."""

from __future__ import annotations

import codecs
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from core.errors import CorruptFile, MissingDependency, UnsupportedModel, translated
from core.files import check_content, read_json

MAX_TOKENS: Final = 1 << 20
"""Limit on the vocabulary size. Real ones have up to 262,144 tokens; two million take minutes and gigabytes to load."""

MAX_BYTES: Final = 96 << 20
"""Size limit of a tokenizer file. With 262,144 tokens, files have up to 40 MB."""

_MAX_DIGITS: Final = 9
"""Limit on the digits of a token id. Some readers allocate memory for all ids up to the largest."""

_LEGACY_TEMPLATE: Final = "chat_template.json"
"""Template file of models with processors before chat_template.jinja; tokenizers of transformers ignore it."""

_FILES: Final = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt", "spiece.model")
_KINDS: Final = (".model", ".tiktoken", ".vocab", ".bpe")
"""Suffixes of other tokenizer files."""
_NUMBERED: Final = re.compile(rb'(?<!\\)":\s*(\d+)')
_TRIAL: Final = "Ab 1é\n\U0001f600世<"
"""Text with characters that are missing in small vocabularies."""

END_MARKS: Final = frozenset({
    "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>",
    "<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "<EOT>", "_<EOT>", "<|EOT|>", "<end_of_utterance>", "<turn|>",
    "<|tool_response>", "<｜end▁of▁sentence｜>", "<|end_of_turn|>", "<|END_OF_TURN_TOKEN|>",
    "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
})  # fmt: skip
"""Tokens that always end an answer. llama.cpp has such a list in src/llama-vocab.cpp (ggml-org/llama.cpp#9606).

Some models declare only the end-of-document token, and would otherwise continue with the next turn of the user."""


def hidden_ids(tokenizer: Any) -> frozenset[int]:
    """Return the ids of the tokens that are not shown in answers.

    These are the named special tokens of the tokenizer and the tokens that tokenizer.json or `added_tokens_decoder` in
    tokenizer_config.json marks as special. If the two files disagree, one mark is sufficient. The marks in
    tokenizer.json are found by decoding with and without special tokens.
    """
    added = tokenizer.added_tokens_decoder
    found = {*tokenizer.all_special_ids, *(number for number, token in added.items() if token.special)}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and (rest := [number for number in added if number not in found]):
        shown, full = (
            backend.decode_batch([[number] for number in rest], skip_special_tokens=skip) for skip in (True, False)
        )
        found.update(number for number, text, whole in zip(rest, shown, full, strict=True) if whole and not text)
    return frozenset(found)


def load_tokenizer(folder: Path) -> Any:
    """Return the transformers tokenizer of a model folder.

    Raises:
        UnsupportedModel: there is no tokenizer, transformers cannot read it, or it exceeds the limits.
        MissingDependency: it needs a library that is not installed.
        CorruptFile: a tokenizer file is damaged.
    """
    from transformers import AutoTokenizer

    _check_files(folder)
    problem = f"The tokenizer in {folder} cannot be read"
    hint = "Download tokenizer.json and tokenizer_config.json of the model again."
    if not any(path.name in (*_FILES, "tokenizer_config.json") or path.suffix in _KINDS for path in folder.iterdir()):
        raise UnsupportedModel(
            f"There is no tokenizer in {folder}.",
            "Add tokenizer.json and tokenizer_config.json of the model to that folder.",
        )
    if _needs_code(folder):
        raise UnsupportedModel(
            f"The tokenizer in {folder} needs code that comes with the model, which Bitwright does not run.",
            "Add a tokenizer.json of the model to that folder.",
        )
    with readable(folder) as place, translated(UnsupportedModel, problem, hint):
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        tokenizer(_TRIAL, add_special_tokens=True)  # some fail only here, on characters without a token
    if tokenizer.chat_template is None and (folder / _LEGACY_TEMPLATE).is_file():
        value = read_json(folder / _LEGACY_TEMPLATE)
        found = value.get("chat_template") if isinstance(value, dict) else None
        tokenizer.chat_template = found if isinstance(found, str) else None
    return tokenizer


@contextmanager
def readable(folder: Path) -> Iterator[Path]:
    """Provide a folder that transformers can read, for the duration of the context.

    This is `folder` itself or, if necessary, a temporary copy of its small files. The copy omits byte-order marks and
    the `auto_map` with references to code of the model, which transformers would otherwise ask to run even if it
    implements the class itself. A path that is not valid UTF-8 needs a copy because of the tokenizers library.
    """
    changed = {path: data for path in sorted(folder.glob("*.json")) if path.is_file() and (data := _cleaned(path))}
    if not changed and not any("\ud800" <= letter <= "\udfff" for letter in str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="bitwright-") as made:
        for path in folder.iterdir():
            if path in changed:
                (Path(made) / path.name).write_bytes(changed[path])
            elif path.is_file() and path.suffix in (".json", ".jinja", ".model", ".txt"):
                shutil.copyfile(path, Path(made) / path.name)
        yield Path(made)


def _cleaned(path: Path) -> bytes | None:
    """Return the content of a JSON file without byte-order mark and `auto_map`; None if it has neither."""
    try:
        with path.open("rb") as stream:
            marked = stream.read(3) == codecs.BOM_UTF8
        if path.name in ("config.json", "tokenizer_config.json"):
            value = read_json(path)
            if isinstance(value, dict) and "auto_map" in value:
                return json.dumps({key: item for key, item in value.items() if key != "auto_map"}).encode("utf-8")
        return path.read_bytes()[3:] if marked else None
    except OSError as error:
        raise CorruptFile(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from error


def _check_files(folder: Path) -> None:
    """Reject files for which other libraries would need minutes or gigabytes, or would load something else."""
    for name in _FILES:
        path = folder / name
        if path.is_symlink() and not path.exists():
            raise CorruptFile(f"{path} is a broken symbolic link.", "Download the file that it points to.")
        if not path.is_file():
            continue
        check_content(path)
        if path.stat().st_size > MAX_BYTES:
            raise UnsupportedModel(
                f"{path} has {path.stat().st_size >> 20} MB, which exceeds any known tokenizer.", "Check the file."
            )
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        if (folder / name).is_file() and not isinstance(read_json(folder / name), dict):
            raise CorruptFile(f"{folder / name} is not a JSON object.", "Download the file again.")
    if (folder / "tokenizer.json").is_file():
        _check_numbers(folder / "tokenizer.json")
    elif (folder / "tokenizer.model").is_file():
        _check_sentencepiece(folder / "tokenizer.model")


def _needs_code(folder: Path) -> bool:
    """Return whether the tokenizer has no tokenizer.json and a class that is only defined in code of the model."""
    path = folder / "tokenizer_config.json"
    settings = read_json(path) if path.is_file() and not (folder / "tokenizer.json").is_file() else {}
    if not isinstance(settings.get("auto_map"), dict) or "AutoTokenizer" not in settings["auto_map"]:
        return False
    import transformers

    return not hasattr(transformers, str(settings.get("tokenizer_class")))


def _check_numbers(path: Path) -> None:
    """Raise UnsupportedModel for a tokenizer.json with too many tokens or too large token ids.

    Searches for numbers with a regular expression; parsing the file would need ten times its size in memory.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorruptFile(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from error
    for count, found in enumerate(_NUMBERED.finditer(data), 1):
        if count > MAX_TOKENS or len(found[1]) > _MAX_DIGITS:
            what = f"more than {MAX_TOKENS} tokens" if count > MAX_TOKENS else f"the number {found[1][:20].decode()}"
            raise UnsupportedModel(f"{path} has {what}, which exceeds any known tokenizer.", "Check the file.")


def _check_sentencepiece(path: Path) -> None:
    """Raise MissingDependency if a tokenizer.model without tokenizer.json needs libraries that are not installed.

    transformers would report another library as missing.
    """
    with path.open("rb") as stream:
        kind = "SentencePiece's" if stream.read(1) == b"\n" else "tiktoken's"
    wanted = {"sentencepiece": "sentencepiece", "google.protobuf": "protobuf"}
    if kind != "SentencePiece's":
        wanted = {"tiktoken": "tiktoken"}
    missing = [package for module, package in wanted.items() if not _is_installed(module)]
    if missing:
        raise MissingDependency(
            f"{path.parent} has no tokenizer.json, and {kind} tokenizer.model needs {' and '.join(missing)}.",
            f"Add tokenizer.json to that folder, or run: python -m pip install {' '.join(missing)}",
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False
