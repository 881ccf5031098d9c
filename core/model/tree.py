"""The layer tree of a model, built from its config and its tensor table.

Decoder blocks are found by structure, not from a list of models: they are the numbered stack `prefix.N.` whose
matrices have the most parameters. A linear layer is a 2-D `.weight` in it, or the matrix of one expert in a tensor that
holds all experts (`core.model.fused_experts`). A model that cannot be quantized gets the reason in `refusal`; its
layers are listed nevertheless. Does not import torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from core.bitsmap import TOWER_BITS, Assignment, BitsMap
from core.errors import BadInput
from core.model import corrections, kept_layers, refusals, uneven_experts
from core.model import towers as tower_parts
from core.model.ends import find_ends, is_number
from core.model.fused_experts import (
    EXPERT,
    ExpertLinear,
    bias_name,
    expert_linears,
    experts_per_token,
    layout_of,
    single_kind,
)
from core.model.headers import DTYPE_BITS, TensorInfo, equal_bytes, read_folder
from core.model.plans import LayerPlan as LayerPlan
from core.model.plans import Plans, make_case, own_copy
from core.model.tensor_part import TensorPart
from core.model.towers import Tower, find_towers, is_aside, is_multimodal, text_config, text_root, tower_of
from core.schemes import UNTOUCHED, LayerScheme

_WEIGHT = ".weight"
HEAD, TOWER = -1, -2
"""`Linear.block` of the output head, and of a linear layer in a tower."""
_NO_LINEARS = ("embed.weight", "norm.weight")
_MAX_BLOCKS = 4096
"""Limit on the number of blocks. The deepest models have about 200; transformers takes a minute to build 20,000."""


@dataclass(frozen=True)
class Linear:
    """One linear layer.

    Attributes:
        name: as in the checkpoint, without `.weight`. Experts have the names `PREFIX.N.mlp.experts.E.gate_proj`,
            `up_proj` and `down_proj`, also if the checkpoint stores them under other names or in one tensor.
        block: number of its decoder block; HEAD for the lm_head, TOWER for a layer of a tower.
        kind: its name inside the block, such as `self_attn.q_proj`.
        in_features, out_features: of the layer, independent of the storage order of the weight.
        dtype: safetensors dtype code of the weight.
        transposed: whether the weight is stored as [in, out] (GPT-2's Conv1D) instead of [out, in].
        has_bias: whether the checkpoint has a bias for the layer.
        part: slice of a tensor that is the weight; None if the tensor `name.weight` is the weight.
        kept: reason why the layer stays in 16 bits unless a bits map lists its name; "" for other layers.
    """

    name: str
    block: int
    kind: str
    in_features: int
    out_features: int
    dtype: str
    transposed: bool
    has_bias: bool
    part: TensorPart | None = None
    kept: str = ""


@dataclass(frozen=True)
class ModelTree:
    """The blocks, linear layers and tensors of a checkpoint.

    Attributes:
        architecture: first entry of the config's `architectures`, or "".
        model_type: of the language model (of `text_config` if the config is nested).
        config: the whole config, with the corrections of `core.model.corrections`.
        prefix: module path before the block number, such as `model.layers`; "" if no blocks were found.
        blocks: number of blocks.
        linears: in the order of the blocks, and within a block in the order of the checkpoint; then an untied lm_head,
            and those of towers.
        tensors: all tensors of the checkpoint in its order, except those in `left_out`.
        embedding: name of the token embedding without `.weight`, or "".
        lm_head: name of the output head without `.weight`; None if the checkpoint has no tensor for it.
        tied: whether the head shares the weight of the embedding, so that it has no tensor. It is then not part of
            `linears`; see `tied_head`.
        refusal: the reason why the model cannot be quantized, in one sentence; "" if it can.
        left_out: tensors of the checkpoint that are not part of the model, such as matrices of an adapter.
        towers: parts besides the language model, which are copied: vision and audio towers, projectors, MTP modules.
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
    towers: tuple[Tower, ...] = ()

    def of_block(self, block: int) -> tuple[Linear, ...]:
        """Return the linear layers of one block, or those with the block HEAD or TOWER."""
        return self._by_block.get(block, ())

    def block_tensors(self, block: int) -> list[str]:
        """Return the names of all tensors of one block, in the order of the checkpoint."""
        return self._names_by_block.get(block, [])

    @cached_property
    def parameters(self) -> int:
        """Number of parameters of the whole model, without stored masks and rotary tables."""
        return sum(info.numel for name, info in self.tensors.items() if not _is_buffer(name, info.shape))

    @cached_property
    def block_linears(self) -> tuple[str, ...]:
        """Names of the linear layers in the blocks, in the order of `linears`, which has those outside at its end."""
        return tuple(linear.name for linear in self.linears if linear.block >= 0)

    @cached_property
    def ruled_linears(self) -> tuple[str, ...]:
        """Names of the layers to which the default and the rules of a bits map apply, in the order of the tree."""
        return tuple(linear.name for linear in self.linears if linear.block >= 0 and not linear.kept)

    @cached_property
    def tied_head(self) -> Linear | None:
        """The head of a tied model as a linear layer, which a bits map can give a separate copy; None if untied."""
        table = self.tensors.get(f"{self.embedding}{_WEIGHT}")
        if not self.tied or table is None:
            return None
        name = "lm_head"
        return replace(
            _linear(table, HEAD, name, self.tensors, False), name=name, has_bias=f"{name}.bias" in self.tensors
        )

    @cached_property
    def nameable(self) -> tuple[Linear, ...]:
        """All linear layers that a bits map can name: `linears` and a tied head."""
        return self.linears if self.tied_head is None else (*self.linears, self.tied_head)

    @cached_property
    def kept(self) -> dict[int, Assignment]:
        """Position in `linears` of each layer to which the default and the rules of a bits map do not apply.

        The assignment contains the reason.
        """
        known: dict[str, Assignment] = {}
        return {
            place: known.setdefault(linear.kept, Assignment(LayerScheme(bits=UNTOUCHED), linear.kept))
            for place, linear in enumerate(self.linears)
            if linear.kept
        }

    @cached_property
    def only_by_name(self) -> frozenset[str]:
        """Names of the layers to which the default and the rules of a bits map do not apply: kept ones and the head."""
        return frozenset(linear.name for linear in self.nameable if linear.kept or linear.block < 0)

    def weight_of(self, linear: Linear) -> str:
        """Return the name of the tensor with the weight of a linear layer: that of the embedding for a tied head.

        For an expert it can be a tensor with the weights of all experts of the block.
        """
        if linear.part is not None:
            return linear.part.tensor
        tied = self.tied_head is not None and linear.name == self.tied_head.name
        return f"{self.embedding if tied else linear.name}{_WEIGHT}"

    def bias_of(self, linear: Linear) -> str:
        """Return the name of the tensor with the bias of a linear layer; "" if it has none.

        For an expert it can be a tensor [experts, out_features] with the biases of all experts of the block.
        """
        if not linear.has_bias:
            return ""
        if linear.part is None:
            return f"{linear.name}.bias"
        return bias_name(linear.part.tensor, fused=linear.part.expert is not None)

    def stored_bytes(self, linear: Linear) -> int:
        """Return the bytes of the weight of a linear layer in the checkpoint; 0 for a tied head."""
        if linear.part is not None:
            return linear.in_features * linear.out_features * DTYPE_BITS[linear.dtype] // 8
        table = self.tensors.get(f"{linear.name}{_WEIGHT}")
        return table.nbytes if table is not None else 0

    @cached_property
    def weights(self) -> tuple[tuple[int, int, int], ...]:
        """(in_features, out_features, bytes of the weight) of each linear layer; equal tuples are the same object."""
        known: dict[tuple[int, int, int], tuple[int, int, int]] = {}
        found = ((linear.in_features, linear.out_features, self.stored_bytes(linear)) for linear in self.linears)
        return tuple(known.setdefault(weight, weight) for weight in found)

    @cached_property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(info.nbytes for info in self.tensors.values())

    @cached_property
    def block_weights(self) -> tuple[int, ...]:
        """Number of weights in the linear layers of each block."""
        totals = [0] * self.blocks
        for linear in self.linears:
            if 0 <= linear.block < self.blocks:
                totals[linear.block] += linear.in_features * linear.out_features
        return tuple(totals)

    @cached_property
    def experts(self) -> tuple[int, ...]:
        """Number of routed experts of each block; 0 for a block without."""
        return tuple(len(numbers) for numbers, _ in self._expert_weights)

    @cached_property
    def expert_modules(self) -> dict[str, Counter[int]]:
        """Number of the experts to which rules apply, by module, such as `mlp.experts.*.up_proj`, and by block."""
        counts: dict[str, Counter[int]] = {}
        kinds = Counter((linear.kind, linear.block) for linear in self.linears if linear.block >= 0 and not linear.kept)
        for (kind, block), count in kinds.items():
            stem = EXPERT.sub("experts.*", kind)
            if stem != kind:
                counts.setdefault(stem, Counter())[block] += count
        return counts

    @cached_property
    def experts_per_token(self) -> int:
        """Number of routed experts that are computed for each token; 0 if the config does not contain it."""
        return experts_per_token(text_config(self.config))

    @cached_property
    def active_weights(self) -> tuple[float, ...]:
        """Number of weights in the linear layers of each block that are used for one token.

        All experts count if the config does not contain the number of experts per token.
        """
        active = []
        for total, (numbers, weights) in zip(self.block_weights, self._expert_weights, strict=True):
            share = min(1.0, self.experts_per_token / len(numbers)) if numbers and self.experts_per_token else 1.0
            active.append(total - weights * (1 - share))
        return tuple(active)

    @cached_property
    def _expert_weights(self) -> list[tuple[set[str], int]]:
        """Numbers of the experts of each block, and the number of their weights."""
        known: dict[str, str] = {}
        numbers: list[set[str]] = [set() for _ in range(self.blocks)]
        weights = [0] * self.blocks
        for linear in self.linears:
            number = known.get(linear.kind)
            if number is None:
                match = EXPERT.search(linear.kind)
                number = known[linear.kind] = match[1] if match else ""
            if number and 0 <= linear.block < self.blocks:
                numbers[linear.block].add(number)
                weights[linear.block] += linear.in_features * linear.out_features
        return list(zip(numbers, weights, strict=True))

    def prepared(self) -> ModelTree:
        """Compute all cached properties and return this tree; for use in a background thread."""
        _ = self.parameters, self.block_linears, self.weights, self.nbytes, self.block_weights, self._by_block
        _ = self.kept, self.only_by_name, self.ruled_linears, self.expert_modules
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
    """All tensors under one `prefix.N.`; mutable, since it is filled during the search."""

    prefix: str
    members: dict[int, list[TensorInfo]] = field(default_factory=dict)
    weight: int = 0


def build_tree(config: dict[str, Any], tensors: Mapping[str, TensorInfo]) -> ModelTree:
    """Build the tree of a checkpoint; a model that cannot be quantized gets a `refusal` instead of an exception."""
    adapters = frozenset(corrections.adapters(tensors))
    unmerged = corrections.unmerged(tensors)
    tensors = {name: info for name, info in tensors.items() if name not in adapters}
    text = text_config(config)
    stacks = [stack for stack in _find_stacks(tensors.values()) if "mtp" not in stack.prefix.split(".")]
    main = _language_model(stacks, text, config)
    outside = [info for info in tensors.values() if main is None or not info.name.startswith(f"{main.prefix}.")]
    ends = [info for info in outside if not is_aside(info.name)]
    embedding, head = find_ends(ends, main.prefix if main else "", text.get("vocab_size"))
    tied = head is None
    paths = [info.name.removesuffix(_WEIGHT) if info else "" for info in (embedding, head)]
    towers: tuple[Tower, ...] = ()
    if main:
        beside = [stack.prefix for stack in stacks if stack is not main]
        size = len(main.members)
        towers = find_towers(
            config, tensors.values(), prefix=main.prefix, embedding=paths[0], head=paths[1], blocks=size, others=beside
        )
    root = text_root(main.prefix, paths[0]) if main else ""
    others = [stack.prefix for stack in stacks if stack is not main and _is_beside(stack.prefix, root, towers)]
    config = corrections.corrected(config, tensors, tied if main and embedding else None)
    transposed, odd = _orientation(main, tensors) if main else (False, "")
    linears, odd_experts = _linears(main, tensors, transposed, text, config) if main else ([], "")
    if head is not None:
        linears.append(_linear(head, HEAD, head.name.removesuffix(_WEIGHT), tensors, transposed=False))
    for info in tower_parts.matrices(towers, tensors.values()):
        found = _linear(info, TOWER, info.name.removesuffix(_WEIGHT), tensors, transposed=False)
        linears.append(replace(found, kept=tower_parts.KEPT))
    return ModelTree(
        architecture=refusals.architecture(config),
        model_type=str(text.get("model_type") or config.get("model_type") or ""),
        config=config,
        prefix=main.prefix if main else "",
        blocks=len(main.members) if main else 0,
        linears=tuple(linears),
        tensors=tensors,
        embedding=paths[0],
        lm_head=paths[1] if head else None,
        tied=tied,
        refusal=unmerged
        or refusals.find(
            config,
            tensors,
            prefixes=[main.prefix, *others] if main else [],
            numbers=sorted(main.members) if main else [],
            weights=[linear.dtype for linear in linears if linear.block != TOWER],
        )
        or odd
        or odd_experts
        or uneven_experts.find(_matrices_of_text(linears), text)
        or _no_embedding(embedding, head, outside)
        or _too_many(main),
        left_out=tuple(sorted(adapters)),
        towers=towers,
    )


def _matrices_of_text(linears: Iterable[Linear]) -> Iterable[uneven_experts.Matrix]:
    kept = kept_layers.PICTURES
    of_text = (item for item in linears if item.block != TOWER and item.kept != kept)
    return ((item.name, item.out_features, item.in_features) for item in of_text)


def read_tensors(folder: Path, config: Mapping[str, Any]) -> dict[str, TensorInfo]:
    """Return the tensors of a model folder, except a head of a tied model that is equal to the embedding.

    As in transformers, a head with other values is not tied, whatever the config specifies.

    Raises:
        ModelNotFound, CorruptFile: as `core.model.headers.read_folder`.
    """
    tensors = read_folder(folder)
    if not any(part.get("tie_word_embeddings") is True for part in (config, text_config(config))):
        return tensors
    tree = build_tree(dict(config), tensors)
    embedding, head = tensors.get(f"{tree.embedding}{_WEIGHT}"), tensors.get(f"{tree.lm_head}{_WEIGHT}")
    if embedding is not None and head is not None and equal_bytes(folder, embedding, head):
        del tensors[head.name]
    return tensors


def _is_beside(prefix: str, root: str, towers: Iterable[Tower]) -> bool:
    """Return whether a stack may be a part of the language model: it is in no tower, or in one inside the model.

    Args:
        root: path of the language model.
    """
    tower = tower_of(towers, prefix)
    return tower is None or (tower.kind == "other" and (not root or tower.prefix.startswith(f"{root}.")))


def _too_many(stack: _Stack | None) -> str:
    count = len(stack.members) if stack else 0
    return f"The checkpoint has {count:,} blocks, which exceeds any known model." if count > _MAX_BLOCKS else ""


def _no_embedding(embedding: TensorInfo | None, head: TensorInfo | None, outside: Iterable[TensorInfo]) -> str:
    if embedding is not None:
        return ""
    other = next((info for info in outside if "embed" in info.name and info is not head), None)
    if other is not None and not other.numel:
        return f"The checkpoint has no token embedding: {other.name} is empty, as after ZeRO-3 without gathering."
    if other is not None and head is not None and len(other.shape) == 2:
        rows = f"{other.shape[0]} rows and the head {head.shape[0]}"
        return f"The shapes of the checkpoint are inconsistent: the embedding {other.name} has {rows}."
    return f"The checkpoint has no token embedding{', only an output head' if head else ''}."


def resolve_schemes(tree: ModelTree, bits_map: BitsMap, *, nameable: bool = False) -> Plans:
    """Return a plan for every linear layer of the tree, in the order of the tree, even if the tree has a `refusal`.

    A tied head has a plan, the last one, only if the bits map lists it by name.

    Args:
        tree: of the model.
        bits_map: assigns schemes to layers.
        nameable: include the plan of a tied head in any case, so that the plans correspond to `tree.nameable`.

    Raises:
        BadInput: the bits map lists the embedding, or has patterns or names that match no layer.
    """
    _refuse_embedding(tree, bits_map)
    tied = tree.tied_head
    if tied is not None and not nameable and tied.name not in bits_map.by_hand:
        tied = None
    # Rules do not apply to the head and kept layers, so a rule that matches only these has no effect and is an error.
    others = (*tree.of_block(HEAD), *tree.of_block(TOWER), *([tied] if tied else []))
    _refuse_tower_bits(tree, bits_map)
    by_hand = bits_map.by_hand
    missing = bits_map.unmatched(tree.ruled_linears, tree.only_by_name)
    if missing:
        example = next(iter(tree.block_linears), "model.layers.0.mlp.down_proj")
        raise BadInput(
            f"The bits map has patterns or names that no layer matches: {_listing(missing)}.",
            f"An example of a name is {example}. The head, routers and other layers that stay in 16 bits are quantized "
            "only if they are listed by name under layers.",
        )
    assigned = bits_map.resolve_all(tree.block_linears)
    assigned += [
        bits_map.resolve_tower(linear.name) if linear.block == TOWER else bits_map.resolve(linear.name, exact_only=True)
        for linear in others
    ]
    for place, assignment in tree.kept.items():
        linear = tree.linears[place]
        if linear.name not in by_hand and (linear.block != TOWER or bits_map.towers == UNTOUCHED):
            assigned[place] = assignment
    linears, weights = tree.linears, tree.weights
    if tied is not None:
        stored = tree.stored_bytes(tied)
        linears, weights = (*linears, tied), (*weights, (tied.in_features, tied.out_features, stored))
        assigned[-1] = own_copy(assigned[-1], tied, tree.tensors[tree.weight_of(tied)].nbytes, stored)
    # Assignments are shared objects that the list keeps alive, so their ids identify them.
    kinds = list(zip(map(id, assigned), weights, strict=True))
    examples = dict(zip(kinds, assigned, strict=True))
    cases = [make_case(assignment, *weight) for (_, weight), assignment in examples.items()]
    numbers = {kind: number for number, kind in enumerate(examples)}
    return Plans(linears, cases, [numbers[kind] for kind in kinds])


def _refuse_tower_bits(tree: ModelTree, bits_map: BitsMap) -> None:
    for linear in tree.of_block(TOWER):
        keys = bits_map.by_hand.get(linear.name)
        bits = UNTOUCHED if keys is None else keys.apply(bits_map.default).bits
        if bits not in TOWER_BITS:
            raise BadInput(
                f"{linear.name} is in a tower, whose layers can have 4 or 8 bits, not {bits}.",
                "Choose 8 or 4 bits, or 16 bits, which copies the layer.",
            )


def _refuse_embedding(tree: ModelTree, bits_map: BitsMap) -> None:
    keys = bits_map.by_hand.get(tree.embedding)
    if keys is None or not keys.apply(bits_map.default).quantized:
        return
    hint = "Remove it from the bits map; formats such as gguf:q4_k_m choose the embedding's type themselves."
    if tree.tied_head:
        hint = f"List {tree.tied_head.name} instead: the head then gets a separate quantized copy."
    raise BadInput(
        f"{tree.embedding} is the token embedding, which is quantized only by GGUF formats that are chosen by name.",
        hint,
    )


def _find_stacks(tensors: Iterable[TensorInfo]) -> list[_Stack]:
    """Return the numbered stacks with matrices, the largest first; of nested numbers the outermost counts."""
    stacks: dict[str, _Stack] = {}
    for info in tensors:
        parts = info.name.split(".")
        place = next((i for i, part in enumerate(parts) if is_number(part)), 0)
        if place == 0 or place == len(parts) - 1:
            continue
        prefix = ".".join(parts[:place])
        stack = stacks.setdefault(prefix, _Stack(prefix))
        stack.members.setdefault(int(parts[place]), []).append(info)
        # Fused experts are 3-D. Without them, a vision tower could be larger than the text model.
        if len(info.shape) in (2, 3):
            stack.weight += info.numel
    return sorted((s for s in stacks.values() if s.weight), key=lambda stack: -stack.weight)


def _language_model(stacks: list[_Stack], text: Mapping[str, Any], config: Mapping[str, Any]) -> _Stack | None:
    """Return the stack of the decoder blocks, without MTP (multi-token prediction) blocks at its end.

    It is the largest one, in a multimodal model that of the size in the config of the language model. MTP blocks are a
    separate stack (`mtp.layers`), or blocks behind the last one that the config declares (`num_nextn_predict_layers`).
    The classes of transformers ignore them; their tensors are copied to outputs.
    """
    usable = [stack for stack in stacks if not is_aside(stack.prefix)] or stacks
    count, further, hidden = (text.get(key) for key in ("num_hidden_layers", "num_nextn_predict_layers", "hidden_size"))
    kinds = text.get("layers_block_type")
    count = len(kinds) if count is None and isinstance(kinds, list) else count
    lengths = [count, count + further] if type(count) is int and type(further) is int else [count]
    fitting = [
        stack
        for stack in (usable if is_multimodal(config) else [])
        if len(stack.members) in lengths and any(hidden in info.shape for info in stack.members[min(stack.members)])
    ]
    main = next(iter(fitting or usable), None)
    if main is not None and type(count) is int and type(further) is int and len(main.members) == count + further:
        main.members = {number: found for number, found in main.members.items() if number < count}
    return main


def _is_buffer(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor is a stored table: GPT-2's causal mask `attn.bias`, `masked_bias` or `inv_freq`."""
    return (name.endswith(".bias") and len(shape) != 1) or name.rpartition(".")[2] in ("masked_bias", "inv_freq")


def _matrices(stack: _Stack) -> Iterable[tuple[int, TensorInfo]]:
    for block in sorted(stack.members):
        for info in stack.members[block]:
            if _is_matrix(info):
                yield block, info


def _is_matrix(info: TensorInfo) -> bool:
    """Return whether a tensor of a block is the weight of a linear layer.

    Others with two dimensions are the embeddings of Doge's experts, and norms of each head (Cohere, Chameleon).
    """
    return len(info.shape) == 2 and info.name.endswith(_WEIGHT) and not info.name.endswith(_NO_LINEARS)


def _orientation(stack: _Stack, tensors: Mapping[str, TensorInfo]) -> tuple[bool, str]:
    """Return whether the weights are stored as [in, out], and an error message or "".

    The lengths of the biases, which equal `out_features`, decide by majority.
    """
    plain, transposed = 0, 0
    for _, info in _matrices(stack):
        bias = tensors.get(f"{info.name.removesuffix(_WEIGHT)}.bias")
        if bias is None or len(bias.shape) != 1 or info.shape[0] == info.shape[1]:
            continue
        plain += bias.shape[0] == info.shape[0]
        transposed += bias.shape[0] == info.shape[1]
    odd = "The biases contradict each other about the storage order of the weights." if plain and transposed else ""
    return transposed > plain, odd


def _linears(
    stack: _Stack,
    tensors: Mapping[str, TensorInfo],
    transposed: bool,
    text: Mapping[str, Any],
    config: Mapping[str, Any],
) -> tuple[list[Linear], str]:
    """Return the linear layers of the blocks, and an error message or ""."""
    model_type = str(text.get("model_type") or config.get("model_type") or "")
    blocks = sorted(stack.members)
    layout, odd = layout_of(model_type, text, (info for block in blocks for info in stack.members[block]))
    heads = text.get("num_attention_heads")
    reasons = kept_layers.Reasons(heads if type(heads) is int else 0, kept_layers.text_experts(text))
    found = []
    for block in blocks:
        start = f"{stack.prefix}.{block}."
        members = stack.members[block]
        experts = expert_linears(members, start, layout, tensors)
        layers = []
        for info in members:
            layers += [_expert(item, start, block) for item in experts.get(info.name, ())]
            if _is_matrix(info):
                kind = info.name.removesuffix(_WEIGHT).removeprefix(start)
                layers.append(_linear(info, block, kind, tensors, transposed))
        found += _with_reasons(layers, reasons)
    return found, odd


def _with_reasons(layers: list[Linear], reasons: kept_layers.Reasons) -> list[Linear]:
    """Return the layers of a block with the reason of each that stays in 16 bits by default."""
    found = reasons.of_block([(linear.kind, linear.out_features) for linear in layers])
    return [replace(linear, kept=why) if why else linear for linear, why in zip(layers, found, strict=True)]


def _linear(info: TensorInfo, block: int, kind: str, tensors: Mapping[str, TensorInfo], transposed: bool) -> Linear:
    rows, columns = info.shape
    renamed, part = single_kind(kind), None
    name = info.name.removesuffix(_WEIGHT)
    has_bias = f"{name}.bias" in tensors
    if renamed != kind:
        part = TensorPart(info.name, None, (0, columns if transposed else rows, 1), transposed)
        name, kind = name.removesuffix(kind) + renamed, renamed
    return Linear(
        name=name,
        block=block,
        kind=kind,
        in_features=rows if transposed else columns,
        out_features=columns if transposed else rows,
        dtype=info.dtype,
        transposed=transposed,
        has_bias=has_bias,
        part=part,
    )


def _expert(item: ExpertLinear, start: str, block: int) -> Linear:
    return Linear(
        name=start + item.kind,
        block=block,
        kind=item.kind,
        in_features=item.in_features,
        out_features=item.out_features,
        dtype=item.dtype,
        transposed=item.part.transposed,
        has_bias=item.has_bias,
        part=item.part,
    )


def _listing(items: list[str]) -> str:
    return ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")
