"""Conversion of typed, pasted or dropped text to the name of a model: a Hub id, a path or `demo`."""

from __future__ import annotations

from PySide6.QtCore import QUrl

from core.model_id import DEMO, absolute, looks_like_path

HUB = "https://huggingface.co/"

_HOSTS = ("https://huggingface.co/", "http://huggingface.co/", "https://www.huggingface.co/", "https://hf.co/")
_NOT_MODELS = ("datasets", "spaces", "docs", "papers", "blog", "collections", "models", "settings")


def model_name(text: str) -> str:
    """Return the name of a model: the id for a link to its page, an absolute path for a `file:` link or a path."""
    text = text.strip().strip("\"'")
    if text.lower().startswith("file:"):
        return QUrl(text).toLocalFile()
    link = f"https://{text}" if text.lower().startswith(("huggingface.co/", "www.huggingface.co/", "hf.co/")) else text
    for host in _HOSTS:
        if link.lower().startswith(host):
            parts = [part for part in QUrl(link).path().split("/") if part]
            return "/".join(parts[:2]) if parts and parts[0] not in _NOT_MODELS else text
    return text if "://" in text else absolute(text)


def names_a_model(text: str) -> bool:
    """Return whether the text is a name or a link, rather than a search query."""
    text = text.strip()
    return bool(text) and (text == DEMO or "/" in text or looks_like_path(text))


def page_of(name: str) -> str:
    """Return the address of a model's page on the Hub; a GGUF type after a colon is not part of it."""
    return HUB + QUrl.toPercentEncoding(name.partition(":")[0], b"/").toStdString()
