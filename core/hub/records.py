"""Results of queries to the Hugging Face Hub: models that match a search, and model cards."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FoundModel:
    """A model in the results of a search.

    Attributes:
        id, author: as on the Hub.
        downloads, likes: counted by the Hub; 0 for a search in the cache.
        gated: whether terms must be accepted first.
        license: short name, or "".
        parameters: number of parameters; None if unknown.
        updated: date and time of the last change in ISO format, or "".
        tags: as on the Hub.
        cached: whether the model is complete in the cache.
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
    """The results of a search; `offline` if the Hub could not be reached and they are from its cache."""

    models: tuple[FoundModel, ...]
    offline: bool = False


@dataclass(frozen=True)
class ModelCard:
    """The card of a model.

    Attributes:
        text: Markdown without the metadata block at its start; "" if there is no card.
        license: short name of the license; "" if unknown.
        stated_by: source of the license, for display.
    """

    text: str = ""
    license: str = ""
    stated_by: str = ""
