"""A causal language model without weights, parts of which are filled from a checkpoint on demand.

Parameters are on the `meta` device. Buffers (rotary tables, scales) are real, since no checkpoint contains them. The
whole model is built because a decoder block that is built alone has no attention implementation: it would use
bidirectional attention with nothing but a warning.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from core.errors import UnsupportedModel, translated
from core.model.folder import check_architecture, read_config
from core.model.headers import short
from core.model.refusals import text_config
from core.model.tokenizer import readable
from core.model.tree import ModelTree
from core.model.weights import TensorStore

_MAX_NUMBER: Final = 1 << 31
_MAX_ITEMS: Final = 1 << 16


@dataclass(frozen=True)
class Skeleton:
    """A causal language model on `meta`, and the location of its parts.

    Attributes:
        model: the `...ForCausalLM` module.
        stack: module path of the list of decoder blocks, such as `model.layers`.
        tree: layer tree of the checkpoint.
        store: tensors of the checkpoint.
        renamed: name in the checkpoint -> name in the model, for tensors that transformers renames (`embed_out` of
            GPT-NeoX becomes `lm_head`).
    """

    model: Any
    stack: str
    tree: ModelTree
    store: TensorStore
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def blocks(self) -> nn.ModuleList:
        return self.model.get_submodule(self.stack)

    def module_name(self, name: str) -> str:
        """Return the module path for a name in the checkpoint (`transformer.h.0` for GPT-2's `h.0`)."""
        if f"{name}.weight" in self.renamed:
            return self.renamed[f"{name}.weight"].removesuffix(".weight")
        if name == self.tree.prefix or name.startswith(self.tree.prefix + "."):
            return self.stack + name[len(self.tree.prefix) :]
        base = self.model.base_model_prefix + "."
        return name if self._owns(name) or not self._owns(base + name) else base + name

    def _owns(self, name: str) -> bool:
        try:
            self.model.get_submodule(name)
        except AttributeError:
            return False
        return True

    def checkpoint_name(self, name: str) -> str | None:
        """Return the name of the tensor that fills the parameter or buffer `name` of the model; None if missing."""
        if name in self._originals:
            return self._originals[name] if self._originals[name] in self.store else None
        if name.startswith(self.stack + "."):
            name = self.tree.prefix + name[len(self.stack) :]
            return name if name in self.store else None
        base = self.model.base_model_prefix + "."
        for candidate in (name, name.removeprefix(base), base + name):
            if candidate in self.store:
                return candidate
        if self.tree.tied and name == f"{self.head()}.weight":
            return self.tree.embedding + ".weight"
        shared = self._shared(name)
        return shared if shared in self.store and name != f"{self.head()}.weight" else None

    def _shared(self, name: str) -> str:
        """Return the other name of a shared parameter ("" if not shared): BERT's `decoder.bias` is saved as `bias`."""
        return str(getattr(self.model, "all_tied_weights_keys", {}).get(name, ""))

    @cached_property
    def _originals(self) -> dict[str, str]:
        return {new: old for old, new in self.renamed.items()}

    def head(self) -> str:
        """Return the module path of the output head.

        Raises:
            UnsupportedModel: the model has no output head.
        """
        head = self.model.get_output_embeddings()
        if head is None:
            raise UnsupportedModel(
                f"{type(self.model).__name__} has no output head.", "Choose a language model that predicts tokens."
            )
        return self._path(head)

    def ends(self) -> tuple[str, str]:
        """Return the module paths of the token embedding and the output head."""
        return self._path(self.model.get_input_embeddings()), self.head()

    def _path(self, wanted: nn.Module) -> str:
        return next(name for name, module in self.model.named_modules() if module is wanted)

    def fill(self, path: str, dtype: torch.dtype, device: torch.device, skip: tuple[str, ...] = ()) -> nn.Module:
        """Load the weights of the sub-module at `path` in `dtype` to `device`, except at or below the paths in `skip`.

        Raises:
            UnsupportedModel: the checkpoint has no tensor, or one of another shape, for a parameter.
        """
        module = self.model.get_submodule(path) if path else self.model
        for name, slot, owner in list(_slots(module, path)):
            if any(f"{name}.".startswith(f"{part}.") for part in skip):
                continue
            key = self._source(name, slot, owner)
            if key is None:
                _place(owner, slot, getattr(owner, slot).to(device))
                continue
            value = self.store.get(key)
            _place(owner, slot, value.to(device, dtype if value.is_floating_point() else value.dtype))
        return module

    def check(self) -> None:
        """Compare the headers of all tensors with the parameters of the model, without reading values.

        Raises:
            UnsupportedModel: a parameter has no tensor, or one of another shape or dtype; the model's embedding or head
                is not the tensor that the tree lists; or the model has no module for a linear layer of the tree.
        """
        for name, slot, owner in _slots(self.model, ""):
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
            if not self._owns(self.module_name(linear.name)):
                raise UnsupportedModel(
                    f"{type(self.model).__name__} of transformers has no layer for {linear.name}.",
                    "Use a checkpoint that contains exactly the tensors of its architecture.",
                )

    def _source(self, name: str, slot: str, owner: nn.Module) -> str | None:
        """Return the tensor that fills a parameter or buffer, after checking its header.

        Returns None for a buffer that the model computes itself, or a parameter that is loaded already.
        """
        if slot in owner._non_persistent_buffers_set:
            return None
        key, wanted = self.checkpoint_name(name), getattr(owner, slot)
        if key is None:
            if isinstance(wanted, nn.Parameter) and wanted.is_meta:
                if name.startswith(f"{self.stack}.") and (shared := self._shared(name)):
                    raise UnsupportedModel(
                        f"{name} shares its tensor with {shared}: the blocks of this architecture share weights.",
                        "This architecture is not supported yet.",
                    )
                raise UnsupportedModel(
                    f"The checkpoint has no tensor for {name}, which this architecture needs.",
                    "The checkpoint may be incomplete, or made for another version of transformers.",
                )
            return None
        info = self.store.info(key)
        if not info.numel and wanted.numel():
            raise UnsupportedModel(
                f"{key} is empty (shape {list(info.shape)}).",
                "The weights were saved during sharded training (ZeRO-3) without being gathered; save them again.",
            )
        if info.shape != tuple(wanted.shape):
            raise UnsupportedModel(
                f"{key} has the shape {list(info.shape)}, but config.json requires {list(wanted.shape)}.",
                "The config and the weights belong to different models.",
            )
        if wanted.is_floating_point() and not self.store.dtype(key).is_floating_point:
            raise UnsupportedModel(
                f"{key} is stored as {info.dtype}, but floating-point numbers are required.",
                "Use a checkpoint in 16 or 32 bits.",
            )
        return key

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
    config = transformers_config(store.folder)
    config.tie_word_embeddings = tree.tied
    # the callers rely on these return values, whatever config.json specifies
    config.return_dict, config.output_hidden_states, config.output_attentions = True, False, False
    # SDPA ignores soft-capping, so models that use it need eager attention with its explicit mask.
    capped = getattr(config, "attn_logit_softcapping", None) is not None
    if getattr(config, "rescale_every", None):
        # RWKV halves its weights in place every few blocks for the range of float16; the norms cancel it.
        config.rescale_every = 0
    model = _from_config(config, "eager" if capped else "sdpa")
    model.eval().requires_grad_(False)
    renamed = _renamed(model, tree)
    prefixes = {tree.prefix, *_renamed_prefix(tree, renamed)}
    stacks = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == tree.blocks
        and any(_matches(name, prefix) for prefix in prefixes)
    ]
    if len(stacks) != 1:
        raise UnsupportedModel(
            f"The blocks {tree.prefix} of the checkpoint were not found in the {tree.architecture} of transformers.",
            "This architecture is not supported yet.",
        )
    return Skeleton(model, stacks[0], tree, store, renamed)


