"""Results of measurements on a loaded model: perplexity and speed. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of a text.

    Attributes:
        value: exp(nll).
        standard_error: of `value`, from the spread of the rows' means (of the tokens, where there is one row).
        nll: mean negative log-likelihood of the predicted tokens, in nats.
        tokens: predicted tokens.
        seqlen: tokens a row; each row's first token is given, not predicted.
        text: which text.
        sha256: of the token ids, to tell whether two figures belong to the same text and tokenizer.
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
        first_token: seconds until the first token of the answer.
        decode: tokens generated per second, from the median time of one, without the first.
        memory: bytes of weights and cache.
        bandwidth_share: share of the memory bandwidth that reading the weights once a token takes; None if not known.
    """

    prompt: int
    prefill: float
    first_token: float
    decode: float
    memory: int = 0
    bandwidth_share: float | None = None


@dataclass(frozen=True)
class SpeedReport:
    """Speed of a model at several prompt lengths, and what it was measured on.

    Attributes:
        rows: one for each length, the shortest first.
        bandwidth: bytes per second that memory can be read with; bandwidth_method: how it was measured.
        device, device_name: what computed; runner, backend: what ran the model and most of its layers.
        dtype: number format of the computation.
        written: path of the report that contains the figures now; "" where there is none.
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
