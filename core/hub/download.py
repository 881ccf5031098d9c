"""Fetch a model from the Hugging Face Hub into its shared cache, or find it there when the Hub is out of reach.

Only files that a quantization needs are fetched. What went wrong is told apart by what the user can do about it.
Knows the Hub's files and errors, and nothing of what is in a model.
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
from core.hub.patience import LOOKUP_SECONDS, bounded
from core.model.headers import INDEX_FILE, SINGLE_FILE, read_folder, weight_files
from core.pace import PacedProgress
from core.wording import human

_WANTED: Final = (
    "config.json", "generation_config.json", "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json",
    "added_tokens.json", "chat_template*", "spiece.model", "LICENSE*", "NOTICE*", "USE_POLICY*", "README.md",
)  # fmt: skip
CONFIG: Final = "config.json"
_TEMPLATES: Final = "additional_chat_templates/*.jinja"
_GRACE_BYTES: Final = 256 << 20


def download(
    repository: str,
    emit: Emit,
    should_stop: ShouldStop,
    check: Callable[[Mapping[str, Any]], None] = lambda config: None,
    *,
    measured: bool = False,
) -> Path:
    """The folder of a model in the Hub's cache, complete.

    Args:
        repository: `name` or `owner/name`.
        emit: gets a `Log` before the download, and one at every tenth of it.
        should_stop: asked a few times a second.
        check: sees the config before any weight is fetched, and may raise.
        measured: instead of the tenths, `Progress` of the download about twice a second. Not for a run, whose
            `Progress` is of the whole run.

    Raises:
        ModelNotFound: the Hub has no such model, or does not show it to this user.
        HubUnreachable: no answer, a refusal, or terms to accept first.
        UnsupportedModel: the repository holds no safetensors weights.
        CorruptFile: a file arrived damaged twice.
        DiskFull, OutputProblem: the cache has too little room, or cannot be written.
        Cancelled: `should_stop` said so.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        info = bounded(
            lambda: HfApi().model_info(repository, files_metadata=True, timeout=LOOKUP_SECONDS - 2), should_stop
        )
    except (OfflineModeIsEnabled, http_error(), OSError, ValueError) as error:
        problem = explain(repository, error)
        if problem.code == ModelNotFound.code:
            raise problem from error
        folder = cached(repository)
        if folder is None:
            raise problem from error
        emit(Log("warning", f"The Hub did not answer; using the copy of {repository} in the cache."))
        return folder
    fetch = _Fetch(repository, info, emit, should_stop, measured)
    return fetch.all(check)


def wanted_files(names: Sequence[str], repository: str) -> list[str]:
    """Which files of a repository are needed: config, tokenizer, licence and one set of weights.

    Raises:
        UnsupportedModel: it has no weights as safetensors, or no config.
    """
    flat = [name for name in names if "/" not in name]
    if "config.json" not in flat:
        raise UnsupportedModel(
            f"{repository} has no config.json, so it is no model of the transformers kind.", "Choose another model."
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
            f"{repository} has no weights as safetensors.", "Choose a model, or a revision, that has them."
        )
    others = [name for name in flat if any(fnmatch.fnmatchcase(name, pattern) for pattern in _WANTED)]
    return [*others, *fnmatch.filter(names, _TEMPLATES), *weights]


def cached(repository: str) -> Path | None:
    """The folder of a model that is complete in the cache, without asking the Hub; None if there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repository, local_files_only=True, allow_patterns=["config.json"]))
        if (folder / "config.json").is_file() and read_folder(folder):
            return folder
    except (LocalEntryNotFoundError, HFValidationError, BitwrightError):
        return None
    return None


def explain(repository: str, error: Exception) -> BitwrightError:
    """What an error of the Hub's library means to the user."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    login = "Run `hf auth login`, or set HF_TOKEN."
    if isinstance(error, errors.GatedRepoError):
        return HubUnreachable(
            f"{repository} is gated: its terms must be accepted on its page at the Hub first.", f"Then: {login}"
        )
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError) or status == 404:
        return ModelNotFound(
            f"There is no folder {repository} here, and the Hub has no such model or does not show it to you.",
            f"Check the name. If the model is private: {login}",
        )
    if status in (401, 403):
        return HubUnreachable(f"The Hub refused access to {repository} (status {status}).", login)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubUnreachable(
            f"There is no folder {repository} here, and the Hub is switched off by HF_HUB_OFFLINE.",
            "Unset it, or give the path of a local folder.",
        )
    if status is not None:
        return HubUnreachable(f"The Hub answered with status {status}.", "Try again later.")
    return HubUnreachable(
        f"There is no folder {repository} here, and the Hub could not be reached.",
        "Check the network, or give the path of a local folder or a .gguf file.",
    )


