"""The sub-commands and their options. Knows the names that other programs see; does nothing itself."""

from __future__ import annotations

import functools
import io
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from core import recipes
from core.cli import actions, conversation, machine, planning, serving, user_input
from core.cli.terminal import Terminal
from core.errors import BitwrightError
from core.files import reason
from core.formats.engines import ENGINES
from core.formats.names import FORMATS, PLAIN
from core.home import home
from core.jobs.failure import Progressed, error_from, failed_from
from core.model.fused import FusedModules
from core.private_files import append_private
from core.sensitivity.spec import DEFAULT, MEASURES

_USAGE_ERROR: Any = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")
"""Typer brings its own copy of click in some versions, and names this base class of it in none."""
DONE, FAILED, BAD_INPUT, CANCELLED = 0, 1, 2, 130
_INTERNAL_ERRORS = {"internal", "child-died", "verification", "out-of-memory", "error", "file", "kept"}
"""Codes of commands other than `quantize` that do not mean bad input."""

app = typer.Typer(
    name="bitwright",
    help="Make large language models small enough for the machine on your desk, and see how. "
    "`bitwright` alone, or with a model, opens the window.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Hub id, folder, .gguf file, or demo.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout, and nothing else there.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda:N or xpu:N.")]
RecipeName = Annotated[str, typer.Option("--recipe", help=f"{', '.join(recipes.NAMES)}, or the path of a recipe file.")]
Bits = Annotated[int | None, typer.Option(help="2, 3, 4 or 8; 4 by default.", show_default=False)]
GroupSize = Annotated[
    int | None, typer.Option(help="Weights that share a scale: a multiple of 32, or -1 for a row; 128 by default.")
]
Symmetric = Annotated[bool | None, typer.Option("--sym/--asym", help="Symmetric is the default.", show_default=False)]
Map = Annotated[Path | None, typer.Option("--bits-map", help="JSON file with the bits of each layer.")]
Iters = Annotated[int | None, typer.Option(help="Tuning steps a block; 0 is plain rounding.")]
Rate = Annotated[float | None, typer.Option("--lr", help="First step of the rounding offsets; 1/iters by default.")]
RangeRate = Annotated[float | None, typer.Option("--minmax-lr", help="First step of the ranges; as --lr by default.")]
Samples = Annotated[int | None, typer.Option(help="Calibration sequences.")]
SeqLen = Annotated[int | None, typer.Option(help="Tokens of a calibration sequence.")]
BatchSize = Annotated[int | None, typer.Option(help="Sequences that a step sees at once.")]
Accumulate = Annotated[int | None, typer.Option("--accumulate", help="Micro-batches that are added up before a step.")]
Text = Annotated[str, typer.Option("--calibration", help="builtin, a Hub data set id, or a text or data file.")]
Formats = Annotated[str, typer.Option("--format", help=f"Of {', '.join(FORMATS)}; several with commas.")]
LowMemory = Annotated[bool, typer.Option("--low-memory", help="Caches on disk and smaller micro-batches.")]
Compile = Annotated[bool, typer.Option("--compile", help="Run blocks through torch.compile.")]
Seed = Annotated[int, typer.Option(help="Of the order of the samples.")]


def _run_options(
    recipe: RecipeName = "default",
    bits: Bits = None,
    group_size: GroupSize = None,
    sym: Symmetric = None,
    bits_map: Map = None,
    iters: Iters = None,
    lr: Rate = None,
    minmax_lr: RangeRate = None,
    samples: Samples = None,
    seqlen: SeqLen = None,
    batch_size: BatchSize = None,
    accumulate: Accumulate = None,
    calibration: Text = "builtin",
    format: Formats = "auto_round",
    device: Device = "auto",
    low_memory: LowMemory = False,
    compile: Compile = False,
) -> dict[str, Any]:
    """Return the options that `quantize` and `estimate` share, under the names of the Python call."""
    options = {**locals(), "formats": tuple(part.strip() for part in format.split(","))}
    del options["format"]
    return options


