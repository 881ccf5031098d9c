"""What the configs of all output formats need to know of a plan: the usual scheme, the exceptions, the names.

A config names the *modules* of the transformers model, a checkpoint its tensors; the two differ where a
checkpoint lacks the base model's prefix (GPT-2: tensor `h.0.attn.c_attn.weight`, module
`transformer.h.0.attn.c_attn`). Knows nothing of any one format.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.errors import BadInput, UnsupportedModel
from core.model.tree import LayerPlan
from core.schemes import LayerScheme

ModuleName = Callable[[str], str]
"""Name of a linear in the checkpoint -> name of its module in the transformers model."""


@dataclass(frozen=True)
class ConfigLayout:
    """A plan as configs tell it.

    Attributes:
        default: the scheme of most quantized linears; what a config says once.
        plans: all linears with the names of their modules, in the order of the model.
        block_prefix: module that holds the numbered blocks, such as `model.layers`.
    """

    default: LayerScheme
    plans: tuple[tuple[str, LayerPlan], ...]
    block_prefix: str

    @property
    def in_blocks(self) -> list[tuple[str, LayerPlan]]:
        return [(module, plan) for module, plan in self.plans if plan.linear.block >= 0]

    @property
    def head(self) -> list[tuple[str, LayerPlan]]:
        """The quantized linears outside the blocks: the lm_head or nothing."""
        return [(module, plan) for module, plan in self.plans if plan.linear.block < 0 and plan.scheme.quantized]

    @property
    def schemes(self) -> set[LayerScheme]:
        """The different schemes of the quantized linears."""
        return {plan.scheme for _, plan in self.plans if plan.scheme.quantized}


def lay_out(plans: Sequence[LayerPlan], module_name: ModuleName) -> ConfigLayout:
    """The common facts of a plan.

    Raises:
        BadInput: nothing is to be quantized.
        UnsupportedModel: the modules are not numbered as the checkpoint is.
    """
    named = tuple((module_name(plan.linear.name), plan) for plan in plans)
    counts = Counter(plan.scheme for _, plan in named if plan.scheme.quantized)
    if not counts:
        raise BadInput(
            "No layer of this model would be quantized: all stay in 16 bits.", "Choose 2, 3, 4 or 8 bits for some."
        )
    return ConfigLayout(counts.most_common(1)[0][0], named, _block_prefix(named))


def exactly(module: str) -> str:
    """The regular expression for one module's name and no other."""
    return f"^{re.escape(module)}$"


def _block_prefix(named: Sequence[tuple[str, LayerPlan]]) -> str:
    prefixes = set()
    for module, plan in named:
        if plan.linear.block < 0:
            continue
        tail = f".{plan.linear.block}.{plan.linear.kind}"
        if not module.endswith(tail):
            raise UnsupportedModel(
                f"The layer {plan.linear.name} is called {module} once the model is loaded.",
                "This version writes models whose blocks keep their structure on loading.",
            )
        prefixes.add(module.removesuffix(tail))
    if len(prefixes) != 1:
        raise UnsupportedModel("The decoder blocks of this model are not in one list.", "Choose another model.")
    return prefixes.pop()
