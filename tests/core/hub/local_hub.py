"""A local Hub: a server for the requests of huggingface_hub, with files from a dictionary."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """The files and the failures of a local Hub.

    Attributes:
        files: path -> content.
        status, error_code: of every response, if status is not 200.
        gated: the model can be looked up, but its files cannot be downloaded.
        slow: delay in seconds before every chunk of a file.
        silent: delay in seconds before every response.
        ranges: whether range requests are supported.
        checksums: whether the look-up contains checksums, for safetensors files as LFS files.
        damaged: path -> number of times that the file is sent with changed bytes.
        listing: result of every search for models.
        queries: of all searches.
        sent: path -> bytes that were sent.
        requests: paths of all requests.
        endpoint: address of the server.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    status: int = 200
    error_code: str = ""
    gated: bool = False
    slow: float = 0.0
    silent: float = 0.0
    ranges: bool = True
    checksums: bool = False
    damaged: dict[str, int] = field(default_factory=dict)
    listing: list[Any] = field(default_factory=list)
    queries: list[dict[str, list[str]]] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    endpoint: str = ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub


def _sibling(name: str, content: bytes, checksums: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"rfilename": name, "size": len(content)}
    if checksums:
        found["blobId"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if name.endswith(".safetensors"):
            found["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return found


class _Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, body: bool) -> None:
        assert isinstance(self.server, _Server)
        hub = self.server.hub
        path = urlsplit(self.path).path
        hub.requests.append(path)
        time.sleep(hub.silent)
        if hub.status != 200 or (hub.gated and "/resolve/" in path):
            headers = {"X-Error-Code": "GatedRepo" if hub.gated else hub.error_code, "X-Error-Message": "no"}
            self._send(b"{}", headers, 403 if hub.gated else hub.status, body)
        elif "/resolve/" in path:
            self._send_file(path.split("/resolve/")[1].split("/", 1)[1], body)
        elif "/tree/" in path:
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in hub.files.items()
            ]
            self._send(json.dumps(entries).encode(), {}, 200, body)
        elif path == "/api/models":
            hub.queries.append(parse_qs(urlsplit(self.path).query))
            self._send(json.dumps(hub.listing).encode(), {}, 200, body)
        else:
            siblings = [_sibling(name, content, hub.checksums) for name, content in hub.files.items()]
            info = {"id": path.removeprefix("/api/models/"), "sha": COMMIT, "siblings": siblings, "tags": []}
            self._send(json.dumps(info).encode(), {}, 200, body)

    def _send_file(self, name: str, body: bool) -> None:
        assert isinstance(self.server, _Server)
        hub = self.server.hub
        content = hub.files.get(name)
        if content is None:
            self._send(b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, 404, body)
            return
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        if body and hub.damaged.get(name, 0):
            hub.damaged[name] -= 1
            content = content[:-1] + bytes([content[-1] ^ 1])
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None or not hub.ranges:
            hub.sent[name] = hub.sent.get(name, 0) + self._send(content, headers, 200, body)
            return
        start, end = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        sent = self._send(content[start : end + 1], headers, 206, body)
        hub.sent[name] = hub.sent.get(name, 0) + sent

    def _send(self, content: bytes, headers: dict[str, str], status: int, body: bool) -> int:
        """Send a response and return the number of bytes of its body that the client received."""
        assert isinstance(self.server, _Server)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        step = 1 << 16
        sent = 0
        for start in range(0, len(content) if body else 0, step):
            time.sleep(self.server.hub.slow)
            try:
                sent += self.wfile.write(content[start : start + step])
            except OSError:
                break
        return sent


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Run the server for the duration of the context."""
    server = _Server(hub)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def point_at(endpoint: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make huggingface_hub use the server at `endpoint` and the folder `cache`."""
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def closed_port() -> int:
    """Return a port without a server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
