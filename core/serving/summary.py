"""Totals of a closed endpoint. Does not import the server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServerSummary:
    """Number of answered requests, and the uptime in seconds."""

    requests: int
    seconds: float
