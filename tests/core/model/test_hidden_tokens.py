"""Special tokens are hidden in answers, whichever file of the folder marks them as special."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from core.inference.generation.pieces import Pieces
from core.model.tokenizer import hidden_ids, load_tokenizer

MARK = 257


def save(folder: Path, inside: bool | None, beside: bool | None) -> Path:
    """Save a byte-level tokenizer with the token `<mark>`.

    Args:
        folder: to save to.
        inside: `special` in tokenizer.json; None to leave the token out of it.
        beside: `special` in tokenizer_config.json; None to leave the token out of it.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({"<eos>": 0} | {text: number + 1 for number, text in enumerate(letters)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(["<eos>"])
    if inside is not None:
        tokenizer.add_tokens([AddedToken("<mark>", special=inside, normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, object] = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>"}
    if beside is not None:
        settings["added_tokens_decoder"] = {str(MARK): {"content": "<mark>", "special": beside}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("inside", "beside", "hidden"),
    [(True, None, True), (None, True, True), (False, True, True), (True, False, True), (False, None, False)],
)
def test_a_token_is_hidden_if_either_file_marks_it_as_special(
    inside: bool | None, beside: bool | None, hidden: bool, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(save(tmp_path, inside, beside))
    assert hidden_ids(tokenizer) == ({0, MARK} if hidden else {0})
    pieces = Pieces(tokenizer)
    ids = tokenizer("a<mark>b", add_special_tokens=False)["input_ids"]
    assert "".join(map(pieces.feed, ids)) == ("ab" if hidden else "a<mark>b")
    assert "".join(map(pieces.feed, ids)) == tokenizer.decode(ids, skip_special_tokens=True)