def _with_run_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the parameters of `_run_options` in place of its parameter `options`."""
    shared = signature(_run_options).parameters

    @functools.wraps(command)
    def run(**values: Any) -> int:
        options = _run_options(**{name: values.pop(name) for name in shared})
        return command(**values, options=options)

    types = get_type_hints(_run_options, include_extras=True) | get_type_hints(command, include_extras=True)
    parameters: list[Parameter] = []
    for name, parameter in signature(command).parameters.items():
        parameters += shared.values() if name == "options" else [parameter]
    run.__annotations__ = types
    run.__signature__ = Signature([one.replace(annotation=types[one.name]) for one in parameters])  # type: ignore[attr-defined]
    return run


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False
) -> None:
    """Without a command: the version, or what there is."""
    if version:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as installed

        try:
            typer.echo(f"bitwright {installed('bitwright')}")
        except PackageNotFoundError:
            typer.echo("bitwright, run from a folder without being installed")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
@_with_run_options
def quantize(
    model: Model,
    output: Annotated[Path, typer.Option(help="Folder to be made.", show_default=False)],
    options: dict[str, Any],
    seed: Seed = 42,
    name: Annotated[str, typer.Option("--name", help="What the list of jobs calls this one.")] = "",
    json: Json = False,
) -> int:
    """Quantize MODEL into the new folder --output."""
    return _run(
        json, lambda terminal: actions.quantize(terminal, model, output, {**options, "seed": seed, "name": name})
    )


@app.command()
@_with_run_options
def estimate(
    model: Model,
    options: dict[str, Any],
    json: Json = False,
) -> int:
    """Disk, memory and time of a run, as ranges, before it starts."""
    return _run(json, lambda terminal: actions.estimate(terminal, model, options))


@app.command()
def inspect(
    model: Model,
    bits: Bits = None,
    group_size: GroupSize = None,
    sym: Symmetric = None,
    bits_map: Map = None,
    format: Annotated[str, typer.Option(help=f"One of {', '.join(FORMATS)}.")] = "auto_round",
    json: Json = False,
) -> int:
    """The layers of MODEL, and the bits that each would get."""
    options = {"bits": bits, "group_size": group_size, "sym": sym, "bits_map": bits_map, "format": format}
    return _run(json, lambda terminal: actions.inspect(terminal, model, options))


@app.command()
def plan(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON file for the map.", show_default=False)],
    bpw: Annotated[float | None, typer.Option(help="Budget: bits per weight, with scales and zero points.")] = None,
    size: Annotated[str | None, typer.Option(help="Budget: bytes of the output, such as 110MB.")] = None,
    ram: Annotated[str | None, typer.Option(help="Budget: memory to run the output, such as 4GB.")] = None,
    choices: Annotated[str, typer.Option(help="Bits to choose from.")] = "2,3,4,8",
    pin: Annotated[list[str] | None, typer.Option(metavar="PATTERN=BITS", help="Fix these layers; repeatable.")] = None,
    min_bits: Annotated[list[str] | None, typer.Option(metavar="PATTERN=BITS", help="No fewer bits here.")] = None,
    engine: Annotated[
        str, typer.Option("--engine", metavar="ENGINE", help=f"Has to run on: {', '.join(ENGINES)}.")
    ] = "",
    fuse_qkv: Annotated[bool, typer.Option(help="Give q, k and v of a block the same bits.")] = True,
    fuse_gate_up: Annotated[bool, typer.Option(help="Give gate and up of a block the same bits.")] = True,
    fuse_experts: Annotated[bool, typer.Option(help="Give the experts of a block the same bits.")] = True,
    measure: Annotated[str, typer.Option(help=f"Of {', '.join(one.name for one in MEASURES)}.")] = DEFAULT,
    group_size: Annotated[int, typer.Option(help="Weights that share a scale; -1 for a row.")] = 128,
    sym: Annotated[bool, typer.Option("--sym/--asym", help="Symmetric is the default.")] = True,
    format: Annotated[str, typer.Option(help=f"One of {', '.join(FORMATS)}.")] = "auto_round",
    calibration: Text = "builtin",
    samples: Annotated[int, typer.Option(help="Sequences that sensitivity is measured on.")] = 16,
    seqlen: Annotated[int, typer.Option(help="Tokens of each.")] = 256,
    device: Device = "auto",
    seed: Seed = 42,
    json: Json = False,
) -> int:
    """The bits map of MODEL that is predicted to lose least within a budget, written to --output."""
    options = {
        "bpw": bpw, "size": size, "ram": ram, "choices": choices, "pins": pin or (), "min_bits": min_bits or (),
        "engine": engine, "fused": FusedModules(fuse_qkv, fuse_gate_up, fuse_experts), "measure": measure,
        "group_size": group_size, "sym": sym, "format": format, "calibration": calibration, "samples": samples,
        "seqlen": seqlen, "device": device, "seed": seed,
    }  # fmt: skip
    return _run(json, lambda terminal: planning.plan(terminal, model, output, options))


@app.command()
def chat(
    model: Model,
    prompt: Annotated[
        str | None, typer.Option(help="Answer this and end; - reads it; without it, talk (/help).")
    ] = None,
    prompt_file: Annotated[str | None, typer.Option(help="Answer the text of this file, and end.")] = None,
    each_line: Annotated[bool, typer.Option("--each-line", help="Every line that is piped in is a question.")] = False,
    system: Annotated[str, typer.Option(help="What the model is told first.")] = "",
    max_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest word each time.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest words of this share together.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Draw from so many of the likeliest words; 0 is all.")] = 0,
    min_p: Annotated[float, typer.Option(help="Leave out words below this share of the likeliest one's.")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: said words become less likely.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the words that chance picks.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends the answer; may be given again.")] = None,
    device: Device = "auto",
    backend: Annotated[str, typer.Option(help="auto, or one of `bitwright devices`.")] = "auto",
    context: Annotated[int | None, typer.Option(help="Tokens to keep room for; all that the model reads.")] = None,
    thinking: Annotated[
        bool | None, typer.Option("--thinking/--no-thinking", help="Think before answering, if MODEL has a switch.")
    ] = None,
    json: Json = False,
) -> int:
    """Talk to MODEL, quantized or not. Text that is piped in is one question."""
    options = {**locals(), "stop": tuple(stop or ())}
    for name in ("model", "prompt", "prompt_file", "each_line", "json"):
        del options[name]
    if prompt is not None and prompt_file is not None:
        raise typer.BadParameter("Give --prompt or --prompt-file, not both.")
    path = "-" if prompt == "-" else prompt_file

    def talk(terminal: Terminal) -> None:
        text = prompt if path is None else user_input.read_text(terminal, path)
        conversation.chat(terminal, model, text, options, each_line=each_line)

    return _run(json, talk)


@app.command(name="eval")
def evaluate(
    model: Model,
    text: Annotated[str, typer.Option(help="builtin, or a text, jsonl or parquet file.")] = "builtin",
    seqlen: Annotated[int, typer.Option(help="Tokens of a window.")] = 512,
    max_windows: Annotated[int | None, typer.Option(help="Use so many windows at most.")] = None,
    against: Annotated[str | None, typer.Option(metavar="MODEL2", help="Compare with this model.")] = None,
    device: Device = "auto",
    json: Json = False,
) -> int:
    """Perplexity of MODEL on a text; with --against, of both, and how far they are apart."""
    chosen = None if text == "builtin" else Path(text)
    options = {"text": chosen, "seqlen": seqlen, "max_windows": max_windows, "against": against, "device": device}
    return _run(json, lambda terminal: actions.evaluate(terminal, model, options))


@app.command()
def convert(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="Hub id, folder, .gguf file, or demo.", show_default=False)
    ],
    target: Annotated[Path | None, typer.Argument(metavar="DST", help="Folder to be made.", show_default=False)] = None,
    format: Annotated[str, typer.Option(help=f"One of {', '.join((*FORMATS, *PLAIN))}.", show_default=False)] = "",
    inexact: Annotated[bool, typer.Option("--inexact", help="Weights may change; the error is measured.")] = False,
    list_all: Annotated[bool, typer.Option("--list", help="Show what SRC can become, and why not the rest.")] = False,
    json: Json = False,
) -> int:
    """Write a model in another format, where that changes no weight."""
    if list_all:
        return _run(json, lambda terminal: actions.conversions(terminal, source))
    if target is None or not format:
        raise typer.BadParameter("DST and --format are needed, or --list.")
    chosen = target
    return _run(json, lambda terminal: actions.convert(terminal, source, chosen, format, inexact=inexact))


@app.command()
def devices(json: Json = False) -> int:
    """What a run can compute on here, and why not on the rest."""
    return _run(json, machine.devices)


@app.command()
def serve(
    call: typer.Context,
    model: Model,
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8765,
    host: Annotated[str, typer.Option(help="localhost is IPv4 and IPv6; others reach the network.")] = "127.0.0.1",
    token: Annotated[
        str,
        typer.Option(envvar="BITWRIGHT_TOKEN", help="Callers need it; a new one by default. Others can see it here."),
    ] = "",
    token_file: Annotated[str | None, typer.Option(help="File with the token, or - for the input.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens to keep room for.", show_default=False)] = None,
    backend: Annotated[str, typer.Option(help="auto, or one that `devices` names.")] = "auto",
    device: Device = "auto",
    json: Json = False,
) -> int:
    """Let other programs talk to MODEL over OpenAI's interface, on this machine only unless --host says otherwise."""
    options = {
        "port": port, "host": host, "token": token, "context": context, "backend": backend, "device": device,
    }  # fmt: skip
    source = call.get_parameter_source("token")
    shown = source is not None and source.name == "COMMANDLINE"
    if shown and token_file is not None:
        raise typer.BadParameter("Give --token or --token-file, not both.")
    return _run(json, lambda terminal: serving.serve(terminal, model, options, token_file, shown=shown))


