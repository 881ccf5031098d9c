"""The errors a user can meet: one clear sentence, and a hint that says what to do next.

Every error carries a stable `code` (for programs), a `message` (one sentence for people) and a `hint`
(the remedy). This module knows nothing of exit codes or windows; `core.cli` and the window decide how to show them.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")


class BitwrightError(Exception):
    """Base of every error that is shown to a user. Anything else that is raised is a bug."""

    code = "error"

    def __init__(self, message: str, hint: str = "", *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class BadInput(BitwrightError):
    """A value, a path or a combination of options that cannot work; remedy: change it."""

    code = "bad-input"


class ModelNotFound(BitwrightError):
    """The model is not where the user said; remedy: correct the name or the path."""

    code = "model-not-found"


class UnsupportedModel(BitwrightError):
    """The model is sound but of a kind that this version does not quantize; remedy: another model."""

    code = "unsupported-model"


class CorruptFile(BitwrightError):
    """A file does not hold what its header or its config promises; remedy: fetch it again."""

    code = "corrupt-file"


class BadCalibration(BitwrightError):
    """The calibration text is missing, not text, or too short; remedy: another text or fewer tokens."""

    code = "bad-calibration"


class OutputProblem(BitwrightError):
    """The output folder cannot be written as asked; remedy: another folder or different rights."""

    code = "output"


class ResultKept(BitwrightError):
    """The work was done but its result could not be put into place; remedy: take it from where it is kept."""

    code = "kept"


class FileProblem(BitwrightError):
    """The system could not read or write a file that should be there for us; remedy: the disk, its room, its rights."""

    code = "file"


class DiskFull(BitwrightError):
    """Too little room on a volume; remedy: free some, or write elsewhere."""

    code = "disk-full"


class OutOfMemory(BitwrightError):
    """Memory of the host or of the device ran out; remedy: smaller batches or low-memory mode."""

    code = "out-of-memory"


class HubUnreachable(BitwrightError):
    """The Hub did not answer, or refused; remedy: the network, a token, or a local folder."""

    code = "hub"


class DeviceProblem(BitwrightError):
    """The device asked for is not there or does not work; remedy: another device."""

    code = "device"


class MissingDependency(BitwrightError):
    """An optional library is needed for this; remedy: the install command in the hint."""

    code = "missing-dependency"


class VerificationFailed(BitwrightError):
    """What was written is not what was tuned, or does not answer; remedy: see the log, report it."""

    code = "verification"


class ChildDied(BitwrightError):
    """The child process ended without saying how; remedy depends on the signal, see the hint."""

    code = "child-died"


class Cancelled(BitwrightError):
    """The user asked for a stop. Not a failure."""

    code = "cancelled"


def by_code(code: str, message: str, hint: str = "") -> BitwrightError:
    """The error whose class has this `code` (the base class for a code that has none)."""
    for cls in BitwrightError.__subclasses__():
        if cls.code == code:
            return cls(message, hint)
    return BitwrightError(message, hint, code=code)


@contextmanager
def translated(kind: type[BitwrightError], sentence: str, hint: str) -> Iterator[None]:
    """Tell whatever another library raises about a stranger's file as an error of `kind`, with the library's reason.

    For calls whose libraries raise what they like: transformers' checks of configs derive from Exception alone, those
    of tokenizers are bare Exceptions, and its panics (written in Rust) not even that.

    Raises:
        kind: instead of anything but a BitwrightError, a lack of memory and an interrupt.
    """
    try:
        yield
    except (BitwrightError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise kind(f"{sentence}: {_reason(error).rstrip('.')}.", hint) from error


def _reason(error: BaseException) -> str:
    """What an error says, in one line: its first, and the next ones as long as they only announce another."""
    if isinstance(error, KeyError) and len(error.args) == 1 and " " not in str(error.args[0]):
        return f"there is no entry {str(error.args[0])[:80]!r}"  # such an error has nothing but the key as its text
    reason = ""
    for line in filter(None, map(str.strip, str(error).splitlines())):
        reason = f"{reason} {line}".lstrip()
        if not line.endswith(":"):
            break
    reason = "".join(letter if letter.isprintable() else "?" for letter in reason[:240])
    return reason.rstrip(": ") or type(error).__name__


def no_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, of the host or of a device; on a CPU torch says it in words only."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    # torch.OutOfMemoryError by its name, so that nothing here imports torch; on a CPU it is a plain RuntimeError
    if any(cls.__name__ == "OutOfMemoryError" for cls in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MEMORY_WORDS)
