"""Measurements of one tiny model: block by block, rounded to 8 bits, read back, and generating token by token."""

from __future__ import annotations

import json
import statistics
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.pytorch_utils import Conv1D

from core import api
from core.conversion.joined_experts import join_experts
from core.errors import BitwrightError
from core.events import Done
from core.formats.dense_store import DenseStore
from core.formats.opened import open_checkpoint
from core.inference.devices import DtypeProbe
from core.inference.loader import load_model, load_runner, open_tree
from core.model.headers import TensorInfo
from core.model.skeleton import Skeleton, build_skeleton, without_timm
from core.model.tree import build_tree, read_tensors
from core.model.weights import TensorStore
from core.quant import prepare
from core.quant.proof import difference
from tests.core.model.block_by_block import run_blocks
from tests.core.tiny_architectures import make_model
from tests.coverage.kinds import CLASSES, TOWERS

TOKENS: Final = 150
"""Tokens of a row: longer than the sliding windows (24) and than two chunks (64) of the recurrent layers."""
PROMPT: Final = TOKENS - 12
"""Tokens of the prompt of the generation."""
SHARED: Final = 8
"""Equal tokens at the start of both rows."""
CHAIN: Final = 1e-4
"""Largest relative difference of a hidden state between the chain of blocks and the whole model, in fp32."""
ROUNDING: Final = 0.01
"""Largest relative difference of a parameter, or of one expert: 8 bits in groups of 32 make 0.005."""
CLOSE: Final = 0.15
"""Largest Kullback-Leibler divergence of 8-bit logits from the source's, in nats: a wrong layout makes 0.5 to 1.

Rounding makes 0.0003 in dense models. Where tokens choose experts or keys to attend to, it changes choices between
almost equal scores, which makes up to 0.1 in models this small; `ROUNDING` is the exact check.
"""
EQUAL: Final = 0.02
"""Largest divergence of two readers of equal weights, of which one computes in fp16."""
STEPS: Final = 0.03
"""Largest relative difference of logits between generation token by token and one pass, with 8-bit weights."""
VERIFIED, REFUSED, FAILED, NOT_MADE = "verified", "refused", "failed", "cannot be built"


@dataclass
class Row:
    """The result for one model.

    Attributes:
        name: model type, or a variant of it.
        verdict: `VERIFIED`, `REFUSED`, `FAILED` or `NOT_MADE`.
        reason: of a refusal or a failure.
        chain, weights, divergence, chat: largest differences; None if they were not measured.
        reader: the reader of the output.
        layers: number of quantized layers that this reader has read with equal weights.
        note: on a verified model, what transformers itself computes differently.
        problems: everything that differs, one sentence each.
    """

    name: str
    verdict: str = FAILED
    reason: str = ""
    chain: float | None = None
    weights: float | None = None
    divergence: float | None = None
    chat: float | None = None
    reader: str = ""
    layers: int = 0
    note: str = ""
    problems: list[str] = field(default_factory=list)


def measure(name: str, folder: Path) -> Row:
    """Build the model `name` in `folder`, which must be empty, and measure it."""
    source, output = folder / "source", folder / "output"
    row = Row(name)
    try:
        make_model(name, source)
        model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    except Exception as error:  # noqa: BLE001 - transformers cannot build everything that it lists
        row.verdict, row.reason = NOT_MADE, one_line(error)
        return row
    reason = refusal(source)
    if reason:
        row.verdict, row.reason = REFUSED, reason
        return row
    expected = logits(model, rows(source))
    step(row, "chain", lambda: measure_chain(row, source, model))
    quantized = step(row, "quantize", lambda: _quantize(source, output))
    if quantized == "":
        step(row, "output", lambda: _measure_output(row, source, output, model, expected))
        step(row, "chat", lambda: measure_chat(row, source, output, model))
        step(row, "reader", lambda: _read_back(row, output))
    elif not quantized.startswith("crash"):
        row.problems.clear()
        row.verdict, row.reason = REFUSED, quantized
        return row
    row.verdict = FAILED if row.problems else VERIFIED
    row.reason = "; ".join(row.problems)
    return row


