"""What is said of conversions, in words: verdicts, what is under way, and what came of it. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from PySide6.QtCore import QCoreApplication

from app.pages.convert.conversion import Possible, Verdict
from app.shared.formats import words as format_words
from app.shared.formats.words import title
from core.wording import duration, figure, human

_tr = QCoreApplication.translate
VERDICTS: Final[tuple[Verdict, ...]] = ("exact", "inexact", "no")
ROLES: Final[dict[Verdict, str]] = {"exact": "good", "inexact": "warning", "no": "muted"}


@dataclass(frozen=True)
class Outcome:
    """What came of a conversion.

    Attributes:
        role: the theme's colour for it; headline: a few words; text: what was compared or measured.
        facts: names and values of the figures.
        output: the folder that was made.
    """

    role: Literal["good", "warning", ""]
    headline: str
    text: str
    facts: tuple[tuple[str, str], ...]
    output: str


def verdict_text(verdict: Verdict) -> str:
    """The word in the table."""
    words = {
        "exact": _tr("Convert", "exact"),
        "inexact": _tr("Convert", "adds an error"),
        "no": _tr("Convert", "not possible"),
    }
    return words[verdict]


def heading(verdict: Verdict, count: int) -> str:
    """The line above all formats of one verdict."""
    words = {
        "exact": _tr("Convert", "Exact: the same weights in another file ({})"),
        "inexact": _tr("Convert", "Only with an error: the weights change a little ({})"),
        "no": _tr("Convert", "Not possible ({})"),
    }
    return words[verdict].format(count)


def choice_title(row: Possible) -> str:
    """What the chosen row stands for, as a heading."""
    name = title(row.format)
    words = {
        "exact": _tr("Convert", "{}: exact to the bit"),
        "inexact": _tr("Convert", "{}: the weights change a little"),
        "no": _tr("Convert", "{}: not possible"),
    }
    size = f", {human(row.size)}" if row.size and row.verdict != "no" else ""
    return words[row.verdict].format(name) + size


def choice_text(row: Possible) -> str:
    """What to know of the chosen row."""
    if row.reason:
        return row.reason
    if row.verdict == "exact":
        about = format_words.family_of(row.format).about
        return f"{about} {_tr('Convert', 'Every layer is written, read back and compared with the source.')}"
    return _tr("Convert", "How much they change is measured, and reported at the end.")


def stage_text(name: str, label: str, target: str) -> str:
    """What is under way, by the name of its stage."""
    words = {
        "prepare": _tr("Convert", "Opening {0}"),
        "download": _tr("Convert", "Downloading {0}"),
        "verify": _tr("Convert", "Comparing what was written with {0}"),
    }
    return words.get(name, _tr("Convert", "Converting {0} to {1}")).format(label, title(target))


def outcome(values: Mapping[str, Any]) -> Outcome:
    """What the values of a `convert` call say; what is missing in them is left out."""
    report = _mapping(values.get("report"))
    error, size, seconds = _mapping(report.get("error")), report.get("output_bytes"), values.get("seconds")
    facts = []
    if report.get("format"):
        facts.append((_tr("Convert", "Format"), title(str(report["format"]))))
    if isinstance(size, int) and size:
        facts.append((_tr("Convert", "Size"), human(size)))
    if isinstance(seconds, int | float):
        facts.append((_tr("Convert", "Time"), duration(seconds)))
    exact = report.get("exact") is True
    checked, notes = _checked(report, exact), [note for note in report.get("notes") or () if isinstance(note, str)]
    headline = _tr("Convert", "Exact to the bit") if exact else _changed_by(error)
    if not exact and isinstance(error.get("largest"), int | float):
        facts.append((_tr("Convert", "Largest difference"), figure(error["largest"])))
    text = " ".join(filter(None, (checked if exact else f"{_error_text(error)} {checked}", *notes)))
    return Outcome("good" if exact else "warning", headline, text, tuple(facts), str(values.get("output") or ""))


def _checked(report: Mapping[str, Any], exact: bool) -> str:
    """What was read back."""
    verified = _mapping(report.get("verified"))
    layers, others = verified.get("layers"), verified.get("other_tensors")
    if not isinstance(layers, int) or not isinstance(others, int):
        return ""
    words = _tr("Convert", "{0} layers and {1} other tensors were read back as they were written.")
    if exact:
        words = _tr("Convert", "{0} layers and {1} other tensors were read back: the same weights as in the source.")
    return words.format(f"{layers:,}", f"{others:,}")


def _changed_by(error: Mapping[str, Any]) -> str:
    share = error.get("relative_rms")
    if not isinstance(share, int | float):
        return _tr("Convert", "The weights changed")
    return _tr("Convert", "The weights changed by {} %").format(figure(100 * share))


def _error_text(error: Mapping[str, Any]) -> str:
    text = _tr("Convert", "That is the root mean square of the differences, as a share of that of the weights.")
    worst = _mapping(error.get("worst"))
    name, share = worst.get("name"), worst.get("relative_rms")
    if isinstance(name, str) and name and isinstance(share, int | float):
        text += " " + _tr("Convert", "Most in {0}: {1} %.").format(name, figure(100 * share))
    return text


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
