"""Regular expressions out of a stranger's config, held in bounds.

A pattern of twenty characters can keep Python's own `re` busy for years. These are matched by the `regex` package,
which takes the same syntax and a limit of time, and which transformers brings along. Knows nothing of what is matched.
"""

from __future__ import annotations

import re
import time
import warnings
from functools import cached_property

import regex

from core.errors import UnsupportedModel

MAX_LENGTH = 2000
"""Characters of a pattern or of a name that one is held against; real ones have fewer than 200."""

_MAX_REPEATS = 1000
_MAX_REPEATED = 4
_REPEATED_GROUP = re.compile(r"\)[*+{]")
_REPEATED = re.compile(r"[*+?{]")
_COUNTS = re.compile(r"\{(\d*)(?:,(\d*))?\}")
_LITERAL = re.compile(r"(\^|\\A)?((?:[\w-]|\\[^\w\s]|\\ )*)(\$|\\Z)", re.ASCII)


def tame(text: str) -> bool:
    """Whether `re` itself matches the pattern in good time: few repetitions, and none of a group."""
    return (
        len(text) <= MAX_LENGTH and not _REPEATED_GROUP.search(text) and len(_REPEATED.findall(text)) <= _MAX_REPEATED
    )


class Allowance:
    """Seconds that all patterns of one config may take together; real ones take microseconds a name."""

    def __init__(self, seconds: float = 30.0) -> None:
        self.seconds = seconds


class Pattern:
    """A pattern that a name either has in it or not.

    Attributes:
        text: as it was written.
        anchored: it must begin where the name begins.

    Raises:
        UnsupportedModel: too long, or it repeats more than a name is long.
    """

    def __init__(self, text: str, allowance: Allowance, *, anchored: bool) -> None:
        self.text, self.anchored, self._allowance = text, anchored, allowance
        repeats = 1
        for found in _COUNTS.finditer(text):
            # Counted repetitions are written out when a pattern is compiled, nested ones multiplied.
            repeats *= max(1, int((found[2] or found[1] or "1")[:9]))
        if len(text) > MAX_LENGTH or repeats > _MAX_REPEATS:
            raise UnsupportedModel(
                f"The quantization config has a pattern that is too large to be matched: {text[:40]!r}.",
                "Write the names of the layers instead.",
            )

    @property
    def pattern(self) -> str:
        """The same as a pattern to search with."""
        return rf"\A(?:{self.text})" if self.anchored else self.text

    @property
    def literal(self) -> str | None:
        """The one name that the pattern covers, where it is an escaped name with both ends fixed."""
        found = _LITERAL.fullmatch(self.text)
        if found is None or not (found[1] or self.anchored):
            return None
        return re.sub(r"\\(.)", r"\1", found[2])

    def search(self, name: str) -> bool:
        """Whether the pattern covers `name`; never, if it is no regular expression.

        Raises:
            UnsupportedModel: it takes too long to find out.
        """
        if len(name) > MAX_LENGTH:
            return False
        began, allowance = time.monotonic(), self._allowance
        try:
            if allowance.seconds <= 0:
                raise TimeoutError
            if self._compiled is None:
                return False
            find = self._compiled.match if self.anchored else self._compiled.search
            return find(name, timeout=allowance.seconds) is not None
        except (TimeoutError, MemoryError, RecursionError) as error:
            raise UnsupportedModel(
                f"The quantization config has patterns that take too long to be matched, such as {self.text[:40]!r}.",
                "Write it without a repetition inside a repetition.",
            ) from error
        finally:
            allowance.seconds -= time.monotonic() - began

    @cached_property
    def _compiled(self) -> regex.Pattern[str] | None:
        # `re` is asked first: what it refuses, AutoRound and GPTQModel pass over, and `regex` knows more than they do.
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                re.compile(self.text)
                return regex.compile(self.text)
        except (re.error, regex.error, RecursionError, OverflowError, MemoryError):
            return None
