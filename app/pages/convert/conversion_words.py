"""What is said of conversions, in words: verdicts, what is under way, and what came of it. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from PySide6.QtCore import QCoreApplication

from app.shared.formats import words as format_words
from app.shared.formats.words import title
from core.conversion.survey import ConversionOption, Verdict
from core.service.messages import ConvertedModel
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


def choice_title(row: ConversionOption) -> str:
    """What the chosen row stands for, as a heading."""
    name = title(row.format)
    words = {
        "exact": _tr("Convert", "{}: exact to the bit"),
        "inexact": _tr("Convert", "{}: the weights change a little"),
        "no": _tr("Convert", "{}: not possible"),
    }
    size = f", {human(row.nbytes)}" if row.nbytes and row.verdict != "no" else ""
    return words[row.verdict].format(name) + size


def choice_text(row: ConversionOption) -> str:
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


def outcome(made: ConvertedModel) -> Outcome:
    """Return what a conversion made, in words, from its report."""
    report = made.report
    exact, error = report["exact"] is True, report.get("error") or {}
    facts = [
        (_tr("Convert", "Format"), title(report["format"])),
        (_tr("Convert", "Size"), human(report["output_bytes"])),
        (_tr("Convert", "Time"), duration(made.seconds)),
    ]
    headline = _tr("Convert", "Exact to the bit") if exact else _changed_by(error)
    if error.get("largest_difference") is not None:  # null where a difference was not finite
        facts.append((_tr("Convert", "Largest difference"), figure(error["largest_difference"])))
    checked = _checked(report, exact)
    text = " ".join(filter(None, (checked if exact else f"{_error_text(error)} {checked}", *report["notes"])))
    return Outcome("good" if exact else "warning", headline, text, tuple(facts), made.output)


def _checked(report: Mapping[str, Any], exact: bool) -> str:
    """Return what was read back and compared."""
    verified = report["verification"]
    words = _tr("Convert", "{0} layers and {1} other tensors were read back as they were written.")
    if exact:
        words = _tr("Convert", "{0} layers and {1} other tensors were read back: the same weights as in the source.")
    return words.format(f"{verified['layers']:,}", f"{verified['other_tensors']:,}")


def _changed_by(error: Mapping[str, Any]) -> str:
    share = error.get("relative_rms")
    if share is None:
        return _tr("Convert", "The weights changed")
    return _tr("Convert", "The weights changed by {} %").format(figure(100 * share))


def _error_text(error: Mapping[str, Any]) -> str:
    text = _tr("Convert", "That is the root mean square of the differences, as a share of that of the weights.")
    worst = error.get("worst_tensor") or {}
    if worst.get("name") and worst.get("relative_rms") is not None:
        text += " " + _tr("Convert", "Most in {0}: {1} %.").format(worst["name"], figure(100 * worst["relative_rms"]))
    return text
