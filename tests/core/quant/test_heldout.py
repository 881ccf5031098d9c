"""The losses that a run reports, against those that `bitwright eval` computes of the same model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import processors

from core.inference.evaluate import loss_increase, make_windows, perplexity, summarize
from core.inference.loader import load_model
from core.quant import heldout
from tests.core.quant.test_pipeline import report_of, run, spec_of
from tests.core.tiny_model import save_model


def begin_with_end_of_text(folder: Path, *, end: bool) -> None:
    """Make the tokenizer of a folder put its end-of-text token before every text, and after it too."""
    from tokenizers import Tokenizer

    file = str(folder / "tokenizer.json")
    backend: Any = Tokenizer.from_file(file)
    mark = backend.id_to_token(0)
    single = f"{mark} $A {mark}" if end else f"{mark} $A"
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=[(mark, 0)])
    backend.save(file)


@pytest.mark.parametrize("end", [False, True])
def test_a_run_reports_what_eval_says_of_the_original(tmp_path: Path, end: bool) -> None:
    model = save_model(tmp_path / "model")
    begin_with_end_of_text(model, end=end)
    loaded = load_model(str(model), "cpu", "float32")
    windows = heldout.windows(loaded.tokenizer, 64)
    assert (windows[:, 0] == 0).all()
    assert (windows[:, 1:] != 0).any(dim=1).all()

    report = report_of(run(spec_of(model, tmp_path, iters=0, bits=8), tmp_path))["perplexity"]

    same = make_windows(loaded.tokenizer, None, report["seqlen"], heldout.WINDOWS)
    expected = perplexity(loaded.model, same.tokens)
    assert report["original"] == pytest.approx(expected.value, rel=1e-2)  # products of a run may be in 16 bits
    assert report["sha256"] == expected.sha256
    assert report["tokens"] == expected.tokens


def test_the_error_of_a_difference_is_that_of_the_same_tokens() -> None:
    hard = torch.tensor([[1.0, 9.0], [5.0, 3.0], [2.0, 0.0]])
    increase, error = loss_increase(hard, hard + torch.tensor([[0.1], [0.2], [0.3]]))
    assert increase == pytest.approx(0.2)
    assert error == pytest.approx(0.1 / 3**0.5, rel=1e-4)
    rows = torch.zeros(3, 3, dtype=torch.int64)
    assert summarize(hard, rows).standard_error > 10 * error


def test_losses_that_are_not_finite_are_no_perplexity() -> None:
    losses = torch.tensor([[1.0, torch.inf]])
    assert math.isnan(summarize(losses, torch.zeros(1, 3, dtype=torch.int64)).value)
