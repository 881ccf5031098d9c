"""What is refused before the first block, once torch is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import BadInput, UnsupportedModel
from core.quant.prepare import check_compiler, prepare
from core.spec import from_options
from tests.core.tiny_architectures import make_model


def test_compile_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BadInput, match="requires a C\\+\\+ compiler") as caught:
        check_compiler()
    assert "g++" in caught.value.hint


def test_compile_takes_the_compiler_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "sh")
    check_compiler()


@pytest.mark.parametrize(("name", "reason"), [("falcon", "is a FalconLinear"), ("rwkv", "rescales weights of RWKV")])
def test_layers_that_other_programs_would_not_replace_are_refused(tmp_path: Path, name: str, reason: str) -> None:
    make_model(name, tmp_path / "model")
    spec = from_options(tmp_path / "model", tmp_path / "out", recipe="rtn", bits=8, group_size=32)
    with pytest.raises(UnsupportedModel, match=reason):
        prepare(spec, lambda _event: None, lambda: False)
