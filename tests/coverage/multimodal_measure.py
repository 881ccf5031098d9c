"""Measurements of one tiny multimodal model: its language model is quantized, everything else must stay as it is."""

from __future__ import annotations

import filecmp
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from safetensors import safe_open
from torch import Tensor

from core import api
from core.events import Done
from core.formats.opened import open_checkpoint
from core.inference.devices import DtypeProbe
from core.inference.loader import load_model
from core.model.skeleton import without_timm
from core.quant import prepare
from core.quant.proof import difference
from tests.coverage.measure import (
    CHAIN,
    FAILED,
    NOT_MADE,
    REFUSED,
    VERIFIED,
    Row,
    apart_from,
    dequantized,
    divergence,
    logits,
    measure_chain,
    measure_chat,
    one_line,
    read_by_auto_round,
    refusal,
    rows,
    step,
)
from tests.coverage.multimodal_models import make_model
from tests.coverage.multimodal_processors import picture_inputs

ROUNDING: Final = 0.5
"""Largest relative difference of a parameter, or of one expert: 4 bits in groups of 32 make 0.1, a wrong layout 1.4."""
_WEIGHTS: Final = (".safetensors", "model.safetensors.index.json")


@dataclass
class MultimodalRow(Row):
    """The result for one multimodal model.

    Attributes:
        picture: largest relative difference of logits with a picture; None if there are none to compare.
        processor: the AutoProcessor of the output: `loads`, `` if that of the source does not load either.
        copied: number of tensors that are byte by byte those of the source.
    """

    picture: float | None = None
    processor: str = ""
    copied: int = 0


def measure_multimodal(name: str, folder: Path) -> MultimodalRow:
    """Build the model `name` in `folder`, which must be empty, and measure it."""
    source, output = folder / "source", folder / "output"
    row = MultimodalRow(name)
    try:
        make_model(name, source)
        model = language_model(source)
    except Exception as error:  # noqa: BLE001 - some classes need packages that are not installed
        row.verdict, row.reason = NOT_MADE, one_line(error)
        return row
    reason = refusal(source)
    if reason:
        row.verdict, row.reason = REFUSED, reason
        return row
    quantized = step(row, "quantize", lambda: _quantize(source, output))
    if quantized and not quantized.startswith("crash"):
        row.problems.clear()
        row.verdict, row.reason = REFUSED, quantized
        return row
    if not quantized:
        step(row, "chain", lambda: measure_chain(row, source, model))
        step(row, "output", lambda: _measure_output(row, source, output, model))
        step(row, "copies", lambda: _compare_tensors(row, source, output))
        step(row, "files", lambda: _compare_files(row, source, output))
        step(row, "chat", lambda: measure_chat(row, source, output, model))
        step(row, "reader", lambda: _read_back(row, output))
    row.verdict = FAILED if row.problems else VERIFIED
    row.reason = "; ".join(row.problems)
    return row


def language_model(folder: Path) -> Any:
    """Return transformers' own model of a folder, in float32."""
    with without_timm():
        return LanguageModel.from_pretrained(folder, dtype=torch.float32).eval()


class LanguageModel:
    """The auto class for the language model of a folder: in Qwen's Omni models the thinker, which alone can be run."""

    @staticmethod
    def from_pretrained(folder: Path, **options: Any) -> Any:
        """Return transformers' model; the options are those of `from_pretrained` of transformers."""
        config = transformers.AutoConfig.from_pretrained(folder)
        load: Any = transformers.AutoModelForMultimodalLM.from_pretrained
        return load(folder, config=getattr(config, "thinker_config", config), **options)


def _quantize(source: Path, output: Path) -> None:
    setattr(prepare, "probe_dtype", lambda device: DtypeProbe("float32", {}, 0.0))  # noqa: B010 - not measured here
    options: dict[str, Any] = {"samples": 4, "seqlen": 64, "iters": 2, "bits": 4, "group_size": 32, "device": "cpu"}
    last = None
    for event in api.quantize(source, output, recipe="light", inline=True, **options):
        last = event
    assert isinstance(last, Done)


