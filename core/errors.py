"""Errors that are shown to users.

Every error has a stable `code` (for programs), a `message` (one sentence) and a `hint` (a remedy). `core.cli` maps
codes to exit codes.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")


class BitwrightError(Exception):
    """Base class of all errors that are shown to users. Any other exception is a bug."""

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
    """An invalid value, path or combination of options; remedy: change it."""

    code = "bad-input"


class ModelNotFound(BitwrightError):
    """The model does not exist; remedy: correct the name or the path."""

    code = "model-not-found"


class UnsupportedModel(BitwrightError):
    """The model is valid but not supported; remedy: another model."""

    code = "unsupported-model"


class CorruptFile(BitwrightError):
    """A file does not match its header or config; remedy: download it again."""

    code = "corrupt-file"


class BadCalibration(BitwrightError):
    """The calibration text is missing, not text, or too short; remedy: another text or fewer tokens."""

    code = "bad-calibration"


class OutputProblem(BitwrightError):
    """The output folder cannot be written; remedy: another folder or other permissions."""

    code = "output"


class ResultKept(BitwrightError):
    """The result is complete but could not be moved to its target; remedy: move it from where it is kept."""

    code = "kept"


class FileProblem(BitwrightError):
    """A file of Bitwright could not be read or written; remedy: check the disk, its free space and permissions."""

    code = "file"


class DiskFull(BitwrightError):
    """Not enough space on a volume; remedy: free space, or use another volume."""

    code = "disk-full"


class OutOfMemory(BitwrightError):
    """The host or the device is out of memory; remedy: a memory limit, or shorter sequences."""

    code = "out-of-memory"


class HubUnreachable(BitwrightError):
    """The Hub did not answer or refused access; remedy: the network connection, a token, or a local folder."""

    code = "hub"


class DeviceProblem(BitwrightError):
    """The requested device is missing or does not work; remedy: another device."""

    code = "device"


class MissingDependency(BitwrightError):
    """An optional library is missing; remedy: the install command in the hint."""

    code = "missing-dependency"


class VerificationFailed(BitwrightError):
    """The written output differs from the tuned model, or gives no finite results; remedy: see the log, report it."""

    code = "verification"


class ChildDied(BitwrightError):
    """The child process ended without a result; the remedy depends on the signal, see the hint."""

    code = "child-died"


class Cancelled(BitwrightError):
    """The user requested a stop. Not a failure."""

    code = "cancelled"


def by_code(code: str, message: str, hint: str = "") -> BitwrightError:
    """Return an error of the class with this `code` (of the base class for other codes)."""
    for cls in BitwrightError.__subclasses__():
        if cls.code == code:
            return cls(message, hint)
    return BitwrightError(message, hint, code=code)


@contextmanager
def translated(kind: type[BitwrightError], sentence: str, hint: str) -> Iterator[None]:
    """Convert exceptions of other libraries about a file of the user to an error of `kind`, with their message.

    For libraries that do not document their exceptions: config validation errors of transformers derive from Exception
    only, tokenizers raises plain Exceptions, and its panics (from Rust) derive from BaseException.

    Raises:
        kind: in place of any exception except BitwrightError, MemoryError and interrupts.
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
    """Return the message of an exception as one line; lines that end with a colon are joined with the next one."""
    if isinstance(error, KeyError) and len(error.args) == 1 and " " not in str(error.args[0]):
        return f"there is no entry {str(error.args[0])[:80]!r}"  # the message of a KeyError is the key alone
    reason = ""
    for line in filter(None, map(str.strip, str(error).splitlines())):
        reason = f"{reason} {line}".lstrip()
        if not line.endswith(":"):
            break
    reason = "".join(letter if letter.isprintable() else "?" for letter in reason[:240])
    return reason.rstrip(": ") or type(error).__name__


def no_memory(error: BaseException) -> bool:
    """Return whether `error` reports a lack of memory on the host or a device; torch on a CPU only has a message."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    # torch.OutOfMemoryError is matched by name to avoid the import of torch; on a CPU it is a RuntimeError
    if any(cls.__name__ == "OutOfMemoryError" for cls in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MEMORY_WORDS)
