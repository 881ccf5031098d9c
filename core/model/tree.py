"""The layer tree of a model, from its config and its tensor table alone.

Decoder blocks are found by structure, not from a list of models: they are the numbered stack `prefix.N.` whose
matrices hold most parameters. A linear layer is a 2-D `.weight` in it. What cannot be quantized yet gets one
sentence in `refusal` and is still listed, so that it can be shown. Knows no tensor's values and no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from core.bitsmap import BitsMap
from core.errors import BadInput
from core.model import corrections, refusals
from core.model.ends import find_ends, is_number
from core.model.headers import TensorInfo, equal_bytes, read_folder
from core.model.plans import LayerPlan as LayerPlan
from core.model.plans import Plans, make_case, own_copy

_WEIGHT = ".weight"
_MAX_BLOCKS = 4096
"""The deepest models have some 200; transformers takes a minute to make 20,000 empty ones."""


@dataclass(frozen=True)
class Linear:
    """One linear layer.

    Attributes:
        name: as in the checkpoint, without `.weight`.
        block: number of its decoder block; -1 for the lm_head.
        kind: its name inside the block, such as `self_attn.q_proj`.
        in_features, out_features: of the layer, however the weight is stored.
        dtype: safetensors code of the weight.
        transposed: the weight is stored [in, out] (GPT-2's Conv1D) instead of [out, in].
        has_bias: the checkpoint has a bias for it.
    """

    name: str
    block: int
    kind: str
    in_features: int
    out_features: int
    dtype: str
    transposed: bool
    has_bias: bool


@dataclass(frozen=True)
class ModelTree:
    """Blocks, linears and all tensors of one checkpoint.

    Attributes:
        architecture: first entry of the config's `architectures`, or "".
        model_type: of the language model in it (of `text_config` where the config is nested).
        config: the whole config, as read, but for what the tensors contradict (`core.model.corrections`).
        prefix: what comes before the block number, such as `model.layers`; "" if no blocks were found.
        blocks: their number.
        linears: in the order of the blocks, inside a block in that of the checkpoint; an untied lm_head comes last.
        tensors: every tensor of the checkpoint, in its order, but for those in `left_out`.
        embedding: name of the token embedding without `.weight`, or "".
        lm_head: name of the output head without `.weight`; None if the checkpoint has no tensor for it.
        tied: there is no tensor for a head: it is the embedding. It is then none of `linears`, but see `tied_head`.
        refusal: "" if the model can be quantized, else one sentence that says why not.
        left_out: tensors that lie in the checkpoint and are no part of the model: matrices of an adapter.
    """

    architecture: str
    model_type: str
    config: dict[str, Any]
    prefix: str
    blocks: int
    linears: tuple[Linear, ...]
    tensors: dict[str, TensorInfo]
    embedding: str
    lm_head: str | None
    tied: bool
    refusal: str
    left_out: tuple[str, ...] = ()

    def of_block(self, block: int) -> tuple[Linear, ...]:
        """The linears of one block (-1: outside the blocks)."""
        return self._by_block.get(block, ())

    def block_tensors(self, block: int) -> list[str]:
        """Names of all tensors of one block, in the order of the checkpoint."""
        return self._names_by_block.get(block, [])

    @cached_property
    def parameters(self) -> int:
        """Parameters of the whole model; stored masks and rotary tables do not count."""
        return sum(info.numel for name, info in self.tensors.items() if not _is_buffer(name, info.shape))

    @cached_property
    def block_linears(self) -> tuple[str, ...]:
        """Names of the linears in the blocks, in their order; those outside come after them in `linears`."""
        return tuple(linear.name for linear in self.linears if linear.block >= 0)

    @cached_property
    def tied_head(self) -> Linear | None:
        """The head of a tied model as a linear: what a map that names it gives a copy of its own. None if not tied."""
        table = self.tensors.get(f"{self.embedding}{_WEIGHT}")
        if not self.tied or table is None:
            return None
        name = "lm_head"
        return replace(
            _linear(table, -1, name, self.tensors, False), name=name, has_bias=f"{name}.bias" in self.tensors
        )

    @cached_property
    def nameable(self) -> tuple[Linear, ...]:
        """All linears that a bits map may name: `linears`, and a tied head."""
        return self.linears if self.tied_head is None else (*self.linears, self.tied_head)

    def weight_of(self, linear: Linear) -> str:
        """Name of the tensor that holds the weight of a linear: the embedding's for a tied head."""
        tied = self.tied_head is not None and linear.name == self.tied_head.name
        return f"{self.embedding if tied else linear.name}{_WEIGHT}"

    def stored_bytes(self, linear: Linear) -> int:
        """Bytes of the checkpoint that are the weight of this linear alone: 0 for a tied head."""
        table = self.tensors.get(f"{linear.name}{_WEIGHT}")
        return table.nbytes if table is not None else 0

    @cached_property
    def weights(self) -> tuple[tuple[int, int, int], ...]:
        """Inputs, outputs and bytes of the weight of each linear; equal ones are one object."""
        known: dict[tuple[int, int, int], tuple[int, int, int]] = {}
        found = ((linear.in_features, linear.out_features, self.stored_bytes(linear)) for linear in self.linears)
        return tuple(known.setdefault(weight, weight) for weight in found)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(info.nbytes for info in self.tensors.values())

    @cached_property
    def block_weights(self) -> tuple[int, ...]:
        """Weights in the linears of each block."""
        totals = [0] * self.blocks
        for linear in self.linears:
            if 0 <= linear.block < self.blocks:
                totals[linear.block] += linear.in_features * linear.out_features
        return tuple(totals)

    def prepared(self) -> ModelTree:
        """This tree, with everything computed that waits for its first use; for a thread that may take its time."""
        _ = self.parameters, self.block_linears, self.weights, self.nbytes, self.block_weights, self._by_block
        return self

    @cached_property
    def _by_block(self) -> dict[int, tuple[Linear, ...]]:
        groups: dict[int, list[Linear]] = {}
        for linear in self.linears:
            groups.setdefault(linear.block, []).append(linear)
        return {block: tuple(found) for block, found in groups.items()}

    @cached_property
    def _names_by_block(self) -> dict[int, list[str]]:
        start, groups = f"{self.prefix}.", dict[int, list[str]]()
        for name in self.tensors:
            number = name[len(start) :].partition(".")[0] if name.startswith(start) else ""
            if is_number(number):
                groups.setdefault(int(number), []).append(name)
        return groups


@dataclass
class _Stack:
    """All tensors under one `prefix.N.`; a helper while searching, hence not frozen."""

    prefix: str
    members: dict[int, list[TensorInfo]] = field(default_factory=dict)
    weight: int = 0


def build_tree(config: dict[str, Any], tensors: Mapping[str, TensorInfo]) -> ModelTree:
    """Return the tree of a checkpoint; a model that cannot be quantized gets a `refusal` instead of an exception."""
    adapters = frozenset(corrections.adapters(tensors))
    unmerged = corrections.unmerged(tensors)
    tensors = {name: info for name, info in tensors.items() if name not in adapters}
    text = refusals.text_config(config)
    stacks = _without_predictors(_find_stacks(tensors.values()), text)
    main = stacks[0] if stacks else None
    outside = [info for info in tensors.values() if main is None or not info.name.startswith(f"{main.prefix}.")]
    embedding, head = find_ends(outside, main.prefix if main else "", text.get("vocab_size"))
    tied = head is None
    config = corrections.corrected(config, tensors, tied if main and embedding else None)
    transposed, odd = _orientation(main, tensors) if main else (False, "")
    linears = _linears(main, tensors, transposed) if main else []
    if head is not None:
        linears.append(_linear(head, -1, head.name.removesuffix(_WEIGHT), tensors, transposed=False))
    return ModelTree(
        architecture=refusals.architecture(config),
        model_type=str(text.get("model_type") or config.get("model_type") or ""),
        config=config,
        prefix=main.prefix if main else "",
        blocks=len(main.members) if main else 0,
        linears=tuple(linears),
        tensors=tensors,
        embedding=embedding.name.removesuffix(_WEIGHT) if embedding else "",
        lm_head=head.name.removesuffix(_WEIGHT) if head else None,
        tied=tied,
        refusal=unmerged
        or refusals.find(
            config,
            tensors,
            prefixes=[stack.prefix for stack in stacks],
            numbers=sorted(main.members) if main else [],
            weights=[linear.dtype for linear in linears],
        )
        or odd
        or _no_embedding(embedding, head, outside)
        or _too_many(main),
        left_out=tuple(sorted(adapters)),
    )


def read_tensors(folder: Path, config: Mapping[str, Any]) -> dict[str, TensorInfo]:
    """Return the tensors of a model folder, without a head that is a copy of the embedding that it is tied to.

    transformers ties the two then; where the copy has other values, it is the head, whatever the config says.

    Raises:
        ModelNotFound, CorruptFile: as `core.model.headers.read_folder`.
    """
    tensors = read_folder(folder)
    if not any(part.get("tie_word_embeddings") is True for part in (config, refusals.text_config(config))):
        return tensors
    tree = build_tree(dict(config), tensors)
    embedding, head = tensors.get(f"{tree.embedding}{_WEIGHT}"), tensors.get(f"{tree.lm_head}{_WEIGHT}")
    if embedding is not None and head is not None and equal_bytes(folder, embedding, head):
        del tensors[head.name]
    return tensors


def _too_many(stack: _Stack | None) -> str:
    count = len(stack.members) if stack else 0
    return f"The checkpoint has {count:,} blocks, which is beyond any model known." if count > _MAX_BLOCKS else ""


def _no_embedding(embedding: TensorInfo | None, head: TensorInfo | None, outside: Iterable[TensorInfo]) -> str:
    if embedding is not None:
        return ""
    other = next((info for info in outside if "embed" in info.name and info is not head), None)
    if other is not None and not other.numel:
        return f"The checkpoint has no token embedding: {other.name} is empty, as ZeRO-3 leaves what was not gathered."
    if other is not None and head is not None and len(other.shape) == 2:
        rows = f"{other.shape[0]} rows and the head {head.shape[0]}"
        return f"The shapes of the checkpoint do not belong together: the embedding {other.name} has {rows}."
    return f"The checkpoint has no token embedding{', only an output head' if head else ''}."


def resolve_schemes(tree: ModelTree, bits_map: BitsMap, *, nameable: bool = False) -> Plans:
    """One plan for every linear of the tree, in its order; says nothing about whether the tree is refused.

    A tied head has a plan, the last, where the map names it.

    Args:
        nameable: a tied head has its plan in any case: one for each of `tree.nameable`.

    Raises:
        BadInput: the map names the embedding, or has rules and names that no layer answers to.
    """
    _refuse_embedding(tree, bits_map)
    tied = tree.tied_head
    if tied is not None and not nameable and tied.name not in bits_map.by_hand:
        tied = None
    # A rule never reaches the head, so one that would match nothing else does nothing and is a mistake.
    heads = [linear.name for linear in (*tree.of_block(-1), *([tied] if tied else []))]
    missing = bits_map.unmatched([*tree.block_linears, *(name for name in heads if name in bits_map.by_hand)])
    if missing:
        example = next(iter(tree.block_linears), "model.layers.0.mlp.down_proj")
        raise BadInput(
            f"The bits map has patterns or names that no layer answers to: {_listing(missing)}.",
            f"Names look like {example}; the head changes only by its exact name under layers.",
        )
    assigned = bits_map.resolve_all(tree.block_linears)
    assigned += [bits_map.resolve(name, exact_only=True) for name in heads]
    linears, weights = tree.linears, tree.weights
    if tied is not None:
        stored = tree.stored_bytes(tied)
        linears, weights = (*linears, tied), (*weights, (tied.in_features, tied.out_features, stored))
        assigned[-1] = own_copy(assigned[-1], tied, tree.tensors[tree.weight_of(tied)].nbytes, stored)
    # Assignments are shared, so that their ids tell reasons apart, and live as long as this list of them.
    kinds = list(zip(map(id, assigned), weights, strict=True))
    examples = dict(zip(kinds, assigned, strict=True))
    cases = [make_case(assignment, *weight) for (_, weight), assignment in examples.items()]
    numbers = {kind: number for number, kind in enumerate(examples)}
    return Plans(linears, cases, [numbers[kind] for kind in kinds])


def _refuse_embedding(tree: ModelTree, bits_map: BitsMap) -> None:
    keys = bits_map.by_hand.get(tree.embedding)
    if keys is None or not keys.apply(bits_map.default).quantized:
        return
    hint = "Remove it from the bits map; formats such as gguf:q4_k_m choose the embedding's type themselves."
    if tree.tied_head:
        hint = f"Name {tree.tied_head.name} instead: the head then gets a quantized copy of its own."
    raise BadInput(
        f"{tree.embedding} is the token embedding, and only a GGUF type asked for by name has bits for one.", hint
    )


def _find_stacks(tensors: Iterable[TensorInfo]) -> list[_Stack]:
    """Numbered stacks that hold matrices, the heaviest first; of nested numbers the outermost counts."""
    stacks: dict[str, _Stack] = {}
    for info in tensors:
        parts = info.name.split(".")
        place = next((i for i, part in enumerate(parts) if is_number(part)), 0)
        if place == 0 or place == len(parts) - 1:
            continue
        prefix = ".".join(parts[:place])
        stack = stacks.setdefault(prefix, _Stack(prefix))
        stack.members.setdefault(int(parts[place]), []).append(info)
        # Fused experts are 3-D; without them the tower of a mixture-of-experts model could outweigh its text.
        if len(info.shape) in (2, 3):
            stack.weight += info.numel
    return sorted((s for s in stacks.values() if s.weight), key=lambda stack: -stack.weight)


def _without_predictors(stacks: list[_Stack], text: Mapping[str, Any]) -> list[_Stack]:
    """The stacks without heads that predict further tokens (MTP), which the model itself is whole without.

    They come as a stack of their own (`mtp.layers`) or as blocks beyond the last, announced in the config
    (`num_nextn_predict_layers`). transformers' classes have no place for them; outputs carry their tensors along.
    """
    stacks = [stack for stack in stacks if "mtp" not in stack.prefix.split(".")]
    count, further = text.get("num_hidden_layers"), text.get("num_nextn_predict_layers")
    if stacks and type(count) is int and type(further) is int and len(stacks[0].members) == count + further:
        stacks[0].members = {number: found for number, found in stacks[0].members.items() if number < count}
    return stacks


def _is_buffer(name: str, shape: tuple[int, ...]) -> bool:
    """Tables that some checkpoints carry along: GPT-2's causal mask `attn.bias`, `masked_bias`, `inv_freq`."""
    return (name.endswith(".bias") and len(shape) != 1) or name.rpartition(".")[2] in ("masked_bias", "inv_freq")


def _matrices(stack: _Stack) -> Iterable[tuple[int, TensorInfo]]:
    for block in sorted(stack.members):
        for info in stack.members[block]:
            if len(info.shape) == 2 and info.name.endswith(_WEIGHT):
                yield block, info


def _orientation(stack: _Stack, tensors: Mapping[str, TensorInfo]) -> tuple[bool, str]:
    """Whether the weights are stored [in, out], by vote of the biases (as long as the outputs); and a complaint."""
    plain, transposed = 0, 0
    for _, info in _matrices(stack):
        bias = tensors.get(f"{info.name.removesuffix(_WEIGHT)}.bias")
        if bias is None or len(bias.shape) != 1 or info.shape[0] == info.shape[1]:
            continue
        plain += bias.shape[0] == info.shape[0]
        transposed += bias.shape[0] == info.shape[1]
    odd = "Its biases contradict each other about how the weights are stored." if plain and transposed else ""
    return transposed > plain, odd


def _linears(stack: _Stack, tensors: Mapping[str, TensorInfo], transposed: bool) -> list[Linear]:
    found = []
    for block, info in _matrices(stack):
        kind = info.name.removesuffix(_WEIGHT).removeprefix(f"{stack.prefix}.").partition(".")[2]
        found.append(_linear(info, block, kind, tensors, transposed))
    return found


def _linear(info: TensorInfo, block: int, kind: str, tensors: Mapping[str, TensorInfo], transposed: bool) -> Linear:
    name = info.name.removesuffix(_WEIGHT)
    rows, columns = info.shape
    return Linear(
        name=name,
        block=block,
        kind=kind,
        in_features=rows if transposed else columns,
        out_features=columns if transposed else rows,
        dtype=info.dtype,
        transposed=transposed,
        has_bias=f"{name}.bias" in tensors,
    )


def _listing(items: list[str]) -> str:
    return ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")
