"""Download of a model from the Hugging Face Hub to its shared cache, with the cache as fallback when offline.

Only the files that quantization needs are downloaded. Errors are distinguished by what the user can do about them.
"""

from __future__ import annotations

import errno
import fnmatch
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from core.control import ShouldStop
from core.errors import (
    BitwrightError,
    Cancelled,
    CorruptFile,
    DiskFull,
    HubUnreachable,
    ModelNotFound,
    OutputProblem,
    UnsupportedModel,
)
from core.events import Emit, Log
from core.files import free_bytes, read_json
from core.hub.arrival import Arrival, Checksums, forget, sweep
from core.hub.gguf_files import gguf_files, has_gguf, split_type
from core.hub.patience import LOOKUP_SECONDS, bounded
from core.model.headers import INDEX_FILE, SINGLE_FILE, read_folder, weight_files
from core.pace import PacedProgress
from core.wording import human

_WANTED: Final = (
    "config.json", "generation_config.json", "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json",
    "added_tokens.json", "chat_template*", "spiece.model", "tekken.json", "*processor_config.json",
    "LICENSE*", "NOTICE*", "USE_POLICY*", "README.md",
)  # fmt: skip
CONFIG: Final = "config.json"
_TEMPLATES: Final = "additional_chat_templates/*.jinja"
_GRACE_BYTES: Final = 256 << 20


def download(
    model: str,
    emit: Emit,
    should_stop: ShouldStop,
    check: Callable[[Mapping[str, Any]], None] = lambda config: None,
    *,
    measured: bool = False,
) -> Path:
    """Download a model unless it is in the Hub cache, and return its folder there, or its GGUF file.

    Args:
        model: `name` or `owner/name`; `owner/name:TYPE` for one of the GGUF models of a repository.
        emit: receives a `Log` before the download and at every 10 %.
        should_stop: called about five times a second.
        check: called with the config before weights are downloaded; may raise an error.
        measured: emit `Progress` of the download about twice a second instead of the 10 % steps. Not for a run, whose
            `Progress` covers the whole run.

    Raises:
        ModelNotFound: the Hub has no such model, or the user has no access to it.
        HubUnreachable: the Hub did not answer or denied access, or terms must be accepted first.
        BadInput: the repository has several GGUF models, and the type does not select one of them.
        UnsupportedModel: the repository contains neither safetensors weights nor a GGUF model.
        CorruptFile: a file was damaged in transfer twice.
        DiskFull, OutputProblem: the cache has too little free space, or is not writable.
        Cancelled: `should_stop` returned true.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    repository, kind = split_type(model)
    try:
        info = bounded(
            lambda: HfApi().model_info(repository, files_metadata=True, timeout=LOOKUP_SECONDS - 2), should_stop
        )
    except (OfflineModeIsEnabled, http_error(), OSError, ValueError) as error:
        problem = explain(repository, error)
        if problem.code == ModelNotFound.code:
            raise problem from error
        found = cached(model)
        if found is None:
            raise problem from error
        emit(Log("warning", f"The Hub could not be reached; using the copy of {model} in the cache."))
        return found
    return _Download(repository, kind, info, emit, should_stop, measured).run(check)


def wanted_files(names: Sequence[str], repository: str, kind: str = "") -> list[str]:
    """Return the files of a repository to download: config, tokenizer, license and one set of weights.

    For a repository without safetensors weights, or a GGUF type `kind`, these are the GGUF files of one model.

    Raises:
        BadInput: there are several GGUF models, and the type does not select one of them.
        UnsupportedModel: the repository has neither safetensors weights with a config nor a GGUF model.
    """
    flat = [name for name in names if "/" not in name]
    if kind or (has_gguf(names) and not any(name.endswith(".safetensors") for name in flat)):
        return gguf_files(names, repository, kind)
    if "config.json" not in flat:
        raise UnsupportedModel(
            f"{repository} has no config.json, so it is not a transformers model.", "Choose another model."
        )
    weights = [name for name in flat if name.endswith(".safetensors")]
    if SINGLE_FILE in weights:
        weights = [SINGLE_FILE]
    elif INDEX_FILE in flat:
        weights = [INDEX_FILE, *fnmatch.filter(weights, "model-*-of-*.safetensors")]
    else:
        weights = weight_files(weights)
    if not weights:
        raise UnsupportedModel(
            f"{repository} has no safetensors weights.", "Choose a model or a revision with safetensors weights."
        )
    others = [name for name in flat if any(fnmatch.fnmatchcase(name, pattern) for pattern in _WANTED)]
    return [*others, *fnmatch.filter(names, _TEMPLATES), *weights]


def cached(model: str) -> Path | None:
    """Return the folder or the GGUF file of a model that is complete in the cache, else None.

    Does not contact the Hub.

    Args:
        model: as in `download`.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    repository, kind = split_type(model)
    try:
        folder = Path(snapshot_download(repository, local_files_only=True, allow_patterns=["config.json"]))
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        if kind or (CONFIG not in names and has_gguf(names)):
            return folder / gguf_files(names, repository, kind)[0]
        if CONFIG in names and read_folder(folder):
            return folder
    except (LocalEntryNotFoundError, HFValidationError, BitwrightError):
        return None
    return None


