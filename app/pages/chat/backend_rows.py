"""The rows of the table of backends as the service's calls give them: plain values into `BackendRow`.

Believes nothing: a row of another form is left out. Knows no widget.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from core.inference.backends.backend import BackendRow

_USUAL = BackendRow("", "", usable=False, takes="")


def rows_from(values: Any) -> tuple[BackendRow, ...]:
    """The rows in a JSON value; none where it is no list."""
    if not isinstance(values, Iterable) or isinstance(values, str | Mapping):
        return ()
    return tuple(_row(value) for value in values if isinstance(value, Mapping) and value.get("name"))


def _row(value: Mapping[str, Any]) -> BackendRow:
    found: dict[str, Any] = {}
    for name in BackendRow.__dataclass_fields__:
        usual = getattr(_USUAL, name)
        given = value.get(name, usual)
        found[name] = given if type(given) is type(usual) else usual
    return BackendRow(**found)


def computing(rows: Iterable[BackendRow]) -> list[BackendRow]:
    """The backends that compute layers of the loaded model, the one with the most layers first."""
    return sorted((row for row in rows if row.layers), key=lambda row: -row.layers)