def _renamed(model: Any, tree: ModelTree) -> dict[str, str]:
    """Return name in the checkpoint -> name in the model for the tensors that transformers renames when loading.

    Raises:
        UnsupportedModel: transformers also splits, joins or transposes tensors.
    """
    steps = get_model_conversion_mapping(model)
    own = {name for name, _ in [*model.named_parameters(), *model.named_buffers()]}
    base = f"{model.base_model_prefix}."
    found = {}
    for name in tree.tensors:
        new = name
        for step in steps:
            if not isinstance(step, WeightConverter):
                new = step.rename_source_key(new)[0]
            elif not {name, base + name} & own and step.rename_source_key(new)[1] is not None:
                raise UnsupportedModel(
                    f"transformers converts the tensor {name} when it loads a {tree.architecture}, which this version "
                    "does not support.",
                    "This architecture is not supported yet.",
                )
        new = new if new in own or base + new not in own else base + new
        if new != name and name not in own and new in own:
            found[name] = new
    return found


def _renamed_prefix(tree: ModelTree, renamed: Mapping[str, str]) -> set[str]:
    """Return the prefixes of the blocks in the model, if transformers renames them."""
    blocks = (new for old, new in renamed.items() if old.startswith(f"{tree.prefix}.0."))
    return {new.partition(".0.")[0] for new in blocks}


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
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UnsupportedModel(
            f"transformers has no causal language model of the type {config.model_type!r}.",
            "Use a model that predicts the next token.",
        )
    problem = "transformers cannot build a language model from this config"
    try:
        with _parameters_on_meta(), translated(UnsupportedModel, problem, "Check config.json, or use another model."):
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention)
    except UnsupportedModel as error:
        if attention == "sdpa" and "scaled_dot_product_attention" in str(error.__cause__):
            return _from_config(config, "eager")
        raise


def _matches(module: str, prefix: str) -> bool:
    """Return whether a module path and a checkpoint path are equal apart from leading parts."""
    return module == prefix or module.endswith("." + prefix) or prefix.endswith("." + module)


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
