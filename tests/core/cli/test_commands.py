"""The command line: exit codes, its output on stdout and stderr, and that refused commands leave no files."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from core.cli import main
from core.estimation import preflight
from core.events import Failed, Result, from_line
from core.jobs import store
from core.jobs.process import ROOT
from tests.core.tiny_architectures import make_model
from tests.core.tiny_model import save_model

Capture = pytest.CaptureFixture[str]


def refused(arguments: list[str], place: Path, capsys: Capture) -> str:
    """Run a command that must be refused: exit code 2, at most six lines on stderr, no output and no files."""
    before = sorted(place.rglob("*"))
    code = main(arguments)
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    assert err.startswith("error: ")
    assert 1 <= len(err.splitlines()) <= 6
    assert "Traceback" not in err
    assert sorted(place.rglob("*")) == before
    assert store.list_jobs() == []
    return err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bits", "5"], "5 bits is not possible"),
        (["--bits", "x"], "Invalid value for '--bits'"),
        (["--group-size", "0"], "Group size 0"),
        (["--group-size", "7"], "Group size 7"),
        (["--iters", "-3"], "iterations -3"),
        (["--samples", "0"], "samples 0"),
        (["--seqlen", "0"], "seqlen 0"),
        (["--lr", "-1"], "lr -1.0"),
        (["--format", "ggml"], "Unknown output format 'ggml'"),
        (["--format", "auto_round,auto_round"], "once"),
        (["--recipe", "fastest"], "no recipe 'fastest'"),
        (["--device", "gpu"], "no device 'gpu'"),
        (["--bits-map", "none.json"], "no bits map"),
        (["--calibration", "none.txt"], "none.txt"),
        (["--color", "red"], "No such option"),
    ],
)
def test_a_bad_option_is_refused(tiny: Path, place: Path, capsys: Capture, options: list[str], words: str) -> None:
    assert words in refused(["quantize", str(tiny), "--output", "new/out", *options], place, capsys)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["quantize"], "Missing argument 'MODEL'"),
        (["quantize", "demo"], "Missing option '--output'"),
        (["quantise", "demo"], "No such command"),
        (["inspect"], "Missing argument"),
        (["quantize", "./nothing", "--output", "out"], "There is no folder"),
        (["quantize", "nothing.gguf", "--output", "out"], "There is no file"),
        (["inspect", "./nothing"], "There is no folder"),
        (["estimate", "./nothing"], "There is no folder"),
    ],
)
def test_a_bad_command_is_refused(place: Path, capsys: Capture, arguments: list[str], words: str) -> None:
    assert words in refused(arguments, place, capsys)


def no_config(model: Path) -> None:
    (model / "config.json").unlink()


def no_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def truncated(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def huge_header(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + path.read_bytes()[8:])


def torn_config(model: Path) -> None:
    (model / "config.json").write_text('{"model_type": ')


def encoder_decoder(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "is_encoder_decoder": True}))


@pytest.mark.parametrize("damage", [no_config, no_weights, truncated, huge_header, torn_config, encoder_decoder])
def test_a_damaged_model_is_refused(place: Path, capsys: Capture, damage: Callable[[Path], None]) -> None:
    model = save_model(place / "broken")
    damage(model)
    refused(["quantize", str(model), "--output", "new/out"], place, capsys)


def test_a_bits_map_with_a_pattern_that_matches_no_layer_is_refused(tiny: Path, place: Path, capsys: Capture) -> None:
    (place / "map.json").write_text('{"version": 1, "rules": [{"match": "*.w9", "bits": 2}]}')
    arguments = ["quantize", str(tiny), "--output", "out", "--bits-map", "map.json"]
    assert "*.w9" in refused(arguments, place, capsys)


@pytest.mark.parametrize("data", [b"", bytes(range(256)) * 40], ids=["empty", "binary"])
def test_an_empty_or_binary_calibration_file_is_refused(tiny: Path, place: Path, capsys: Capture, data: bytes) -> None:
    (place / "text.txt").write_bytes(data)
    arguments = ["quantize", str(tiny), "--output", "out", "--calibration", "text.txt"]
    assert "text.txt" in refused(arguments, place, capsys)


def test_an_output_folder_that_is_not_empty_is_refused_and_unchanged(tiny: Path, place: Path, capsys: Capture) -> None:
    (place / "out").mkdir()
    (place / "out" / "mine.txt").write_text("precious")
    assert "not empty" in refused(["quantize", str(tiny), "--output", "out"], place, capsys)
    assert (place / "out" / "mine.txt").read_text() == "precious"


def test_an_output_below_a_file_is_refused(tiny: Path, place: Path, capsys: Capture) -> None:
    (place / "file").write_text("")
    assert "is a file" in refused(["quantize", str(tiny), "--output", "file"], place, capsys)
    assert "cannot be created" in refused(["quantize", str(tiny), "--output", "file/out"], place, capsys)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not apply to the superuser")
def test_an_output_in_a_folder_without_write_permission_is_refused(tiny: Path, place: Path, capsys: Capture) -> None:
    (place / "locked").mkdir(mode=0o500)
    assert "Permission denied" in refused(["quantize", str(tiny), "--output", "locked/out"], place, capsys)


@pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="requires /proc, in which not even the superuser can create folders"
)
def test_an_output_on_a_volume_that_cannot_be_written_is_refused(tiny: Path, place: Path, capsys: Capture) -> None:
    assert "cannot be created" in refused(["quantize", str(tiny), "--output", "/proc/bitwright-out"], place, capsys)


def test_a_full_disk_is_refused(tiny: Path, place: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "free_bytes", lambda _path: 1000)
    err = refused(["quantize", str(tiny), "--output", "out"], place, capsys)
    assert "1 kB free" in err


def test_an_output_name_that_is_too_long_or_has_a_nul_character_is_refused(
    tiny: Path, place: Path, capsys: Capture
) -> None:
    refused(["quantize", str(tiny), "--output", "x" * 300], place, capsys)
    refused(["quantize", str(tiny), "--output", "a\0b"], place, capsys)


def test_json_mode_prints_an_error_as_an_event(place: Path, capsys: Capture) -> None:
    assert main(["inspect", "./nothing", "--json"]) == 2
    out, err = capsys.readouterr()
    (event,) = [from_line(line) for line in out.splitlines()]
    assert isinstance(event, Failed)
    assert (event.code, event.before_tuning) == ("model-not-found", True)
    assert err.startswith("error: ")


def test_control_characters_in_arguments_do_not_reach_the_terminal(place: Path, capsys: Capture) -> None:
    main(["inspect", "./\x1b[31mred\x07"])
    assert "\x1b" not in capsys.readouterr().err


def test_without_a_command_the_help_is_shown(capsys: Capture) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "Usage: bitwright" in out
    for command in ("quantize", "inspect", "plan", "chat", "eval", "estimate", "devices", "convert", "jobs"):
        assert f"  {command} " in out


def test_help_does_not_import_the_heavy_libraries() -> None:
    script = (
        "import sys; from core.cli import main; main(['--help']); main(['quantize', '--help']); "
        "print(sorted({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"


def test_inspect_shows_the_layers(tiny: Path, place: Path, capsys: Capture) -> None:
    assert main(["inspect", str(tiny), "--group-size", "32", "--bits", "3"]) == 0
    out = capsys.readouterr().out
    assert "2 blocks in model.layers" in out
    assert "W3 g32 sym" in out


def test_inspect_in_json_mode_is_one_result_event(tiny: Path, place: Path, capsys: Capture) -> None:
    assert main(["inspect", str(tiny), "--json"]) == 0
    (event,) = [from_line(line) for line in capsys.readouterr().out.splitlines()]
    assert isinstance(event, Result)
    assert event.values["blocks"] == 2
    assert len(event.values["linears"]) == 14
    schemes = {linear["name"]: linear["scheme"] for linear in event.values["linears"]}
    assert schemes["model.layers.1.self_attn.q_proj"] == {"bits": 4, "group_size": 64, "sym": True}
    assert schemes["model.layers.1.mlp.down_proj"] == {"bits": 4, "group_size": 32, "sym": True}


def test_inspect_shows_a_model_that_quantize_refuses(place: Path, capsys: Capture) -> None:
    model = save_model(place / "other")
    encoder_decoder(model)
    assert main(["inspect", str(model)]) == 0
    assert "Cannot be quantized:" in capsys.readouterr().out


def test_an_empty_list_of_jobs_is_a_sentence_and_no_event_in_json_mode(place: Path, capsys: Capture) -> None:
    assert main(["jobs"]) == 0
    assert capsys.readouterr().out == "There are no runs yet.\n"
    assert main(["jobs", "--json"]) == 0
    assert capsys.readouterr().out == ""


def test_eval_prints_text_or_in_json_mode_a_result_event(tiny: Path, place: Path, capsys: Capture) -> None:
    (place / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 40)
    arguments = ["eval", str(tiny), "--text", "text.txt", "--seqlen", "64", "--against", str(tiny), "--device", "cpu"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert re.search(r"top-1 agreement +100\.0 \+- 0\.0 %", shown)
    assert "reference in bfloat16" in shown
    assert main([*arguments, "--json"]) == 0
    last = from_line(capsys.readouterr().out.splitlines()[-1])
    assert isinstance(last, Result)
    assert set(last.values) == {"perplexity", "against", "comparison", "noise_floor"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["chat", "./nothing", "--prompt", "x"], "There is no folder"),
        (["chat", "TINY", "--prompt", "x", "--max-tokens", "0"], "max tokens 0"),
        (["chat", "TINY", "--prompt", "x", "--backend", "abacus"], "abacus"),
        (["eval", "TINY", "--text", "none.txt"], "none.txt"),
        (["eval", "TINY", "--against", "./nothing"], "There is no folder"),
        (["eval", "TINY", "--seqlen", "1"], "at least 2 tokens"),
        (["convert", "TINY", "out", "--format", "auto_gptq"], "not quantized"),
        (["convert", "TINY", "out", "--format", "ggml"], "Unknown output format"),
        (["convert", "./nothing", "out", "--format", "auto_gptq"], "nothing"),
    ],
)
def test_other_commands_refuse_bad_input(
    tiny: Path, place: Path, capsys: Capture, arguments: list[str], words: str
) -> None:
    before = sorted(place.rglob("*"))
    assert main([str(tiny) if part == "TINY" else part for part in arguments]) == 2
    out, err = capsys.readouterr()
    problem = err[err.index("error: ") :]
    assert words in problem
    assert out == ""
    assert len(problem.splitlines()) <= 2
    assert sorted(place.rglob("*")) == before


def test_devices_lists_the_cpu(place: Path, capsys: Capture) -> None:
    assert main(["devices"]) == 0
    assert "cpu" in capsys.readouterr().out


def test_estimate_prints_a_table_of_ranges(tiny: Path, place: Path, capsys: Capture) -> None:
    assert main(["estimate", str(tiny), "--recipe", "quick", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("disk", "memory", "time", " to "))


def test_inspect_folds_the_experts_of_a_mixture(place: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    make_model("gpt_oss", place / "mixture")
    (place / "map.json").write_text(
        '{"version": 1, "default": {"group_size": 32}, "layers": {"model.layers.1.mlp.experts.2.up_proj": {"bits": 8}}}'
    )
    assert main(["inspect", "./mixture", "--bits-map", "map.json"]) == 0
    out = capsys.readouterr().out
    assert "6 experts in 4 of 4 blocks, 2 for each token" in out
    rows = [re.split(r"  +", line.strip()) for line in out.splitlines() if "experts" in line and "proj" in line]
    gate, up, down = "mlp.experts.gate_up_proj[*, :, 0:256:2]", "mlp.experts.gate_up_proj[*, :, 1:256:2]", "[*, :, :]"
    assert [(row[0], row[1], row[4], row[-1]) for row in rows] == [
        ("0-3", "mlp.experts.*.gate_proj (6)", "W4 g32 sym", gate),
        ("0-3", "mlp.experts.0-1, 3-5.up_proj", "W4 g32 sym", up),
        ("0, 2-3", "mlp.experts.2.up_proj", "W4 g32 sym", up),
        ("0-3", "mlp.experts.*.down_proj (6)", "W4 g32 sym", f"mlp.experts.down_proj{down}"),
        ("1", "mlp.experts.2.up_proj", "W8 g32 sym", up),
    ]
    router = next(line for line in out.splitlines() if "mlp.router" in line)
    assert "16 bit" in router
    assert "routers stay in 16 bits, unless named" in router


def test_inspect_in_json_mode_has_the_slice_of_every_expert(place: Path, capsys: Capture) -> None:
    make_model("gpt_oss", place / "mixture")
    assert main(["inspect", "./mixture", "--json"]) == 0
    (event,) = [from_line(line) for line in capsys.readouterr().out.splitlines()]
    assert isinstance(event, Result)
    linears = {linear["name"]: linear for linear in event.values["linears"]}
    assert linears["model.layers.0.mlp.experts.5.up_proj"]["slice"] == {
        "tensor": "model.layers.0.mlp.experts.gate_up_proj", "expert": 5, "rows": [1, 256, 2], "transposed": True,
    }  # fmt: skip
    assert linears["model.layers.0.self_attn.q_proj"]["slice"] is None
    assert linears["model.layers.0.mlp.router"]["kept"]
