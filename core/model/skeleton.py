"""A language model without weights, parts of which are filled from a checkpoint on demand.

The model may be multimodal: its towers are then part of it, and are filled only when they run. Parameters are on the
`meta` device. Buffers (rotary tables, scales) are real, since no checkpoint contains them. The whole model is built
because a decoder block that is built alone has no attention implementation: it would use bidirectional attention with
nothing but a warning.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMultimodalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MULTIMODAL_LM_MAPPING
from transformers.pytorch_utils import Conv1D
from transformers.utils import is_timm_available

from core.errors import UnsupportedModel, translated
from core.model.folder import check_architecture, read_config
from core.model.headers import TensorInfo, short
from core.model.separate_experts import ExpertJoin
from core.model.skipped_blocks import run_all_blocks
from core.model.slices import ParameterSlice, RowNumbers, joined, whole
from core.model.sources import ParameterSource, by_parameter, find_sources
from core.model.tokenizer import readable
from core.model.towers import is_aside, is_multimodal, text_config, text_root
from core.model.tree import TOWER, Linear, ModelTree
from core.model.weights import TensorStore

_MAX_NUMBER: Final = 1 << 31
_MAX_ITEMS: Final = 1 << 16
_NUMBERED: Final = 16
"""Parameters whose row numbers are kept: those of one block, which are used together."""
_LARGE: Final = 1 << 22
"""Weights of an embedding of which only the used rows are read."""


@dataclass(frozen=True)
class Skeleton:
    """A language model on `meta`, and the location of its parts.

    Attributes:
        model: the `...ForCausalLM` or `...ForConditionalGeneration` module.
        stack: module path of the list of decoder blocks, such as `model.layers`.
        tree: layer tree of the checkpoint.
        store: tensors of the checkpoint.
        sources: parameter or buffer of the model -> the tensors that fill it.
        shapes: the same names -> shape that the tensors give.
    """

    model: Any
    stack: str
    tree: ModelTree
    store: TensorStore
    sources: Mapping[str, ParameterSource]
    shapes: Mapping[str, tuple[int, ...]]
    _numbered: dict[str, RowNumbers] = field(default_factory=dict, repr=False)

    @property
    def blocks(self) -> nn.ModuleList:
        return self.model.get_submodule(self.stack)

    def module_name(self, name: str) -> str:
        """Return the module path for a linear layer of the checkpoint, such as `transformer.h.0.mlp.c_fc`.

        transformers has one module for all experts of a block. Readers of quantized checkpoints replace it by one
        module for each expert, whose path is returned.
        """
        linear = self._linears.get(name)
        part = None if linear is None else linear.part
        target = self._targets.get(f"{name}.weight" if part is None else part.tensor)
        if target is None:
            base = self.model.base_model_prefix + "."
            return name if self._owns(name) or not self._owns(base + name) else base + name
        expert = name.rpartition(".experts.")[2].split(".")
        if len(expert) == 2 and not target.endswith(".weight"):
            return ".".join([target.rpartition(".")[0], *expert])
        if len(expert) == 2 and f"experts.{expert[0]}." not in target:
            return name  # a module with the parameter of all experts (JetMoE), which no reader replaces
        return target.removesuffix(".weight")

    def parameter_name(self, linear: Linear) -> str:
        """Return the name of the parameter, or the first of several, that holds the weight of a linear layer.

        Raises:
            UnsupportedModel: the model has no parameter for it.
        """
        tensor = f"{linear.name}.weight" if linear.part is None else linear.part.tensor
        if tensor in self._targets:
            return self._targets[tensor]
        tied = self.tree.tied_head
        if tied is not None and linear.name == tied.name:
            return f"{self.head()}.weight"
        raise UnsupportedModel(
            f"{type(self.model).__name__} of transformers has no layer for {linear.name}.",
            "Use a checkpoint that contains exactly the tensors of its architecture.",
        )

    def slices(self, linear: Linear) -> list[ParameterSlice]:
        """Return where the weight of a linear layer is in the parameters of the model.

        Raises:
            UnsupportedModel: the model has no parameter for it, or stores it in another order of inputs or outputs.
        """
        part = linear.part
        tensor = f"{linear.name}.weight" if part is None else part.tensor
        target = self.parameter_name(linear)
        source = self.sources[target]
        if source.converter is None:
            return [whole(target, linear, len(self.shapes[target]))]
        if isinstance(source.converter, ExpertJoin):
            return [joined(target, source.converter.parts[tensor], source.converter.height)]
        try:
            if target not in self._numbered:
                shapes = {name: self._info(name).shape for name in source.names}
                transposed = linear.transposed if part is None else part.transposed
                if len(self._numbered) >= _NUMBERED:
                    self._numbered.clear()
                self._numbered[target] = RowNumbers(source, shapes, transposed, self.model)
            return self._numbered[target].slices(
                tensor, None if part is None else part.expert, None if part is None else part.rows
            )
        except ValueError as error:
            raise UnsupportedModel(
                f"transformers changes the order of the weights of {linear.name}: {error}.",
                "Leave this layer in 16 bits.",
            ) from error

    def _info(self, name: str) -> TensorInfo:
        return self.tree.tensors[name] if name in self.tree.tensors else self.store.info(name)

    def _owns(self, name: str) -> bool:
        try:
            self.model.get_submodule(name)
        except AttributeError:
            return False
        return True

    def checkpoint_name(self, name: str) -> str | None:
        """Return the name of the tensor that is the parameter or buffer `name` of the model.

        Returns None if there is none, or if transformers makes the parameter of several tensors.
        """
        source = self._source_of(name)
        known = source is not None and source.converter is None and source.names[0] in self.store
        return source.names[0] if source is not None and known else None

    def shared_name(self, name: str) -> str:
        """Return the parameter whose tensor fills the parameter `name`: another one if several share a tensor."""
        source = self._source_of(name)
        return name if source is None or name in self.sources else str(self._shared(name) or source.target)

    @cached_property
    def shared_parameters(self) -> frozenset[str]:
        """Parameters of blocks that other blocks share (Zamba); the names are those of `shared_name`."""
        names = (name for name, _, _ in _slots(self.model, "") if name.startswith(f"{self.stack}."))
        return frozenset(shared for name in names if (shared := self.shared_name(name)) != name)

    def _source_of(self, name: str) -> ParameterSource | None:
        found = self.sources.get(name)
        if found is not None:
            return found
        if name == f"{self.head()}.weight":
            return self.sources.get(f"{self.ends()[0]}.weight") if self.tree.tied else None
        return self.sources.get(self._shared(name))

    def _shared(self, name: str) -> str:
        """Return the other name of a shared parameter ("" if not shared): BERT's `decoder.bias` is saved as `bias`."""
        return str(getattr(self.model, "all_tied_weights_keys", {}).get(name, ""))

    @cached_property
    def _linears(self) -> dict[str, Linear]:
        return {linear.name: linear for linear in self.tree.linears}

    @cached_property
    def _targets(self) -> dict[str, str]:
        """Tensor of the checkpoint or layer of the tree, with `.weight` -> first parameter that is made of it."""
        return {name: source.target for source in self.sources.values() for name in source.names}

    def head(self) -> str:
        """Return the module path of the output head.

        Raises:
            UnsupportedModel: the model has no output head.
        """
        head = self.model.get_output_embeddings()
        if head is not None:
            return self._path(head)
        # A multimodal class may not know the head of its language model.
        target = self._targets.get(f"{self.tree.lm_head}.weight")
        if target is None:
            raise UnsupportedModel(
                f"{type(self.model).__name__} has no output head.", "Choose a language model that predicts tokens."
            )
        return target.removesuffix(".weight")

    def ends(self) -> tuple[str, str]:
        """Return the module paths of the token embedding and the output head."""
        return self._path(self.model.get_input_embeddings()), self.head()

    @cached_property
    def towers(self) -> tuple[str, ...]:
        """Module paths of the parts besides the language model: vision and audio towers, and their projectors."""
        if not is_multimodal(self.tree.config):
            return ()
        return tuple(_towers(self.model, "", frozenset({self.language_model, self.head()})))

    @cached_property
    def language_model(self) -> str:
        """Module path of the smallest module with the blocks and the token embedding; "" for the whole model."""
        return text_root(self.stack, self.ends()[0])

    def fill_on_use(self, path: str, dtype: torch.dtype, device: torch.device) -> None:
        """Load the weights of the sub-module at `path` when it, or a module inside it, is called for the first time."""
        tower = self.model.get_submodule(path)
        handles: list[RemovableHandle] = []

        def hook(_module: nn.Module, _args: tuple[Any, ...]) -> None:
            for handle in handles:
                handle.remove()
            if any(parameter.is_meta for parameter in tower.parameters()):
                self.fill(path, dtype, device)

        # A list of modules is not called itself, and some models call parts of their towers.
        handles += [module.register_forward_pre_hook(hook) for module in tower.modules()]

    @contextlib.contextmanager
    def with_towers(self, dtype: torch.dtype, device: torch.device) -> Iterator[None]:
        """Load the towers that are not loaded for the duration of the context.

        Raises:
            UnsupportedModel: the checkpoint has no tensor, or one of another shape, for a parameter.
        """
        missing = [
            path for path in self.towers if any(value.is_meta for value in self.model.get_submodule(path).parameters())
        ]
        try:
            for path in missing:
                self.fill(path, dtype, device)
            yield
        finally:
            for path in missing:
                self.unload(path)

    def _path(self, wanted: nn.Module) -> str:
        return next(name for name, module in self.model.named_modules() if module is wanted)

    def fill(
        self,
        path: str,
        dtype: torch.dtype,
        device: torch.device,
        skip: tuple[str, ...] = (),
        stored: Collection[str] = (),
    ) -> nn.Module:
        """Load the weights of the sub-module at `path`.

        Args:
            dtype: of floating-point parameters.
            skip: paths of modules and parameters that are not loaded.
            stored: names of parameters that keep the dtype of the checkpoint.

        Raises:
            UnsupportedModel: the checkpoint has no tensor, or one of another shape, for a parameter.
        """
        module = self.model.get_submodule(path) if path else self.model
        below = tuple(f"{part}." for part in skip)
        wanted: dict[str, list[tuple[str, str, nn.Module]]] = {}
        for name, slot, owner in list(_slots(module, path)):
            if f"{name}.".startswith(below):
                continue
            source = self._source(name, slot, owner)
            if source is None:
                _place(owner, slot, getattr(owner, slot).to(device))
            else:
                wanted.setdefault(source.target, []).append((name, slot, owner))
        for target, places in wanted.items():
            values = self.sources[target].build(self.store.get, self.model)
            for name, slot, owner in places:
                value = values[self.shared_name(name)]
                keep = name in stored or not value.is_floating_point()
                _place(owner, slot, value.to(device, value.dtype if keep else dtype))
            del values
        return module

    def check(self) -> None:
        """Compare the headers of all tensors with the parameters of the model, without reading values.

        Raises:
            UnsupportedModel: a parameter has no tensor, or one of another shape or dtype; the model's embedding or head
                is not the tensor that the tree lists; or the model has no parameter for a linear layer of the tree.
        """
        towers = tuple(f"{path}." for path in self.towers)
        for name, slot, owner in _slots(self.model, ""):
            if not name.startswith(towers):
                self._source(name, slot, owner)
        tree = self.tree
        embedding, head = (self.checkpoint_name(f"{path}.weight") for path in self.ends())
        heads = [f"{tree.embedding}.weight", f"{tree.lm_head}.weight"] if tree.tied else [f"{tree.lm_head}.weight"]
        for what, found, taken in (
            ("token embedding", embedding, [f"{tree.embedding}.weight"]),
            ("output head", head, heads),
        ):
            if found not in taken:
                raise UnsupportedModel(
                    f"The {what} of this model is {found}, not {taken[0]} as its shape suggests.",
                    "This architecture is not supported yet.",
                )
        for linear in tree.linears:
            if linear.block == TOWER:
                continue  # copied, unless the bits map names it
            target = self.parameter_name(linear)
            if self.sources[target].converter is None:
                self._check_layout(linear, target)

    def _check_layout(self, linear: Linear, target: str) -> None:
        """Compare the storage order of a weight with that of the module that has the parameter `target`."""
        owner = self.model.get_submodule(target.rpartition(".")[0])
        part = linear.part
        transposed = linear.transposed if part is None else part.transposed
        halves = part is not None and part.rows[1] - part.rows[0] != linear.out_features
        found: list[tuple[bool, bool]] = []
        if isinstance(owner, nn.Linear | Conv1D):
            found.append((transposed, isinstance(owner, Conv1D)))
        elif part is not None and hasattr(owner, "is_transposed"):
            found.append((transposed, owner.is_transposed))
            if owner.has_gate and "gate_up" in target:
                found.append((halves, not owner.is_concatenated))
        if any(ours != theirs for ours, theirs in found):
            raise UnsupportedModel(
                f"transformers stores the weight of {linear.name} in another order than its shape suggests.",
                "This architecture is not supported yet.",
            )

    def embeddings(self) -> list[str]:
        """Return the paths of the embeddings outside the blocks whose rows are read on demand.

        These are the token embedding and other large tables, such as those of n-grams.
        """
        token = self.model.get_input_embeddings()
        return [
            path
            for path, module in self.model.named_modules()
            if isinstance(module, nn.Embedding)
            and (module is token or module.weight.numel() > _LARGE)
            and not path.startswith(f"{self.stack}.")
            and self.checkpoint_name(f"{path}.weight") is not None
        ]

    def _source(self, name: str, slot: str, owner: nn.Module) -> ParameterSource | None:
        """Return the tensors that fill a parameter or buffer, after checking their headers.

        Returns None for a buffer that the model computes itself, or a parameter that is loaded already.
        """
        if slot in owner._non_persistent_buffers_set:
            return None
        source, wanted = self._source_of(name), getattr(owner, slot)
        if source is None:
            if isinstance(wanted, nn.Parameter) and wanted.is_meta:
                raise UnsupportedModel(
                    f"The checkpoint has no tensor for {name}, which this architecture needs.",
                    "The checkpoint may be incomplete, or made for another version of transformers.",
                )
            return None
        shape = self.shapes[self.shared_name(name)]
        for key in source.names:
            if key not in self.store:
                raise UnsupportedModel(
                    f"The checkpoint has no tensor {key}, which {name} of this architecture needs.",
                    "The checkpoint may be incomplete, or made for another version of transformers.",
                )
            info = self.store.info(key)
            if not info.numel and wanted.numel():
                raise UnsupportedModel(
                    f"{key} is empty (shape {list(info.shape)}).",
                    "The weights were saved during sharded training (ZeRO-3) without being gathered; save them again.",
                )
            if wanted.is_floating_point() and not self.store.dtype(key).is_floating_point:
                raise UnsupportedModel(
                    f"{key} is stored as {info.dtype}, but floating-point numbers are required.",
                    "Use a checkpoint in 16 or 32 bits.",
                )
        if shape != tuple(wanted.shape):
            first = source.names[0]
            what = first if source.converter is None else f"{name}, which is made of {first} and others,"
            raise UnsupportedModel(
                f"{what} has the shape {list(shape)}, but config.json requires {list(wanted.shape)}.",
                "The config and the weights belong to different models.",
            )
        return source

    def replace(self, name: str, parameter: nn.Parameter) -> None:
        """Replace the parameter `name` of the model."""
        path, _, slot = name.rpartition(".")
        setattr(self.model.get_submodule(path), slot, parameter)

    def unload(self, path: str) -> None:
        """Move the parameters below `path` back to `meta`; buffers stay."""
        module = self.model.get_submodule(path) if path else self.model
        for owner in module.modules():
            for slot, value in list(owner._parameters.items()):
                if value is not None and not value.is_meta:
                    _place(owner, slot, value.detach().to("meta"))


