"""The config and the tensor table of a model on the Hub, read without downloading weights.

Requests byte ranges, and stops reading if a server sends more. Headers are validated against the size of their file,
as for files on disk.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from core.control import ShouldStop
from core.errors import CorruptFile, UnsupportedModel
from core.events import Emit, Progress
from core.hub.download import explain, http_error, wanted_files
from core.hub.gguf_files import split_type
from core.hub.patience import LOOKUP_SECONDS, bounded
from core.model.headers import INDEX_FILE, TensorInfo, header_length, merge_tables, parse_header

REQUEST_SECONDS: Final = 10.0
"""Timeout of a connection without data."""
HEADERS_SECONDS: Final = 90.0
"""Timeout for the headers of all files; a large model has more than 100 files."""

_FIRST_BYTES: Final = 128 << 10
"""Size of the first request, which covers the whole header of nearly every file."""
_CONFIG_BYTES: Final = 16 << 20
_INDEX_BYTES: Final = 64 << 20
_AT_ONCE: Final = 8


@dataclass(frozen=True)
class RemoteModel:
    """A model on the Hub.

    Attributes:
        config: config.json.
        tensors: all tensors, in the order of the files.
        download_bytes: size of the files that a download would transfer, without those in the cache.
    """

    config: dict[str, Any]
    tensors: dict[str, TensorInfo]
    download_bytes: int


def read_remote(
    model: str,
    emit: Emit,
    should_stop: ShouldStop,
    check: Callable[[Mapping[str, Any]], None] = lambda config: None,
) -> RemoteModel:
    """Return the config and the tensor table of a model on the Hub.

    Args:
        model: as in `core.hub.download.download`.
        emit: receives `Progress` while the headers of several files are read.
        should_stop: called about five times a second.
        check: called with the config before further requests; may raise an error.

    Raises:
        ModelNotFound, HubUnreachable, UnsupportedModel, BadInput: as `core.hub.download.download`.
        UnsupportedModel: the model is a GGUF file, which is read after a download only.
        CorruptFile: the config, the index or a header is invalid.
        Cancelled: `should_stop` returned true.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    repository, kind = split_type(model)
    try:
        info = bounded(
            lambda: HfApi().model_info(repository, files_metadata=True, timeout=LOOKUP_SECONDS - 2), should_stop
        )
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        wanted = wanted_files(list(sizes), repository, kind)
        if wanted[0].lower().endswith(".gguf"):
            raise UnsupportedModel(
                f"{model} is a GGUF file, which can be read after a download only.",
                f"Download it with `bitwright inspect {model}`, then select it again.",
            )
        place = _Place(repository, info.sha)
        config = _object(bounded(lambda: place.read("config.json", _CONFIG_BYTES), should_stop), "config.json")
        check(config)
        tensors = _read_tables(place, sizes, wanted, emit, should_stop)
    except (http_error(), OSError, ValueError) as error:
        raise explain(repository, error) from error
    missing = [name for name in wanted if not isinstance(try_to_load_from_cache(repository, name), str)]
    return RemoteModel(config, tensors, sum(sizes[name] for name in missing))


def read_file(repository: str, name: str, limit: int) -> bytes:
    """Return the first `limit` bytes of a file in a repository; raises the errors of huggingface_hub."""
    return _Place(repository, None).read(name, limit)


@dataclass(frozen=True)
class _Place:
    """A repository at one commit."""

    repository: str
    commit: str | None

    def read(self, name: str, limit: int, start: int = 0) -> bytes:
        """Return at most `limit` bytes of a file, from `start` on."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        headers = {
            **build_hf_headers(),
            "Range": f"bytes={start}-{start + limit - 1}",
            "Accept-Encoding": "identity",  # ranges do not work with compressed responses
        }
        url = hf_hub_url(self.repository, name, revision=self.commit)
        with get_session().stream("GET", url, headers=headers, timeout=REQUEST_SECONDS) as response:
            hf_raise_for_status(response)
            skipped = 0 if response.status_code == 206 else start  # 200: the server does not support ranges
            data = bytearray()
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) >= skipped + limit:
                    break
        return bytes(data[skipped : skipped + limit])

    def header(self, name: str, size: int) -> dict[str, TensorInfo]:
        """Return the tensors of a safetensors file of `size` bytes."""
        data = self.read(name, _FIRST_BYTES)
        end = 8 + header_length(data[:8], size, name)
        if len(data) < end:
            data += self.read(name, end - len(data), start=len(data))
        return parse_header(data[8:end], size, name)


def _read_tables(
    place: _Place, sizes: Mapping[str, int], wanted: list[str], emit: Emit, should_stop: ShouldStop
) -> dict[str, TensorInfo]:
    """Return the tensors of all files, read with parallel requests."""
    files = sorted(name for name in wanted if name.endswith(".safetensors"))
    index: dict[str, str] = {}
    if INDEX_FILE in wanted:
        index = _index(bounded(lambda: place.read(INDEX_FILE, _INDEX_BYTES), should_stop), sizes)
        files = sorted(set(index.values()))
    tables: dict[str, dict[str, TensorInfo]] = {}
    left = threading.Event()

    def one(name: str) -> None:
        if not left.is_set():
            tables[name] = place.header(name, sizes[name])

    def all_files() -> None:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="header") as pool:
            try:
                list(pool.map(one, files))
            finally:
                left.set()  # after a failure, do not start further requests

    def report() -> None:
        if len(files) > 1:
            emit(Progress(len(tables) / len(files), -1.0, -1.0))

    bounded(all_files, should_stop, HEADERS_SECONDS, tick=report, leave=left.set)
    return merge_tables([tables[name] for name in files], _alike, index)


def _alike(one: TensorInfo, two: TensorInfo) -> bool:
    """Return whether two tensors can be equal according to their headers."""
    return (one.dtype, one.shape) == (two.dtype, two.shape)


def _index(data: bytes, sizes: Mapping[str, int]) -> dict[str, str]:
    """Return tensor name -> file from the index of a sharded checkpoint."""
    entries = _object(data, INDEX_FILE).get("weight_map")
    if not isinstance(entries, dict) or not entries:
        raise CorruptFile(f"{INDEX_FILE} has no table of tensors.", "Choose another model.")
    for shard in entries.values():
        if not isinstance(shard, str) or shard not in sizes or "/" in shard or not shard.endswith(".safetensors"):
            raise CorruptFile(f"{INDEX_FILE} lists {str(shard)[:80]!r}, which does not exist.", "Choose another model.")
    return entries


def _object(data: bytes, label: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{label} of the model is not valid JSON.", "Choose another model.") from error
    if not isinstance(value, dict):
        raise CorruptFile(f"{label} of the model is not a JSON object.", "Choose another model.")
    return value
