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

from core.errors import Cancelled, OutputProblem
from core.events import Emit, FileWritten
from core.files import sync_folder, write_json
from core.formats.quantized import QuantizedLinear
from core.formats.side_files import carry_over
from core.jobs.spec import JobSpec
from core.jobs.store import staging_of
from core.model.writer import CheckpointWriter
from core.quant.prepare import Prepared

REPORT = "bitwright.json"


class Output:
    """All formats of one run. A context manager: leaving it without `publish` removes what was staged.

    Attributes:
        folders: format name -> folder in staging that becomes that checkpoint.
        files: paths relative to the output, and their sizes, once finished.
    """

    def __init__(self, spec: JobSpec, job: Path, ready: Prepared, emit: Emit) -> None:
        self._spec = spec
        self._target = Path(spec.output).absolute()
        self._staging = staging_of(self._target, job)
        self._ready = ready
        self._emit = emit
        self._made: list[Path] = []
        self._writers: dict[str, CheckpointWriter] = {}
        self.folders: dict[str, Path] = {}
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

    def write(self, layer: QuantizedLinear) -> None:
        """Put a finished layer into every format."""
        for name, plan in self._ready.formats.items():
            for tensor, value in plan.encode(layer).items():
                self._writers[name].write(tensor, value)

    def finish_files(self, should_stop: Callable[[], bool]) -> None:
        """Everything that is not a quantized layer: other tensors byte for byte, configs, tokenizer, licence."""
        for name, plan in self._ready.formats.items():
            folder, writer = self.folders[name], self._writers[name]
            for tensor in plan.copied:
                if should_stop():
                    raise Cancelled("The run was cancelled.")
                writer.write_pieces(tensor, self._ready.store.chunks(tensor))
            writer.close()
            self._write_configs(name, folder)
            carry_over(self._ready.source.folder, folder)
        for folder in self.folders.values():
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    relative = str(path.relative_to(self._staging))
                    self.files[relative] = path.stat().st_size
                    self._emit(FileWritten(path=relative, size=path.stat().st_size))

    def publish(self, report: dict[str, Any]) -> None:
        """Write the report into every checkpoint, make all durable, and give the folder its name."""
        for folder in self.folders.values():
            write_json(folder / REPORT, report)
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
                folder = self._staging / name if many else self._staging
                folder.mkdir(exist_ok=True)
                self.folders[name] = folder
                self._writers[name] = CheckpointWriter(folder, plan.tensors)
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

    def _write_configs(self, name: str, folder: Path) -> None:
        plan = self._ready.formats[name]
        write_json(folder / "config.json", plan.model_config(self._ready.source_config))
        write_json(folder / plan.config_file, plan.config())
