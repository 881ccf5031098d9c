"""Requests of the window to its child process, and their results: frozen dataclasses that both ends share.

Every request class is a `Request[Result]`, so the type of its result is known to the type checker and, through
`result_type`, to the decoder. `core.codec` encodes both. Does not import torch or other modules that load slowly.
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
from core.inference.generation.message import Message
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
    """Configuration and tensor table of a model, without its weights.

    Attributes:
        name: name for a job: Hub id, folder, `.gguf` file or `demo`; label: name to display.
        origin: `hub`, `folder`, `gguf` or `demo`; note: note about the weights, or "".
        folder: folder of its files on this machine, "" for a model that is only on the Hub.
        config: content of config.json; tensors: tensor table, with 16-bit weights for quantized ones that can be read.
        download_bytes: bytes to download before a run.
        refusal: the reason why the weights cannot be read, or "".
        file_bytes: size of quantized weights in their files; 0 for weights that are not quantized.
    """

    name: str
    label: str
    origin: str
    note: str
    folder: str
    config: dict[str, Any]
    tensors: tuple[TensorInfo, ...]
    download_bytes: int = 0
    refusal: str = ""
    file_bytes: int = 0


@dataclass(frozen=True)
class OpenModel(Request[ModelHeaders]):
    """Read the headers of a model, without downloading it; a GGUF file is imported first, with `Progress` events.

    A model that cannot be quantized is not an error; its tree contains the reason.
    """

    model: str


@dataclass(frozen=True)
class ModelFolder:
    """Folder of a model on this machine."""

    path: Path


@dataclass(frozen=True)
class DownloadModel(Request[ModelFolder]):
    """Download a model unless it is on this machine, with `Progress` events."""

    model: str


@dataclass(frozen=True)
class SearchHub(Request[SearchResults]):
    """Search for language models on the Hub, or in its local cache if the Hub does not respond.

    Attributes:
        text: part of the name; limit: maximum number of models; sort: one of `core.hub.search.SORTS`.
        hide_quantized: exclude models that are already quantized.
    """

    text: str
    limit: int = 30
    sort: str = "downloads"
    hide_quantized: bool = True


@dataclass(frozen=True)
class FetchCard(Request[ModelCard]):
    """Read the model card, in Markdown, and the license of a model."""

    model: str


@dataclass(frozen=True)
class OutputModel:
    """A checkpoint that a finished run wrote.

    Attributes:
        folder: folder of the checkpoint.
        format: name of its format if the run wrote several, else "".
        scheme: scheme of most layers; model: original; created: start of the run in seconds since the epoch.
    """

    folder: Path
    format: str
    scheme: str
    model: str
    created: float


@dataclass(frozen=True)
class OutputList:
    """Checkpoints of finished runs, newest first."""

    outputs: tuple[OutputModel, ...] = ()


@dataclass(frozen=True)
class ListOutputs(Request[OutputList]):
    """List the existing checkpoints of finished runs."""


# --- this machine and runs ---


@dataclass(frozen=True)
class MeasureMachine(Request[Machine]):
    """Find the devices of this machine and their backends, and measure the usable ones."""


@dataclass(frozen=True)
class PreviewText(Request[Preview]):
    """Read the sequences that a run would tune on; token counts are missing if the model is not on this machine.

    Attributes:
        calibration, samples, seqlen, seed: as in a run; model: model whose tokenizer is used, "" for none.
    """

    calibration: str
    samples: int
    seqlen: int
    seed: int
    model: str = ""


@dataclass(frozen=True)
class MeasureSensitivity(Request[SensitivityTable]):
    """Measure the sensitivity of all layers, or read it from the cache.

    A model that is only on the Hub is downloaded first, with `Progress` events; those of the measurement follow
    `Stage("analyse")`.
    """

    spec: AnalysisSpec


# --- conversions ---


@dataclass(frozen=True)
class SurveyConversions(Request[ConversionSurvey]):
    """List the formats that a model can be converted to; a model on the Hub is downloaded first."""

    model: str


@dataclass(frozen=True)
class ConvertedModel:
    """Output folder, duration in seconds, and report of a conversion."""

    output: str
    seconds: float
    report: dict[str, Any]


@dataclass(frozen=True)
class ConvertModel(Request[ConvertedModel]):
    """Convert a model to another format in the new folder `output`, with `Stage` and `Progress` events.

    `inexact` allows conversions that change weights.
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
    """Perplexity in the report of the run that wrote a model, and the name of the text."""

    value: float
    text: str


@dataclass(frozen=True)
class LoadedModel:
    """Description of a model that is loaded for a chat.

    Attributes:
        label: name to display; device, device_name: device that computes; dtype: dtype of the weights in memory.
        device_note: reason why it is not the requested device, or "".
        schemes: number of stored layers by scheme, empty for a model that is not quantized.
        unpacked: format of quantized weights that were unpacked to 16 bits, such as `MXFP4`; "" for others.
        weight_bytes: size on disk; memory_bytes: size of weights and cache in memory.
        context: context length in tokens; template: whether it has a chat template.
        folder: folder of its files; runner: name of the runner (`native`, `module`, `llama.cpp`).
        backends: table of backends with the number of layers of each.
        perplexity: perplexity in the report of its run, None if none was measured.
        thinking: whether its chat template has thinking blocks.
        reads: kinds of input that this chat accepts: `text`, `pictures`.
        pictures_note: reason, as one sentence, why a model that can see pictures cannot get them here; "" otherwise.
    """

    label: str = ""
    device: str = ""
    device_name: str = ""
    device_note: str = ""
    dtype: str = ""
    schemes: dict[str, int] = field(default_factory=dict)
    unpacked: str = ""
    weight_bytes: int = 0
    memory_bytes: int = 0
    context: int = 0
    template: bool = True
    folder: str = ""
    runner: str = ""
    backends: tuple[BackendRow, ...] = ()
    perplexity: ReportedPerplexity | None = None
    thinking: bool = False
    reads: tuple[str, ...] = ("text",)
    pictures_note: str = ""


@dataclass(frozen=True)
class LoadModel(Request[LoadedModel]):
    """Load a model for a chat; the previous one is unloaded first.

    `context` limits the tokens of the cache; None uses the limit of the model.
    """

    model: str
    device: str = "auto"
    backend: str = "auto"
    context: int | None = None


Messages = tuple[Message, ...]


@dataclass(frozen=True)
class Say(Request[ChatAnswer]):
    """Generate an answer of the loaded model, as `Token` events; a stop ends it after the current token.

    With `continue_last`, the last message is an answer of the model and is continued.
    """

    messages: Messages
    sampling: Sampling = field(default_factory=Sampling)
    continue_last: bool = False


@dataclass(frozen=True)
class TokenCount:
    """Number of tokens of a conversation, and context length of the model."""

    tokens: int
    context: int


@dataclass(frozen=True)
class CountTokens(Request[TokenCount]):
    """Count the tokens of a conversation for the loaded model."""

    messages: Messages


@dataclass(frozen=True)
class MeasurePerplexity(Request[Perplexity]):
    """Measure the perplexity of the loaded model on the evaluation text of a run."""


@dataclass(frozen=True)
class MeasureSpeed(Request[SpeedReport]):
    """Measure prefill and decode speed of the loaded model; `lengths` are prompt lengths, None for the defaults."""

    lengths: tuple[int, ...] | None = None
