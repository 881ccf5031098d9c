"""Requests of the window to its child process, and their results: frozen dataclasses that both ends share.

Every request class is a `Request[Result]`, so the type of its result is known to the type checker and, through
`result_type`, to the decoder. `core.codec` encodes both. Imports no torch, and nothing that delays the window's start.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, get_args

from core.calibration.preview import Preview
from core.conversion.survey import ConversionSurvey
from core.hub.records import ModelCard, SearchResults
from core.inference.backends.backend import BackendRow
from core.inference.figures import Perplexity, SpeedReport
from core.inference.generation.reply import ChatAnswer
from core.inference.generation.settings import Sampling
from core.inference.machine import Machine
from core.model.headers import TensorInfo
from core.sensitivity.spec import AnalysisSpec
from core.sensitivity.table import SensitivityTable
from core.serving.summary import ServerSummary

R_co = TypeVar("R_co", covariant=True)


class Request(Generic[R_co]):
    """Base of all requests; the type argument is the class of the result."""


def result_type(request: type[Request[R_co]]) -> type[R_co]:
    """Return the class of the results of a request class."""
    bases: tuple[Any, ...] = request.__orig_bases__  # type: ignore[attr-defined]
    return cast("type[R_co]", get_args(bases[0])[0])


# --- models ---


@dataclass(frozen=True)
class ModelHeaders:
    """Headers of a model: what it consists of, without its weights.

    Attributes:
        name: for a job: Hub id, folder, `.gguf` file or `demo`; label: short name for people.
        origin: `hub`, `folder`, `gguf` or `demo`; note: remark about the weights, or "".
        folder: of its files on this machine, "" for a model that is only on the Hub.
        config: its config.json; tensors: its tensor table.
        download_bytes: to be downloaded before a run.
    """

    name: str
    label: str
    origin: str
    note: str
    folder: str
    config: dict[str, Any]
    tensors: tuple[TensorInfo, ...]
    download_bytes: int = 0


@dataclass(frozen=True)
class OpenModel(Request[ModelHeaders]):
    """Read the headers of a model, without downloading it; a GGUF file is imported first, with `Progress`.

    A model that cannot be quantized is no error: its tree has the reason.
    """

    model: str


@dataclass(frozen=True)
class ModelFolder:
    """Folder of a model on this machine."""

    path: Path


@dataclass(frozen=True)
class DownloadModel(Request[ModelFolder]):
    """Download a model unless it is on this machine, with `Progress`."""

    model: str


@dataclass(frozen=True)
class SearchHub(Request[SearchResults]):
    """Find language models on the Hub, or in its cache where it does not answer.

    Attributes:
        text: part of the name; limit: models at most; sort: one of `core.hub.search.SORTS`.
        hide_quantized: leave out models that are quantized already.
    """

    text: str
    limit: int = 30
    sort: str = "downloads"
    hide_quantized: bool = True


@dataclass(frozen=True)
class FetchCard(Request[ModelCard]):
    """Read the model card, as Markdown, and the licence of a model."""

    model: str


@dataclass(frozen=True)
class OutputModel:
    """A checkpoint that a finished run wrote.

    Attributes:
        folder: its files.
        format: name of its format where the run wrote several, else "".
        scheme: of most layers; model: the original; created: start of the run, seconds since the epoch.
    """

    folder: Path
    format: str
    scheme: str
    model: str
    created: float


@dataclass(frozen=True)
class OutputList:
    """Checkpoints of finished runs, the newest first."""

    outputs: tuple[OutputModel, ...] = ()


@dataclass(frozen=True)
class ListOutputs(Request[OutputList]):
    """Find the checkpoints of finished runs that still exist."""


# --- this machine and runs ---


@dataclass(frozen=True)
class MeasureMachine(Request[Machine]):
    """Find the devices of this machine and their backends, and measure the usable ones."""


@dataclass(frozen=True)
class PreviewText(Request[Preview]):
    """Read the rows that a run would tune on; without token counts where the model is not on this machine.

    Attributes:
        calibration, samples, seqlen, seed: as in a run; model: for its tokenizer, "" for none.
    """

    calibration: str
    samples: int
    seqlen: int
    seed: int
    model: str = ""


@dataclass(frozen=True)
class MeasureSensitivity(Request[SensitivityTable]):
    """Measure the sensitivity of all layers, or read it from the cache.

    A model that is only on the Hub is downloaded first, with `Progress`; `Stage("analyse")` precedes the `Progress` of
    the measurement.
    """

    spec: AnalysisSpec


# --- conversions ---


@dataclass(frozen=True)
class SurveyConversions(Request[ConversionSurvey]):
    """Find the formats that a model can be converted to; one that is only on the Hub is downloaded first."""

    model: str


@dataclass(frozen=True)
class ConvertedModel:
    """Folder of a conversion's output, the seconds it took, and its report."""

    output: str
    seconds: float
    report: dict[str, Any]