def http_error() -> type[Exception]:
    """The base of every error of the HTTP library that huggingface_hub carries; which one that is, changes."""
    from huggingface_hub import errors

    base: type[Exception] = vars(errors)["HTTPError"]
    return base


class _Fetch:
    """One download of a repository whose files and checksums the Hub has told."""

    def __init__(self, repository: str, info: Any, emit: Emit, should_stop: ShouldStop, measured: bool) -> None:
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        siblings = info.siblings or []
        self._repository, self._commit = repository, info.sha
        self._emit, self._should_stop, self._measured = emit, should_stop, measured
        self._sizes: dict[str, int] = {file.rfilename: file.size or 0 for file in siblings}
        self._sums = {file.rfilename: Checksums.of(file) for file in siblings}
        self._cache = Path(constants.HF_HUB_CACHE)
        self._place = repo_folder_name(repo_id=repository, repo_type="model")

    def all(self, check: Callable[[Mapping[str, Any]], None]) -> Path:
        """The folder of the snapshot, with every wanted file as the Hub has it."""
        wanted = wanted_files(list(self._sizes), self._repository)
        try:
            unchecked = sweep(self._cache, self._place) | set(self._missing(wanted))
            with Arrival(self._cache, self._place, unchecked) as arrival:
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
                "Free some space, or set HF_HOME to a folder on another disk.",
            )
        if total:
            self._emit(Log("info", f"Downloading {self._repository}: {human(total)}."))
        counter = _Counter()
        report = (_Measured if self._measured else _Tenths)(counter, total, self._emit)

        def tick() -> None:
            report.tell()
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
        """The folder that `fetch` gives; files that are not the Hub's are removed, and fetched once more.

        Raises:
            CorruptFile: one is damaged again.
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
                    f"{damaged[0]} of {self._repository} was damaged on the way, twice: its checksum differs from the "
                    "Hub's.",
                    "Check the network, a proxy in between and the disk, and try again.",
                )
            self._emit(Log("warning", f"{damaged[0]} was damaged on the way and is fetched again."))
            folder = fetch()
        return folder

    def _is_sound(self, folder: Path, name: str) -> bool:
        # where the model was updated meanwhile, the checksums are those of other files
        path = folder / name
        if folder.name != self._commit or not path.is_file():
            return True
        return self._sums.get(name, Checksums()).match(path, self._should_stop)


def _storage_problem(repository: str, error: Exception) -> BitwrightError | None:
    """The error if it is this machine's: the system's own errors carry a number, the Hub's do not."""
    if not isinstance(error, OSError) or error.errno is None or isinstance(error, ConnectionError):
        return None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"The disk is full; {repository} was fetched in part.", "Free some space and try again.")
    return OutputProblem(f"{repository} could not be stored: {error.strerror}.", "Check the rights of the Hub's cache.")


class _Counter:
    """Bytes that are here so far, counted by the library's own progress bars; they also carry the stop."""

    def __init__(self) -> None:
        self._stopped = False
        self._written: dict[int, int] = {}
        self._arrived = 0

    def stop(self) -> None:
        """End the download, which runs in threads of the library, at its next piece."""
        self._stopped = True

    @property
    def received(self) -> int:
        """Of the bars that count bytes (arrived, written), the one that is ahead."""
        return max(self._arrived, *self._written.values(), 0)

    @property
    def arrived(self) -> int:
        """Through the network now; what an earlier download had left is not in it."""
        return self._arrived or self.received

    def bar(self) -> Any:
        """A class of silent progress bars for the Hub's library."""
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
    """A line at every tenth of the way."""

    def __init__(self, counter: _Counter, total: int, emit: Emit) -> None:
        self._counter, self._total, self._emit = counter, total, emit
        self._told = 0

    def tell(self) -> None:
        tenths = min(10, 10 * self._counter.received // self._total) if self._total else 0
        if tenths > self._told:
            self._told = tenths
            self._emit(Log("info", f"Downloaded {tenths * 10} % of {human(self._total)}."))

    def end(self) -> None:
        self.tell()


class _Measured:
    """`Progress` about twice a second."""

    def __init__(self, counter: _Counter, total: int, emit: Emit) -> None:
        self._counter, self._progress = counter, PacedProgress(total, emit)

    def tell(self) -> None:
        self._progress.tell(self._counter.received, self._counter.arrived)

    def end(self) -> None:
        self._progress.end()
