"""The sub-command `chat`: output on stdout and stderr, slash commands, errors and JSON events."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from core.cli import main, user_input
from core.cli.conversation import figures_line, markdown
from core.events import Event, Failed, Result, Token, from_line
from core.inference.generation.message import Message
from tests.core.pictures.made_pictures import encoded, halves
from tests.core.tiny_model import save_model
from tests.core.tiny_vision import save_vision_model

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def chat(tiny: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Run `bitwright chat` with the given lines of input, each a message or a command."""

    def run(*lines: str, options: tuple[str, ...] = ()) -> int:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return main(["chat", str(tiny), "--max-tokens", "3", "--device", "cpu", "--each-line", *options])

    return run


def events(capsys: Capture) -> list[Event]:
    return [from_line(line) for line in capsys.readouterr().out.splitlines()]


def results(capsys: Capture) -> list[dict[str, Any]]:
    return [event.values for event in events(capsys) if isinstance(event, Result)]


def test_the_answer_is_on_stdout_and_its_statistics_on_stderr(tiny: Path, capsys: Capture) -> None:
    assert main(["chat", str(tiny), "--prompt", "hello", "--max-tokens", "4", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert out.endswith("\n")
    assert err.startswith("load ...\n")
    assert err.splitlines()[-1].startswith("[4 tokens, ")
    assert err.endswith("reached the maximum number of tokens]\n")


def test_every_sampling_setting_has_an_option(tiny: Path, capsys: Capture) -> None:
    options = (
        "--temperature 0.9 --top-p 0.9 --top-k 40 --min-p 0.05 --repetition-penalty 1.1 --seed 7 --stop x --stop y"
    )
    arguments = [*options.split(), "--backend", "auto", "--context", "64", "--system", "Be brief.", "--json"]
    assert main(["chat", str(tiny), "--prompt", "hello", "--max-tokens", "4", "--device", "cpu", *arguments]) == 0
    assert results(capsys)[0]["seed"] == 7


def test_an_unknown_backend_is_refused(tiny: Path, capsys: Capture) -> None:
    assert main(["chat", str(tiny), "--prompt", "hello", "--backend", "abacus"]) == 2
    assert "abacus" in capsys.readouterr().err


def test_a_missing_device_falls_back_to_the_cpu_with_a_warning(tiny: Path, capsys: Capture) -> None:
    assert main(["chat", str(tiny), "--prompt", "hello", "--max-tokens", "1", "--device", "cuda:77"]) == 0
    assert "warning: " in capsys.readouterr().err


def test_the_second_message_reuses_the_cached_first_turn(chat, capsys: Capture) -> None:  # type: ignore[no-untyped-def]
    assert chat("hello", "", "more", options=("--json",)) == 0
    first, second = results(capsys)
    assert first["cached_tokens"] == 0
    assert second["cached_tokens"] >= 22


def test_regenerate_answers_again_with_another_seed(chat, capsys: Capture) -> None:  # type: ignore[no-untyped-def]
    assert chat("hello", "/regenerate", "/regenerate", options=("--json", "--seed", "5")) == 0
    found = results(capsys)
    assert [values["seed"] for values in found] == [5, 6, 7]
    assert [values["prompt_tokens"] for values in found] == [22] * 3


def test_clear_starts_a_new_conversation_with_the_same_system_prompt(chat, capsys: Capture) -> None:  # type: ignore[no-untyped-def]
    assert chat("hello", "/clear", "hello", options=("--json", "--system", "No.")) == 0
    assert [values["prompt_tokens"] for values in results(capsys)] == [22 + len("system: No.\n")] * 2


def test_system_starts_a_new_conversation_with_another_system_prompt(chat, capsys: Capture) -> None:  # type: ignore[no-untyped-def]
    assert chat("hello", "/system Yes.", "hello", "/system", "hello", options=("--json",)) == 0
    assert [values["prompt_tokens"] for values in results(capsys)] == [22, 22 + len("system: Yes.\n"), 22]


def test_save_writes_markdown_or_json(chat, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert chat("hello", f"/save {tmp_path / 'talk one.md'}", f"/save {tmp_path / 'talk.json'}") == 0
    assert (tmp_path / "talk one.md").read_text(encoding="utf-8").startswith("**You**\n\nhello\n\n**Model**\n\n")
    kept = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))
    assert [message["role"] for message in kept["messages"]] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["/fly"], "There is no command /fly"),
        (["/regenerate"], "no message to answer"),
        (["/save talk.md"], "The conversation is empty"),
        (["hello", "/save"], "requires a file name"),
        (["hello", "/save /nowhere/at/all.md"], "cannot be written"),
        (["hello", "/save a\0b.md"], "cannot be written"),
        (["hello", "/save ~no-such-user/a.md"], "cannot be written"),
        (["hello", "/save evil.desktop"], "can only save to a new file"),
        (["x" * 400], "context has only 256"),
    ],
)
def test_an_error_does_not_end_the_conversation(chat, capsys: Capture, lines: list[str], words: str) -> None:  # type: ignore[no-untyped-def]
    assert chat(*lines, "and now") == 0
    out, err = capsys.readouterr()
    assert words in err
    assert err.rstrip().splitlines()[-1].startswith("[3 tokens")
    assert out.endswith("\n")


