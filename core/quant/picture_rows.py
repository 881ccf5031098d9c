"""Calibration samples with pictures: a conversation about a picture, filled up with text to the length of a sample.

The towers run once for each sample; afterwards only the arguments of the language model are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.calibration.pairs import PicturePair, read_pairs
from core.control import ShouldStop, check_stop
from core.errors import BadCalibration, BadInput, BitwrightError
from core.events import Emit, Log
from core.model.block_runner import LanguageCall, language_call
from core.model.chat_template import ChatTemplate
from core.model.processor import PictureProcessor, load_processor
from core.model.skeleton import Skeleton

SHARE = 2
"""One in this number of samples has pictures, if there are enough pairs."""


@dataclass(frozen=True)
class PictureRow:
    """A sample with pictures.

    Attributes:
        tokens: int64 [1, tokens].
        inputs: further arguments of the model's forward pass, from its processor.
    """

    tokens: Tensor
    inputs: Mapping[str, Tensor]


def picture_rows(
    path: Path, folder: Path, tokenizer: Any, text: Tensor, seed: int, emit: Emit, should_stop: ShouldStop
) -> list[PictureRow]:
    """Return the samples with pictures of a run.

    Args:
        path: of the pairs; see `core.calibration.pairs`.
        folder: of the model.
        tokenizer: of the model.
        text: samples of text, int64 [samples, tokens], whose first tokens fill up the samples with pictures.
        emit: receives a warning about pairs that were left out.

    Raises:
        BadCalibration: there are no pairs, or none fits into a sample.
        UnsupportedModel, MissingDependency: the model's processor cannot be used.
    """
    count = max(1, len(text) // SHARE)
    pairs = read_pairs(path, 2 * count, seed)
    processor, template = load_processor(folder, tokenizer), ChatTemplate(tokenizer)
    rows: list[PictureRow] = []
    problems: list[str] = []
    for pair in pairs:
        check_stop(should_stop)
        if len(rows) == count:
            break
        try:
            rows.append(_row(pair, processor, template, text[len(rows)]))
        except BitwrightError as error:
            problems.append(error.message)
    if not rows:
        hint = "Use a longer --seqlen or other pictures."
        raise BadCalibration(f"No pair of {path} can be used. {problems[0]}", hint)
    if problems:
        emit(Log("warning", f"{len(problems)} pairs of pictures and text were left out: {problems[0]}"))
    return rows


def _row(pair: PicturePair, processor: PictureProcessor, template: ChatTemplate, text: Tensor) -> PictureRow:
    """Return the sample of one pair.

    Raises:
        BadInput, CorruptFile: a picture cannot be opened, or does not fit into a sample.
    """
    found = processor.inputs(_prompt(pair, processor, template), [str(path) for path in pair.pictures])
    length, size = len(found.ids), len(text)
    if length > size:
        raise BadInput(
            f"The conversation about {pair.pictures[0].name} has {length} tokens, a sample has {size}.",
            "Use a longer --seqlen.",
        )
    ids = torch.tensor([found.ids])
    return PictureRow(torch.cat([ids, text[None, : size - length]], dim=1), found.sized(size))


def _prompt(pair: PicturePair, processor: PictureProcessor, template: ChatTemplate) -> str:
    """Return the text of a conversation, with a mark for each picture before the first question."""
    first = next(number for number, (role, _) in enumerate(pair.messages) if role == "user")
    sources = [str(path) for path in pair.pictures]
    messages = [
        {"role": role, "content": text, **({"pictures": sources} if number == first else {})}
        for number, (role, text) in enumerate(pair.messages)
    ]
    if template.text:
        return template.render(messages, {"add_generation_prompt": False}, picture_mark=processor.mark)
    return processor.mark * len(sources) + "\n".join(text for _, text in pair.messages)


def language_calls(
    skeleton: Skeleton, rows: Sequence[PictureRow], device: torch.device, step: Callable[[], None]
) -> Iterator[LanguageCall]:
    """Yield the arguments of the language model for each sample; the towers are loaded meanwhile.

    Args:
        step: called before each sample; raises after a request to stop.
    """
    with skeleton.with_towers(torch.float32, device):
        for row in rows:
            step()
            yield language_call(skeleton, row.tokens, row.inputs, device)
