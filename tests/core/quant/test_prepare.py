"""What is refused before the first block, once torch is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import BadInput, DiskFull, UnsupportedModel
from core.quant.prepare import check_compiler, prepare
from core.spec import from_options
from tests.core.tiny_architectures import make_model
from tests.core.tiny_model import save_model


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
        prepare(spec, tmp_path, lambda _event: None, lambda: False)


def test_files_of_a_run_that_do_not_fit_on_the_disk_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_model(tmp_path / "model")
    monkeypatch.setattr("core.estimation.preflight.free_bytes", lambda _path: 10**9)
    usual = from_options(model, tmp_path / "out", group_size=32, samples=10**6)
    fewer = replace(usual, recipe=replace(usual.recipe, samples=16), low_memory=True)
    prepare(fewer, tmp_path, lambda _event: None, lambda: False)
    with pytest.raises(DiskFull, match="The output and the temporary files need about"):
        prepare(replace(usual, low_memory=True), tmp_path, lambda _event: None, lambda: False)
