"""Configurations that the benchmark compares, such as `ours:light:w4g64`, and their command lines."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from core.bitsmap import BitsMap, Rule
from core.schemes import UNTOUCHED, LayerScheme
from tests.benchmarks.measured_run import BIN

OURS, PEER, GSQ = "ours", "peer", "gsq"
PEER_RECIPES: dict[str, tuple[str, list[str]]] = {
    "light": ("auto-round-light", []),
    "default": ("auto-round", []),
    "best": ("auto-round-best", []),
    "alg_ext": ("auto-round", ["--enable_alg_ext"]),
    "best_alg_ext": ("auto-round-best", ["--enable_alg_ext"]),
    "rtn": ("auto-round-rtn", []),
    "opt_rtn": ("auto-round-opt-rtn", []),
}
"""Recipe in a configuration: program of auto-round and its additional options."""
PEER_SCHEDULES = {
    "light": (50, 128, 2048, 8), "default": (200, 128, 2048, 8), "best": (1000, 512, 2048, 8),
    "alg_ext": (200, 128, 2048, 8), "best_alg_ext": (1000, 512, 2048, 8),
    "rtn": (0, 1, 2048, 8), "opt_rtn": (0, 128, 2048, 8),
}  # fmt: skip
"""Iterations, samples, tokens per sample and batch size of the peer's recipes (RECIPES in its cli/main.py)."""
GSQ_SCHEDULE = (640, 4096, 4096, 64)
"""Iterations, samples, tokens per sample and batch size of GSQ's configuration files."""
GSQ_MODULE = "tests.benchmarks.versus_auto_round.gsq"
_GSQ_RECIPE = re.compile(r"(gptq|gsq)(?:_e2e(\d+))?")
_FORM = re.compile(rf"({OURS}|{PEER}|{GSQ}):([\w.-]+):w(\d)g(\d+)")


@dataclass(frozen=True)
class Configuration:
    """A side, the name of one of its recipes, and a symmetric scheme."""

    side: str
    recipe: str
    bits: int
    group_size: int

    @property
    def scheme(self) -> str:
        """Name of the scheme, such as w4g64."""
        return f"w{self.bits}g{self.group_size}"

    def __str__(self) -> str:
        return f"{self.side}:{self.recipe}:{self.scheme}"


@dataclass(frozen=True)
class Settings:
    """Settings that override those of both sides' recipes; None keeps a recipe's own value.

    Attributes:
        blocks: numbers of the blocks that are quantized; () for all.
    """

    iters: int | None = None
    samples: int | None = None
    seqlen: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    blocks: tuple[int, ...] = ()

    def label(self) -> str:
        """Return the settings as a part of a file name; "" if nothing is overridden."""
        pairs = (
            ("i", self.iters), ("s", self.samples), ("l", self.seqlen), ("b", self.batch_size), ("lr", self.lr),
            ("blocks", ".".join(map(str, self.blocks)) or None),
        )  # fmt: skip
        return "".join(f"-{key}{value}" for key, value in pairs if value is not None)


@dataclass(frozen=True)
class Paths:
    """Files and folders of a run.

    Attributes:
        model: folder of the original.
        texts: calibration texts.
        output: output folder of the run.
        peer: environment of the peer.
        recipes: folder with recipe files of ours, which need not exist.
    """

    model: Path
    texts: Path
    output: Path
    peer: Path
    recipes: Path


def our_recipe(recipes: Path, name: str) -> str:
    """Return the path of `name`.json in the folder of recipes, or else `name`, which is a recipe of the product."""
    path = recipes / f"{name}.json"
    return str(path) if path.exists() else name


def parse(text: str) -> Configuration:
    """Return the configuration in a text such as `peer:alg_ext:w2g64`.

    Raises:
        ValueError: the text has another form, or names a recipe that the peer does not have.
    """
    found = _FORM.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is not of the form ours:RECIPE:w4g64, peer:RECIPE:w4g64 or gsq:RECIPE:w4g64.")
    side, recipe, bits, group_size = found.groups()
    if side == PEER and recipe not in PEER_RECIPES:
        raise ValueError(f"{recipe!r} is not a recipe of the peer. Use one of {', '.join(PEER_RECIPES)}.")
    if side == GSQ and not _GSQ_RECIPE.fullmatch(recipe):
        raise ValueError(f"{recipe!r} is not a recipe of GSQ. Use gptq, gsq, gptq_e2e200 or gsq_e2e200.")
    return Configuration(side, recipe, int(bits), int(group_size))


def run_name(model: str, configuration: Configuration, settings: Settings, repeat: int) -> str:
    """Return the name of a run, which identifies it in the results and is the name of its output folder."""
    return f"{model}-{configuration}".replace(":", "-") + f"{settings.label()}-r{repeat}"


def in_alternation(configurations: list[Configuration], repeats: int) -> list[tuple[int, Configuration]]:
    """Return the runs in order: every repeat has all configurations, in reversed order in every other repeat.

    A drift of the machine's speed then does not favor one side.
    """
    return [
        (repeat, configuration)
        for repeat in range(repeats)
        for configuration in (configurations[::-1] if repeat % 2 else configurations)
    ]