def _measure_output(row: MultimodalRow, source: Path, output: Path, model: Any) -> None:
    """Compare parameters with the source's, and the logits of two readers of the output, with and without a picture."""
    found = load_model(str(output), "cpu", "float32").model
    own = dict(found.named_parameters())
    for name, parameter in model.named_parameters():
        if not own[name].is_meta:  # towers are loaded when they are called
            row.weights = max(row.weights or 0.0, apart_from(own[name].float(), parameter))
            if not row.weights <= ROUNDING:
                row.problems.append(f"{name} of the output differs from the source by {row.weights:.2g}")
                return
    other = dequantized(output, output.parent / "plain", LanguageModel)
    tokens = rows(source)
    expected = logits(other, tokens)
    row.divergence = divergence(logits(model, tokens), expected)
    apart = difference(logits(found, tokens), expected)
    if not apart <= CHAIN:
        row.problems.append(f"transformers reads other weights than our reader: logits differ by {apart:.2g}")
    inputs = _inputs(model, source)
    if inputs is not None:
        expected = _picture_logits(other, inputs)
        row.picture = difference(_picture_logits(found, inputs), expected)
        if not row.picture <= CHAIN:
            row.problems.append(f"with a picture, the logits differ by {row.picture:.2g}")
        if difference(_picture_logits(model, inputs), expected) == 0:
            row.problems.append("with a picture, the logits are those of the source")


def _read_back(row: MultimodalRow, output: Path) -> None:
    expected = logits(load_model(str(output), "cpu", "float32").model, rows(output))
    read_by_auto_round(row, output, expected, transformers.AutoModelForMultimodalLM)


def _inputs(model: Any, source: Path) -> dict[str, Any] | None:
    """Return the inputs for a text with a picture; None if the model does not read pictures in this environment."""
    try:
        inputs = picture_inputs(model, source)
        _picture_logits(model, inputs)
    except Exception as error:  # noqa: BLE001 - see `picture_inputs`
        warnings.warn(f"no picture: {one_line(error)}", stacklevel=2)
        return None
    return inputs


def _picture_logits(model: Any, inputs: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(**{key: value for key, value in inputs.items() if key != "labels"}).logits
    return found.float()


def _compare_tensors(row: MultimodalRow, source: Path, output: Path) -> None:
    """Find the tensors of the source that are not quantized, and compare them byte by byte."""
    quantized = set(open_checkpoint(output).schemes)
    towers = tuple(f"{tower.prefix}." for tower in api.inspect(source, bits=4, group_size=32).tree.towers)
    before, after = _tensors(source), _tensors(output)
    for name, (kind, data) in before.items():
        if name in after:
            same = after[name][0] == kind and torch.equal(after[name][1], data)
            if same:
                row.copied += 1
            elif len(kind[1]) > 1 or f"{name}.".startswith(towers):  # the run learns the norms of the language model
                row.problems.append(f"{name} is not a copy")
                return
        elif not _is_quantized(name, quantized):
            row.problems.append(f"{name} is missing")
            return


def _is_quantized(name: str, quantized: set[str]) -> bool:
    """Return whether a tensor is the weight of quantized layers; one that has all experts is divided into layers."""
    layer = name.removesuffix(".weight")
    return layer in quantized or any(other.startswith(f"{layer.rpartition('.')[0]}.") for other in quantized)


def _tensors(folder: Path) -> dict[str, tuple[Any, Tensor]]:
    """Return the type and the bytes of every tensor."""
    found: dict[str, tuple[Any, Tensor]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                tensor = file.get_tensor(name).contiguous()
                found[name] = ((tensor.dtype, tuple(tensor.shape)), tensor.flatten().view(torch.uint8))
    return found


def _compare_files(row: MultimodalRow, source: Path, output: Path) -> None:
    """Compare the files beside the weights, and load the processor."""
    for path in sorted(source.iterdir()):
        if path.name.endswith(_WEIGHTS) or path.name == "config.json":
            continue
        if not (output / path.name).is_file():
            row.problems.append(f"{path.name} is missing")
        elif not filecmp.cmp(path, output / path.name, shallow=False):
            row.problems.append(f"{path.name} is not a copy")
    before, after = (json.loads((folder / "config.json").read_text(encoding="utf-8")) for folder in (source, output))
    changed = _changed(before, after)
    if changed:
        row.problems.append(f"{changed} of config.json differs")
    if (source / "processor_config.json").is_file() and _loads(source):
        row.processor = "loads" if _loads(output) else "does not load"
        if row.processor != "loads":
            row.problems.append("the processor of the output does not load")


def _changed(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return the name of a setting that is not the same; a run may add settings."""
    for key, value in before.items():
        found = after.get(key)
        if isinstance(value, dict) and isinstance(found, dict):
            inside = _changed(value, found)
            if inside:
                return f"{key}.{inside}"
        elif value != found and key != "tie_word_embeddings":  # the tensors tell, where two parts of a config differ
            return key
    return ""


def _loads(folder: Path) -> bool:
    try:
        transformers.AutoProcessor.from_pretrained(folder)
    except Exception:  # noqa: BLE001 - some need packages that are not installed
        return False
    return True
