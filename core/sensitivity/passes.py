"""Forward and backward pass of the calibration text through the whole model, one block at a time.

The forward pass stores the hidden states that enter each block in a file. The backward pass runs each block again with
gradients. So only one block is in memory at a time. Weights get no gradients: the effect of a layer's weights on the
loss follows from its inputs and the gradients of its outputs, which are captured.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from core.control import ShouldStop
from core.errors import Cancelled, CorruptFile
from core.model.block_runner import (
    BlockCall,
    BlockChain,
    OutputKey,
    block_input,
    capture,
    embedding_rows,
    fill_outside,
    first_inputs,
    logits,
    products_in,
)
from core.model.skeleton import Skeleton
from core.quant.activations import Activations
from core.quant.products import Product, ProductObserver
from core.quant.sample_activations import CarriedOutputs
from core.sensitivity.states import HiddenStates

_CHUNK = 128
"""Number of tokens whose logits are computed at once: those of a long text and a large vocabulary exceed a block."""


@dataclass(frozen=True)
class CapturedActivations:
    """The inputs of a linear layer and the gradients of its outputs.

    Attributes:
        inputs: [rows, in]: one row for each token of the text, or for each token that an expert got.
        gradients: Gradients of the summed loss with respect to the outputs, [rows, out]; empty without a backward
            pass.
        tokens: Number of tokens of the text.
    """

    inputs: Tensor
    gradients: Tensor
    tokens: int


@dataclass(frozen=True)
class Pass:
    """A block-by-block pass of a text through a model.

    Attributes:
        chain: The blocks of the model.
        tokens: int64 [samples, tokens].
        states: Inputs of each block by its number, then the outputs of the last block; filled by `forward`. Inputs and
            gradients of layers are stored in the same dtype.
        carried: Other outputs of blocks that later blocks need.
        calls: The call of each block, with its other arguments; empty if they vary with the text.
        device, dtype: Device and dtype of matrix products.
        batch: Number of samples per batch.
        step: Called after each block of each pass.
    """

    chain: BlockChain
    tokens: Tensor
    states: HiddenStates
    carried: CarriedOutputs
    calls: list[BlockCall]
    device: torch.device
    dtype: torch.dtype
    batch: int
    should_stop: ShouldStop
    step: Callable[[], None]

    @property
    def skeleton(self) -> Skeleton:
        """The model."""
        return self.chain.skeleton

    def slices(self) -> Iterator[slice]:
        """Return the slices of the samples, one per batch."""
        return (slice(start, start + self.batch) for start in range(0, len(self.tokens), self.batch))

    def hidden(self, block: int, part: slice) -> Tensor:
        """Return the hidden states that enter a block, as the blocks take them."""
        return self.chain.rows_back(self.states.read(block, part, self.device))

    def needed(self, block: int, part: slice) -> dict[OutputKey, Tensor]:
        """Return the outputs of earlier blocks that a block needs."""
        return self.carried.read(self.chain, block, part, self.device)

    def outputs(
        self, block: int, part: slice, module: nn.Module, hidden: Tensor, needed: Mapping[OutputKey, Tensor]
    ) -> list[Tensor]:
        """Run a block, and return all tensors that it hands on."""
        call = None if self.chain.varies else self.calls[block]
        if call is None:
            hidden, call = block_input(self.chain, block, self.tokens[part], hidden, needed)
        with products_in(self.dtype, self.device):
            return call.outputs(module, hidden)

    def keep(self, block: int, part: slice, outputs: list[Tensor]) -> None:
        """Store the outputs of a block: its hidden states, and what later blocks need."""
        self.states.write(block + 1, part, self.chain.rows_first(outputs[0]))
        self.carried.write(self.chain, block, part, outputs)


@contextlib.contextmanager
def open_pass(
    chain: BlockChain,
    tokens: Tensor,
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    batch: int,
    should_stop: ShouldStop,
    step: Callable[[], None],
) -> Iterator[Pass]:
    """Open a pass and compute the inputs of the first block.

    Args:
        tokens: int64 [samples, tokens].
        folder: Folder for the file of hidden states.
        dtype: Dtype of matrix products; the residual stream is float32.
        batch: Number of samples per batch.
        step: Called after each block of each pass.
    """
    skeleton = chain.skeleton
    fill_outside(skeleton, torch.float32, device)
    kept = torch.float32 if dtype == torch.float32 else torch.bfloat16  # fp16 has too little range for gradients
    with contextlib.ExitStack() as opened:
        opened.enter_context(embedding_rows(skeleton, torch.float32, device))
        calls = [] if chain.varies else capture(chain, tokens[:1], device)
        one = chain.rows_first(first_inputs(skeleton, tokens[:1], device))
        states = opened.enter_context(HiddenStates((len(tokens), *one.shape[1:]), kept, folder))
        carried = CarriedOutputs(len(tokens), kept, lambda key: folder / f"outputs-{key.block}-{key.leaf}.cache")
        model_pass = Pass(chain, tokens, states, carried, calls, device, dtype, batch, should_stop, step)
        for part in model_pass.slices():
            states.write(0, part, chain.rows_first(first_inputs(skeleton, tokens[part], device)))
        yield model_pass


def forward(model_pass: Pass, visit: Callable[[Mapping[str, CapturedActivations]], None] | None = None) -> None:
    """Compute the outputs of every block and store them in the states.

    Args:
        visit: Called with the inputs of the linear layers of each block, by their names in the checkpoint, without
            gradients.
    """
    for block in range(model_pass.skeleton.tree.blocks):
        with _loaded_block(model_pass, block) as module, torch.no_grad():
            gathered: dict[str, list[tuple[Tensor, Tensor]]] = {}
            for part in model_pass.slices():
                _check_stop(model_pass)
                hidden, needed = model_pass.hidden(block, part), model_pass.needed(block, part)
                with _observed(model_pass, block) as products:
                    outputs = model_pass.outputs(block, part, module, hidden, needed)
                model_pass.keep(block, part, outputs)
                if visit is not None:
                    _gather(model_pass, block, products, [], gathered)
            if visit is not None:
                visit(_concatenated(model_pass, gathered))
        model_pass.step()


def backward(
    model_pass: Pass, labels: Callable[[Tensor, Tensor], Tensor]
) -> Iterator[tuple[int, dict[str, CapturedActivations]]]:
    """Yield the number of each block, from the last to the first, with the captured activations of its linear layers.

    Args:
        labels: Function that returns the labels [tokens] from logits [tokens, vocabulary] and the next tokens [tokens],
            which are -1 after the last token. The loss is the sum of their negative log-likelihoods; labels of -1 are
            ignored.
    """
    gradients = _gradients_at_head(model_pass, labels)
    for block in range(model_pass.skeleton.tree.blocks - 1, -1, -1):
        gathered: dict[str, list[tuple[Tensor, Tensor]]] = {}
        with _loaded_block(model_pass, block) as module:
            for part in model_pass.slices():
                _check_stop(model_pass)
                _block_backward(model_pass, block, part, module, gradients, gathered)
        yield block, _concatenated(model_pass, gathered)
        model_pass.step()


@dataclass(frozen=True)
class _Gradients:
    """Gradients of the loss with respect to the outputs of blocks.

    Attributes:
        hidden: of the hidden states that leave the present block.
        carried: of the other floating-point outputs that later blocks need.
    """

    hidden: Activations
    carried: dict[OutputKey, Activations]

    def add(self, model_pass: Pass, part: slice, found: Mapping[OutputKey, Tensor | None]) -> None:
        """Add gradients with respect to carried outputs."""
        for key, value in found.items():
            if value is None:
                continue
            if key not in self.carried:
                self.carried[key] = Activations(model_pass.carried.stored[key].data.shape, torch.float32)
                self.carried[key].data.zero_()
            self.carried[key].data[part] += value.to(self.carried[key].data)


def _block_backward(
    model_pass: Pass,
    block: int,
    part: slice,
    module: nn.Module,
    gradients: _Gradients,
    gathered: dict[str, list[tuple[Tensor, Tensor]]],
) -> None:
    """Replace the gradient at the output of a block by the one at its input, and gather what its layers compute."""
    chain, device = model_pass.chain, model_pass.device
    hidden = model_pass.hidden(block, part).requires_grad_(True)
    needed = {
        key: value.requires_grad_(value.dtype.is_floating_point)
        for key, value in model_pass.needed(block, part).items()
    }
    with torch.enable_grad(), _observed(model_pass, block) as products:
        outputs = model_pass.outputs(block, part, module, hidden, needed)
    # copied, because autograd may return this tensor itself as the gradient of a layer's output
    at_output = {0: chain.rows_back(gradients.hidden.read(part, device).clone())}
    for key in chain.kept[block]:
        if key in gradients.carried:
            further = gradients.carried[key].read(part, device)
            known = at_output.get(key.leaf)
            at_output[key.leaf] = further if known is None else known + chain.rows_back(further)
    differentiable = [key for key, value in needed.items() if value.requires_grad]
    # models compute some products without gradients, such as those of routers
    products = [product for product in products if product.output.requires_grad]
    leaves = [leaf for leaf in at_output if outputs[leaf].requires_grad]
    found = torch.autograd.grad(
        [outputs[leaf] for leaf in leaves],
        [hidden, *(needed[key] for key in differentiable), *(product.output for product in products)],
        [at_output[leaf] for leaf in leaves],
        allow_unused=True,
    )
    assert found[0] is not None
    gradients.hidden.write(part, chain.rows_first(found[0]))
    split = 1 + len(differentiable)
    gradients.add(model_pass, part, dict(zip(differentiable, found[1:split], strict=True)))
    _gather(model_pass, block, products, list(found[split:]), gathered)


def _gradients_at_head(model_pass: Pass, labels: Callable[[Tensor, Tensor], Tensor]) -> _Gradients:
    """Return the gradients of the loss with respect to the outputs of the last block, and of others the head needs."""
    skeleton, chain, last = model_pass.skeleton, model_pass.chain, model_pass.skeleton.tree.blocks
    gradients = _Gradients(Activations(model_pass.states.shape, torch.float32), {})
    path = skeleton.head()
    skeleton.fill(path, model_pass.dtype, model_pass.device)
    try:
        for row in range(len(model_pass.tokens)):
            _check_stop(model_pass)
            following = torch.full_like(model_pass.tokens[row], -1)
            following[:-1] = model_pass.tokens[row, 1:]
            index = slice(row, row + 1)
            state = model_pass.hidden(last, index).requires_grad_(True)
            needed = {
                key: value.requires_grad_(value.dtype.is_floating_point)
                for key, value in model_pass.needed(last, index).items()
            }
            inputs = [state, *(value for value in needed.values() if value.requires_grad)]
            sums = [torch.zeros_like(value) for value in inputs]
            for start in range(0, len(following), _CHUNK):
                part = slice(start, start + _CHUNK)
                some = {key: value[:, part] for key, value in needed.items()}
                with torch.enable_grad(), products_in(model_pass.dtype, model_pass.device):
                    ids = model_pass.tokens[index, part]
                    scores = _require_finite(logits(chain, chain.some_tokens(state, part), ids, some)[0].float())
                    targets = labels(scores.detach(), following[part].to(model_pass.device))
                    loss = nn.functional.cross_entropy(scores, targets, ignore_index=-1, reduction="sum")
                for total, found in zip(sums, torch.autograd.grad(loss, inputs, allow_unused=True), strict=True):
                    if found is not None:
                        total += found
            gradients.hidden.write(index, chain.rows_first(sums[0]))
            keys = [key for key, value in needed.items() if value.requires_grad]
            gradients.add(model_pass, index, dict(zip(keys, sums[1:], strict=True)))
    finally:
        skeleton.unload(path)
    return gradients


@contextlib.contextmanager
def _loaded_block(model_pass: Pass, block: int) -> Iterator[nn.Module]:
    """Load one block: the weights of its linear layers in the dtype of matrix products, the others in float32."""
    _check_stop(model_pass)
    skeleton = model_pass.skeleton
    path = f"{skeleton.stack}.{block}"
    module = skeleton.fill(path, torch.float32, model_pass.device)
    for name in _parameters(model_pass, block):
        parameter = skeleton.model.get_parameter(name)
        parameter.data = parameter.data.to(model_pass.dtype).contiguous()
    try:
        yield module
    finally:
        skeleton.unload(path)


def _parameters(model_pass: Pass, block: int) -> dict[str, int]:
    """Return the parameters of a block that hold linear layers, with their numbers of experts."""
    skeleton = model_pass.skeleton
    places = (place for linear in skeleton.tree.of_block(block) for place in skeleton.slices(linear))
    return {place.parameter: place.experts(skeleton.shapes[place.parameter]) for place in places}


@contextlib.contextmanager
def _observed(model_pass: Pass, block: int) -> Iterator[list[Product]]:
    """Collect the products with the linear layers of a block."""
    model, found = model_pass.skeleton.model, list[Product]()
    parameters = {model.get_parameter(name): experts for name, experts in _parameters(model_pass, block).items()}
    with ProductObserver(parameters, found.append):
        yield found


def _gather(
    model_pass: Pass,
    block: int,
    products: list[Product],
    gradients: list[Tensor | None],
    gathered: dict[str, list[tuple[Tensor, Tensor]]],
) -> None:
    """Append the inputs of each linear layer of a block, and the gradients of its outputs, to `gathered`.

    Args:
        gradients: of the outputs of the products; empty without a backward pass.
    """
    model = model_pass.skeleton.model
    dtype = model_pass.states.dtype
    by_parameter: dict[int, list[Product]] = {}
    for number, product in enumerate(products):
        if gradients:
            value = gradients[number]
            output = torch.zeros_like(product.output) if value is None else value
        else:
            output = product.output.detach()
        by_parameter.setdefault(id(product.parameter), []).append(replace(product, output=output))
    for linear in model_pass.skeleton.tree.of_block(block):
        for place in model_pass.skeleton.slices(linear)[:1]:
            for product in by_parameter.get(id(model.get_parameter(place.parameter)), ()):
                inputs, outputs = product.of_expert(place.expert or 0)
                inputs = _require_finite(inputs.detach().to(dtype))
                outputs = outputs[:, place.rows].to(dtype) if gradients else outputs.new_empty(0)
                gathered.setdefault(linear.name, []).append((inputs, _require_finite(outputs)))


def _require_finite(value: Tensor) -> Tensor:
    if not torch.isfinite(value).all():
        raise CorruptFile("The model computes NaN or infinite values.", "Download the model again.")
    return value


def _concatenated(
    model_pass: Pass, gathered: Mapping[str, list[tuple[Tensor, Tensor]]]
) -> dict[str, CapturedActivations]:
    count = model_pass.tokens.numel()
    return {
        name: CapturedActivations(torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]), count)
        for name, parts in gathered.items()
    }


def _check_stop(model_pass: Pass) -> None:
    if model_pass.should_stop():
        raise Cancelled("The analysis was cancelled.")
