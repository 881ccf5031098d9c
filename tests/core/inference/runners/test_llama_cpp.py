"""Tests of the runner on llama.cpp: logits against transformers, truncation of the cache, stops and refused inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from core.errors import BadInput, Cancelled, CorruptFile, MissingDependency
from core.inference.backends import llama_cpp as backend
from core.inference.runners.llama_cpp import LlamaCppRunner, open_runner
from tests.core.formats.gguf import families
from tests.core.inference import llama_library

CONTEXT = 64
# The cache is in float16, and attention computes in it.
BOUND = 1e-2


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return families.build("llama")


@pytest.fixture(scope="module")
def path(model: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    families.write(families.save(model, folder / "model"), folder / "m.gguf", "f32")
    return folder / "m.gguf"


@pytest.fixture
def runner(path: Path) -> Iterator[LlamaCppRunner]:
    llama_library.need()
    backend._loaded.cache_clear()
    made = open_runner(path, CONTEXT, threads=1)
    yield made
    made.close()


def expected(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float()


IDS = torch.randint(0, 256, (40,), generator=torch.Generator().manual_seed(2)).tolist()


def test_the_last_logits_are_those_of_transformers(runner: LlamaCppRunner, model: torch.nn.Module) -> None:
    assert (runner.extend(IDS) - expected(model, IDS)[-1]).abs().max() < BOUND


def test_all_logits_are_those_of_transformers(runner: LlamaCppRunner, model: torch.nn.Module) -> None:
    assert (runner.logits(IDS) - expected(model, IDS)).abs().max() < BOUND


def test_the_cache_is_empty_after_all_logits(runner: LlamaCppRunner) -> None:
    runner.extend(IDS[:5])
    runner.logits(IDS)
    assert runner.length == 0


def test_a_truncated_cache_can_be_extended(runner: LlamaCppRunner, model: torch.nn.Module) -> None:
    runner.extend([7, 8, 9, *IDS])
    runner.truncate(2)
    found = runner.extend(IDS)
    assert runner.length == 2 + len(IDS)
    assert (found - expected(model, [7, 8, *IDS])[-1]).abs().max() < BOUND


def test_a_stop_keeps_the_tokens_processed_before(runner: LlamaCppRunner, model: torch.nn.Module) -> None:
    runner.extend(IDS[:3])
    answers = iter([False, False, False])
    with pytest.raises(Cancelled):
        runner.extend(IDS[3:], lambda: next(answers, True))
    assert runner.length == 3
    assert (runner.extend(IDS[3:]) - expected(model, IDS)[-1]).abs().max() < BOUND


@pytest.mark.parametrize("ids", [[], [256 * 256], [-1], [1] * (CONTEXT + 1)])
def test_inputs_that_would_abort_the_process_are_refused(runner: LlamaCppRunner, ids: list[int]) -> None:
    with pytest.raises(BadInput):
        runner.extend(ids)


def test_the_cache_cannot_be_truncated_beyond_its_end(runner: LlamaCppRunner) -> None:
    runner.extend(IDS[:3])
    with pytest.raises(BadInput):
        runner.truncate(4)


def test_memory_is_that_of_weights_and_cache(runner: LlamaCppRunner, path: Path) -> None:
    assert 0.5 * path.stat().st_size < runner.memory_bytes < path.stat().st_size + (1 << 20)


def test_a_runner_can_be_closed_twice(path: Path) -> None:
    llama_library.need()
    made = open_runner(path, CONTEXT, threads=1)
    made.close()
    made.close()


def test_a_damaged_file_is_refused(path: Path, tmp_path: Path) -> None:
    llama_library.need()
    (tmp_path / "torn.gguf").write_bytes(path.read_bytes()[:-4096])
    with pytest.raises(CorruptFile):
        open_runner(tmp_path / "torn.gguf", CONTEXT, threads=1)


def test_loading_can_be_stopped(path: Path) -> None:
    llama_library.need()
    with pytest.raises(Cancelled):
        open_runner(path, CONTEXT, threads=1, should_stop=lambda: True)


def test_without_the_library_the_install_command_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        backend, "_loaded", lambda: (None, backend.MissingRequirement("It is not installed.", backend.INSTALL))
    )
    with pytest.raises(MissingDependency, match="pip install llama-cpp-python"):
        open_runner(tmp_path / "m.gguf", CONTEXT, threads=1)
