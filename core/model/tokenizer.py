"""The tokenizer of a model folder, without ever running code that came with it."""

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
"""Real vocabularies have up to 262,144 tokens; to load one of two million takes minutes and gigabytes."""

MAX_BYTES: Final = 96 << 20
"""Of a file; the tokenizers of 262,144 tokens have up to 40 MB."""

_MAX_DIGITS: Final = 9
"""Of a token's number; some readers fill the memory up to it."""

_LEGACY_TEMPLATE: Final = "chat_template.json"
"""Where models with processors had their template before chat_template.jinja; transformers' tokenizers pass it over."""

_FILES: Final = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt", "spiece.model")
_KINDS: Final = (".model", ".tiktoken", ".vocab", ".bpe")
"""Of other files that tokenizers are made from."""
_NUMBERED: Final = re.compile(rb'(?<!\\)":\s*(\d+)')
_TRIAL: Final = "Ab 1é\n\U0001f600世<"
"""Text with letters that small vocabularies do not have."""

END_MARKS: Final = frozenset({
    "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>",
    "<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "<EOT>", "_<EOT>", "<|EOT|>", "<end_of_utterance>", "<turn|>",
    "<|tool_response>", "<｜end▁of▁sentence｜>", "<|end_of_turn|>", "<|END_OF_TURN_TOKEN|>",
    "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
})  # fmt: skip
"""Texts of tokens that end an answer wherever a vocabulary has them (llama.cpp's src/llama-vocab.cpp keeps such a list,
ggml-org/llama.cpp#9606). Some models name only the end of a document, and would otherwise talk to themselves."""


def hidden_ids(tokenizer: Any) -> frozenset[int]:
    """Return the ids of the tokens that answers do not show.

    These are the special tokens that the tokenizer names, and those that only tokenizer.json or
    `added_tokens_decoder` of tokenizer_config.json marks as special. Where the two files contradict each other, one
    mark is enough: that is known by what the tokenizer leaves out itself.
    """
    added = tokenizer.added_tokens_decoder
    found = {*tokenizer.all_special_ids, *(number for number, token in added.items() if token.special)}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and (rest := [number for number in added if number not in found]):
        shown, all_ = (
            backend.decode_batch([[number] for number in rest], skip_special_tokens=skip) for skip in (True, False)
        )
        found.update(number for number, said, whole in zip(rest, shown, all_, strict=True) if whole and not said)
    return frozenset(found)


def load_tokenizer(folder: Path) -> Any:
    """Return the transformers tokenizer of a model folder.

    Raises:
        UnsupportedModel: there is none that transformers can read, or it is beyond any tokenizer known.
        MissingDependency: the file that there is needs a library that is not installed.
        CorruptFile: a file of it is damaged.
    """
    from transformers import AutoTokenizer

    _check_files(folder)
    told = f"The tokenizer in {folder} cannot be read"
    hint = "Fetch tokenizer.json and tokenizer_config.json of the model again."
    if not any(path.name in (*_FILES, "tokenizer_config.json") or path.suffix in _KINDS for path in folder.iterdir()):
        raise UnsupportedModel(
            f"There is no tokenizer in {folder}.",
            "Put tokenizer.json and tokenizer_config.json of the model into that folder.",
        )
    if _needs_code(folder):
        raise UnsupportedModel(
            f"The tokenizer in {folder} runs only with code that comes with the model, which Bitwright does not run.",
            "Put a tokenizer.json of the model beside it.",
        )
    with readable(folder) as place, translated(UnsupportedModel, told, hint):
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        tokenizer(_TRIAL, add_special_tokens=True)  # some find out only now that they have no token for a letter
    if tokenizer.chat_template is None and (folder / _LEGACY_TEMPLATE).is_file():
        value = read_json(folder / _LEGACY_TEMPLATE)
        found = value.get("chat_template") if isinstance(value, dict) else None
        tokenizer.chat_template = found if isinstance(found, str) else None
    return tokenizer


