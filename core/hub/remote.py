"""What a model on the Hub consists of, from its config and the headers of its weights; no weight is fetched.

Asks for byte ranges and stops reading where a server sends more. What a header claims is held against the size of its
file, as for a file on disk. Knows the Hub's addresses and the tables of `core.model.headers`, and nothing of layers.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from core.control import ShouldStop
from core.errors import CorruptFile
from core.events import Emit, Progress
from core.hub.download import explain, http_error, wanted_files
from core.hub.patience import LOOKUP_SECONDS, bounded
from core.model.headers import INDEX_FILE, TensorInfo, header_length, merge_tables, parse_header

REQUEST_SECONDS: Final = 10.0
"""Silence of a connection that ends it."""
HEADERS_SECONDS: Final = 90.0
"""Patience for all headers together; a large model has more than a hundred files."""

_FIRST_BYTES: Final = 128 << 10
"""Holds the whole header of nearly every file, so that one request does."""
_CONFIG_BYTES: Final = 16 << 20
_INDEX_BYTES: Final = 64 << 20
_AT_ONCE: Final = 8


@dataclass(frozen=True)
class RemoteModel:
    """A model that is only on the Hub.

    Attributes:
        config: its config.json.
        tensors: the whole table, in the order of the files.
        download_bytes: of the files that a download would fetch now.
    """

    config: dict[str, Any]
    tensors: dict[str, TensorInfo]
    download_bytes: int


def read_remote(
    repository: str,
    emit: Emit,
    should_stop: ShouldStop,
    check: Callable[[Mapping[str, Any]], None] = lambda config: None,
) -> RemoteModel:
    """The config and the tensor table of a model.

    Args:
        repository: `name` or `owner/name`.
        emit: gets `Progress` while the headers of several files are read.
        check: sees the config before anything else is asked for, and may raise.

    Raises:
        ModelNotFound, HubUnreachable, UnsupportedModel: as `core.hub.download.download`.
        CorruptFile: the config, the index or a header does not hold what it promises.
        Cancelled: `should_stop` said so.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        info = bounded(
            lambda: HfApi().model_info(repository, files_metadata=True, timeout=LOOKUP_SECONDS - 2), should_stop
        )
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        wanted = wanted_files(list(sizes), repository)
        place = _Place(repository, info.sha)
        config = _object(bounded(lambda: place.read("config.json", _CONFIG_BYTES), should_stop), "config.json")
        check(config)
        tensors = _read_tables(place, sizes, wanted, emit, should_stop)
    except (http_error(), OSError, ValueError) as error:
        raise explain(repository, error) from error
    missing = [name for name in wanted if not isinstance(try_to_load_from_cache(repository, name), str)]
    return RemoteModel(config, tensors, sum(sizes[name] for name in missing))


def read_file(repository: str, name: str, limit: int) -> bytes:
    """The first `limit` bytes of a file of a repository; raises what the Hub's library raises."""
    return _Place(repository, None).read(name, limit)


@dataclass(frozen=True)
class _Place:
    """A repository at one commit."""

    repository: str
    commit: str | None

    def read(self, name: str, limit: int, start: int = 0) -> bytes:
        """At most `limit` bytes of a file from `start` on."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        headers = {
            **build_hf_headers(),
            "Range": f"bytes={start}-{start + limit - 1}",
            "Accept-Encoding": "identity",  # a compressed answer has no ranges
        }
        url = hf_hub_url(self.repository, name, revision=self.commit)
        with get_session().stream("GET", url, headers=headers, timeout=REQUEST_SECONDS) as response:
            hf_raise_for_status(response)
            skipped = 0 if response.status_code == 206 else start  # 200: ranges are not served here
            data = bytearray()
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) >= skipped + limit:
                    break
        return bytes(data[skipped : skipped + limit])

    def header(self, name: str, size: int) -> dict[str, TensorInfo]:
        """The tensors of one safetensors file of `size` bytes."""
        data = self.read(name, _FIRST_BYTES)
        end = 8 + header_length(data[:8], size, name)
        if len(data) < end:
            data += self.read(name, end - len(data), start=len(data))
        return parse_header(data[8:end], size, name)


def _read_tables(
    place: _Place, sizes: Mapping[str, int], wanted: list[str], emit: Emit, should_stop: ShouldStop
) -> dict[str, TensorInfo]:
    """The tensors of all files, from as many requests at a time as the Hub takes without complaint."""
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
                left.set()  # one has failed: the others need not begin

    def tell() -> None:
        if len(files) > 1:
            emit(Progress(len(tables) / len(files), -1.0, -1.0))

    bounded(all_files, should_stop, HEADERS_SECONDS, tick=tell, leave=left.set)
    return merge_tables([tables[name] for name in files], _alike, index)


def _alike(one: TensorInfo, two: TensorInfo) -> bool:
    """Whether two tensors can be equal, as far as headers tell."""
    return (one.dtype, one.shape) == (two.dtype, two.shape)


def _index(data: bytes, sizes: Mapping[str, int]) -> dict[str, str]:
    """Tensor name -> file, as the index of a sharded checkpoint says."""
    entries = _object(data, INDEX_FILE).get("weight_map")
    if not isinstance(entries, dict) or not entries:
        raise CorruptFile(f"{INDEX_FILE} has no table of tensors.", "Choose another model.")
    for shard in entries.values():
        if not isinstance(shard, str) or shard not in sizes or "/" in shard or not shard.endswith(".safetensors"):
            raise CorruptFile(f"{INDEX_FILE} names {str(shard)[:80]!r}, which is not there.", "Choose another model.")
    return entries


def _object(data: bytes, label: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{label} of the model is not valid JSON.", "Choose another model.") from error
    if not isinstance(value, dict):
        raise CorruptFile(f"{label} of the model is not a JSON object.", "Choose another model.")
    return value
