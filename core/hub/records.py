"""Results of queries to the Hugging Face Hub: models that match a search, and model cards."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FoundModel:
    """One model.

    Attributes:
        id, author: of its page at the Hub.
        downloads, likes: as the Hub counts them; 0 where it was not asked.
        gated: its terms must be accepted first.
        license: short name, or "".
        parameters: number of weights, or None where it is not known.
        updated: ISO date and time of the last change, or "".
        tags: as the Hub has them.
        cached: it is on this machine, whole.
    """

    id: str
    author: str
    downloads: int
    likes: int
    gated: bool
    license: str
    parameters: int | None
    updated: str
    tags: tuple[str, ...]
    cached: bool


@dataclass(frozen=True)
class SearchResults:
    """Models that match a search; `offline`: the Hub did not answer, and these are the models in its cache."""

    models: tuple[FoundModel, ...]
    offline: bool = False


@dataclass(frozen=True)
class ModelCard:
    """What a model says about itself.

    Attributes:
        text: the Markdown without the block of metadata above it, "" where there is none.
        license: short name, "" where nothing states one; stated_by: what states it, for people.
    """

    text: str = ""
    license: str = ""
    stated_by: str = ""
