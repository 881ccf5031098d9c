"""The choices of a window: derived values, problems, and undo of map edits."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from app.shared.draft import Choices, Draft
from app.shared.models.opened import OpenedModel
from core import recipes
from core.bitsmap import BitsMap, Rule
from core.errors import BadInput
from core.estimation.costs import Range
from core.inference.machine import Machine
from core.schemes import LayerScheme
from core.sensitivity.table import SensitivityTable


@pytest.fixture
def draft(qtbot: QtBot, opened: OpenedModel) -> Draft:
    draft = Draft()
    draft.choose(model=opened)
    return draft


def test_a_missing_model_is_the_first_problem(qtbot: QtBot) -> None:
    draft = Draft()
    assert draft.problem() == "Select a model"
    assert (draft.plans, draft.size, draft.costs) == ((), None, None)


def test_a_model_has_sizes_at_once(draft: Draft) -> None:
    assert draft.size is not None
    assert draft.size.total < draft.size.source
    assert draft.problem() == ""


def test_time_is_known_once_the_machine_is(draft: Draft) -> None:
    assert draft.costs is not None
    assert draft.costs.seconds is None
    draft.set_machine(Machine(throughput={"cpu": 1e11}, chosen="cpu"))
    assert isinstance(draft.costs.seconds, Range)


@pytest.fixture
def emitted(draft: Draft) -> list[str]:
    """The names of the signals in the order in which they are emitted."""
    names: list[str] = []
    others = (
        "model_replaced",
        "changed",
        "machine_changed",
        "engine_changed",
        "measure_changed",
        "sensitivity_changed",
    )
    for name in (*(f"{field.name}_changed" for field in fields(Choices)), *others):
        getattr(draft, name).connect(partial(names.append, name))
    return names


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("recipe", recipes.load("light")),
        ("bits_map", BitsMap(LayerScheme(8, 32))),
        ("calibration", "text.txt"),
        ("formats", ("auto_gptq",)),
        ("device", "cpu"),
        ("seed", 7),
        ("low_memory", True),
        ("compile", True),
        ("output", "out"),
    ],
)
def test_a_choice_is_reported_by_the_signal_of_its_field(
    draft: Draft, emitted: list[str], field: str, value: object
) -> None:
    draft.choose(**{field: value})
    draft.choose(**{field: value})
    assert emitted == [f"{field}_changed", "changed"]


def test_several_choices_at_once_are_reported_together(draft: Draft, emitted: list[str]) -> None:
    draft.choose(seed=7, recipe=recipes.load("light"), device="auto")
    assert emitted == ["seed_changed", "recipe_changed", "changed"]


def test_new_details_of_the_same_model_do_not_replace_it(draft: Draft, emitted: list[str], opened: OpenedModel) -> None:
    draft.choose(model=replace(opened, folder="/models/tiny"))
    assert emitted == ["model_changed", "changed"]
    emitted.clear()
    draft.choose(model=replace(opened, name="another"))
    assert emitted == ["model_replaced", "model_changed", "changed"]


def test_values_outside_the_choices_have_their_own_signals(draft: Draft, emitted: list[str]) -> None:
    draft.set_machine(Machine(chosen="cpu"))
    draft.set_engine("vllm-cuda")
    draft.set_measure("output")
    assert emitted == ["machine_changed", "engine_changed", "measure_changed"]


def test_a_measurement_is_reported_where_its_measure_is_selected(draft: Draft, emitted: list[str]) -> None:
    draft.set_sensitivity(replace(draft.analysis(), measure="output"), SensitivityTable("output", (), (), ()))
    assert emitted == []
    draft.set_measure("output")
    assert emitted == ["measure_changed", "sensitivity_changed"]


def test_a_choice_invalidates_only_what_depends_on_it(draft: Draft) -> None:
    plans, size, costs = draft.plans, draft.size, draft.costs
    draft.choose(seed=7, calibration="text.txt", output="out", compile=True)
    assert (draft.plans is plans, draft.size is size, draft.costs is costs) == (True, True, True)
    draft.choose(low_memory=True)
    assert (draft.plans is plans, draft.size is size, draft.costs is costs) == (True, True, False)
    draft.choose(formats=("auto_gptq",))
    assert (draft.plans is plans, draft.size is size) == (True, False)
    draft.choose(bits_map=BitsMap(LayerScheme(8, 32)))
    assert draft.plans is not plans


def test_an_edit_of_the_map_can_be_undone(draft: Draft) -> None:
    before = draft.choices.bits_map
    draft.edit_map(replace(before, default=LayerScheme(2, 32, False)), "2 bits")
    small = draft.size
    draft.undo_stack.undo()
    assert draft.choices.bits_map == before
    draft.undo_stack.redo()
    assert draft.size == small


def test_another_model_forgets_what_could_be_undone(draft: Draft, opened: OpenedModel) -> None:
    draft.edit_map(BitsMap(LayerScheme(8, 32)), "8 bits")
    draft.choose(model=replace(opened, name="another"))
    assert not draft.undo_stack.canUndo()


def test_a_map_for_another_model_is_a_problem_and_no_crash(draft: Draft) -> None:
    draft.choose(bits_map=BitsMap(rules=(Rule("*.no_such_layer", bits=8),)))
    assert "no_such_layer" in draft.problem()
    assert draft.size is None


def test_a_refused_model_has_its_reason_as_the_problem(draft: Draft, opened: OpenedModel) -> None:
    draft.choose(model=replace(opened, tree=replace(opened.tree, refusal="It has experts.")))
    assert draft.problem() == "It has experts."


def test_a_refused_model_has_plans_and_their_size_but_no_run(draft: Draft, opened: OpenedModel) -> None:
    planned = draft.size
    draft.choose(model=replace(opened, tree=replace(opened.tree, refusal="It has experts.")))
    assert len(draft.plans) == len(opened.tree.linears)
    assert (draft.planned_size, draft.size, draft.costs) == (planned, None, None)


def test_a_map_that_does_not_fit_has_a_reason(draft: Draft) -> None:
    assert draft.misfit == ""
    draft.choose(bits_map=BitsMap(rules=(Rule("*.no_such_layer", bits=8),)))
    assert draft.plans == ()
    assert "no_such_layer" in draft.misfit


def test_all_in_16_bits_is_a_problem(draft: Draft) -> None:
    draft.choose(bits_map=BitsMap(LayerScheme(16)))
    assert "16 bits" in draft.problem()


def test_too_little_disk_is_a_problem(draft: Draft, opened: OpenedModel) -> None:
    draft.choose(model=replace(opened, download_bytes=10**18))
    assert draft.problem().startswith("Needs 1e+06 TB of disk")


def test_the_spec_contains_all_choices(draft: Draft, opened: OpenedModel, tmp_path: Path) -> None:
    draft.choose(seed=7, low_memory=True, output=str(tmp_path / "out"), formats=("auto_gptq",))
    spec = draft.spec()
    assert (spec.model, spec.seed, spec.low_memory, spec.formats) == (opened.name, 7, True, ("auto_gptq",))
    assert spec.output == str(tmp_path / "out")


def test_a_spec_needs_a_model(qtbot: QtBot) -> None:
    with pytest.raises(BadInput):
        Draft().spec()


def test_the_suggested_folder_is_one_that_is_free(draft: Draft) -> None:
    first = draft.output
    first.mkdir(parents=True)
    assert draft.output == first.with_name(f"{first.name}-2")


def test_the_oldest_edits_are_forgotten(draft: Draft) -> None:
    for number in range(150):
        draft.edit_map(BitsMap(LayerScheme((2, 3)[number % 2], 64, True)), "edit")
    assert draft.undo_stack.count() == 100


# --- What it must run on, and loss increase ------------------------------------------------------------------------


def test_an_engine_marks_what_it_cannot_run_and_stops_nothing(draft: Draft) -> None:
    draft.choose(bits_map=BitsMap(LayerScheme(2, 32)))
    assert draft.marks == []
    draft.set_engine("vllm-cuda")
    assert {mark.severity for mark in draft.marks} == {"cannot"}
    assert draft.problem() == ""
    draft.choose(bits_map=BitsMap(LayerScheme(4, 32)))
    assert draft.marks == []


def test_an_unknown_engine_is_none(draft: Draft) -> None:
    draft.set_engine("abacus")
    assert draft.engine == ""


def test_a_table_is_kept_for_its_measure_and_its_model(draft: Draft, opened: OpenedModel) -> None:
    table = SensitivityTable("fisher", (), (), ())
    draft.set_sensitivity(draft.analysis(), table)
    kept = [draft.sensitivity]
    draft.set_measure("output")
    kept.append(draft.sensitivity)
    draft.set_measure("fisher")
    draft.choose(model=replace(opened, label="opened again"))
    kept.append(draft.sensitivity)
    draft.choose(model=replace(opened, name="another"))
    kept.append(draft.sensitivity)
    assert kept == [table, None, table, None]


def test_a_table_of_a_previous_model_is_dropped(draft: Draft, opened: OpenedModel) -> None:
    spec = draft.analysis()
    draft.choose(model=replace(opened, name="another"))
    draft.set_sensitivity(spec, SensitivityTable("fisher", (), (), ()))
    assert draft.sensitivity is None


def test_an_analysis_asks_for_all_bits_and_no_more_than_the_model_reads(draft: Draft, opened: OpenedModel) -> None:
    draft.choose(bits_map=BitsMap(LayerScheme(4, 32, False)), calibration="text.txt", seed=7)
    spec = draft.analysis()
    assert [scheme.label() for scheme in spec.schemes] == [f"W{bits} g32 asym" for bits in (2, 3, 4, 8)]
    assert (spec.model, spec.calibration, spec.seed) == (opened.name, "text.txt", 7)
    assert 32 <= spec.seqlen <= 256


# --- formats ---


def test_a_format_that_cannot_hold_the_map_stops_the_run(draft: Draft) -> None:
    draft.choose(formats=("auto_round", "auto_awq"), bits_map=BitsMap(LayerScheme(3, 32, True)))
    assert draft.problem() == "AWQ cannot hold this bits map; see Recipe"
    draft.choose(formats=("auto_round",))
    assert draft.problem() == ""


def test_a_named_type_decides_what_the_layers_get(draft: Draft) -> None:
    before = {plan.scheme.label() for plan in draft.plans}
    draft.choose(formats=("gguf:q4_1",))
    assert "W4 g64 sym" in before
    assert {plan.scheme.label() for plan in draft.plans} == {"Q4_1"}
    draft.choose(formats=("auto_gptq",))
    assert {plan.scheme.label() for plan in draft.plans} == before


def test_a_named_type_and_other_formats_need_a_run_each(draft: Draft) -> None:
    draft.choose(formats=("auto_round", "gguf:q4_1"))
    assert draft.problem() == "AutoRound and GGUF Q4_1 need separate runs"


def test_a_point_in_the_name_of_a_model_is_kept(draft: Draft, opened: OpenedModel) -> None:
    draft.choose(model=replace(opened, label="Qwen3-0.6B"))
    assert draft.output.name == "Qwen3-0.6B-4bit"


def test_the_suggested_folder_names_the_type(draft: Draft) -> None:
    draft.choose(formats=("gguf:q4_1",))
    assert draft.output.name == "tiny-Q4_1"


def test_without_a_model_every_format_fits(qtbot: QtBot) -> None:
    assert Draft().fit("auto_awq").problems == ()
