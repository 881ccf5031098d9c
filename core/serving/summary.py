"""Totals of an endpoint that has ended. Imports no server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServerSummary:
    """Requests that the model answered, and the seconds that the endpoint was up."""

    requests: int
    seconds: float