def refusal_of(model_type: str) -> Row:
    """Return the result for a model that is not a text decoder: its released config must be refused."""
    parts = getattr(CONFIG_MAPPING[model_type], "sub_configs", None) or {}
    parts = {key: {"hidden_size": 8} for key in parts if key.startswith(TOWERS)}
    config = {"architectures": [CLASSES[model_type]], "model_type": model_type, "vocab_size": 64, **parts}
    names = ["embed_tokens.weight", "layers.0.self_attn.q_proj.weight", "layers.0.mlp.up_proj.weight"]
    tensors = {f"model.{name}": TensorInfo(f"model.{name}", "BF16", (64, 64), "model", 0, 8192) for name in names}
    reason = build_tree(config, tensors).refusal
    return Row(model_type, REFUSED if reason else FAILED, reason or "not refused")


def rows(source: Path) -> Tensor:
    """Return two rows of tokens that start equal, int64 [2, TOKENS]."""
    size = json.loads((source / "config.json").read_text(encoding="utf-8")).get("vocab_size", 257)
    tokens = torch.randint(1, min(size, 257), (2, TOKENS), generator=torch.Generator().manual_seed(11))
    tokens[1, :SHARED] = tokens[0, :SHARED]
    return tokens


def divergence(expected: Tensor, found: Tensor) -> float:
    """Return the mean Kullback-Leibler divergence of the predictions, in nats; infinity if it is not a number."""
    one, two = expected.float().log_softmax(-1), found.float().log_softmax(-1)
    value = float((one.exp() * (one - two)).sum(-1).mean())
    return value if value == value else float("inf")


def step(row: Row, what: str, work: Callable[[], None]) -> str:
    """Run a step and return its refusal, its crash, or ""; both are problems of the row."""
    try:
        work()
    except BitwrightError as error:
        crashed = error.code in ("internal", "child-died")
        text = f"{'crash: ' if crashed else ''}{error.message} {error.hint}".strip()
    except Exception as error:  # noqa: BLE001 - a crash is what is looked for
        traceback.print_exc()
        text = f"crash: {one_line(error)}"
    else:
        return ""
    row.problems.append(f"{what}: {text}")
    return text


def one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:300]


def refusal(source: Path) -> str:
    try:
        return api.inspect(source, bits=8, group_size=32).tree.refusal
    except BitwrightError as error:
        return f"{error.message} {error.hint}"


def logits(model: Any, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=tokens, use_cache=False).logits
    return found.float()


