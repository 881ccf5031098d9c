"""A Hub on this machine: a server that answers what huggingface_hub asks for, from a dictionary of files."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Files by name, and how the server misbehaves.

    Attributes:
        files: content by path.
        status, error_code: of every answer, where status is not 200 (`gated`: of files alone).
        gated: the model can be looked up, its files cannot be fetched.
        slow: seconds before every piece of a weight file.
        silent: seconds before any answer.
        asked: paths of all requests.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    status: int = 200
    error_code: str = ""
    gated: bool = False
    slow: float = 0.0
    silent: float = 0.0
    asked: list[str] = field(default_factory=list)
    endpoint: str = ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub


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
        hub.asked.append(path)
        time.sleep(hub.silent)
        if hub.status != 200 or (hub.gated and "/resolve/" in path):
            headers = {"X-Error-Code": "GatedRepo" if hub.gated else hub.error_code, "X-Error-Message": "no"}
            self._send(b"{}", headers, 403 if hub.gated else hub.status, body)
        elif "/resolve/" in path:
            name = path.split("/resolve/")[1].split("/", 1)[1]
            content = hub.files.get(name)
            if content is None:
                self._send(b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, 404, body)
            else:
                etag = f'"{hashlib.sha1(content).hexdigest()}"'
                self._send(content, {"ETag": etag, "X-Repo-Commit": COMMIT}, 200, body)
        elif "/tree/" in path:
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in hub.files.items()
            ]
            self._send(json.dumps(entries).encode(), {}, 200, body)
        else:
            siblings = [{"rfilename": name, "size": len(content)} for name, content in hub.files.items()]
            info = {"id": path.removeprefix("/api/models/"), "sha": COMMIT, "siblings": siblings, "tags": []}
            self._send(json.dumps(info).encode(), {}, 200, body)

    def _send(self, content: bytes, headers: dict[str, str], status: int, body: bool) -> None:
        assert isinstance(self.server, _Server)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        step = 1 << 16
        for start in range(0, len(content) if body else 0, step):
            time.sleep(self.server.hub.slow)
            try:
                self.wfile.write(content[start : start + step])
            except OSError:
                return


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Run the server while the block runs."""
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