def build_skeleton(tree: ModelTree, store: TensorStore) -> Skeleton:
    """Build the model that `config.json` in the folder of `store` describes, without weights.

    Raises:
        UnsupportedModel: transformers does not implement the architecture, or cannot build the model.
    """
    config = _language_part(transformers_config(store.folder))
    text = config.get_text_config(decoder=True)
    config.tie_word_embeddings = text.tie_word_embeddings = tree.tied
    # the callers rely on these return values, whatever config.json specifies
    config.return_dict, config.output_hidden_states, config.output_attentions = True, False, False
    # SDPA ignores soft-capping, so models that use it need eager attention with its explicit mask.
    capped = getattr(text, "attn_logit_softcapping", None) is not None
    if getattr(config, "rescale_every", None):
        # RWKV halves its weights in place every few blocks for the range of float16; the norms cancel it.
        config.rescale_every = 0
    model = _from_config(config, "eager" if capped else "sdpa")
    model.eval().requires_grad_(False)
    # packed layers are in the tree, and not in the store
    table = {**tree.tensors, **store.table}
    found, _ = find_sources(model, table)
    try:
        sources, shapes = by_parameter(found, model, {name: info.shape for name, info in table.items()})
    except ValueError as error:
        raise UnsupportedModel(f"{error}.", "The config and the weights belong to different models.") from error
    skeleton = Skeleton(model, _stack_of(model, tree, found), tree, store, sources, shapes)
    _towers_last(skeleton)
    run_all_blocks(model)
    return skeleton


