"""Time of an allocation, of the curve over budgets and of the engine check with 20,000 layers. Run manually:

    python3 packaging/bootstrap.py exec --extra test env PYTHONPATH=. python tests/benchmarks/allocation_speed.py

Prints the median and the maximum of several rounds in milliseconds. The loss increases are random.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from core.allocation.pareto import pareto
from core.allocation.problem import AllocationRequest, Budget, allocate
from core.bitsmap import BitsMap, Rule
from core.formats import engines
from core.model.tree import ModelTree, resolve_schemes
from core.schemes import LayerScheme
from tests.core.allocation.problems import table_for
from tests.core.paper_model import llama

EXPERTS = {f"mlp.experts.{number}.{kind}": (64, 64) for number in range(128) for kind in ("w1", "w2", "w3")}
ATTENTION = {f"self_attn.{kind}_proj": (64, 64) for kind in "qkvo"}


def measured(step: Callable[[], object], rounds: int) -> str:
    """Return the median and the maximum of some rounds in milliseconds."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        step()
        times.append(1000 * (time.perf_counter() - began))
    return f"{statistics.median(times):7.0f} {max(times):7.0f}"


def steps(tree: ModelTree) -> dict[str, Callable[[], object]]:
    """Return the measured steps for a tree."""
    table = table_for(tree)
    request = AllocationRequest(Budget("bpw", 3.5), (2, 3, 4, 8))
    for_vllm = AllocationRequest(Budget("bpw", 5.5), (4, 8), engine="vllm-cuda")
    curve = pareto(tree, table, request)
    mixed = BitsMap(LayerScheme(4, 32), (Rule("*.o_proj", bits=2), Rule("*.q_proj", bits=8)))
    plans = resolve_schemes(tree, mixed)
    return {
        "allocate, 3.5 bits": lambda: allocate(tree, table, request),
        "allocate for vLLM": lambda: allocate(tree, table, for_vllm),
        "pareto": lambda: pareto(tree, table, request),
        f"map of one of {len(curve)} points": lambda: curve.map_at(len(curve) // 2),
        "check for vLLM": lambda: engines.check("vllm-cuda", tree, plans, "auto_round"),
        "repair for vLLM": lambda: engines.repaired("vllm-cuda", tree, mixed, "auto_round"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    dense, experts = llama(2858).prepared(), llama(52, shapes={**ATTENTION, **EXPERTS}).prepared()
    for name, tree in (("2,858 blocks of 7", dense), ("52 blocks of 388", experts)):
        print(f"{name}: median and worst in ms")
        for step, run in steps(tree).items():
            print(f"  {step:<32} {measured(run, rounds)}")


if __name__ == "__main__":
    main()
