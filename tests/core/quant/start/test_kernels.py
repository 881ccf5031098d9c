"""The compiled loops of the start give the integers of the torch operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor

from core.quant import kernels
from core.quant.start import descent, feedback
from core.quant.start.levels import Levels
from core.quant.start.scale_search import search
from core.schemes import LayerScheme
from tests.core.quant.start.problem import layer


def _feed_back(weight: Tensor, start: Levels, gram: Tensor) -> Levels:
    return feedback.round_with_feedback(weight, start, feedback.error_factors(gram))


@pytest.mark.parametrize(
    "scheme",
    [LayerScheme(3, 32, True), LayerScheme(3, 32, False), LayerScheme.of_type("iq4_nl")],
    ids=LayerScheme.label,
)
@pytest.mark.parametrize("compute", [_feed_back, descent.descend], ids=["gptq", "sweep"])
def test_compiled_loops_equal_torch(
    compute: Callable[[Tensor, Levels, Tensor], Levels], scheme: LayerScheme, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight, gram = layer(48, 224, seed=3)
    start = search(weight, scheme, gram.diagonal())
    compiled = compute(weight, start, gram)
    monkeypatch.setattr(kernels, "DEVICE", "other")
    in_torch = compute(weight, start, gram)
    # sums are rounded in another order, which can move a value over the middle between two levels
    assert (compiled.levels == in_torch.levels).float().mean() > 0.995
