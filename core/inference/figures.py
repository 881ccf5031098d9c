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
        prompt_tokens: tokens of the prompt.
        prefill_tokens_per_second: prompt tokens processed per second.
        first_token_seconds: seconds until the first token is generated.
        decode_tokens_per_second: tokens generated per second, from the median time of the tokens after the first.
        memory_bytes: bytes of weights and cache.
        bandwidth_share: bytes of weights read per second, as a fraction of the memory bandwidth; None if unknown.
    """

    prompt_tokens: int
    prefill_tokens_per_second: float
    first_token_seconds: float
    decode_tokens_per_second: float
    memory_bytes: int = 0
    bandwidth_share: float | None = None


@dataclass(frozen=True)
class SpeedReport:
    """Speed of a model at several prompt lengths, with the device and the runner.

    Attributes:
        rows: one for each prompt length, in ascending order.
        memory_bandwidth: memory bandwidth in bytes per second.
        bandwidth_method: description of the measurement of the bandwidth.
        device, device_name: torch's device string and the product name.
        runner: name of the runner.
        backend: name of the backend that computes most layers.
        dtype: dtype of the computation.
        report_path: path of the report to which the figures were added, or "".
    """

    rows: tuple[SpeedRow, ...] = ()
    memory_bandwidth: float = 0.0
    bandwidth_method: str = ""
    device: str = ""
    device_name: str = ""
    runner: str = ""
    backend: str = ""
    dtype: str = ""
    report_path: str = ""
