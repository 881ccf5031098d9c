"""Tests that the command of a job, parsed by the real parser, gives the same job."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import recipes
from core.api.estimation import limit_of
from core.bitsmap import BitsMap, Rule
from core.cli import actions, main
from core.files import write_json
from core.recipes import Recipe
from core.report.command_line import Command, command_of
from core.schemes import LayerScheme
from core.spec import JobSpec, from_options

SPEC = JobSpec("/models/tiny", "/out/tiny-4bit")


def parsed(command: Command) -> JobSpec:
    """Parse the words with the options of the command line and `from_options`."""
    found: list[JobSpec] = []

    def keep(_terminal: object, model: str, output: Path, options: dict[str, Any]) -> None:
        found.append(from_options(model, output, **{**options, "memory": limit_of(options["memory"])}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(actions, "quantize", keep)
        assert main(list(command.words[1:])) == 0
    return found[0]


def unnamed(spec: JobSpec) -> JobSpec:
    """Return the job without the recipe's name and purpose, which have no option."""
    return replace(spec, recipe=replace(spec.recipe, name="", purpose=""))


def written(command: Command) -> Command:
    for path, value in command.files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, value)
    return command


def overridden(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    """Return the recipe with these values, except those that its start does not use."""
    unused: dict[str, Any] = {"end_to_end": 0, "learn_integers": False}
    if recipe.start == "gptq":
        unused = {} if values["learn_integers"] else {"lr": None}
    return replace(recipe, **{**values, **unused})


recipe_values = st.fixed_dictionaries(
    {
        "iters": st.integers(0, 2000),
        "lr": st.none() | st.floats(1e-5, 10),
        "minmax_lr": st.none() | st.floats(1e-5, 10),
        "samples": st.integers(1, 1024),
        "seqlen": st.integers(8, 4096),
        "batch_size": st.integers(1, 64),
        "accumulate": st.integers(1, 64),
        "learn_integers": st.booleans(),
        "end_to_end": st.integers(0, 500),
    }
)
specs = st.builds(
    JobSpec,
    model=st.sampled_from(["demo", "owner/name", "/models/it's a model", "/models/kleine Größe"]),
    output=st.sampled_from(["/out/a", "/out/with space", "/out/$HOME", "/out/ünï"]),
    recipe=st.builds(
        lambda name, values: overridden(recipes.load(name), values), st.sampled_from(recipes.NAMES), recipe_values
    ),
    bits_map=st.builds(
        lambda bits, group, sym: BitsMap(LayerScheme(bits, group, sym)),
        st.sampled_from([2, 3, 4, 8, 16]),
        st.sampled_from([-1, 32, 64, 96, 128]),
        st.booleans(),
    ),
    calibration=st.sampled_from(["builtin", "owner/data:split=train", "/texts/my text.txt"]),
    formats=st.sampled_from([("auto_round",), ("auto_gptq",), ("auto_gptq", "auto_round")]),
    device=st.sampled_from(["auto", "cpu", "cuda:1", "xpu"]),
    seed=st.integers(0, 2**63 - 1),
    low_memory=st.booleans(),
    memory=st.none() | st.integers(1, 2**50),
    compile=st.booleans(),
    name=st.sampled_from(["", "a night's run"]),
)


@given(specs)
def test_parsing_the_command_of_a_job_gives_that_job(tmp_path_factory: pytest.TempPathFactory, spec: JobSpec) -> None:
    command = written(command_of(spec, tmp_path_factory.getbasetemp() / "command"))
    assert unnamed(parsed(command)) == unnamed(spec)


@given(specs)
def test_the_command_is_quoted_for_a_shell(spec: JobSpec) -> None:
    command = command_of(spec, Path("/files"))
    assert tuple(shlex.split(command.text)) == command.words


def test_the_command_of_a_default_job_has_no_options() -> None:
    command = command_of(replace(SPEC, recipe=recipes.load("default")), Path("/files"))
    assert command.text == "bitwright quantize /models/tiny --output /out/tiny-4bit"
    assert command.files == {}


def test_only_changed_settings_have_options() -> None:
    recipe = replace(recipes.load("light"), iters=60)
    spec = replace(SPEC, recipe=recipe, bits_map=BitsMap(LayerScheme(2, 128, False)), seed=7)
    words = command_of(spec, Path("/files")).words[5:]
    assert words == ("--recipe", "light", "--iters", "60", "--bits", "2", "--asym", "--seed", "7")


@pytest.mark.parametrize("name", recipes.NAMES)
def test_a_bundled_recipe_is_referred_to_by_name(name: str) -> None:
    words = command_of(replace(SPEC, recipe=recipes.load(name)), Path("/files")).words[5:]
    assert words == (() if name == "default" else ("--recipe", name))


def test_a_derived_rate_is_expressed_with_another_recipe() -> None:
    recipe = replace(recipes.load("autoround-light"), lr=None)
    command = command_of(replace(SPEC, recipe=recipe), Path("/files"))
    assert command.words[5:] == ("--recipe", "autoround", "--iters", "50")


def test_a_recipe_that_options_cannot_express_is_written_to_a_file(tmp_path: Path) -> None:
    recipe = replace(recipes.load("autoround"), low_bit_lr_scale=3.0)
    command = written(command_of(replace(SPEC, recipe=recipe), tmp_path))
    assert list(command.files) == [tmp_path / "recipe.json"]
    assert parsed(command).recipe == recipe


def test_rules_and_layers_are_written_to_a_file_with_the_default(tmp_path: Path) -> None:
    bits_map = BitsMap(LayerScheme(3, 64, False), (Rule("*.down_proj", bits=8),), (Rule("lm_head", bits=4),))
    command = written(command_of(replace(SPEC, bits_map=bits_map), tmp_path))
    assert "--bits" not in command.words
    assert parsed(command).bits_map == bits_map


def test_a_custom_recipe_is_expressed_with_the_fewest_options() -> None:
    own = Recipe(
        "mine", "For me.", iters=1000, samples=512, low_bit_lr_scale=2.0, seqlen=1024, batch_size=8, start="range"
    )
    words = command_of(replace(SPEC, recipe=own), Path("/files")).words[5:]
    assert words == ("--recipe", "autoround-best", "--seqlen", "1024")


def test_the_file_whose_types_are_used_is_an_option() -> None:
    spec = from_options("demo", "/out", like="/files/a model-Q4_K_M.gguf")
    command = command_of(spec, Path("/unused"))
    assert command.words[-2:] == ("--like", "/files/a model-Q4_K_M.gguf")
    assert parsed(command) == spec
