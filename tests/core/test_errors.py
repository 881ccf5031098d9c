"""Tests of the errors: message, hint and code, and the class of each code."""

from __future__ import annotations

import pytest

from core import errors
from core.errors import BadInput, BitwrightError, DiskFull, by_code, translated


def test_an_error_keeps_message_hint_and_code() -> None:
    error = DiskFull("No room.", "Free some.")
    assert (error.code, error.message, error.hint, str(error)) == (
        "disk-full", "No room.", "Free some.", "No room. Free some.",
    )  # fmt: skip


def test_an_error_without_a_hint_reads_as_its_message() -> None:
    assert str(BadInput("Wrong.")) == "Wrong."


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in BitwrightError.__subclasses__()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("cls", BitwrightError.__subclasses__())
def test_a_code_leads_back_to_its_class(cls: type[BitwrightError]) -> None:
    assert type(by_code(cls.code, "m", "h")) is cls


def test_an_unknown_code_is_kept_in_the_base_class() -> None:
    error = by_code("internal", "m")
    assert (type(error), error.code) == (errors.BitwrightError, "internal")


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (ValueError("not a number.\nmore"), "Refused: not a number."),
        (ValueError("Validation error for field 'a':\n    TypeError: expected int"),
         "Refused: Validation error for field 'a': TypeError: expected int."),
        (ValueError("needs one of:"), "Refused: needs one of."),
        (KeyError("yarn"), "Refused: there is no entry 'yarn'."),
        (ZeroDivisionError(), "Refused: ZeroDivisionError."),
    ],
)  # fmt: skip
def test_the_reason_of_another_library_is_told_whole(raised: Exception, told: str) -> None:
    with pytest.raises(BadInput) as info, translated(BadInput, "Refused", "Hint."):
        raise raised
    assert info.value.message == told
