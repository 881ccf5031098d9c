"""Turns of a comparison: prompts, verdicts, and the order given the free memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.pages.chat.comparison import turns
from app.pages.chat.comparison.token_diff import compare
from app.pages.chat.comparison.turns import Reply, SideMemory, Turn, messages_of, plan, resolved, verdict, weights_in
from core.estimation.goals import ENGINE
from core.inference.generation.sampling import Sampling
from core.inference.machine import Device, Machine

GB = 10**9


def turn(question: str, left: str, right: str) -> Turn:
    return Turn(question, Sampling(), (Reply(text=left), Reply(text=right)))


def test_each_side_goes_on_from_its_own_answers() -> None:
    turns = [turn("one", "left", "right"), turn("two", "", "")]
    contents = [[message["content"] for message in messages_of(turns, side)] for side in (0, 1)]
    assert contents == [["one", "left", "two"], ["one", "right", "two"]]


def test_the_system_prompt_goes_first() -> None:
    assert messages_of([turn("one", "", "")], 0, "Be brief.")[0] == {"role": "system", "content": "Be brief."}


def test_a_question_without_an_answer_is_joined_to_the_next() -> None:
    turns = [turn("one", "", "right"), turn("two", "", "")]
    assert messages_of(turns, 0) == [{"role": "user", "content": "one\n\ntwo"}]


def test_both_are_asked_at_once_where_both_fit() -> None:
    found = plan((SideMemory("a", "cpu", GB), SideMemory("b", "cpu", GB)), {"cpu": 20 * GB})
    assert (found.at_once, found.swap) == (True, False)
    assert "the CPU" in found.words


def test_they_share_nothing_on_two_devices() -> None:
    found = plan((SideMemory("a", "cpu", GB), SideMemory("b", "cuda:0", GB)), {"cpu": 20 * GB, "cuda:0": 8 * GB})
    assert "share" not in found.words


def test_one_after_the_other_where_both_do_not_fit() -> None:
    found = plan((SideMemory("a", "cpu", 8 * GB), SideMemory("b", "cpu", 8 * GB)), {"cpu": 10 * GB})
    assert (found.at_once, found.swap) == (False, True)
    assert "10 GB free" in found.words
    assert "19.2 GB" in found.words


def test_what_is_in_memory_already_needs_no_more() -> None:
    needs = (SideMemory("a", "cpu", 8 * GB, held=8 * GB), SideMemory("b", "cpu", 8 * GB))
    assert plan(needs, {"cpu": 10 * GB}).swap is False


def test_in_turn_keeps_both_where_both_fit() -> None:
    found = plan((SideMemory("a", "cpu", GB), SideMemory("b", "cpu", GB)), {"cpu": 20 * GB}, "in_turn")
    assert (found.at_once, found.swap) == (False, False)


def test_at_once_without_room_is_a_warning_and_is_done() -> None:
    found = plan((SideMemory("a", "cpu", 8 * GB), SideMemory("b", "cpu", 8 * GB)), {"cpu": 10 * GB}, "at_once")
    assert (found.at_once, found.role) == (True, "warning")


def test_an_unknown_size_is_asked_one_after_the_other() -> None:
    found = plan((SideMemory("a", "cpu"), SideMemory("b", "cpu", GB)), {"cpu": 20 * GB})
    assert (found.at_once, found.swap) == (False, True)
    assert "not known" in found.words


def test_unknown_memory_of_a_device_is_not_taken_for_enough() -> None:
    assert plan((SideMemory("a", "xpu:0", GB), SideMemory("b", "xpu:0", GB)), {}).swap is True


def test_loading_takes_the_weights_and_the_program() -> None:
    assert SideMemory("a", "cpu", GB).more == pytest.approx(1.1 * GB + ENGINE)


def test_a_device_is_found_by_its_stable_id() -> None:
    machine = Machine((Device("cuda:1", "cuda", "", 0, 0, stable_id="GPU-1"),), {}, "cuda:1")
    assert (resolved(machine, "auto"), resolved(machine, "GPU-1"), resolved(Machine(), "auto")) == (
        "cuda:1", "cuda:1", "cpu",
    )  # fmt: skip


def test_free_memory_of_a_card_is_what_was_measured() -> None:
    machine = Machine((Device("cuda:0", "cuda", "", 0, 5),), {}, "cuda:0")
    assert turns.free_for(machine, ["cuda:0", "xpu:9"]) == {"cuda:0": 5.0}


def test_a_container_limits_what_is_free() -> None:
    machine = Machine((Device("cpu", "cpu", "", 1_000, 0),), {}, "cpu")
    assert turns.free_for(machine, ["cpu"]) == {"cpu": 1000.0}


def test_weights_are_counted_in_a_folder_and_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"12345")
    (tmp_path / "tokenizer.json").write_bytes(b"1234567")
    (tmp_path / "m.gguf").write_bytes(b"123")
    assert weights_in(str(tmp_path)) == 8
    assert weights_in(str(tmp_path / "m.gguf")) == 3
    assert weights_in("owner/name") == 0


@pytest.mark.parametrize(
    ("left", "right", "words"),
    [
        ("a b c", "a b c", "Identical answers (3 tokens)."),
        ("a b c d", "a x y z", "They differ after 1 token."),
        ("a b", "a b c", "One answer continues after 2 tokens."),
        ("a", "b", "They differ from the start."),
        ("", "", "Both answers are empty."),
    ],
)
def test_the_verdict_is_a_sentence(left: str, right: str, words: str) -> None:
    assert verdict(compare(left.split(), right.split()))[0].startswith(words)
