"""A plan in the form that the configs of all packed formats need: default scheme, exceptions and module names.

A config uses the names of *modules* in the transformers model, a checkpoint those of tensors. They differ if the
checkpoint lacks the prefix of the base model (GPT-2: tensor `h.0.attn.c_attn.weight`, module
`transformer.h.0.attn.c_attn`), or if transformers renames the module (Mixtral: `block_sparse_moe` and `mlp`). vLLM has
the module names of the checkpoint, so exceptions are listed under both.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.errors import BadInput, UnsupportedModel
from core.model.towers import Tower
from core.model.tree import HEAD, TOWER, LayerPlan
from core.schemes import LayerScheme

ModuleName = Callable[[str], str]
"""Function from the name of a linear layer in the checkpoint to the name of its module in the transformers model."""


@dataclass(frozen=True)
class ConfigLayout:
    """A plan in the structure of a config.

    Attributes:
        default: the scheme of most quantized linear layers.
        plans: (module name, plan) of all linear layers, in the order of the model.
        block_prefix: module that contains the numbered blocks, such as `model.layers`.
        towers: modules that are copied as a whole, with names that no module with a quantized layer contains; see
            `tower_names`.
        further: those of `towers` that predict further tokens (MTP). Engines load them as models with the config of the
            whole checkpoint, and would expect quantized weights without an entry.
    """

    default: LayerScheme
    plans: tuple[tuple[str, LayerPlan], ...]
    block_prefix: str
    towers: tuple[str, ...] = ()
    further: tuple[str, ...] = ()

    @property
    def in_blocks(self) -> list[tuple[str, LayerPlan]]:
        """The entries of `plans` in the blocks."""
        return [(module, plan) for module, plan in self.plans if plan.linear.block >= 0]

    @property
    def named(self) -> list[tuple[str, LayerPlan]]:
        """The entries of `in_blocks` under all names of their modules; see the docstring of this file."""
        return [
            (name, plan) for module, plan in self.in_blocks for name in dict.fromkeys((module, _renamed(module, plan)))
        ]

    @property
    def head(self) -> list[tuple[str, LayerPlan]]:
        """The entry of the lm_head if it is quantized."""
        return [(module, plan) for module, plan in self.plans if plan.linear.block == HEAD and plan.scheme.quantized]

    @property
    def in_towers(self) -> list[tuple[str, LayerPlan]]:
        """The entries of quantized linear layers in towers."""
        return [(module, plan) for module, plan in self.plans if plan.linear.block == TOWER and plan.scheme.quantized]

    @property
    def schemes(self) -> set[LayerScheme]:
        """The distinct schemes of the quantized linear layers."""
        return {plan.scheme for _, plan in self.plans if plan.scheme.quantized}


def config_layout(plans: Sequence[LayerPlan], module_name: ModuleName, towers: Sequence[Tower] = ()) -> ConfigLayout:
    """Build the `ConfigLayout` of a plan.

    Args:
        towers: parts of the checkpoint besides the language model.

    Raises:
        BadInput: no layer is quantized.
        UnsupportedModel: the block structure of the modules differs from that of the checkpoint.
    """
    named = tuple((module_name(plan.linear.name), plan) for plan in plans)
    counts = Counter(plan.scheme for _, plan in named if plan.scheme.quantized and plan.linear.block != TOWER)
    if not counts:
        raise BadInput(
            "No layer of the language model would be quantized: all stay in 16 bits.",
            "Choose 2, 3, 4 or 8 bits for some layers.",
        )
    modules = [module for module, plan in named if plan.scheme.quantized]
    return ConfigLayout(
        counts.most_common(1)[0][0],
        named,
        _block_prefix(named),
        tower_names(towers, modules),
        tower_names([tower for tower in towers if tower.kind == "mtp"], modules),
    )


def tower_names(towers: Sequence[Tower], modules: Sequence[str]) -> tuple[str, ...]:
    """Return a name for each tower that no quantized module contains.

    Engines name the modules around a tower in different ways (`model.visual` is `visual` in vLLM), so the last part is
    used if it is enough.
    """
    joined = "\n".join(modules)
    names = []
    for tower in towers:
        last = tower.prefix.rpartition(".")[2]
        usable = [name for name in (last, tower.prefix) if not name.isdecimal() and name not in joined]
        names += usable[:1]
    return tuple(dict.fromkeys(names))


def below(module: str) -> str:
    """Return a regular expression that matches the names of all modules below a module, wherever that is."""
    return rf"^(?:.*\.)?{re.escape(module)}\..*$"


def exactly(module: str) -> str:
    """Return a regular expression that matches exactly one module name."""
    return f"^{re.escape(module)}$"


def _renamed(module: str, plan: LayerPlan) -> str:
    """Return the name of a layer in the checkpoint if it is more than `module` without a prefix, else `module`."""
    name = plan.linear.name
    return module if module.endswith(f".{name}") else name


def _block_prefix(named: Sequence[tuple[str, LayerPlan]]) -> str:
    prefixes = set()
    for module, plan in named:
        if plan.linear.block < 0:
            continue
        prefix, number, _ = module.partition(f".{plan.linear.block}.")
        if not number:
            raise UnsupportedModel(
                f"The layer {plan.linear.name} has the name {module} in the loaded model.",
                "This version supports models whose blocks keep their numbers when they are loaded.",
            )
        prefixes.add(prefix)
    if len(prefixes) != 1:
        raise UnsupportedModel("The decoder blocks of this model are in several lists.", "Choose another model.")
    return prefixes.pop()
