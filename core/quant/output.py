"""Output of a run: the checkpoints of all formats, written layer by layer into one staging folder.

Side files are written first and the report last, so that a lack of disk space is found early. Until `publish`, the
target does not exist (or is the empty folder that it was). A run that fails before its last layer is written leaves
no files; one that fails later keeps its output.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from core.control import ShouldStop
from core.errors import CorruptFile, VerificationFailed
from core.events import Emit, FileWritten
from core.files import write_atomic, write_json
from core.formats.names import folder_name
from core.formats.stored import FormatWriter, StoredLayer, digest
from core.model.weights import TensorStore
from core.model.writer import failures
from core.quant.prepare import PreparedRun
from core.report.model_card import CARD, model_card
from core.spec import JobSpec
from core.staging import UNFINISHED, Staging

REPORT = "bitwright.json"


class Output:
    """Checkpoints of all formats of a run, as a context manager.

    Leaving it without `publish` removes the staging folder, or keeps it if every layer has been tuned and written.

    Attributes:
        folders: format name -> folder of its checkpoint in the staging folder.
        digests: format name -> layer name -> hash of the layer that was written.
        files: path relative to the output -> size in bytes, after `finish_files`.
    """

    def __init__(self, spec: JobSpec, job: Path, ready: PreparedRun, emit: Emit) -> None:
        self._target = Path(spec.output).absolute()
        self._staging = Staging(self._target, job.name, f"job {job.name}")
        self._ready = ready
        self._emit = emit
        self._writers: dict[str, FormatWriter] = {}
        self.folders: dict[str, Path] = {}
        self.digests: dict[str, dict[str, str]] = {name: {} for name in ready.formats}
        self.files: dict[str, int] = {}

    def __enter__(self) -> Output:
        self._staging.__enter__()
        try:
            self._begin()
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if (
                isinstance(error, Exception)
                and not isinstance(error, VerificationFailed | CorruptFile)
                and self._tuned()
            ):
                with self._staging.kept_on_failure("the tuned layers"):
                    for writer in self._writers.values():
                        writer.leave()
                    raise error
        finally:
            self._discard()

    def write(self, layer: StoredLayer) -> None:
        """Write a quantized layer in every format, on the grid of that format."""
        for name, plan in self._ready.formats.items():
            stored = plan.stored(layer)
            self._writers[name].write(stored)
            self.digests[name][layer.name] = digest(stored)

    def finish_files(self, store: TensorStore, should_stop: ShouldStop) -> None:
        """Write all other tensors from `store`, and list the files."""
        for writer in self._writers.values():
            writer.finish(store, should_stop)
        for folder in self.folders.values():
            for path in sorted(folder.rglob("*")):
                if path.is_file() and path.name != UNFINISHED:
                    relative = str(path.relative_to(self._staging.folder))
                    self.files[relative] = path.stat().st_size
                    self._emit(FileWritten(path=relative, size=path.stat().st_size))

    def publish(self, report: dict[str, Any]) -> None:
        """Write report and model card into every checkpoint, sync the files, and rename the folder to its target.

        Raises:
            ResultKept: the report cannot be written, or the folder cannot be renamed; the result is kept.
        """
        with self._staging.kept_on_failure("the finished result"):
            self._staging.drop_ballast()
            for name, folder in self.folders.items():
                write_json(folder / REPORT, report)
                card = model_card(report, name, self._target.name, self._ready.source.folder)
                write_atomic(folder / CARD, card.encode("utf-8", "replace"))
        self._staging.publish()

    def _begin(self) -> None:
        """Open a writer for each format, and write the side files."""
        many = len(self._ready.formats) > 1
        for name, plan in self._ready.formats.items():
            folder = self._staging.folder / folder_name(name) if many else self._staging.folder
            with failures(folder):
                folder.mkdir(exist_ok=True)
                self.folders[name] = folder
                self._writers[name] = plan.writer(folder)
                self._writers[name].begin(self._ready.source.folder)

    def _tuned(self) -> bool:
        """Return whether every layer of every format has been written."""
        formats = self._ready.formats
        return bool(self._writers) and all(
            set(self.digests[name]) >= set(plan.layers) for name, plan in formats.items()
        )

    def _discard(self) -> None:
        """Remove the staging folder, unless it was published or kept."""
        if self._staging.kept is None:
            for writer in self._writers.values():
                writer.abort()
        self._staging.__exit__(None, None, None)
