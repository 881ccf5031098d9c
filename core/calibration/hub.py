"""Calibration documents from a data set on the Hugging Face Hub, read with `datasets`.

Small data sets are downloaded, so that they can be used offline later; large ones are streamed.
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
"""Size of a data set, in bytes, above which it is streamed instead of downloaded."""
REQUEST_SECONDS = 10.0
LOOKUP_SECONDS = 15.0
"""Time limit of the whole request, because the timeout of a request does not include the DNS lookup before it."""
_SHUFFLE_BUFFER = 1000
T = TypeVar("T")


def read(dataset: str, options: Mapping[str, str], seed: int, emit: Emit) -> Iterator[Document]:
    """Yield the documents of a data set in random order.

    Args:
        dataset: Id on the Hub, such as `NeelNanda/pile-10k`.
        options: Values of any of OPTIONS; the default split is `train`.
        seed: Random seed of the order.
        emit: Receives a warning if the downloaded copy is used because the Hub cannot be reached.

    Raises:
        HubUnreachable: The Hub did not respond within about 15 seconds, or denied access.
        BadCalibration: The data set, split or configuration does not exist, or has no text.
        DiskFull: There is not enough disk space for the download.
        MissingDependency: `datasets` is not installed.
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
        missing = f"no text in its field {field}" if field else "no field with text"
        raise BadCalibration(
            f"The data set {dataset} has {missing}. Fields: {names}.", f"Specify a field: {dataset}:field=NAME"
        )


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingDependency(
            "Reading a data set from the Hub requires `datasets`.", "pip install datasets"
        ) from error
    return datasets


def _look_up(dataset: str, options: Mapping[str, str], emit: Emit) -> tuple[int, str | None, bool]:
    """Return the size of the data set in bytes, the commit to read, and whether the Hub was reached.

    If the Hub cannot be reached and the data set was downloaded before: 0, the requested revision and False.
    """
    from huggingface_hub import HfApi, errors

    def request() -> tuple[int, str | None, bool]:
        info = HfApi().dataset_info(
            dataset, revision=options.get("revision"), timeout=REQUEST_SECONDS, files_metadata=True
        )
        return sum(file.size or 0 for file in info.siblings or []), info.sha, True

    try:
        return _within(LOOKUP_SECONDS, request)
    except errors.HFValidationError as error:
        raise BadCalibration(f"{dataset!r} is neither a file nor a data set id.", "Check the spelling.") from error
    except errors.GatedRepoError as error:
        raise HubUnreachable(
            f"The data set {dataset} is gated: it requires an access token and acceptance of its terms.",
            "Accept the terms on its page and log in with `hf auth login`, or use `builtin`.",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise BadCalibration(f"{dataset} has no revision {options.get('revision')!r}.", "Check or omit it.") from error
    except errors.RepositoryNotFoundError as error:
        raise BadCalibration(
            f"There is no data set {dataset} on the Hub, or it is private.",
            "Check the id (the path of a file needs its suffix or a leading ./), or use `builtin`.",
        ) from error
    except (_transport_error(), OSError) as error:
        if _cached(dataset):
            emit(Log("warning", f"The Hub cannot be reached. The downloaded copy of {dataset} is used."))
            return 0, options.get("revision"), False
        raise HubUnreachable(f"The Hub cannot be reached to read the data set {dataset}.", OFFLINE_HINT) from error


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Return the result of `call`, which runs in a daemon thread.

    Raises:
        TimeoutError: `call` did not return within `seconds`; its thread continues in the background.
    """
    results: list[T] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001 - raised again in the thread of the caller
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no response within {seconds} seconds")
    return results[0]


def _cached(dataset: str) -> bool:
    folder = Path(_library().config.HF_DATASETS_CACHE) / dataset.replace("/", "___")
    return folder.is_dir() and any(folder.iterdir())


def _transport_error() -> type[Exception]:
    """Return the base class of HTTP errors; it depends on the version of huggingface_hub (requests or httpx)."""
    from huggingface_hub import errors

    found: type[Exception] = errors.HTTPError
    return found


@contextmanager
def _offline(datasets: Any) -> Iterator[None]:
    """Act as if HF_HUB_OFFLINE were set; otherwise the libraries retry the unreachable Hub for half a minute."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Disable the progress bars of `datasets`, which would be mixed with the output of the command line."""
    shown = not datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


@contextmanager
def _translated(dataset: str) -> Iterator[None]:
    """Translate errors of `datasets` and of its libraries into errors of `core.errors`."""
    import pyarrow as pa
    from datasets.exceptions import DatasetsError

    try:
        yield
    except BitwrightError:
        raise
    except (_transport_error(), ConnectionError, TimeoutError) as error:
        raise HubUnreachable(f"The connection to the Hub was lost while reading {dataset}.", OFFLINE_HINT) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull(
                f"Not enough disk space to download the data set {dataset}.", "Free some space, or use `builtin`."
            ) from error
        raise _unreadable(dataset, error) from error
    except (DatasetsError, ValueError, RuntimeError, KeyError, pa.ArrowException) as error:
        raise _unreadable(dataset, error) from error


def _unreadable(dataset: str, error: Exception) -> BadCalibration:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return BadCalibration(
        f"The data set {dataset} cannot be read: {lines[0][:300]}",
        f"To choose a split and a configuration: {dataset}:split=train:name=CONFIG. {FIELD_HINT}",
    )
