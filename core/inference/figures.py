"""Results of measurements on a loaded model: perplexity and speed. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of a text.

    Attributes:
        value: exp(nll).
        standard_error: standard error of `value`, from the spread of the rows' means (for one row, of its tokens).
        nll: mean negative log-likelihood of the predicted tokens, in nats.
        tokens: number of predicted tokens.
        seqlen: tokens per row; the first token of each row is not predicted.
        text: name of the text.
        sha256: hash of the token ids; equal for the same text and tokenizer.
    """

    value: float
    standard_error: float
    nll: float
    tokens: int
    seqlen: int
    text: str
    sha256: str


@dataclass(frozen=True)
class SpeedRow:
    """Speed at one prompt length.

    Attributes:
        prompt: tokens of the prompt.
        prefill: prompt tokens processed per second.
        first_token: seconds until the first token is generated.
        decode: tokens generated per second, from the median time of the tokens after the first.
        memory: bytes of weights and cache.
        bandwidth_share: bytes of weights read per second, as a fraction of the memory bandwidth; None if unknown.
    """

    prompt: int
    prefill: float
    first_token: float
    decode: float
    memory: int = 0
    bandwidth_share: float | None = None


@dataclass(frozen=True)
class SpeedReport:
    """Speed of a model at several prompt lengths, with the device and the runner.

    Attributes:
        rows: one for each prompt length, in ascending order.
        bandwidth: memory bandwidth in bytes per second.
        bandwidth_method: description of the measurement of the bandwidth.
        device, device_name: torch's device string and the product name.
        runner: name of the runner.
        backend: name of the backend that computes most layers.
        dtype: dtype of the computation.
        written: path of the report to which the figures were added, or "".
    """

    rows: tuple[SpeedRow, ...] = ()
    bandwidth: float = 0.0
    bandwidth_method: str = ""
    device: str = ""
    device_name: str = ""
    runner: str = ""
    backend: str = ""
    dtype: str = ""
    written: str = ""