def test_a_single_piped_message_that_fails_sets_the_exit_code(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("word " * 200))
    assert main(["chat", str(tiny), "--max-tokens", "3", "--device", "cpu", "--json"]) == 2
    failures = [event for event in events(capsys) if isinstance(event, Failed)]
    assert len(failures) == 1


def test_save_does_not_overwrite_an_existing_file(chat, tmp_path: Path, capsys: Capture) -> None:  # type: ignore[no-untyped-def]
    target = tmp_path / "thesis.md"
    target.write_text("years of work", encoding="utf-8")
    assert chat("hello", f"/save {target}") == 0
    assert target.read_text(encoding="utf-8") == "years of work"
    assert "already exists" in capsys.readouterr().err


def test_save_overwrites_its_own_file_if_it_is_unchanged(chat, tmp_path: Path, capsys: Capture) -> None:  # type: ignore[no-untyped-def]
    target = tmp_path / "talk.md"
    assert chat("one", f"/save {target}", "two", f"/save {target}") == 0
    assert "two" in target.read_text(encoding="utf-8")
    assert target.stat().st_mode & 0o077 == 0
    assert chat("one", f"/save {target}") == 0
    assert "already exists" in capsys.readouterr().err


def test_bye_ends_the_conversation(chat, capsys: Capture) -> None:  # type: ignore[no-untyped-def]
    assert chat("/bye", "hello", options=("--json",)) == 0
    assert results(capsys) == []


