"""Search for language models on the Hub, or in its cache when the Hub cannot be reached."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from core.control import ShouldStop
from core.errors import BadInput, BitwrightError, HubUnreachable
from core.files import read_json
from core.hub.card import license_of, read_text
from core.hub.download import cached, http_error
from core.hub.patience import bounded
from core.hub.records import FoundModel, SearchResults
from core.model.headers import read_folder

SORTS: Final = {
    "downloads": "downloads", "likes": "likes", "trending": "trendingScore", "updated": "lastModified",
    "created": "createdAt",
}  # fmt: skip
"""Sort orders -> those of the Hub, all in descending order."""

_REQUEST_SECONDS: Final = 10.0
_MOST: Final = 100
"""Page size of the Hub."""
_TASKS: Final = ("text-generation", "image-text-to-text", "any-to-any")
"""Tasks of the Hub whose models have a language model that can be quantized."""
_EXPAND: Final = ["author", "downloads", "gated", "lastModified", "likes", "safetensors", "tags"]
_QUANTIZED_TAGS: Final = {
    "gguf", "gptq", "awq", "exl2", "exl3", "mlx", "bitsandbytes", "bnb", "compressed-tensors", "quantized", "hqq",
    "auto-round", "autoround", "aqlm", "quip", "fp8", "nvfp4", "mxfp4", "1-bit", "2-bit", "3-bit", "4-bit", "5-bit",
    "6-bit", "8-bit",
}  # fmt: skip
_PUBLISHED_TAGS: Final = {"fp8", "mxfp4"}
"""Tags of formats in which original models are published."""
_QUANTIZED_NAME: Final = re.compile(
    r"(?:^|[-_./])(?:gguf|gptq|awq|exl[23]|mlx|bnb|hqq|aqlm|quip|fp8|nvfp4|mxfp4|int[248]|"
    r"[1-8](?:\.\d+)?-?(?:bits?|bpw)|"
    r"w[248]a(?:8|16)(?:g\d+)?|i?q[1-8](?:_\w+)?|quantized|quant|auto-?round)(?=$|[-_./])",
    re.IGNORECASE,
)


def search(
    text: str,
    limit: int,
    sort: str,
    hide_quantized: bool,
    should_stop: ShouldStop,
) -> SearchResults:
    """Search for models by name; takes at most about 12 s.

    Args:
        text: part of the name.
        limit: maximum number of results.
        sort: a key of SORTS.
        hide_quantized: omit models that are already quantized.
        should_stop: called about five times a second.

    Raises:
        BadInput: the sort order is unknown.
        HubUnreachable: the Hub rejects the access token.
        Cancelled: `should_stop` returned true.
    """
    if sort not in SORTS:
        raise BadInput(f"Unknown sort order {sort!r}.", f"Choose from {', '.join(SORTS)}.")
    # Request more than `limit`, since about two of three results are quantized copies.
    wanted = min(_MOST, max(1, limit) * (3 if hide_quantized else 1))
    try:
        items = bounded(lambda: _ask(text.strip(), sort, wanted), should_stop)
    except (http_error(), OSError, ValueError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise HubUnreachable(
                f"The Hub rejected the search (status {status}).", "Run `hf auth login`, or unset HF_TOKEN."
            ) from error
        return SearchResults(tuple(_in_cache(text, sort, hide_quantized)[:limit]), offline=True)
    here = set(_cached_names())
    found = [_found(item, here) for item in items]
    return SearchResults(tuple(model for model in found if not (hide_quantized and is_quantized(model)))[:limit], False)


def is_quantized(model: FoundModel) -> bool:
    """Return whether the tags or the name of a model indicate quantized weights.

    Models that their author published in FP8 or MXFP4 only, such as DeepSeek V3 and gpt-oss, do not count: they are not
    derived from another model.
    """
    tags = {tag.lower() for tag in model.tags}
    derived = any(tag.startswith("base_model:quantized:") for tag in tags)
    found = tags & _QUANTIZED_TAGS
    if found & _PUBLISHED_TAGS and not any(tag.startswith("base_model:") for tag in tags):
        found -= _PUBLISHED_TAGS | {"8-bit"}
    return derived or bool(found) or bool(_QUANTIZED_NAME.search(model.id))


def _ask(text: str, sort: str, limit: int) -> list[Any]:
    """Return models of all tasks in the order of the Hub's lists, at most `limit`."""
    field = SORTS[sort]
    listed = [item for task in _TASKS for item in _page(text, field, limit, task)]
    found = {item["id"]: item for item in listed if isinstance(item, dict) and isinstance(item.get("id"), str)}
    # each list is in descending order already, which the sort keeps for equal and missing values
    return sorted(found.values(), key=lambda item: _rank(item.get(field)), reverse=True)[:limit]