@dataclass(frozen=True)
class ConvertModel(Request[ConvertedModel]):
    """Write a model to the new folder `output` in another format, with `Stage` and `Progress`.

    `inexact` allows the weights to change.
    """

    model: str
    output: str
    format: str
    inexact: bool = False


# --- loaded models ---


@dataclass(frozen=True)
class ServeModel(Request[ServerSummary]):
    """Load a model and serve it to other programs until the call is stopped; arguments as in `core.api.serve`."""

    model: str
    device: str = "auto"
    backend: str = "auto"
    context: int | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    token: str = ""


@dataclass(frozen=True)
class ReportedPerplexity:
    """Perplexity in the report of the run that made a model, and the name of its text."""

    value: float
    text: str


@dataclass(frozen=True)
class LoadedModel:
    """Description of a model that is loaded for a chat.

    Attributes:
        label: short name; device, device_name: what computes; dtype: number format of the weights in memory.
        device_note: why it is another device than the requested one, as one sentence, or "".
        schemes: number of stored layers by scheme, empty for a model that is not quantized.
        weight_bytes: size on disk; memory_bytes: of weights and cache in memory.
        context: tokens that it processes at once; template: whether it has a chat template.
        folder: its files; runner: what runs the whole model (`native`, `module`, `llama.cpp`).
        backends: table of backends with the number of layers of each.
        perplexity: of the run that made it, None where none was measured.
        thinking: whether its chat template has thinking blocks.
    """

    label: str = ""
    device: str = ""
    device_name: str = ""
    device_note: str = ""
    dtype: str = ""
    schemes: dict[str, int] = field(default_factory=dict)
    weight_bytes: int = 0
    memory_bytes: int = 0
    context: int = 0
    template: bool = True
    folder: str = ""
    runner: str = ""
    backends: tuple[BackendRow, ...] = ()
    perplexity: ReportedPerplexity | None = None
    thinking: bool = False


@dataclass(frozen=True)
class LoadModel(Request[LoadedModel]):
    """Load a model for a chat, in place of the one before, which is unloaded first.

    `context` limits the tokens of the cache; None leaves it to the model.
    """

    model: str
    device: str = "auto"
    backend: str = "auto"
    context: int | None = None


Messages = tuple[dict[str, str], ...]


@dataclass(frozen=True)
class Say(Request[ChatAnswer]):
    """Generate an answer of the loaded model, as `Token` events; a stop ends it after the current token.

    `continue_last`: the last message is the model's own and is continued.
    """

    messages: Messages
    sampling: Sampling = field(default_factory=Sampling)
    continue_last: bool = False


@dataclass(frozen=True)
class TokenCount:
    """Tokens of a conversation, and tokens of the model's context."""

    tokens: int
    context: int


@dataclass(frozen=True)
class CountTokens(Request[TokenCount]):
    """Count the tokens of a conversation for the loaded model."""

    messages: Messages


@dataclass(frozen=True)
class MeasurePerplexity(Request[Perplexity]):
    """Measure the perplexity of the loaded model on the held-out text that a run uses too."""


@dataclass(frozen=True)
class MeasureSpeed(Request[SpeedReport]):
    """Measure prefill and decode speed of the loaded model; `lengths`: tokens of the prompts, None for the defaults."""

    lengths: tuple[int, ...] | None = None