def test_a_prompt_is_read_from_an_option_a_file_or_stdin(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "q.txt").write_text("hello\n", encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
    for given in (["--prompt", "hello"], ["--prompt", "-"], ["--prompt-file", str(tmp_path / "q.txt")]):
        assert main(["chat", str(tiny), "--max-tokens", "1", "--device", "cpu", "--json", *given]) == 0
    assert [values["prompt_tokens"] for values in results(capsys)] == [22] * 3


def test_a_prompt_file_in_utf16_is_read(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "q.txt").write_bytes("hello\r\n".encode("utf-16"))
    given = ["--prompt-file", str(tmp_path / "q.txt"), "--max-tokens", "1", "--device", "cpu", "--json"]
    assert main(["chat", str(tiny), *given]) == 0
    assert [values["prompt_tokens"] for values in results(capsys)] == [22]


@pytest.mark.parametrize("lines", [("x" * 200,), ("hello",) * 40])
def test_input_above_the_size_limit_is_refused(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, lines: tuple[str, ...]
) -> None:
    monkeypatch.setattr(user_input, "_MAX_INPUT_BYTES", 100)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    assert main(["chat", str(tiny), "--device", "cpu"]) == 2
    assert "The input is too large for a message." in capsys.readouterr().err


def test_prompt_and_prompt_file_together_are_bad_input(capsys: Capture) -> None:
    assert main(["chat", "demo", "--prompt", "a", "--prompt-file", "b"]) == 2
    assert "not both" in capsys.readouterr().err


def test_arguments_that_are_not_utf8_are_accepted(tiny: Path) -> None:
    options = ["--system", "\udce9", "--stop", "\udce9", "--max-tokens", "1", "--device", "cpu"]
    assert main(["chat", str(tiny), "--prompt", "caf\udce9", *options]) == 0


def test_thinking_without_a_switch_in_the_template_is_bad_input(tiny: Path, capsys: Capture) -> None:
    assert main(["chat", str(tiny), "--prompt", "hello", "--thinking", "--device", "cpu"]) == 2
    assert "no switch for thinking" in capsys.readouterr().err
    options = ["--max-tokens", "1", "--device", "cpu"]
    assert main(["chat", str(tiny), "--prompt", "hello", "--no-thinking", *options]) == 0


def test_json_mode_prints_a_failed_event_for_a_wrong_command(chat, capsys: Capture) -> None:  # type: ignore[no-untyped-def]
    assert chat("/fly", "hello", options=("--json",)) == 0
    found = events(capsys)
    assert isinstance(found[0], Failed)
    assert isinstance(found[-1], Result)


def test_a_leading_space_allows_a_message_that_starts_with_a_slash(chat, capsys: Capture) -> None:  # type: ignore[no-untyped-def]
    assert chat(" /fly", "/help", options=("--json",)) == 0
    assert [values["prompt_tokens"] for values in results(capsys)] == [len("user: /fly\nassistant:")]


def test_help_lists_the_commands(chat, capsys: Capture) -> None:  # type: ignore[no-untyped-def]
    assert chat("/help") == 0
    assert "/regenerate" in capsys.readouterr().err


def test_reasoning_is_printed_to_stderr(capsys: Capture) -> None:
    from core.cli.conversation import AnswerPrinter
    from core.cli.terminal import Terminal

    printer = AnswerPrinter(Terminal())
    for event in (Token("hm", "thinking"), Token("yes")):
        printer.show(event)
    assert capsys.readouterr() == ("yes", "hm\n\n")


def test_the_statistics_include_dropped_messages_and_notes() -> None:
    values = {
        "tokens": 3, "tokens_per_second": 9.87, "first_token_seconds": 0.123, "prompt_tokens": 40, "cached_tokens": 30,
        "seed": 1, "dropped_messages": 4, "ended_by": "end",
    }  # fmt: skip
    expected = "[3 tokens, 9.9 tokens/s; first token after 0.12 s; prompt 40 tokens, 30 cached; seed 1; "
    assert figures_line(values) == f"{expected}the oldest 4 messages were left out]"
    values["note"] = "The format has no system prompt."
    assert figures_line(values).endswith("were left out; the format has no system prompt]")


def test_the_speed_of_a_single_token_is_not_known() -> None:
    values = {
        "tokens": 1, "tokens_per_second": 0.0, "first_token_seconds": 0.123, "prompt_tokens": 40, "cached_tokens": 30,
        "seed": 1, "dropped_messages": 0, "ended_by": "end",
    }  # fmt: skip
    assert figures_line(values) == "[1 token; first token after 0.12 s; prompt 40 tokens, 30 cached; seed 1]"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without a chat template."""
    folder = save_model(tmp_path_factory.mktemp("cli-chat") / "base")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_a_model_without_a_chat_template_warns_once_and_continues_the_text(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("once\nmore\n"))
    arguments = ["--system", "Tales.", "--max-tokens", "1", "--device", "cpu"]
    assert main(["chat", str(base), "--prompt", "once", *arguments]) == 0
    err = capsys.readouterr().err
    assert err.count("has no chat template") == 1
    assert "the system prompt first" in err
    assert f"prompt {len('Tales.' + 'once') + 1} tokens" in err


def test_markdown_has_a_heading_for_each_role() -> None:
    messages: list[Message] = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    assert markdown(messages) == "**System**\n\na\n\n**You**\n\nb\n"


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vision_model("qwen3_vl", tmp_path_factory.mktemp("vision") / "qwen3_vl")


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    path = tmp_path / "my cat.png"
    path.write_bytes(encoded(halves(64, 40)))
    return path


def test_a_prompt_with_pictures(seeing: Path, cat: Path, capsys: Capture) -> None:
    common = ["chat", str(seeing), "--prompt", "What?", "--max-tokens", "2", "--device", "cpu", "--json"]
    assert main(common) == 0
    assert main([*common, "--image", str(cat)]) == 0
    assert main([*common, "--image", str(cat), "--image", str(cat)]) == 0
    none, one, two = (values["prompt_tokens"] for values in results(capsys))
    assert two - one == one - none > 8


def test_pictures_of_a_conversation(seeing: Path, cat: Path, tmp_path: Path, monkeypatch: Any, capsys: Capture) -> None:
    saved = tmp_path / "saved.json"
    lines = [f"/image {cat}", "What?", f'/image "{cat}"', "/image", "And?", f"/save {saved}"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    options = ["--max-tokens", "2", "--device", "cpu", "--each-line", "--image", str(cat)]
    assert main(["chat", str(seeing), *options]) == 0
    assert "2 pictures in the next message" in capsys.readouterr().err
    questions = json.loads(saved.read_text())["messages"][::2]
    assert [message.get("pictures") for message in questions] == [[str(cat), str(cat)], None]


def test_pictures_for_a_model_of_text_are_refused(chat, cat: Path, capsys: Capture) -> None:  # type: ignore[no-untyped-def]
    assert chat(f"/image {cat}", "hello", options=("--json",)) == 0
    found = events(capsys)
    assert [event.message for event in found if isinstance(event, Failed)] == ["This model reads text only."]
    assert [event.values["prompt_tokens"] for event in found if isinstance(event, Result)] == [22]


@pytest.mark.parametrize("options", [("--prompt", "What?"), ()])
def test_a_missing_picture_is_reported_before_the_model_is_loaded(
    tiny: Path, options: tuple[str, ...], capsys: Capture
) -> None:
    assert main(["chat", str(tiny), *options, "--image", "no.png"]) == 2
    err = capsys.readouterr().err
    assert "There is no picture" in err
    assert "load ..." not in err


def test_an_address_is_not_downloaded(tiny: Path, capsys: Capture) -> None:
    assert main(["chat", str(tiny), "--prompt", "What?", "--image", "https://host/cat.png"]) == 2
    assert "not downloaded" in capsys.readouterr().err


def test_markdown_shows_pictures() -> None:
    messages: list[Message] = [{"role": "user", "content": "b", "pictures": ["/a b.png"]}]
    assert markdown(messages) == "**You**\n\n![](</a b.png>)\n\nb\n"
