"""Reading documents out of a data set on the Hugging Face Hub, through `datasets`.

Small sets are downloaded (and so are there the next time, offline too), large ones streamed. Knows nothing of tokens.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from core.calibration.documents import Document, from_record
from core.calibration.files import FIELD_HINT, PROBED_RECORDS
from core.errors import BadCalibration, BitwrightError, DiskFull, HubUnreachable, MissingDependency
from core.events import Emit, Log

OFFLINE_HINT = "Check the network, or use `builtin` (works offline) or a local file."
OPTIONS = ("split", "name", "field", "revision")
STREAM_BYTES = 512 * 2**20
"""A data set larger than this is streamed instead of downloaded."""
REQUEST_SECONDS = 10.0
PATIENCE_SECONDS = 15.0
"""The name lookup before a request obeys no timeout of its own, hence a second, outer limit."""
_SHUFFLE_BUFFER = 1000
T = TypeVar("T")


def read(dataset: str, options: Mapping[str, str], seed: int, emit: Emit) -> Iterator[Document]:
    """The documents of a data set in an order given by `seed`.

    Args:
        dataset: id on the Hub, such as `NeelNanda/pile-10k`.
        options: any of OPTIONS; the split is `train` where none is given.

    Raises:
        HubUnreachable: no answer within about 15 seconds, or access refused.
        BadCalibration: no such data set, split or configuration, or no text in it.
        DiskFull: no room for the download.
    """
    datasets = _library()
    size, revision, reachable = _look_up(dataset, options, emit)
    streaming = size > STREAM_BYTES
    with _quiet(datasets), _translated(dataset), nullcontext() if reachable else _offline(datasets):
        table = datasets.load_dataset(
            dataset,
            name=options.get("name"),
            split=options.get("split", "train"),
            revision=revision,
            streaming=streaming,
        )
        table = table.shuffle(seed=seed, buffer_size=_SHUFFLE_BUFFER) if streaming else table.shuffle(seed=seed)
        yield from _usable(dataset, table, options.get("field", ""))


def _usable(dataset: str, table: Any, field: str) -> Iterator[Document]:
    found = False
    record: Any = {}
    for number, record in enumerate(table, 1):
        document = from_record(record, field)
        if document is not None:
            found = True
            yield document
        if not found and number >= PROBED_RECORDS:
            break
    if not found:
        names = ", ".join(list(record)[:8]) or "none"
        wanted = f"no text in its field {field}" if field else "no field with text"
        raise BadCalibration(
            f"The data set {dataset} has {wanted}; its fields are: {names}.", f"Name one: {dataset}:field=NAME"
        )


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingDependency("Reading a data set from the Hub needs `datasets`.", "pip install datasets") from error
    return datasets


def _look_up(dataset: str, options: Mapping[str, str], emit: Emit) -> tuple[int, str | None, bool]:
    """Bytes of the data set, the commit to read, and True; without an answer, and with an earlier download, False."""
    from huggingface_hub import HfApi, errors

    def ask() -> tuple[int, str | None, bool]:
        info = HfApi().dataset_info(
            dataset, revision=options.get("revision"), timeout=REQUEST_SECONDS, files_metadata=True
        )
        return sum(file.size or 0 for file in info.siblings or []), info.sha, True

    try:
        return _within(PATIENCE_SECONDS, ask)
    except errors.HFValidationError as error:
        raise BadCalibration(f"{dataset!r} is neither a file nor a data set id.", "Check the spelling.") from error
    except errors.GatedRepoError as error:
        raise HubUnreachable(
            f"The data set {dataset} needs an access token with its terms accepted.",
            "Accept them on its page and log in with `hf auth login`, or use `builtin`.",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise BadCalibration(f"{dataset} has no revision {options.get('revision')!r}.", "Leave it out.") from error
    except errors.RepositoryNotFoundError as error:
        raise BadCalibration(
            f"There is no data set {dataset} on the Hub, or it is private.",
            "Check the spelling (a file needs its suffix, or ./ before it), or use `builtin`.",
        ) from error
    except (_transport_error(), OSError) as error:
        if _cached(dataset):
            emit(Log("warning", f"The Hub does not answer; using the downloaded copy of {dataset}."))
            return 0, options.get("revision"), False
        raise HubUnreachable(f"The data set {dataset} cannot be reached on the Hub.", OFFLINE_HINT) from error


def _within(seconds: float, call: Callable[[], T]) -> T:
    """The result of `call`, or TimeoutError after `seconds`; the thread that waits on is a daemon and holds nothing."""
    results: list[T] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread and raised there
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer in {seconds} seconds")
    return results[0]


def _cached(dataset: str) -> bool:
    folder = Path(_library().config.HF_DATASETS_CACHE) / dataset.replace("/", "___")
    return folder.is_dir() and any(folder.iterdir())


def _transport_error() -> type[Exception]:
    """The base of the HTTP library's errors: huggingface_hub has changed its library more than once."""
    from huggingface_hub import errors

    found: type[Exception] = errors.HTTPError
    return found


@contextmanager
def _offline(datasets: Any) -> Iterator[None]:
    """As if HF_HUB_OFFLINE were set: the libraries would otherwise try the silent Hub again for half a minute."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Without progress bars: they would go to a terminal that is ours to write."""
    shown = not datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


@contextmanager
def _translated(dataset: str) -> Iterator[None]:
    """Errors of `datasets` as ours."""
    import pyarrow as pa
    from datasets.exceptions import DatasetsError

    try:
        yield
    except BitwrightError:
        raise
    except (_transport_error(), ConnectionError, TimeoutError) as error:
        raise HubUnreachable(f"The connection to the Hub broke while reading {dataset}.", OFFLINE_HINT) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull(f"No room to download the data set {dataset}.", "Free some, or use `builtin`.") from error
        raise _unreadable(dataset, error) from error
    except (DatasetsError, ValueError, RuntimeError, KeyError, pa.ArrowException) as error:
        raise _unreadable(dataset, error) from error


def _unreadable(dataset: str, error: Exception) -> BadCalibration:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return BadCalibration(
        f"The data set {dataset} cannot be read: {lines[0][:300]}",
        f"A split and a configuration are named so: {dataset}:split=train:name=CONFIG. {FIELD_HINT}",
    )