def explain(repository: str, error: Exception) -> BitwrightError:
    """Convert an error of huggingface_hub to an error for the user."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    login = "Run `hf auth login`, or set HF_TOKEN."
    if isinstance(error, errors.GatedRepoError):
        return HubUnreachable(f"{repository} is gated: accept its terms on its Hub page first.", f"Then: {login}")
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError) or status == 404:
        return ModelNotFound(
            f"There is no folder {repository}, and the Hub has no such model or you have no access to it.",
            f"Check the name. If the model is private: {login}",
        )
    if status in (401, 403):
        return HubUnreachable(f"The Hub denied access to {repository} (status {status}).", login)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubUnreachable(
            f"There is no folder {repository}, and HF_HUB_OFFLINE disables access to the Hub.",
            "Unset HF_HUB_OFFLINE, or specify a local folder.",
        )
    if status is not None:
        return HubUnreachable(f"The Hub answered with status {status}.", "Try again later.")
    return HubUnreachable(
        f"There is no folder {repository}, and the Hub could not be reached.",
        "Check the network, or specify a local folder or a .gguf file.",
    )


def http_error() -> type[Exception]:
    """Return the base class of the errors of the HTTP library that the installed huggingface_hub uses."""
    from huggingface_hub import errors

    base: type[Exception] = vars(errors)["HTTPError"]
    return base


class _Download:
    """A download of the wanted files of one repository, from its `ModelInfo`."""

    def __init__(
        self, repository: str, kind: str, info: Any, emit: Emit, should_stop: ShouldStop, measured: bool
    ) -> None:
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        siblings = info.siblings or []
        self._repository, self._kind, self._commit = repository, kind, info.sha
        self._emit, self._should_stop, self._measured = emit, should_stop, measured
        self._sizes: dict[str, int] = {file.rfilename: file.size or 0 for file in siblings}
        self._sums = {file.rfilename: Checksums.of(file) for file in siblings}
        self._cache = Path(constants.HF_HUB_CACHE)
        self._place = repo_folder_name(repo_id=repository, repo_type="model")

    def run(self, check: Callable[[Mapping[str, Any]], None]) -> Path:
        """Download and verify the missing files, and return the folder of the snapshot, or its GGUF file."""
        wanted = wanted_files(list(self._sizes), self._repository, self._kind)
        gguf = wanted[0].lower().endswith(".gguf")
        try:
            unchecked = sweep(self._cache, self._place) | set(self._missing(wanted))
            with Arrival(self._cache, self._place, unchecked) as arrival:
                if gguf:
                    return self._checked(lambda: self._files(wanted, arrival), unchecked) / wanted[0]
                folder = self._checked(lambda: self._config(arrival), unchecked & {CONFIG})
                config = read_json(folder / CONFIG)
                if isinstance(config, dict):
                    check(config)
                return self._checked(lambda: self._files(wanted, arrival), unchecked - {CONFIG})
        except (http_error(), OSError, ValueError) as error:
            raise _storage_problem(self._repository, error) or explain(self._repository, error) from error

    def _missing(self, wanted: Sequence[str]) -> list[str]:
        from huggingface_hub import try_to_load_from_cache

        return [name for name in wanted if not isinstance(try_to_load_from_cache(self._repository, name), str)]

    def _config(self, arrival: Arrival) -> Path:
        from huggingface_hub import hf_hub_download

        fetch = lambda: hf_hub_download(self._repository, CONFIG)  # noqa: E731
        return Path(bounded(fetch, self._should_stop, 60.0, tick=arrival.look)).parent

    def _files(self, wanted: Sequence[str], arrival: Arrival) -> Path:
        from huggingface_hub import snapshot_download

        total = sum(self._sizes[name] for name in self._missing(wanted))
        if total and free_bytes(self._cache) < total + _GRACE_BYTES:
            raise DiskFull(
                f"{self._repository} needs {human(total)} in {self._cache}, "
                f"where {human(free_bytes(self._cache))} are free.",
                "Free some disk space, or set HF_HOME to a folder on another disk.",
            )
        if total:
            self._emit(Log("info", f"Downloading {self._repository}: {human(total)}."))
        counter = _Counter()
        report = (_Measured if self._measured else _Tenths)(counter, total, self._emit)

        def tick() -> None:
            report.update()
            arrival.look()

        folder = bounded(
            lambda: snapshot_download(self._repository, allow_patterns=list(wanted), tqdm_class=counter.bar()),
            self._should_stop,
            None,
            tick=tick,
            leave=counter.stop,
        )
        report.end()
        return Path(folder)

    def _checked(self, fetch: Callable[[], Path], names: Collection[str]) -> Path:
        """Return the folder from `fetch`, after repeating it once if files do not match their checksums.

        Raises:
            CorruptFile: a file is damaged again.
        """
        folder = fetch()
        for again in (True, False):
            damaged = [name for name in sorted(names) if not self._is_sound(folder, name)]
            for name in damaged:
                forget(folder / name)
            if not damaged:
                break
            if not again:
                raise CorruptFile(
                    f"{damaged[0]} of {self._repository} was damaged in transfer twice: its checksum differs from that "
                    "on the Hub.",
                    "Check the network, any proxy and the disk, and try again.",
                )
            self._emit(Log("warning", f"{damaged[0]} was damaged in transfer and is downloaded again."))
            folder = fetch()
        return folder

    def _is_sound(self, folder: Path, name: str) -> bool:
        # if the model was updated meanwhile, the checksums belong to other files
        path = folder / name
        if folder.name != self._commit or not path.is_file():
            return True
        return self._sums.get(name, Checksums()).match(path, self._should_stop)


def _storage_problem(repository: str, error: Exception) -> BitwrightError | None:
    """Convert an error of the local disk, which has an `errno` unlike those of the Hub; None for other errors."""
    if not isinstance(error, OSError) or error.errno is None or isinstance(error, ConnectionError):
        return None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"The disk is full; {repository} was downloaded in part.", "Free some disk space and try again."
        )
    return OutputProblem(
        f"{repository} could not be stored: {error.strerror}.", "Check the permissions of the Hub cache."
    )


class _Counter:
    """A counter of downloaded bytes, fed by the progress bars of huggingface_hub, which also stop the download."""

    def __init__(self) -> None:
        self._stopped = False
        self._written: dict[int, int] = {}
        self._arrived = 0

    def stop(self) -> None:
        """Stop the download, which runs in threads of huggingface_hub, at its next chunk."""
        self._stopped = True

    @property
    def received(self) -> int:
        """Bytes of the progress bar (network or disk) that is ahead."""
        return max(self._arrived, *self._written.values(), 0)

    @property
    def arrived(self) -> int:
        """Bytes received over the network, without those that an earlier download left."""
        return self._arrived or self.received

    def bar(self) -> Any:
        """Return a class of silent progress bars for huggingface_hub that report to this counter."""
        from huggingface_hub.utils import tqdm

        counter = self

        class Silent(tqdm):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                self.bytes = kwargs.get("unit") == "B"
                self.network = str(kwargs.pop("name", "")).endswith(".transfer")
                super().__init__(*args, **{**kwargs, "disable": True})

            def update(self, n: float | None = 1) -> bool | None:
                if counter._stopped:
                    raise Cancelled("Stopped while downloading.")
                if self.bytes and self.network:
                    counter._arrived += int(n or 0)
                elif self.bytes:
                    counter._written[id(self)] = counter._written.get(id(self), 0) + int(n or 0)
                return None

        return Silent


class _Tenths:
    """Reports a download with a `Log` at every 10 %."""

    def __init__(self, counter: _Counter, total: int, emit: Emit) -> None:
        self._counter, self._total, self._emit = counter, total, emit
        self._reported = 0

    def update(self) -> None:
        """Emit a `Log` if another 10 % are complete."""
        tenths = min(10, 10 * self._counter.received // self._total) if self._total else 0
        if tenths > self._reported:
            self._reported = tenths
            self._emit(Log("info", f"Downloaded {tenths * 10} % of {human(self._total)}."))

    def end(self) -> None:
        """Report the end of the download."""
        self.update()


class _Measured:
    """Reports a download with `Progress` about twice a second."""

    def __init__(self, counter: _Counter, total: int, emit: Emit) -> None:
        self._counter, self._progress = counter, PacedProgress(total, emit)

    def update(self) -> None:
        """Emit `Progress` if due."""
        self._progress.tell(self._counter.received, self._counter.arrived)

    def end(self) -> None:
        """Report the end of the download."""
        self._progress.end()
