"""The sub-commands of `bitwright` and their options, and the mapping from errors to exit codes.

The names of sub-commands and options are an interface for other programs. The work is done in the other modules of
this package.
"""

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
from core.jobs.failure import RunProgress, error_of_event, failed_event
from core.model.fused import FusedModules
from core.private_files import append_private
from core.sensitivity.spec import DEFAULT, MEASURES

_USAGE_ERROR: Any = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")
"""The base class of usage errors. Some versions of Typer bundle click, and none exports this class."""
DONE, FAILED, BAD_INPUT, CANCELLED = 0, 1, 2, 130
_INTERNAL_ERRORS = {"internal", "child-died", "verification", "out-of-memory", "error", "file", "kept"}
"""Error codes of commands other than `quantize` that do not mean bad input."""

app = typer.Typer(
    name="bitwright",
    help="Quantize large language models so that they fit into the memory of your own computer. "
    "`bitwright` without a command, or with a model, opens the window.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Model: Hugging Face Hub id (owner/name, or owner/name:TYPE for a GGUF file), local folder, "
        ".gguf file, or demo (the bundled model).",
        show_default=False,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per line to stdout; everything else goes to stderr.")
]
Device = Annotated[str, typer.Option(help="Device to compute on: auto, cpu, cuda:N or xpu:N.")]
RunDevice = Annotated[
    str,
    typer.Option(
        help="Device to compute on: auto, cpu, cuda:N or xpu:N. With several GPUs, such as cuda:0,cuda:1, each "
        "computes a share of the samples of a step."
    ),
]
RecipeName = Annotated[
    str,
    typer.Option(
        "--recipe",
        help=f"Set of tuning hyper-parameters: {', '.join(recipes.NAMES)}, or the path of a recipe file. "
        "The options below override single values.",
    ),
]
Bits = Annotated[int | None, typer.Option(help="Bits per weight: 2, 3, 4 or 8; default: 4.", show_default=False)]
GroupSize = Annotated[
    int | None,
    typer.Option(help="Number of weights that share one scale: a multiple of 32, or -1 for a whole row; default: 128."),
]
Symmetric = Annotated[
    bool | None,
    typer.Option("--sym/--asym", help="Symmetric or asymmetric quantization; default: symmetric.", show_default=False),
]
Map = Annotated[
    Path | None,
    typer.Option("--bits-map", help="JSON file with bits and group size for each layer; see `bitwright plan`."),
]
TowerBits = Annotated[
    int | None,
    typer.Option(
        help="Bits of the linear layers of vision and audio towers: 4 or 8, rounded without calibration, for the "
        "format auto_round only; default: 16, which copies the towers.",
    ),
]
Iters = Annotated[
    int | None,
    typer.Option(
        help="Number of tuning iterations per block; 0 keeps the start of the recipe; default: from --recipe."
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option("--lr", help="Learning rate of the integers, if the recipe tunes them; default: by the iterations."),
]
MinMaxLearningRate = Annotated[
    float | None,
    typer.Option(
        "--minmax-lr",
        help="Learning rate of the scales; default: by bits, or same as --lr for the recipes of AutoRound.",
    ),
]
Samples = Annotated[int | None, typer.Option(help="Number of calibration samples; default: from --recipe.")]
SeqLen = Annotated[
    int | None, typer.Option(help="Sequence length of a calibration sample, in tokens; default: from --recipe.")
]
BatchSize = Annotated[int | None, typer.Option(help="Number of samples in a tuning batch; default: from --recipe.")]
Accumulate = Annotated[
    int | None,
    typer.Option(
        "--accumulate",
        help="Number of batches whose gradients are accumulated before a tuning step; default: from --recipe.",
    ),
]
LearnIntegers = Annotated[
    bool | None,
    typer.Option(
        "--learn-integers/--fixed-integers",
        help="Tune integers of 2 and 3 bits together with the scales, or the scales alone; with a recipe with the"
        " start gptq; default: from --recipe.",
    ),
]
EndToEndSteps = Annotated[
    int | None,
    typer.Option(
        "--end-to-end",
        metavar="N",
        help="Number of steps after the last block that tune the scales of all layers and the norms together; needs a"
        " recipe with the start gptq; 0 for none; default: from --recipe.",
    ),
]
Text = Annotated[
    str,
    typer.Option(
        "--calibration",
        help="Calibration text: builtin, the id of a data set on the Hub, or a text, jsonl or parquet file.",
    ),
]
Formats = Annotated[
    str | None,
    typer.Option(
        "--format",
        help=f"Output formats, separated by commas: {', '.join(FORMATS)}; default: auto_round, or gguf with --like.",
        show_default=False,
    ),
]
Like = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="GGUF file of the same model: the output is a GGUF file in which every tensor has the same type, with the "
        "tokenizer and chat template of FILE.",
    ),
]
LowMemory = Annotated[
    bool,
    typer.Option(
        "--low-memory",
        help="Keep activations in files, in bfloat16, and run one sample at a time. --memory needs no smaller dtype.",
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Limit of the memory of the run, such as 8GB; the run is slower where it needs that, and refused if it"
        " cannot stay below; default: three quarters of the free memory, which is never a reason to refuse.",
    ),
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the blocks with torch.compile. A CPU needs a C++ compiler for it.")
]
Seed = Annotated[int, typer.Option(help="Random seed for the order of the calibration samples.")]
FormatName = Annotated[str, typer.Option("--format", help=f"Output format: {', '.join(FORMATS)}.")]
Pins = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN=BITS", help="Fix the bits of the layers that match PATTERN; repeatable."),
]
MinimumBits = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN=BITS", help="Minimum bits of the layers that match PATTERN; repeatable."),
]
Engine = Annotated[
    str,
    typer.Option(
        metavar="ENGINE",
        help=f"Target inference engine: {', '.join(ENGINES)}. Layers it cannot run are reported.",
    ),
]
Backend = Annotated[
    str, typer.Option(help="Backend for the quantized layers: auto, or a name from `bitwright devices`.")
]
ContextSize = Annotated[int | None, typer.Option(help="Context size, in tokens; default: the maximum of the model.")]
Temperature = Annotated[
    float, typer.Option(help="Sampling temperature; 0 always takes the most likely token (greedy).")
]
TopP = Annotated[
    float,
    typer.Option(
        help="Top-p sampling: sample from the most likely tokens whose probabilities add up to this; 1 disables it."
    ),
]
TopK = Annotated[
    int, typer.Option(help="Top-k sampling: sample from this many of the most likely tokens; 0 disables it.")
]
MinP = Annotated[
    float,
    typer.Option(
        help="Min-p sampling: minimum probability of a token, relative to the most likely one; 0 disables it."
    ),
]
RepetitionPenalty = Annotated[float, typer.Option(help="Penalty for tokens that have already occurred; 1 disables it.")]


