"""Texts about conversions: verdicts, progress and results. Pure functions."""

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
    """The result of a conversion.

    Attributes:
        role: color role of the theme; headline: short text; text: what was compared or measured.
        facts: names and values of the figures.
        output: the output folder.
    """

    role: Literal["good", "warning", ""]
    headline: str
    text: str
    facts: tuple[tuple[str, str], ...]
    output: str


def verdict_text(verdict: Verdict) -> str:
    """Return the text of a verdict in the table."""
    words = {
        "exact": _tr("Convert", "exact"),
        "inexact": _tr("Convert", "inexact"),
        "no": _tr("Convert", "not possible"),
    }
    return words[verdict]


def heading(verdict: Verdict, count: int) -> str:
    """Return the heading above all formats with one verdict."""
    words = {
        "exact": _tr("Convert", "Exact: the weights do not change ({})"),
        "inexact": _tr("Convert", "Inexact: the weights change slightly ({})"),
        "no": _tr("Convert", "Not possible ({})"),
    }
    return words[verdict].format(count)


def choice_title(row: ConversionOption) -> str:
    """Return the heading for the selected row."""
    name = title(row.format)
    words = {
        "exact": _tr("Convert", "{}: exact"),
        "inexact": _tr("Convert", "{}: the weights change slightly"),
        "no": _tr("Convert", "{}: not possible"),
    }
    size = f", {human(row.nbytes)}" if row.nbytes and row.verdict != "no" else ""
    return words[row.verdict].format(name) + size


def choice_text(row: ConversionOption) -> str:
    """Return the explanation of the selected row."""
    if row.reason:
        return row.reason
    if row.verdict == "exact":
        about = format_words.family_of(row.format).about
        return f"{about} {_tr('Convert', 'Every layer is read back and compared with the source.')}"
    return _tr("Convert", "The change of the weights is measured and reported.")


def stage_text(name: str, label: str, target: str) -> str:
    """Return the activity for the name of a stage."""
    words = {
        "prepare": _tr("Convert", "Opening {0}"),
        "download": _tr("Convert", "Downloading {0}"),
        "verify": _tr("Convert", "Comparing the output with {0}"),
    }
    return words.get(name, _tr("Convert", "Converting {0} to {1}")).format(label, title(target))


def outcome(made: ConvertedModel) -> Outcome:
    """Return the result of a conversion as texts, from its report."""
    report = made.report
    exact, error = report["exact"] is True, report.get("error") or {}
    facts = [
        (_tr("Convert", "Format"), title(report["format"])),
        (_tr("Convert", "Size"), human(report["output_bytes"])),
        (_tr("Convert", "Time"), duration(made.seconds)),
    ]
    headline = _tr("Convert", "Exact conversion") if exact else _changed_by(error)
    if error.get("largest_difference") is not None:  # null if a difference was not finite
        facts.append((_tr("Convert", "Largest difference"), figure(error["largest_difference"])))
    checked = _checked(report, exact)
    text = " ".join(filter(None, (checked if exact else f"{_error_text(error)} {checked}", *report["notes"])))
    return Outcome("good" if exact else "warning", headline, text, tuple(facts), made.output)


def _checked(report: Mapping[str, Any], exact: bool) -> str:
    """Return a sentence about the verification."""
    verified = report["verification"]
    words = _tr("Convert", "{0} layers and {1} other tensors were verified.")
    if exact:
        words = _tr(
            "Convert", "{0} layers and {1} other tensors were verified: their weights are identical to the source."
        )
    return words.format(f"{verified['layers']:,}", f"{verified['other_tensors']:,}")


def _changed_by(error: Mapping[str, Any]) -> str:
    share = error.get("relative_rms")
    if share is None:
        return _tr("Convert", "The weights changed")
    return _tr("Convert", "The weights changed by {} %").format(figure(100 * share))


def _error_text(error: Mapping[str, Any]) -> str:
    text = _tr("Convert", "Root mean square of the differences, relative to that of the weights.")
    worst = error.get("worst_tensor") or {}
    if worst.get("name") and worst.get("relative_rms") is not None:
        text += " " + _tr("Convert", "Largest in {0}: {1} %.").format(
            worst["name"], figure(100 * worst["relative_rms"])
        )
    return text
