"""The coverage table as a page of the guide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import transformers

from tests.coverage.kinds import CLASSES, DRAFT, ENCODER, HALF, TEXT, kind_of, text_type
from tests.coverage.measure import CHAIN, CLOSE, NOT_MADE, REFUSED, TOKENS, VERIFIED
from tests.coverage.multimodal_models import CLASSES as MULTIMODAL_CLASSES

_HEAD = """# Supported architectures

This table is written by `python -m tests.coverage.architectures`, which builds a tiny random model of every class
in the causal language models of transformers {version}, and quantizes it. The sizes of the models differ wherever the
class allows it, experts have different weights, and every kind of block of the full-size model occurs.

**Verified** means, for the tiny model:

- The blocks, run one by one on two rows of {tokens} tokens, have the hidden states of the whole model within {chain:g}
  (relative, in 32-bit floats). The rows are longer than sliding windows and the chunks of recurrent layers.
- Rounded to 8 bits in groups of 32, the logits are close to the source's: mean Kullback-Leibler divergence below
  {close:g} nats. A swapped or transposed weight gives 0.5 to 1.
- The written checkpoint is read with equal weights by another program: auto-round 0.16.1 with transformers, or, where
  that does not read the class, transformers alone after our reader has dequantized it.
- Generation token by token gives the logits of one pass, if that is so with transformers itself.

The last column is the result of auto-round 0.16.1 for the same model, with the same settings and without tuning; its
output is read in another process.

{totals}
"""
_MULTIMODAL = """## Multimodal models

This table is written by `python -m tests.coverage.multimodal`, for every class in the multimodal language models of
transformers {version}. Their language model is quantized; vision and audio towers, projectors and modules that predict
further tokens are copied. **Verified** means, for a tiny random model with 4 bits in groups of 32:

- The blocks, run one by one, have the hidden states of the whole model; generation token by token gives the logits of
  one pass.
- The logits for text, and for text with a picture where a processor works without torchvision, are those of
  transformers' own model filled with the dequantized weights, within {chain:g} (relative).
- The written checkpoint is read with equal weights by auto-round 0.16.1 with transformers, or, where that does not
  read the class, by transformers alone after our reader has dequantized it.
- Every tensor outside the language model is byte by byte that of the source, as are the files of the tokenizer and the
  processor, and the processor loads from the output.

{totals}

The last column is the result of auto-round 0.16.1 for the same model, in 8 bits and without tuning, for some families;
its output is read by transformers in another process. Here auto-round needs torchvision for the processors of several
families.

| model type | class | result | picture | read back by | auto-round |
|---|---|---|---|---|---|
"""
_NEXT = "## Encoders"
_MARKS = {"": "not measured", VERIFIED: "verified", REFUSED: "refused", NOT_MADE: "cannot be built"}


def markdown(rows: Mapping[str, Mapping[str, Any]], multimodal: str) -> str:
    """Return the page, with the section of multimodal models as it is."""
    types = {name: kind_of(name) for name in CLASSES}
    texts = [name for name in rows if types.get(name.partition(" ")[0]) == TEXT]
    made = [rows[name] for name in texts if rows[name].get("verdict", NOT_MADE) != NOT_MADE]
    counts = Counter(row.get("verdict") for row in made)
    peers = Counter((rows[name].get("peer") or {}).get("verdict") for name in texts)
    totals = (
        f"Of {len(made)} text decoders and variants that transformers can build, {counts[VERIFIED]} are verified, "
        f"{counts[REFUSED]} are refused"
        + (
            f" and {len(made) - counts[VERIFIED] - counts[REFUSED]} fail. "
            if len(made) > counts[VERIFIED] + counts[REFUSED]
            else ". "
        )
        + f"auto-round: {', '.join(f'{number} {verdict}' for verdict, number in peers.most_common() if verdict)}."
    )
    page = [_HEAD.format(version=transformers.__version__, tokens=TOKENS, chain=CHAIN, close=CLOSE, totals=totals)]
    page.append("## Text decoders\n")
    page.append("| model type | class | result | chain | 8 bits | read back by | auto-round |")
    page.append("|---|---|---|---|---|---|---|")
    page += [_text_row(name, rows[name]) for name in sorted(texts)]
    page += ["", multimodal.rstrip()]
    for kind, title in (
        (ENCODER, "Encoders"),
        (HALF, "Halves of encoder-decoders"),
        (DRAFT, "Draft models"),
    ):
        page += ["", f"## {title}", "", "| model type | class | result |", "|---|---|---|"]
        page += [_other_row(name, rows.get(name, {})) for name in types if types[name] == kind]
    return "\n".join(page) + "\n"


def multimodal_section(page: str) -> str:
    """Return the section of multimodal models of the page."""
    return page[page.index("## Multimodal models") : page.index(_NEXT)]


def with_multimodal(page: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page with a new section of multimodal models."""
    made = [row for row in rows.values() if row.get("verdict", NOT_MADE) != NOT_MADE]
    counts = Counter(row.get("verdict") for row in made)
    pictures = sum(row.get("picture") is not None for row in made)
    peers = Counter((row.get("peer") or {}).get("verdict") for row in made)
    totals = (
        f"Of {len(made)} classes that transformers can build here, {counts[VERIFIED]} are verified, {pictures} of them "
        f"with a picture, {counts[REFUSED]} are refused and {len(made) - counts[VERIFIED] - counts[REFUSED]} fail. "
        f"auto-round, where it was run: "
        f"{', '.join(f'{number} {verdict}' for verdict, number in peers.most_common() if verdict)}."
    )
    head = _MULTIMODAL.format(version=transformers.__version__, chain=CHAIN, totals=totals)
    section = (
        head + "\n".join(_multimodal_row(name, rows.get(name, {})) for name in sorted(MULTIMODAL_CLASSES)) + "\n\n"
    )
    return page.replace(multimodal_section(page), section)


def _multimodal_row(name: str, row: Mapping[str, Any]) -> str:
    verdict = row.get("verdict", "")
    result = _MARKS.get(verdict, "fails")
    if verdict != VERIFIED and row.get("reason"):
        result += f": {_cell(row['reason'])[:250]}"
    picture = "" if row.get("picture") is None else "verified"
    reader = row.get("reader", "").partition(" (")[0]
    cells = [f"`{name}`", MULTIMODAL_CLASSES[name], result, picture, reader, _peer(row.get("peer") or {})]
    return "| " + " | ".join(cells) + " |"


def _text_row(name: str, row: Mapping[str, Any]) -> str:
    base, _, variant = name.partition(" ")
    verdict = row.get("verdict", "")
    result = _MARKS.get(verdict, "fails")
    if verdict != VERIFIED and row.get("reason"):
        result += f": {_cell(row['reason'])}"
    if row.get("note"):
        result += f"; {_cell(row['note'])}"
    label = f"`{base}`" + (f" ({variant})" if variant else "")
    reader = row.get("reader", "")
    cells = [label, CLASSES[base], result, _figure(row.get("chain")), _figure(row.get("divergence"))]
    return "| " + " | ".join([*cells, reader.partition(" (")[0], _peer(row.get("peer") or {})]) + " |"


def _other_row(name: str, row: Mapping[str, Any]) -> str:
    text = text_type(name)
    result = _cell(row.get("reason", ""))
    if text:
        result += f" Its language model is `{text}`."
    return f"| `{name}` | {CLASSES[name]} | {result} |"


def _peer(row: Mapping[str, Any]) -> str:
    reason = row.get("reason") or ""
    return row.get("verdict", "") + (f": {_cell(reason)[:90]}" if reason else "")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.1g}"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ").replace("<", "&lt;")