def _towers_last(skeleton: Skeleton) -> None:
    """Register the towers after the language model.

    transformers takes the device and dtype of a model from its first parameter, and towers are often not loaded.
    """
    for path in skeleton.towers:
        parent, _, name = path.rpartition(".")
        children = skeleton.model.get_submodule(parent)._modules
        children[name] = children.pop(name)


def _language_part(config: Any) -> Any:
    """Return the part of a config that is a multimodal language model of its own, else the config.

    The class of Qwen's Omni models has such a part for text and another one for speech, and cannot be run as a whole.
    """
    parts = (getattr(config, key, None) for key in getattr(config, "sub_configs", {}))
    return next((part for part in parts if type(part) in MODEL_FOR_MULTIMODAL_LM_MAPPING), config)


def _stack_of(model: Any, tree: ModelTree, sources: Iterable[ParameterSource]) -> str:
    """Return the module path of the list of blocks: the one whose first block gets the most tensors of the tree's."""
    start = f"{tree.prefix}.0."
    block = [source.target for source in sources for name in source.names if name.startswith(start)]
    lists = {
        name: sum(target.startswith(f"{name}.0.") for target in block)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == tree.blocks
    }
    stack = max(lists, key=lambda name: lists[name], default="")
    if not lists.get(stack):
        raise UnsupportedModel(
            f"The blocks {tree.prefix} of the checkpoint were not found in the {tree.architecture} of transformers.",
            "This architecture is not supported yet.",
        )
    return stack