def measure_chain(row: Row, source: Path, model: Any) -> None:
    """Compare the output of every block of the chain, and the logits, with the whole model's."""
    tokens = rows(source)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    skeleton = build_skeleton(build_tree(config, read_tensors(source, config)), TensorStore(source))
    states: dict[int, Tensor] = {}

    def keep(block: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            states[block] = output if isinstance(output, Tensor) else output[0]

        return hook

    hooks = [
        module.register_forward_hook(keep(block)) for block, module in enumerate(model.get_submodule(skeleton.stack))
    ]
    expected = logits(model, tokens)
    for hook in hooks:
        hook.remove()
    for block in range(1, len(hooks)):
        states.setdefault(block, states[block - 1])  # a block that the model skips
    row.chain = max(_block_differences(skeleton, tokens, states, expected))
    if not row.chain <= CHAIN:
        row.problems.append(f"the chain of blocks differs from the model by {row.chain:.2g}")


def _block_differences(
    skeleton: Skeleton, tokens: Tensor, states: dict[int, Tensor], expected: Tensor
) -> Iterator[float]:
    """Yield the differences of the outputs of the blocks, run one by one, and of the logits."""
    for block, (_, found) in enumerate(run_blocks(skeleton, tokens)):
        yield difference(found, states.get(block, expected))


def _quantize(source: Path, output: Path) -> None:
    setattr(prepare, "probe_dtype", lambda device: DtypeProbe("float32", {}, 0.0))  # noqa: B010 - not measured here
    blocks, last = 0, None
    try:
        for event in api.quantize(
            source, output, recipe="rtn", samples=4, seqlen=32, bits=8, group_size=32, device="cpu", inline=True
        ):
            blocks += type(event).__name__ == "BlockStarted"
            last = event
    except BitwrightError as error:
        if blocks and error.code not in ("internal", "child-died"):
            raise RuntimeError(f"refused after {blocks} blocks: {error.message}") from error
        raise
    assert isinstance(last, Done)


def _measure_output(row: Row, source: Path, output: Path, model: Any, expected: Tensor) -> None:
    """Compare every parameter of transformers' model, filled by our reader, with the source's, and the logits."""
    found = load_model(str(output), "cpu", "float32").model
    own = dict(found.named_parameters())
    for name, parameter in model.named_parameters():
        if isinstance(model.get_submodule(name.rpartition(".")[0]), Conv1D):  # replaced by a layer with [out, in]
            parameter = parameter.T if parameter.dim() == 2 else parameter
        row.weights = max(row.weights or 0.0, apart_from(own[name].float(), parameter))
        if not row.weights <= ROUNDING:
            row.problems.append(f"{name} of the output differs from the source by {row.weights:.2g}")
            break
    row.divergence = divergence(expected, logits(found, rows(source)))
    if not row.divergence <= CLOSE:
        row.problems.append(f"the 8-bit logits differ: {row.divergence:.2g} nats")


def apart_from(found: Tensor, expected: Tensor) -> float:
    """Return the relative difference of a parameter, the largest of all experts for a parameter of several."""
    if found.shape != expected.shape:
        return float("inf")
    if expected.dim() < 3:
        found, expected = found[None], expected[None]
    size = expected.flatten(1).norm(dim=1).clamp_min(1e-9)
    return float(((found - expected).flatten(1).norm(dim=1) / size).max())


def _read_back(row: Row, output: Path) -> None:
    """Read the output with auto-round, or with transformers after dequantizing, and compare weights and logits."""
    tokens = rows(output)
    expected = logits(load_model(str(output), "cpu", "float32").model, tokens)
    apart = difference(logits(dequantized(output, output.parent / "plain"), tokens), expected)
    read_by_auto_round(row, output, expected, transformers.AutoModelForCausalLM)
    if not apart <= CHAIN:
        row.problems.append(f"transformers reads other weights than our reader: logits differ by {apart:.2g}")


def read_by_auto_round(row: Row, output: Path, expected: Tensor, factory: Any) -> None:
    """Read the output with transformers and auto-round, compare weights and logits, and note the reader.

    auto-round replaces functions and classes of transformers, so this is the last measurement of a process.
    """
    tokens = rows(output)
    why = ""
    try:
        peer = factory.from_pretrained(output, dtype=torch.float16, device_map="cpu").eval()
        row.layers, why = _equal_layers(peer, output)
        found = logits(peer, tokens)
    except Exception as error:  # noqa: BLE001 - auto-round reads some classes only
        why = one_line(error)
    if not why:
        row.reader = "auto-round"
        other = divergence(expected, found)
        why = "" if other <= EQUAL else f"its logits differ by {other:.2g} nats"
    if why:
        row.layers = len(open_checkpoint(output).schemes)
        row.reader = f"transformers (auto-round: {why})"


def _equal_layers(peer: Any, output: Path) -> tuple[int, str]:
    """Return the number of layers with equal weights in auto-round's model, and the first difference, or ""."""
    checkpoint = open_checkpoint(output)
    modules = dict(peer.named_modules())
    count = 0
    for name in checkpoint.schemes:
        layer = checkpoint.layer(name).dequantize()
        places = (own for own in (name, *modules) if own == name or own.endswith(_inside(name)))
        found_in = (modules[own] for own in places if own in modules and hasattr(modules[own], "qweight"))
        module = next(found_in, None)
        if module is None or not hasattr(module, "qweight"):
            return count, f"{name} is not a quantized layer of its model"
        bias, module.bias = module.bias, None
        with torch.no_grad():
            found = module(torch.eye(layer.shape[1], dtype=torch.float16)).T
        module.bias = bias
        if found.shape != layer.shape or not torch.equal(found, layer.half()):
            return count, f"{name} has other weights"
        count += 1
    return count, ""


def _inside(name: str) -> str:
    """Return the name of a layer from the block number on."""
    parts = name.split(".")
    place = next((i for i, part in enumerate(parts) if part.isdigit()), 0)
    return "." + ".".join(parts[max(0, place - 1) :])


def dequantized(output: Path, folder: Path, factory: Any = transformers.AutoModelForCausalLM) -> Any:
    """Return transformers' model of a checkpoint that is dequantized by our reader into the layout of its names."""
    checkpoint = open_checkpoint(output)
    tree, dense = open_tree(checkpoint), DenseStore(checkpoint)
    skeleton = build_skeleton(tree, dense)
    _, store = join_experts(skeleton.model, tree, dense)
    modules = dict(skeleton.model.named_modules())
    flipped = {
        f"{name}.weight"
        for name in checkpoint.schemes
        if isinstance(modules.get(skeleton.module_name(name)), Conv1D)  # stored as [in, out]
    }
    folder.mkdir()
    tensors = {name: store.get(name) for name in store.table}
    tensors = {name: (value.T if name in flipped else value).contiguous() for name, value in tensors.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((output / "config.json").read_text(encoding="utf-8"))
    config.pop("quantization_config", None)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with without_timm():
        model, info = factory.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    missing = [*info["missing_keys"], *info["mismatched_keys"]]
    if missing:
        raise ValueError(f"transformers does not find {missing[0]}")
    return model.eval()


def measure_chat(row: Row, source: Path, output: Path, model: Any) -> None:
    """Compare the logits of generation, a long prompt and then token by token, with those of one pass."""
    tokens = rows(output)
    ids = tokens[0].tolist()
    expected = logits(load_model(str(output), "cpu", "float32").model, tokens[:1])[0]
    runner = load_runner(str(output), "cpu", dtype="float32").runner
    found = [runner.extend(ids[:PROMPT]), *(runner.extend([token]) for token in ids[PROMPT:])]
    runner.close()
    row.chat = _largest(found, expected)
    if row.chat <= STEPS:
        return
    own = _largest(_with_cache(model, tokens[:1]), logits(model, tokens[:1])[0])
    if own > STEPS:
        row.note = f"with a cache, the logits of transformers' own model differ by {own:.2g} from those of one pass"
    elif _largest(found, expected, median=True) > STEPS or _generated(source, tokens) > CHAIN:
        row.problems.append(f"token by token, the logits of the output differ by {row.chat:.2g}")


def _generated(source: Path, tokens: Tensor) -> float:
    """Return the largest relative difference of generation with the source, whose weights are not rounded.

    The products of quantized layers are less exact, which changes some choices of experts and of keys.
    """
    runner = load_runner(str(source), "cpu", dtype="float32").runner
    ids = tokens[0].tolist()
    found = [runner.extend(ids[:PROMPT]), *(runner.extend([token]) for token in ids[PROMPT:])]
    runner.close()
    return _largest(found, logits(load_model(str(source), "cpu", "float32").model, tokens[:1])[0])


def _with_cache(model: Any, tokens: Tensor) -> list[Tensor]:
    """Return the logits of transformers' model after the prompt and after each further token."""
    with torch.no_grad():
        out = model(input_ids=tokens[:, :PROMPT], use_cache=True)
        found = [out.logits[0, -1]]
        for place in range(PROMPT, TOKENS):
            out = model(input_ids=tokens[:, place : place + 1], past_key_values=out.past_key_values, use_cache=True)
            found.append(out.logits[0, -1])
    return found


def _largest(found: list[Tensor], expected: Tensor, *, median: bool = False) -> float:
    """Return the largest, or the median, relative difference of the logits after the prompt and each further token."""
    pairs = zip(found, expected[PROMPT - 1 :], strict=True)
    apart = [float((one.float() - two).norm() / two.norm().clamp_min(1e-9)) for one, two in pairs]
    return statistics.median(apart) if median else max(apart)