def _rank(value: object) -> tuple[float, str]:
    """Return the position of a count or a date in ascending order."""
    return (float(value), "") if isinstance(value, int | float) else (-1.0, value if isinstance(value, str) else "")


def _page(text: str, field: str, limit: int, task: str) -> list[Any]:
    """Request one page of the Hub's list of models, without the retries of huggingface_hub (half a minute)."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    query: dict[str, Any] = {
        "pipeline_tag": task,
        "filter": ["safetensors"],
        "sort": field,
        "limit": limit,
        "expand": sorted({*_EXPAND, field}),
    }
    if text:
        query["search"] = text
    response = get_session().get(
        f"{HfApi().endpoint}/api/models", params=query, headers=build_hf_headers(), timeout=_REQUEST_SECONDS
    )
    hf_raise_for_status(response)
    value = response.json()
    if not isinstance(value, list):
        raise ValueError("the response of the Hub is not a list")
    return value


def _found(item: Mapping[str, Any], here: set[str]) -> FoundModel:
    name = item["id"]
    tags = tuple(tag for tag in item.get("tags") or () if isinstance(tag, str))
    weights = item.get("safetensors")
    return FoundModel(
        id=name,
        author=str(item.get("author") or name.rpartition("/")[0]),
        downloads=_whole(item.get("downloads")) or 0,
        likes=_whole(item.get("likes")) or 0,
        gated=bool(item.get("gated")),
        license=next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), ""),
        parameters=_whole(weights.get("total")) if isinstance(weights, dict) else None,
        updated=str(item.get("lastModified") or ""),
        tags=tags,
        cached=name in here and cached(name) is not None,
    )


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


# --- the cache ---


def _cached_names() -> list[str]:
    """Return the ids of all models in the cache, complete or not."""
    from huggingface_hub import constants

    folders = Path(constants.HF_HUB_CACHE).glob("models--*")
    return [folder.name.removeprefix("models--").replace("--", "/") for folder in folders]


def _in_cache(text: str, sort: str, hide_quantized: bool) -> list[FoundModel]:
    """Return the complete models in the cache whose names contain every word of `text`."""
    words = text.lower().split()
    found = []
    for name in sorted(_cached_names(), key=str.lower):
        folder = cached(name) if all(word in name.lower() for word in words) else None
        if folder is None:
            continue
        try:
            model, packed = _describe(name, folder)
        except (BitwrightError, OSError):
            continue  # removed meanwhile, or damaged
        if not (hide_quantized and (packed or is_quantized(model))):
            found.append(model)
    return sorted(found, key=lambda model: model.updated, reverse=True) if sort in ("updated", "created") else found


def _describe(name: str, folder: Path) -> tuple[FoundModel, bool]:
    """Return a model in the cache, described from its files, and whether its config marks it as quantized."""
    config = read_json(folder / "config.json")
    packed = isinstance(config, dict) and bool(config.get("quantization_config"))
    weights = sum(info.numel for info in read_folder(folder).values())
    changed = datetime.fromtimestamp((folder / "config.json").stat().st_mtime, UTC)
    return (
        FoundModel(
            id=name,
            author=name.rpartition("/")[0],
            downloads=0,
            likes=0,
            gated=False,
            license=license_of(read_text(folder)),
            parameters=None if packed else weights,
            updated=changed.isoformat(timespec="seconds"),
            tags=(),
            cached=True,
        ),
        packed,
    )
