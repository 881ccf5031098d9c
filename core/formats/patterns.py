"""Matching of regular expressions from untrusted configs, within limits.

A pattern of 20 characters can take Python's `re` years to match. Patterns are therefore matched with the `regex`
package, a dependency of transformers, which has the same syntax and supports a timeout.
"""

from __future__ import annotations

import re
import time
import warnings
from functools import cached_property

import regex

from core.errors import UnsupportedModel

MAX_LENGTH = 2000
"""Length limit of patterns and of names; real ones have fewer than 200 characters."""

_MAX_REPEATS = 1000
_MAX_REPEATED = 4
_REPEATED_GROUP = re.compile(r"\)[*+{]")
_REPEATED = re.compile(r"[*+?{]")
_COUNTS = re.compile(r"\{(\d*)(?:,(\d*))?\}")
_LITERAL = re.compile(r"(\^|\\A)?((?:[\w-]|\\[^\w\s]|\\ )*)(\$|\\Z)", re.ASCII)


def is_simple(text: str) -> bool:
    """Return whether `re` can match the pattern quickly: it has few repetitions, and none of a group."""
    return (
        len(text) <= MAX_LENGTH and not _REPEATED_GROUP.search(text) and len(_REPEATED.findall(text)) <= _MAX_REPEATED
    )


class TimeBudget:
    """The time in seconds that all patterns of one config may take; real ones take microseconds per name."""

    def __init__(self, seconds: float = 30.0) -> None:
        self.seconds = seconds


class Pattern:
    """A regular expression for names.

    Attributes:
        text: source of the pattern.
        anchored: whether it must match at the start of a name.

    Raises:
        UnsupportedModel: the pattern is too long, or its counted repetitions are too large.
    """

    def __init__(self, text: str, budget: TimeBudget, *, anchored: bool) -> None:
        self.text, self.anchored, self._budget = text, anchored, budget
        repeats = 1
        for found in _COUNTS.finditer(text):
            # Counted repetitions are expanded when a pattern is compiled, and nested ones multiply.
            repeats *= max(1, int((found[2] or found[1] or "1")[:9]))
        if len(text) > MAX_LENGTH or repeats > _MAX_REPEATS:
            raise UnsupportedModel(
                f"The quantization config has a pattern that is too large: {text[:40]!r}.",
                "List the names of the layers instead.",
            )

    @property
    def pattern(self) -> str:
        """The equivalent pattern for a search."""
        return rf"\A(?:{self.text})" if self.anchored else self.text

    @property
    def literal(self) -> str | None:
        """The only name that the pattern matches, if it is an escaped name anchored at both ends; else None."""
        found = _LITERAL.fullmatch(self.text)
        if found is None or not (found[1] or self.anchored):
            return None
        return re.sub(r"\\(.)", r"\1", found[2])

    def search(self, name: str) -> bool:
        """Return whether the pattern matches in `name`; false if it is not a valid regular expression.

        Raises:
            UnsupportedModel: the time budget is exceeded.
        """
        if len(name) > MAX_LENGTH:
            return False
        began, budget = time.monotonic(), self._budget
        try:
            if budget.seconds <= 0:
                raise TimeoutError
            if self._compiled is None:
                return False
            find = self._compiled.match if self.anchored else self._compiled.search
            return find(name, timeout=budget.seconds) is not None
        except (TimeoutError, MemoryError, RecursionError) as error:
            raise UnsupportedModel(
                f"The quantization config has patterns that take too long to match, such as {self.text[:40]!r}.",
                "Avoid nested repetitions in the pattern.",
            ) from error
        finally:
            budget.seconds -= time.monotonic() - began

    @cached_property
    def _compiled(self) -> regex.Pattern[str] | None:
        # Compile with `re` first: AutoRound and GPTQModel ignore patterns that it rejects, and `regex` accepts more.
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                re.compile(self.text)
                return regex.compile(self.text)
        except (re.error, regex.error, RecursionError, OverflowError, MemoryError):
            return None