@contextmanager
def readable(folder: Path) -> Iterator[Path]:
    """Give a folder whose JSON files other libraries can read, for as long as the block runs.

    It is `folder` itself; or, where a file begins with a byte-order mark or names code that comes with the model, which
    transformers would ask to run though it has classes of its own, a copy of the small files without those. A path that
    is not UTF-8, which the tokenizers library does not take, is replaced by such a copy as well.
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
    """Return the text of a JSON file without mark and without the names of code; None where it has neither."""
    try:
        with path.open("rb") as stream:
            marked = stream.read(3) == codecs.BOM_UTF8
        if path.name in ("config.json", "tokenizer_config.json"):
            value = read_json(path)
            if isinstance(value, dict) and "auto_map" in value:
                return json.dumps({key: item for key, item in value.items() if key != "auto_map"}).encode("utf-8")
        return path.read_bytes()[3:] if marked else None
    except OSError as error:
        raise CorruptFile(f"{path} cannot be read: {error.strerror}.", "Check its rights.") from error


def _check_files(folder: Path) -> None:
    """Refuse what other libraries would take minutes, gigabytes or a wrong guess for."""
    for name in _FILES:
        path = folder / name
        if path.is_symlink() and not path.exists():
            raise CorruptFile(f"{path} is a broken symbolic link.", "Download the file that it points to.")
        if not path.is_file():
            continue
        check_content(path)
        if path.stat().st_size > MAX_BYTES:
            raise UnsupportedModel(
                f"{path} has {path.stat().st_size >> 20} MB, which is beyond any tokenizer known.", "Check the file."
            )
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        if (folder / name).is_file() and not isinstance(read_json(folder / name), dict):
            raise CorruptFile(f"{folder / name} is not a JSON object.", "Fetch the file again.")
    if (folder / "tokenizer.json").is_file():
        _check_numbers(folder / "tokenizer.json")
    elif (folder / "tokenizer.model").is_file():
        _check_sentencepiece(folder / "tokenizer.model")


def _needs_code(folder: Path) -> bool:
    """Return whether the tokenizer has neither files nor a class that transformers knows, but code of its own."""
    path = folder / "tokenizer_config.json"
    settings = read_json(path) if path.is_file() and not (folder / "tokenizer.json").is_file() else {}
    if not isinstance(settings.get("auto_map"), dict) or "AutoTokenizer" not in settings["auto_map"]:
        return False
    import transformers

    return not hasattr(transformers, str(settings.get("tokenizer_class")))


def _check_numbers(path: Path) -> None:
    """Refuse a tokenizer.json with too many tokens, or with numbers of tokens that are too large.

    Looks for what is numbered instead of parsing the file, which would take ten times its size.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorruptFile(f"{path} cannot be read: {error.strerror}.", "Check its rights.") from error
    for count, found in enumerate(_NUMBERED.finditer(data), 1):
        if count > MAX_TOKENS or len(found[1]) > _MAX_DIGITS:
            what = f"more than {MAX_TOKENS} tokens" if count > MAX_TOKENS else f"the number {found[1][:20].decode()}"
            raise UnsupportedModel(f"{path} has {what}, which is beyond any tokenizer known.", "Check the file.")


def _check_sentencepiece(path: Path) -> None:
    """Refuse a tokenizer.model without tokenizer.json where the libraries are missing that read one.

    transformers says then that another is missing.
    """
    with path.open("rb") as stream:
        kind = "SentencePiece's" if stream.read(1) == b"\n" else "tiktoken's"
    wanted = {"sentencepiece": "sentencepiece", "google.protobuf": "protobuf"}
    if kind != "SentencePiece's":
        wanted = {"tiktoken": "tiktoken"}
    missing = [package for module, package in wanted.items() if not _is_installed(module)]
    if missing:
        raise MissingDependency(
            f"{path.parent} has no tokenizer.json but {kind} tokenizer.model, which needs {' and '.join(missing)}.",
            f"Put its tokenizer.json beside it, or install: python -m pip install {' '.join(missing)}",
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it would be in
        return False
