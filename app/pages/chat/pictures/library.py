"""The pictures of a chat: copies of attached ones, previews, and what is done with a picture, in background threads.

Depends on QtGui, but not on widgets.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from PySide6.QtCore import QMimeData, QObject, QSize, QUrl, Signal
from PySide6.QtGui import QGuiApplication, QImage

from app.pages.chat.background import BackgroundWork
from app.pages.chat.conversations.picture_files import PictureFiles, display_name
from app.pages.chat.pictures.decoding import PASTED, PREVIEW, Preview, decode, load_picture, png_of
from core.errors import BadInput, BitwrightError, OutputProblem
from core.files import with_retries

PictureSource = str | QImage
"""The path of a picture file, or an image from the clipboard."""

_MOST_PREVIEWS: Final = 100


class PictureLibrary(QObject):
    """The pictures of the messages of one chat view and its composer.

    Signals:
        ready(str): the preview of this path is available.
        failed(object): a `BitwrightError`: a picture could not be copied or saved.
        told(str): something was done that the user does not see otherwise.
    """

    ready = Signal(str)
    failed = Signal(object)
    told = Signal(str)

    def __init__(self, files: PictureFiles | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._files = files or PictureFiles()
        self._background = BackgroundWork(2, "pictures", self)
        self._previews: OrderedDict[str, Preview] = OrderedDict()
        self._wanted: set[str] = set()

    def attach(
        self, source: PictureSource, then: Callable[[str], object], failed: Callable[[BitwrightError], object]
    ) -> None:
        """Check a picture and copy it; `then` is called with the path of the copy, or `failed` with the reason."""

        def done(found: tuple[str, Preview]) -> None:
            path, preview = found
            self._keep(path, preview)
            then(path)

        self._do(partial(_attached, source, self._files), done, failed)

    def preview(self, path: str) -> Preview | None:
        """Return the preview of a picture; None until `ready` is emitted."""
        found = self._previews.get(path)
        if found is not None:
            self._previews.move_to_end(path)
        elif path not in self._wanted:
            self._wanted.add(path)
            self._do(partial(decode, path, PREVIEW), lambda preview: self._keep(path, preview))
        return found

    def fit(self, path: str, limit: QSize, then: Callable[[Preview], object]) -> None:
        """Decode a picture to fit into `limit`, and call `then` with it."""
        self._do(partial(decode, path, limit), then)

    def copy(self, path: str) -> None:
        """Copy a picture to the clipboard, as an image and as a file."""

        def done(preview: Preview) -> None:
            if preview.problem:
                self._tell(path, preview.problem)
                return
            mime = QMimeData()
            mime.setImageData(preview.image)
            mime.setUrls([QUrl.fromLocalFile(path)])
            QGuiApplication.clipboard().setMimeData(mime)
            self.told.emit(self.tr("Copied {name}").format(name=display_name(path)))

        self._do(partial(decode, path), done)

    def save(self, path: str, target: str) -> None:
        """Save a picture to the file `target`."""
        words = self.tr("Saved as {path}").format(path=target)
        self._do(partial(_save, path, Path(target)), lambda _none: self.told.emit(words))

    def wait(self) -> None:
        """Wait until everything that was started is done; the results are delivered by the event loop."""
        self._background.wait()

    def _keep(self, path: str, preview: Preview) -> None:
        self._wanted.discard(path)
        self._previews[path] = preview
        while len(self._previews) > _MOST_PREVIEWS:
            self._previews.popitem(last=False)
        self.ready.emit(path)

    def _tell(self, path: str, problem: str) -> None:
        self.failed.emit(BadInput(f"{display_name(path)}: {problem}", ""))

    def _do(
        self,
        work: Callable[[], Any],
        then: Callable[[Any], object],
        failed: Callable[[BitwrightError], object] | None = None,
    ) -> None:
        self._background.start(work, then, failed or self.failed.emit)


def _attached(source: PictureSource, files: PictureFiles) -> tuple[str, Preview]:
    if isinstance(source, QImage):
        data, name, format = png_of(source), PASTED, "png"
    else:
        data, format = load_picture(source)
        name = Path(source).name
    path = str(files.put(data, name, format))
    return path, decode(path, PREVIEW)


def _save(path: str, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        shutil.copyfile(path, temporary)
        with_retries(lambda: temporary.replace(target))
    except OSError as error:
        raise OutputProblem(f"{target} cannot be written: {error.strerror}.", "Choose another location.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
