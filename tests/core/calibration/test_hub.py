"""Tests of Hub data sets, read from a local server by a child process that uses the real libraries."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from core.calibration import hub
from core.calibration.documents import Document

ROOT = Path(__file__).resolve().parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
RECORDS = b"".join(json.dumps({"text": f"Record number {number}."}).encode() + b"\n" for number in range(30))
NAME = "acme/tiny"
PROGRAM = """
import json, sys
from core.calibration.text import documents
from core.errors import BitwrightError
log = []
try:
    found = list(documents(sys.argv[1], log.append))
    print(json.dumps({"found": found, "log": [event.message for event in log]}))
except BitwrightError as error:
    print(json.dumps({"code": error.code, "message": error.message, "hint": error.hint}))
"""


class Hub(BaseHTTPRequestHandler):
    """The routes that are requested while one data set is read."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Do not log requests."""

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = {"type": "file", "path": "train.jsonl", "size": len(RECORDS), "oid": "1" * 40}
        self._send(200, json.dumps([found] if "paths-info" in self.path else {}).encode(), body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        if path.startswith(f"/api/datasets/{NAME}/tree"):
            found = [{"type": "file", "path": "train.jsonl", "size": len(RECORDS), "oid": "1" * 40}]
            self._send(200, json.dumps(found).encode(), body=body)
        elif path == f"/api/datasets/{NAME}" or path.startswith(f"/api/datasets/{NAME}/revision"):
            info = {
                "_id": "1",
                "id": NAME,
                "sha": COMMIT,
                "private": False,
                "tags": [],
                "siblings": [{"rfilename": "train.jsonl", "size": len(RECORDS)}],
            }
            self._send(200, json.dumps(info).encode(), body=body)
        elif path.startswith(f"/datasets/{NAME}/resolve/") and path.endswith("/train.jsonl"):
            self._send(200, RECORDS, body=body)
        else:
            missing = "EntryNotFound" if NAME in path else "RepoNotFound"
            self._send(404, b"{}", body=body, error=missing)

    def _send(self, status: int, content: bytes, *, body: bool, error: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", '"' + "1" * 40 + '"')
        self.send_header("X-Repo-Commit", COMMIT)
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def ask(calibration: str, endpoint: str, home: Path) -> dict[str, Any]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, calibration],
        capture_output=True,
        text=True,
        env=environment,
        cwd=home,
        timeout=120,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.slow
def test_every_record_of_a_data_set_is_read(endpoint: str, tmp_path: Path) -> None:
    found = ask(NAME, endpoint, tmp_path)["found"]
    assert sorted(found) == sorted(json.loads(line)["text"] for line in RECORDS.splitlines())


@pytest.mark.slow
def test_a_downloaded_data_set_is_read_without_the_hub(endpoint: str, tmp_path: Path) -> None:
    first = ask(NAME, endpoint, tmp_path)
    second = ask(NAME, f"http://127.0.0.1:{closed_port()}", tmp_path)
    assert (second["found"], len(second["log"])) == (first["found"], 1)


@pytest.mark.slow
def test_the_error_for_a_missing_data_set_has_its_name(endpoint: str, tmp_path: Path) -> None:
    answer = ask("acme/missing", endpoint, tmp_path)
    assert (answer["code"], "acme/missing" in answer["message"]) == ("bad-calibration", True)


@pytest.mark.slow
def test_the_error_for_a_missing_split_lists_the_splits(endpoint: str, tmp_path: Path) -> None:
    answer = ask(f"{NAME}:split=exam", endpoint, tmp_path)
    assert (answer["code"], "train" in answer["message"]) == ("bad-calibration", True)


def test_the_error_for_an_unreachable_hub_suggests_the_bundled_text(tmp_path: Path) -> None:
    answer = ask(NAME, f"http://127.0.0.1:{closed_port()}", tmp_path)
    assert (answer["code"], "`builtin`" in answer["hint"]) == ("hub", True)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_an_unresponsive_hub_times_out() -> None:
    with pytest.raises(TimeoutError):
        hub._within(0.05, lambda: time.sleep(5))


def test_an_error_of_the_request_thread_is_raised_in_the_caller() -> None:
    def fail() -> None:
        raise OSError("no route")

    with pytest.raises(OSError, match="no route"):
        hub._within(5, fail)


def test_only_the_given_field_is_read() -> None:
    table = [{"text": "one", "poem": "two"}]
    assert list(hub._usable("acme/tiny", table, "poem")) == [Document("two")]