def transformers_config(folder: Path) -> Any:
    """Return the transformers config of a folder without its `quantization_config`; never runs code of the model.

    Raises:
        UnsupportedModel: transformers does not implement the model type, or rejects a value.
        CorruptFile, ModelNotFound: there is no readable config.json.
    """
    value = read_config(folder)
    check_architecture(value)
    _check_numbers(value)
    problem = "transformers does not accept the model's config.json"
    hint = "Correct config.json, or download it again."
    with readable(folder) as place, translated(UnsupportedModel, problem, hint):
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def _check_numbers(value: Mapping[str, Any]) -> None:
    """Raise UnsupportedModel for sizes beyond those of any model, before memory is allocated for them."""
    for key, item in [*value.items(), *text_config(value).items()]:
        size = item if type(item) is int else len(item) if isinstance(item, list) else 0
        if abs(size) >= (_MAX_ITEMS if isinstance(item, list) else _MAX_NUMBER) and "theta" not in key:
            raise UnsupportedModel(f"In config.json, {short(key)} exceeds any known model.", "Correct config.json.")


def _from_config(config: Any, attention: str) -> Any:
    factory = _factory(config)
    problem = "transformers cannot build a language model from this config"
    try:
        told = translated(UnsupportedModel, problem, "Check config.json, or use another model.")
        with _parameters_on_meta(), without_timm(), told:
            return factory.from_config(config, dtype=torch.float32, attn_implementation=attention)
    except UnsupportedModel as error:
        if attention == "sdpa" and "scaled_dot_product_attention" in str(error.__cause__):
            return _from_config(config, "eager")
        raise


