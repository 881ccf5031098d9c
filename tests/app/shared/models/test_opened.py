"""A model whose weights cannot be read has the reason in its tree."""

from __future__ import annotations

from app.shared.models.opened import OpenedModel
from core.service.messages import ModelHeaders


def test_the_reason_why_weights_cannot_be_read_is_in_the_tree() -> None:
    headers = ModelHeaders("a/b", "a/b", "hub", "", "", {}, (), refusal="The weights are quantized with 'hqq'.")
    assert OpenedModel.from_headers(headers).tree.refusal == "The weights are quantized with 'hqq'."