def _run_options(
    recipe: RecipeName = "default",
    bits: Bits = None,
    group_size: GroupSize = None,
    sym: Symmetric = None,
    bits_map: Map = None,
    tower_bits: TowerBits = None,
    iters: Iters = None,
    lr: LearningRate = None,
    minmax_lr: MinMaxLearningRate = None,
    samples: Samples = None,
    seqlen: SeqLen = None,
    batch_size: BatchSize = None,
    accumulate: Accumulate = None,
    learn_integers: LearnIntegers = None,
    end_to_end: EndToEndSteps = None,
    calibration: Text = "builtin",
    format: Formats = None,
    like: Like = "",
    device: RunDevice = "auto",
    low_memory: LowMemory = False,
    memory: Memory = None,
    compile: Compile = False,
) -> dict[str, Any]:
    """Return the options that `quantize` and `estimate` share, as keyword arguments of `core.quantize`."""
    options = {**locals(), "formats": tuple(part.strip() for part in format.split(",")) if format else None}
    del options["format"]
    return options


def _with_run_options(command: Callable[..., int]) -> Callable[..., int]:
    """Replace the parameter `options` of a command by the parameters of `_run_options`."""
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
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Show the version or the list of commands if no command is given."""
    if version:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as installed

        try:
            typer.echo(f"bitwright {installed('bitwright')}")
        except PackageNotFoundError:
            typer.echo("bitwright (unknown version: it runs from a source folder and is not installed)")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
@_with_run_options
def quantize(
    model: Model,
    output: Annotated[Path, typer.Option(help="Output folder; created by the run.", show_default=False)],
    options: dict[str, Any],
    seed: Seed = 42,
    imatrix: Annotated[
        str,
        typer.Option(
            help="Importance matrix of llama.cpp (GGUF or .dat) that weights the search for scales, for the recipes "
            "rtn, opt-rtn and those of AutoRound; default: measured on the calibration text."
        ),
    ] = "",
    save_imatrix: Annotated[
        str,
        typer.Option(help="File to which the importance matrix of the run is written, in llama.cpp's GGUF layout."),
    ] = "",
    pictures: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Pairs of pictures and text, which a vision-language model is calibrated on besides the text: a "
            "folder of pictures with a .txt file for each, or a .jsonl file with the fields image and text.",
        ),
    ] = "",
    name: Annotated[str, typer.Option("--name", help="Name of the run in the list of jobs.")] = "",
    json: Json = False,
) -> int:
    """Quantize MODEL and save the result in the folder --output."""
    own = {"seed": seed, "imatrix": imatrix, "save_imatrix": save_imatrix, "pictures": pictures, "name": name}
    return _run(json, lambda terminal: actions.quantize(terminal, model, output, {**options, **own}))


@app.command()
@_with_run_options
def estimate(
    model: Model,
    options: dict[str, Any],
    json: Json = False,
) -> int:
    """Estimate the disk space, memory and time that `quantize` needs for MODEL with the same options."""
    return _run(json, lambda terminal: actions.estimate(terminal, model, options))


@app.command()
def inspect(
    model: Model,
    bits: Bits = None,
    group_size: GroupSize = None,
    sym: Symmetric = None,
    bits_map: Map = None,
    tower_bits: TowerBits = None,
    format: FormatName = "auto_round",
    json: Json = False,
) -> int:
    """List the layers of MODEL with the bits that each would be quantized to."""
    options = {"bits": bits, "group_size": group_size, "sym": sym, "bits_map": bits_map, "format": format}
    options["tower_bits"] = tower_bits
    return _run(json, lambda terminal: actions.inspect(terminal, model, options))


@app.command()
def plan(
    model: Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="JSON file to write the bits map to.", show_default=False)
    ],
    bpw: Annotated[
        float | None,
        typer.Option(
            help="Budget in average bits per weight of the quantized layers, scales and zero points included."
        ),
    ] = None,
    size: Annotated[str | None, typer.Option(help="Budget as the size of the output, for example 110MB.")] = None,
    ram: Annotated[
        str | None, typer.Option(help="Budget as the memory needed to run the output, for example 4GB.")
    ] = None,
    choices: Annotated[str, typer.Option(help="Bits to choose from, separated by commas.")] = "2,3,4,8",
    pin: Pins = None,
    min_bits: MinimumBits = None,
    engine: Engine = "",
    fuse_qkv: Annotated[
        bool, typer.Option(help="Use the same bits for the query, key and value projections of a block.")
    ] = True,
    fuse_gate_up: Annotated[
        bool, typer.Option(help="Use the same bits for the gate and up projections of a block.")
    ] = True,
    fuse_experts: Annotated[bool, typer.Option(help="Use the same bits for all experts of a block.")] = True,
    measure: Annotated[
        str, typer.Option(help=f"Sensitivity measure: {', '.join(one.name for one in MEASURES)}.")
    ] = DEFAULT,
    group_size: Annotated[
        int, typer.Option(help="Number of weights that share one scale: a multiple of 32, or -1 for a whole row.")
    ] = 128,
    sym: Annotated[bool, typer.Option("--sym/--asym", help="Symmetric or asymmetric quantization.")] = True,
    format: FormatName = "auto_round",
    calibration: Text = "builtin",
    samples: Annotated[int, typer.Option(help="Number of samples that sensitivity is measured on.")] = 16,
    seqlen: Annotated[int, typer.Option(help="Sequence length of a sample, in tokens.")] = 256,
    device: Device = "auto",
    seed: Seed = 42,
    json: Json = False,
) -> int:
    """Compute the bits map of MODEL with the lowest predicted loss increase within a budget."""
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
        str | None,
        typer.Option(
            help="Answer this prompt and exit; - reads it from stdin. Without a prompt, an interactive chat starts "
            "(/help lists its commands)."
        ),
    ] = None,
    prompt_file: Annotated[str | None, typer.Option(help="Answer the prompt in this file and exit.")] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(help="Picture to ask about, for a vision-language model: path of a file; repeatable."),
    ] = None,
    each_line: Annotated[
        bool, typer.Option("--each-line", help="Treat every line of piped input as a message of its own.")
    ] = False,
    system: Annotated[str, typer.Option(help="System prompt.")] = "",
    max_tokens: Annotated[int, typer.Option(help="Maximum number of tokens to generate for an answer.")] = 256,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    seed: Annotated[int, typer.Option(help="Random seed for sampling.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="Stop string that ends an answer; repeatable.")] = None,
    device: Device = "auto",
    backend: Backend = "auto",
    context: ContextSize = None,
    thinking: Annotated[
        bool | None,
        typer.Option(
            "--thinking/--no-thinking",
            help="Turn reasoning before the answer on or off, for models whose chat template has a switch for it.",
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Chat with MODEL, quantized or not. Piped input is read as one message."""
    options = {**locals(), "stop": tuple(stop or ()), "images": tuple(image or ())}
    for name in ("model", "prompt", "prompt_file", "image", "each_line", "json"):
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
    text: Annotated[
        str, typer.Option(help="Text to evaluate on: builtin, or a text, jsonl or parquet file.")
    ] = "builtin",
    seqlen: Annotated[int, typer.Option(help="Length of an evaluation window, in tokens.")] = 512,
    max_windows: Annotated[
        int | None, typer.Option(help="Maximum number of windows to evaluate; default: the whole text.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL2",
            help="Reference model: adds KL divergence, top-1 agreement, perplexity ratio and the noise floor.",
        ),
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> int:
    """Measure the perplexity of MODEL on a text; with --against, compare it with a reference model."""
    chosen = None if text == "builtin" else Path(text)
    options = {"text": chosen, "seqlen": seqlen, "max_windows": max_windows, "against": against, "device": device}
    return _run(json, lambda terminal: actions.evaluate(terminal, model, options))


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="Model to convert: Hugging Face Hub id (owner/name, or owner/name:TYPE for a GGUF file), local "
            "folder, .gguf file, or demo (the bundled model).",
            show_default=False,
        ),
    ],
    target: Annotated[
        Path | None,
        typer.Argument(metavar="DST", help="Output folder; created by the conversion.", show_default=False),
    ] = None,
    format: Annotated[
        str, typer.Option(help=f"Output format: {', '.join((*FORMATS, *PLAIN))}.", show_default=False)
    ] = "",
    inexact: Annotated[
        bool,
        typer.Option("--inexact", help="Also convert where the weights have to change; the error is measured."),
    ] = False,
    list_all: Annotated[
        bool,
        typer.Option("--list", help="List the formats that SRC can be converted to, with the reason where it cannot."),
    ] = False,
    json: Json = False,
) -> int:
    """Convert a model to another format. The weights change only with --inexact."""
    if list_all:
        return _run(json, lambda terminal: actions.conversions(terminal, source))
    if target is None or not format:
        raise typer.BadParameter("DST and --format are required, unless --list is given.")
    chosen = target
    return _run(json, lambda terminal: actions.convert(terminal, source, chosen, format, inexact=inexact))