def _factory(config: Any) -> Any:
    """Return the auto class of transformers for a config.

    Some configs are those of a multimodal model and of its language model alone; `architectures` tells which it is.
    """
    found = [
        (factory, [cls.__name__ for cls in _classes(mapping, config)])
        for factory, mapping in (
            (AutoModelForCausalLM, MODEL_FOR_CAUSAL_LM_MAPPING),
            (AutoModelForMultimodalLM, MODEL_FOR_MULTIMODAL_LM_MAPPING),
        )
        if type(config) in mapping
    ]
    if not found:
        raise UnsupportedModel(
            f"transformers has no causal language model of the type {config.model_type!r}.",
            "Use a model that predicts the next token.",
        )
    wanted = (getattr(config, "architectures", None) or [""])[0]
    return next((factory for factory, names in found if wanted in names), found[0][0])


def _classes(mapping: Any, config: Any) -> tuple[type, ...]:
    classes = mapping[type(config)]
    return classes if isinstance(classes, tuple) else (classes,)


def _towers(module: nn.Module, path: str, kept: frozenset[str]) -> Iterator[str]:
    """Yield the paths of the sub-modules with parameters that are not the language model or its head.

    Args:
        kept: paths of the language model and the head.
    """
    for name, child in module.named_children():
        place = f"{path}.{name}" if path else name
        if place in kept or any(part.startswith(f"{place}.") for part in kept):
            yield from _towers(child, place, kept)
        elif (is_aside(name) or path not in kept) and next(child.parameters(), None) is not None:
            yield place


