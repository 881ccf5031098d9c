"""What is refused before the first block, once torch is there."""

from __future__ import annotations

import pytest

from core.errors import BadInput
from core.quant.prepare import check_compiler


def test_compile_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BadInput, match="needs a C\\+\\+ compiler") as caught:
        check_compiler()
    assert "g++" in caught.value.hint


def test_compile_takes_the_compiler_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "sh")
    check_compiler()
