"""The output of a run: a staging folder beside the target, filled as layers finish, and renamed when all is proven.

Until `publish` the target does not exist (or is the empty folder that it was). A run that fails or is killed by
an exception removes its staging folder; one that is killed outright leaves a hidden folder with its job's name.
Knows folders and files, not tensors' meaning.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from core.errors import OutputProblem
from core.events import Emit, FileWritten
from core.files import sync_folder, write_atomic, write_json
from core.formats.names import folder_name
from core.formats.stored import FormatWriter, Stored, digest
from core.jobs.spec import JobSpec
from core.jobs.store import staging_of
from core.model_card import CARD, model_card
from core.quant.prepare import Prepared

REPORT = "bitwright.json"


class Output:
    """All formats of one run. A context manager: leaving it without `publish` removes what was staged.

    Attributes:
        folders: format name -> folder in staging that becomes that checkpoint.
        digests: format name -> layer -> what was handed to that format, as a hash.
        files: paths relative to the output, and their sizes, once finished.
    """

    def __init__(self, spec: JobSpec, job: Path, ready: Prepared, emit: Emit) -> None:
        self._spec = spec
        self._target = Path(spec.output).absolute()
        self._staging = staging_of(self._target, job)
        self._ready = ready
        self._emit = emit
        self._made: list[Path] = []
        self._writers: dict[str, FormatWriter] = {}
        self.folders: dict[str, Path] = {}
        self.digests: dict[str, dict[str, str]] = {name: {} for name in ready.formats}
        self.files: dict[str, int] = {}
        self.published = False

    def __enter__(self) -> Output:
        try:
            self._stage()
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.published:
            self._discard()

    def write(self, layer: Stored) -> None:
        """Put a finished layer into every format, on that format's own grid."""
        for name, plan in self._ready.formats.items():
            stored = plan.stored(layer)
            self.digests[name][layer.name] = digest(stored)
            self._writers[name].write(stored)

    def finish_files(self, should_stop: Callable[[], bool]) -> None:
        """Everything that is not a quantized layer: other tensors, configs, tokenizer, licence."""
        for writer in self._writers.values():
            writer.finish(self._ready.store, self._ready.source.folder, should_stop)
        for folder in self.folders.values():
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    relative = str(path.relative_to(self._staging))
                    self.files[relative] = path.stat().st_size
                    self._emit(FileWritten(path=relative, size=path.stat().st_size))

    def publish(self, report: dict[str, Any]) -> None:
        """Write report and model card into every checkpoint, make all durable, and give the folder its name."""
        for name, folder in self.folders.items():
            write_json(folder / REPORT, report)
            card = model_card(report, name, self._target.name, self._ready.source.folder)
            write_atomic(folder / CARD, card.encode("utf-8", "replace"))
        try:
            if os.name == "nt" and self._target.is_dir():
                self._target.rmdir()
            os.rename(self._staging, self._target)
        except OSError as error:
            raise OutputProblem(
                f"{self._target} cannot be put into place: {error.strerror}.", "Something was put there meanwhile."
            ) from error
        sync_folder(self._target.parent)
        self.published = True

    def _stage(self) -> None:
        try:
            missing = [p for p in (self._target.parent, *self._target.parent.parents) if not p.exists()]
            for parent in reversed(missing):
                parent.mkdir()
                self._made.append(parent)
            self._staging.mkdir()
            self._made.append(self._staging)
            many = len(self._ready.formats) > 1
            for name, plan in self._ready.formats.items():
                folder = self._staging / folder_name(name) if many else self._staging
                folder.mkdir(exist_ok=True)
                self.folders[name] = folder
                self._writers[name] = plan.writer(folder)
        except OSError as error:
            raise OutputProblem(
                f"{self._target} cannot be made: {error.strerror}.", "Choose an --output that you may write."
            ) from error

    def _discard(self) -> None:
        """Remove the staging folder and the parents that this run made; never anything else."""
        for writer in self._writers.values():
            writer.abort()
        if self._staging in self._made:
            shutil.rmtree(self._staging, ignore_errors=True)
        for parent in reversed([path for path in self._made if path != self._staging]):
            with contextlib.suppress(OSError):
                parent.rmdir()