@contextlib.contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Move every parameter to `meta` when it is registered, before its memory is written to and thus committed."""
    original = nn.Module.register_parameter

    def register(module: nn.Module, name: str, value: nn.Parameter | None) -> None:
        original(module, name, value)
        if value is not None and not value.is_meta:
            module._parameters[name] = nn.Parameter(value.detach().to("meta"), requires_grad=False)

    nn.Module.register_parameter = register  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = original  # type: ignore[method-assign]


class _NoTower(nn.Module):
    """A tower that needs the package timm; its weights are copied, and it cannot be run."""

    def forward(self, *_: Any, **__: Any) -> Tensor:
        raise UnsupportedModel("The vision tower of this model needs the package timm.", "Install timm.")


@contextlib.contextmanager
def without_timm() -> Iterator[None]:
    """Let transformers build models whose vision tower is one of timm's, such as Gemma 3n, if timm is not installed."""
    if is_timm_available():
        yield
        return
    module = importlib.import_module("transformers.models.timm_wrapper.modeling_timm_wrapper")
    names = ("requires_backends", "_create_timm_model_with_error_handling")
    originals = [getattr(module, name) for name in names]
    for name in names:
        setattr(module, name, lambda *_, **__: _NoTower())
    try:
        yield
    finally:
        for name, original in zip(names, originals, strict=True):
            setattr(module, name, original)


def _slots(module: nn.Module, path: str) -> Iterator[tuple[str, str, nn.Module]]:
    """Yield (full name, attribute, owner) for every parameter and buffer below a module."""
    for prefix, owner in module.named_modules(prefix=path):
        for slot, value in [*owner._parameters.items(), *owner._buffers.items()]:
            if value is not None:
                yield (f"{prefix}.{slot}" if prefix else slot), slot, owner


def _place(owner: nn.Module, slot: str, value: Tensor) -> None:
    if slot in owner._parameters:
        owner._parameters[slot] = nn.Parameter(value, requires_grad=False)
    else:
        owner._buffers[slot] = value