def command(configuration: Configuration, settings: Settings, paths: Paths, repeat: int) -> list[str]:
    """Return the command line of a run, after writing the bits map that it may need beside the output folder.

    Args:
        repeat: number of the repetition, which sets the seed of both sides.
    """
    model, output = str(paths.model), str(paths.output)
    if configuration.side == OURS:
        recipe = our_recipe(paths.recipes, configuration.recipe)
        line = [str(BIN / "bitwright"), "quantize", model, "--recipe", recipe, "--device", "cpu"]
        line += ["--calibration", str(paths.texts), "--output", output, *_overrides(settings, "--samples", "-")]
        if settings.blocks:
            bits_map = paths.output.with_name(f"{paths.output.name}.map.json")
            scheme = LayerScheme(configuration.bits, configuration.group_size)
            kept = _kept_blocks(paths.model, settings)
            BitsMap(scheme, tuple(Rule(f"*.layers.{number}.*", bits=UNTOUCHED) for number in kept)).save(bits_map)
            line += ["--bits-map", str(bits_map)]
        else:
            line += ["--bits", str(configuration.bits), "--group-size", str(configuration.group_size)]
        return [*line, "--seed", str(42 + repeat)]
    if configuration.side == GSQ:
        return _gsq_command(configuration, settings, paths, repeat)
    program, options = PEER_RECIPES[configuration.recipe]
    line = [str(paths.peer / "bin" / program), "--model", model, "--bits", str(configuration.bits)]
    line += ["--group_size", str(configuration.group_size), "--dataset", str(paths.texts), "--device", "cpu"]
    line += ["--format", "auto_round", "--output_dir", output, "--seed", str(42 + repeat), *options]
    if settings.blocks:
        line += [
            "--ignore_layers",
            ",".join(f"model.layers.{number}." for number in _kept_blocks(paths.model, settings)),
        ]
    return [*line, *_overrides(settings, "--nsamples", "_")]


def _gsq_command(configuration: Configuration, settings: Settings, paths: Paths, repeat: int) -> list[str]:
    method, steps = _gsq_parts(configuration)
    iters, samples, seqlen, batch_size = schedule(configuration, settings)
    line = [sys.executable, "-m", GSQ_MODULE, str(paths.model), str(paths.texts), str(paths.output)]
    line += ["--bits", str(configuration.bits), "--group-size", str(configuration.group_size)]
    line += ["--iters", str(iters if method == "gsq" else 0), "--samples", str(samples), "--seqlen", str(seqlen)]
    line += ["--batch-size", str(batch_size), "--seed", str(42 + repeat)]
    if settings.blocks:
        line += ["--blocks", ",".join(map(str, settings.blocks))]
    if steps:
        levels = paths.output.with_name(paths.output.name.replace(configuration.recipe, method, 1))
        line += ["--end-to-end", str(steps), "--levels", str(levels)]
    return line


def _gsq_parts(configuration: Configuration) -> tuple[str, int]:
    """Return the method of a recipe of GSQ, gptq or gsq, and its end-to-end steps."""
    found = _GSQ_RECIPE.fullmatch(configuration.recipe)
    assert found
    return found[1], int(found[2] or 0)


def schedule(configuration: Configuration, settings: Settings) -> tuple[int, int, int, int]:
    """Return iterations, samples, tokens per sample and batch size of a run of another side than ours."""
    own = GSQ_SCHEDULE if configuration.side == GSQ else PEER_SCHEDULES[configuration.recipe]
    given = (settings.iters, settings.samples, settings.seqlen, settings.batch_size)
    iters, samples, seqlen, batch_size = (
        known if value is None else value for value, known in zip(given, own, strict=True)
    )
    return iters, samples, seqlen, batch_size


def _overrides(settings: Settings, samples: str, joint: str) -> list[str]:
    pairs = (
        ("--iters", settings.iters), (samples, settings.samples), ("--seqlen", settings.seqlen),
        (f"--batch{joint}size", settings.batch_size), ("--lr", settings.lr),
    )  # fmt: skip
    return [part for option, value in pairs if value is not None for part in (option, str(value))]


def _kept_blocks(model: Path, settings: Settings) -> list[int]:
    """Return the numbers of the blocks that stay in 16 bits."""
    count = json.loads((model / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    return [number for number in range(count) if number not in settings.blocks]


def tokens_per_block(configuration: Configuration, settings: Settings, output: Path) -> int:
    """Return the number of tokens that pass through a block while it is tuned: iterations x batch x tokens per sample.

    GSQ passes so many through the attention, and as many through the whole block. The values of a recipe of ours are
    those in the report beside `output`'s weights.
    """
    if configuration.side == OURS:
        report = json.loads((output / "bitwright.json").read_text(encoding="utf-8"))
        recipe = report["settings"]["recipe"]
        return int(recipe["iters"] * recipe["batch_size"] * recipe["accumulate"] * recipe["seqlen"])
    iters, _, seqlen, batch_size = schedule(configuration, settings)
    return 0 if configuration.recipe.startswith("gptq") else iters * batch_size * seqlen
