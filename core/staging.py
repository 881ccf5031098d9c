"""Staging folder of an output: hidden beside its target, and renamed after verification.

A result that is complete, or nearly so, but cannot be renamed is kept under a visible name, which the error contains.
Until then a marker file in the folder shows that it may be removed; folders without the marker are never removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from core.claim import Claim, is_filled_in_place, is_free, staging_places
from core.errors import BitwrightError, OutputProblem, ResultKept
from core.files import free_name, reason, sync_folder, sync_tree, with_retries

UNFINISHED: Final = ".unfinished"
"""Name of the marker file. It also reserves disk space for the last small files."""
_BALLAST: Final = 4 << 20
_NAMES_LAST: Final = ("config.json",)
"""Files that make a folder a model are moved last."""
_NO_RESERVING: Final = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


class Staging:
    """A folder that becomes `target`; leaving the context removes it unless it was published or kept.

    Attributes:
        folder: the staging folder; contains only the marker file at first.

    Args:
        target: absolute path that does not exist, or a free folder.
        token: identifier of the work, such as the id of a job.
        title: description of the work, for the error of another process with the same output.
    """

    def __init__(self, target: Path, token: str, title: str) -> None:
        self.target = target
        self.kept: Path | None = None
        self._claim = Claim(target, token, title)
        self._token = token
        self._in_place = False
        self._made = False
        self._published = False
        self.folder = staging_places(target, token)[0]

    def __enter__(self) -> Self:
        self._claim.__enter__()
        try:
            self._in_place = is_filled_in_place(self.target)
            self.folder = staging_places(self.target, self._token)[self._in_place]
            if self.target.is_dir() and not is_free(self.target):
                raise OutputProblem(f"{self.target} is no longer empty.", "Choose another output folder.")
            self.folder.mkdir()
            self._made = True
            self._lay_ballast()
        except OSError as error:
            self._leave()
            raise OutputProblem(
                f"{self.target} cannot be created: {reason(error)}.", "Choose an --output with write permission."
            ) from error
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def drop_ballast(self) -> None:
        """Release the disk space reserved for the last files."""
        with contextlib.suppress(OSError):
            os.truncate(self.folder / UNFINISHED, 0)

    def publish(self) -> None:
        """Sync the folder to disk and rename it to its target; call this last.

        Raises:
            ResultKept: the folder could not be renamed, and is kept elsewhere.
        """
        with self.kept_on_failure("the finished result"):
            sync_tree(self.folder)
            with contextlib.suppress(OSError):  # a remaining marker is harmless in the output
                (self.folder / UNFINISHED).unlink()
            try:
                self._fill() if self._in_place else with_retries(self._rename)
            except OSError as error:
                raise OutputProblem(
                    f"The output cannot be moved to {self.target}: {reason(error)}.", "Rename the folder that was kept."
                ) from error
        self._published = True
        with contextlib.suppress(OSError):
            sync_folder(self.target if self._in_place else self.target.parent)

    @contextmanager
    def kept_on_failure(self, what: str) -> Iterator[None]:
        """Keep the folder if the block fails.

        Args:
            what: description of what is kept, for the error.

        Raises:
            ResultKept: in place of the exception of the block, except for Cancelled.
        """
        try:
            yield
        except Exception as error:
            if isinstance(error, ResultKept) or getattr(error, "code", "") == "cancelled":
                raise
            place = self._keep("finished" if what == "the finished result" else "unfinished")
            if place is None:
                raise
            raise _kept_error(error, what, place) from error

    def _rename(self) -> None:
        if os.name == "nt" and self.target.is_dir():
            self.target.rmdir()
        os.rename(self.folder, self.target)

    def _fill(self) -> None:
        """Move the files into the target, which contains this folder; on failure, move all of them back."""
        names = sorted(os.listdir(self.folder), key=lambda name: (name in _NAMES_LAST, name))
        moved: list[str] = []
        try:
            for name in names:
                if os.path.lexists(self.target / name):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.target / name))
                with_retries(lambda name=name: os.rename(self.folder / name, self.target / name))  # type: ignore[misc]
                moved.append(name)
        except OSError:
            for name in moved:
                with contextlib.suppress(OSError):
                    os.rename(self.target / name, self.folder / name)
            raise
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _keep(self, label: str) -> Path | None:
        """Rename the folder to a visible name; if that fails, keep its name without the marker."""
        with contextlib.suppress(OSError):
            (self.folder / UNFINISHED).unlink(missing_ok=True)
        if not self.folder.is_dir():
            return None
        self.kept = self.folder
        with contextlib.suppress(OSError):
            place = self.target / label if self._in_place else self.target.with_name(f"{self.target.name}-{label}")
            place = free_name(place)
            with_retries(lambda: os.rename(self.folder, place))
            self.kept = place
        return self.kept

    def _lay_ballast(self) -> None:
        # on a full volume, writing the output fails with a clear error
        with (self.folder / UNFINISHED).open("wb") as stream, contextlib.suppress(OSError):
            try:
                os.posix_fallocate(stream.fileno(), 0, _BALLAST)
            except (AttributeError, OSError) as error:
                if isinstance(error, OSError) and error.errno not in _NO_RESERVING:
                    raise
                stream.write(bytes(_BALLAST))

    def _leave(self) -> None:
        if self._made and not self._published and self.kept is None:
            remove(self.folder)
        self._claim.__exit__(None, None, None)


def remove(folder: Path) -> bool:
    """Remove an unfinished staging folder, the marker last; return whether it is gone."""
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    if names and UNFINISHED not in names:
        return False
    for name in names:
        path = folder / name
        if name == UNFINISHED:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()
    if set(os.listdir(folder)) <= {UNFINISHED}:
        shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _kept_error(error: Exception, what: str, place: Path) -> ResultKept:
    """Return the error for a failure whose result is kept in `place`."""
    kept = f"{what} is kept in {place}" if what.endswith("result") else f"{what} are kept in {place}"
    if isinstance(error, BitwrightError):
        return ResultKept(f"{error.message.rstrip('.')}; {kept}.", error.hint)
    if isinstance(error, OSError):
        problem, hint = (
            f"The output could not be completed: {reason(error)}",
            "Check the disk, its free space and permissions.",
        )
        return ResultKept(f"{problem}; {kept}.", hint)
    return ResultKept(
        f"Something went wrong inside Bitwright: {type(error).__name__}: {error}; {kept}.",
        "This is a bug; see the log.",
    )