@app.command()
def devices(json: Json = False) -> int:
    """List the devices of this computer and the backends that run on each."""
    return _run(json, machine.devices)


@app.command()
def serve(
    call: typer.Context,
    model: Model,
    port: Annotated[int, typer.Option(help="Port number; 0 selects a free port.")] = 8765,
    host: Annotated[
        str,
        typer.Option(
            help="Host name or address to listen on. localhost listens on IPv4 and IPv6; "
            "any other value can make the server reachable from the network."
        ),
    ] = "127.0.0.1",
    token: Annotated[
        str,
        typer.Option(
            envvar="BITWRIGHT_TOKEN",
            help="API key that clients have to send; default: a new random key. "
            "Other users of this computer can see it on the command line.",
        ),
    ] = "",
    token_file: Annotated[
        str | None, typer.Option(help="File that contains the API key; - reads it from stdin.")
    ] = None,
    context: ContextSize = None,
    backend: Backend = "auto",
    device: Device = "auto",
    json: Json = False,
) -> int:
    """Start an OpenAI-compatible server for MODEL."""
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
    lengths: Annotated[
        str, typer.Option(help="Prompt lengths to measure, in tokens, separated by commas.")
    ] = "32,128,512",
    backend: Backend = "auto",
    device: Device = "auto",
    json: Json = False,
) -> int:
    """Measure the prefill and decode speed of MODEL. The result is added to the report of its run."""
    if not all(part.strip().isdigit() for part in lengths.split(",")):
        raise typer.BadParameter("--lengths takes whole numbers separated by commas, for example 32,512.")
    options = {"lengths": [int(part) for part in lengths.split(",")], "backend": backend, "device": device}
    return _run(json, lambda terminal: serving.bench(terminal, model, options))