@app.command()
def bench(
    model: Model,
    lengths: Annotated[str, typer.Option(help="Tokens of the prompts, with commas.")] = "32,128,512",
    backend: Annotated[str, typer.Option(help="auto, or one that `devices` names.")] = "auto",
    device: Device = "auto",
    json: Json = False,
) -> int:
    """How fast MODEL reads a prompt and writes an answer here; kept in its run's report."""
    if not all(part.strip().isdigit() for part in lengths.split(",")):
        raise typer.BadParameter("--lengths takes whole numbers with commas, such as 32,512.")
    options = {"lengths": [int(part) for part in lengths.split(",")], "backend": backend, "device": device}
    return _run(json, lambda terminal: serving.bench(terminal, model, options))


@app.command()
def jobs(json: Json = False) -> int:
    """The runs on this machine, the newest first."""
    return _run(json, actions.jobs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 failed, 2 bad input, 130 cancelled."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us; a file of ours must not get its number
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - stays open until the process ends
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # letters that the terminal's encoding lacks end nothing
    try:
        code = app(args=arguments, standalone_mode=False, prog_name="bitwright")
        return code if isinstance(code, int) else DONE
    except (typer.Abort, KeyboardInterrupt):
        return CANCELLED
    except _USAGE_ERROR as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "bitwright"
        Terminal().print_error(error.format_message(), f"`{command} --help` lists what is possible.")
        return BAD_INPUT
    except BrokenPipeError:
        # whoever read our output has left, as `head` does; nothing may be flushed into the pipe any more
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - stays open until the process ends
        return FAILED


def _run(json: bool, action: Callable[[Terminal], None]) -> int:
    """Run one action and turn what it raises into a message and an exit code."""
    terminal = Terminal(json=json)
    code = _code_of(terminal, action)
    lost = terminal.close()
    if lost is not None:
        terminal.print_error(f"Not all could be written to the output: {reason(lost)}.", "Check where it was sent.")
    return code if lost is None or code != DONE else FAILED


def _code_of(terminal: Terminal, action: Callable[[Terminal], None]) -> int:
    try:
        action(terminal)
        return DONE
    except BitwrightError as error:
        terminal.error(error)
        return exit_code(error, terminal)
    except KeyboardInterrupt:
        terminal.print_error("Stopped.")
        return CANCELLED
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the last line of defence: a traceback goes to a file, a sentence to the user
        shown_error = error_from(failed_from(error, Progressed(), _crash_log()))
        terminal.error(shown_error)
        return exit_code(shown_error, terminal)


def _crash_log() -> Path:
    """A file for a traceback: in Bitwright's own folder, or where that cannot be written among the temporary ones."""
    log = home() / "crash.txt"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        append_private(log, "")
        return log
    except OSError:
        return Path(tempfile.mkdtemp(prefix="bitwright-")) / log.name


def exit_code(error: BitwrightError, terminal: Terminal) -> int:
    """130 for a stop; 2 for what was wrong before a block was tuned, or for bad input; else 1."""
    if error.code == "cancelled":
        return CANCELLED
    if terminal.failed is not None and terminal.failed.stage:
        return BAD_INPUT if terminal.failed.before_tuning else FAILED
    return FAILED if error.code in _INTERNAL_ERRORS else BAD_INPUT
