"""What a person typed, pasted or dropped, as the name of a model: a Hub id, a path or `demo`. Opens nothing."""

from __future__ import annotations

from PySide6.QtCore import QUrl

from core.model_id import DEMO, absolute, looks_like_path

HUB = "https://huggingface.co/"

_HOSTS = ("https://huggingface.co/", "http://huggingface.co/", "https://www.huggingface.co/", "https://hf.co/")
_NOT_MODELS = ("datasets", "spaces", "docs", "papers", "blog", "collections", "models", "settings")


def model_name(text: str) -> str:
    """The name to open: a link to a model's page becomes its id, a `file:` link or a relative path an absolute path."""
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
    """Whether the text is itself a name or a link, rather than words to search for."""
    text = text.strip()
    return bool(text) and (text == DEMO or "/" in text or looks_like_path(text))


def page_of(name: str) -> str:
    """Address of a model's page at the Hub."""
    return HUB + QUrl.toPercentEncoding(name, b"/").toStdString()
