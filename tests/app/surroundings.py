"""A page's surroundings of which a test plays some parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app.shared.context import Context


def surroundings_with(context: Context, **parts: Any) -> Context:
    """Return `context` with stand-ins (`runs`, `calls`) or other callables in place of its own."""
    return replace(context, **parts)