@app.command()
def jobs(json: Json = False) -> int:
    """List the runs on this computer, the newest first."""
    return _run(json, actions.jobs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0 done, 1 failed, 2 bad input, 130 cancelled."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the parent; no other file may be opened with its descriptor
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - stays open until the process ends
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # characters that the terminal's encoding lacks raise no error
    try:
        code = app(args=arguments, standalone_mode=False, prog_name="bitwright")
        return code if isinstance(code, int) else DONE
    except (typer.Abort, KeyboardInterrupt):
        return CANCELLED
    except _USAGE_ERROR as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "bitwright"
        Terminal().print_error(error.format_message(), f"`{command} --help` lists the options.")
        return BAD_INPUT
    except BrokenPipeError:
        # the reader of the output has closed the pipe, as `head` does; nothing may be flushed into it any more
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - stays open until the process ends
        return FAILED


def _run(json: bool, action: Callable[[Terminal], None]) -> int:
    """Run one action, print its error if it raises one, and return the exit code."""
    terminal = Terminal(json=json)
    code = _code_of(terminal, action)
    lost = terminal.close()
    if lost is not None:
        terminal.print_error(
            f"The output could not be written completely: {reason(lost)}.", "Check where stdout is redirected to."
        )
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
    except Exception as error:  # noqa: BLE001 - the traceback goes to a file, and the user gets one sentence
        shown_error = error_of_event(failed_event(error, RunProgress(), _crash_log()))
        terminal.error(shown_error)
        return exit_code(shown_error, terminal)


def _crash_log() -> Path:
    """Return the file for tracebacks: in Bitwright's own folder, or in a temporary folder if that is not writable."""
    log = home() / "crash.txt"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        append_private(log, "")
        return log
    except OSError:
        return Path(tempfile.mkdtemp(prefix="bitwright-")) / log.name


def exit_code(error: BitwrightError, terminal: Terminal) -> int:
    """Return 130 for a cancelled command, 2 for bad input or a run that failed before tuning, and 1 otherwise."""
    if error.code == "cancelled":
        return CANCELLED
    if terminal.failed is not None and terminal.failed.stage:
        return BAD_INPUT if terminal.failed.before_tuning else FAILED
    return FAILED if error.code in _INTERNAL_ERRORS else BAD_INPUT
