"""Outputs: only those of the run, whole or in part, and harmless in a browser; uploads appear whole or not at all."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.server.errors import RangeError
from runyard.server.files import media_type, parse_range
from runyard.services.views import iso
from runyard.wire.errors import InvalidError
from runyard.wire.http import quote
from runyard.wire.states import TIMES_US
from tests.server.harness import Running, until


@pytest.fixture(scope="module")
def run(server: Running) -> dict[str, Any]:
    return server.submit()


def get(server: Running, run: dict[str, Any], path: str, **headers: str) -> httpx.Response:
    with server.client("socket") as client:
        return client.get(f"/api/v1/runs/{run['id']}/files/{path}", headers=headers)


def test_bytes_and_headers(server: Running, run: dict[str, Any]):
    data = os.urandom(700_000)
    place = server.tree_dir(run) / "sub" / "model.bin"
    place.parent.mkdir()
    place.write_bytes(data)
    answer = get(server, run, "sub/model.bin")
    assert answer.content == data
    assert answer.headers["content-length"] == str(len(data))
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''model.bin"
    with server.http() as http:  # the project's own client
        assert http.open("GET", f"/api/v1/runs/{run['id']}/files/sub/model.bin").read() == data


@pytest.mark.parametrize(
    ("header", "status", "part"),
    [
        ("bytes=0-0", 206, slice(0, 1)), ("bytes=2-", 206, slice(2, None)), ("bytes=-3", 206, slice(-3, None)),
        ("bytes=2-1000", 206, slice(2, None)), ("bytes=-1000", 206, slice(None)), ("bytes=9-9", 206, slice(9, 10)),
        ("bytes=10-", 416, None), ("bytes=-0", 416, None), ("bytes=0-1,3-4", 200, slice(None)),
        ("lines=0-1", 200, slice(None)), ("bytes=x-", 200, slice(None)), ("bytes=5-2", 200, slice(None)),
    ],
)  # fmt: skip
def test_ranges(server: Running, run: dict[str, Any], header: str, status: int, part: slice | None):
    data = b"0123456789"
    (server.tree_dir(run) / "digits.txt").write_bytes(data)
    answer = get(server, run, "digits.txt", Range=header)
    assert answer.status_code == status
    if part is None:
        assert answer.json()["error"]["details"]["size"] == 10
        return
    assert answer.content == data[part]
    if status == 206:
        start = data.index(data[part])
        assert answer.headers["content-range"] == f"bytes {start}-{start + len(data[part]) - 1}/10"


def test_if_range_of_a_changed_file_gives_the_whole(server: Running, run: dict[str, Any]):
    place = server.tree_dir(run) / "grows.txt"
    place.write_bytes(b"one")
    tag = get(server, run, "grows.txt").headers["etag"]
    assert get(server, run, "grows.txt", **{"Range": "bytes=1-", "If-Range": tag}).content == b"ne"
    place.write_bytes(b"other")
    assert get(server, run, "grows.txt", **{"Range": "bytes=1-", "If-Range": tag}).content == b"other"


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 60))
def test_range_is_what_slices_say(size: int, first: int, last: int):
    data = bytes(range(size))
    try:
        start, stop = parse_range(f"bytes={first}-{last}", size) or (0, size)
    except RangeError:
        assert first >= size
        return
    assert data[start:stop] == (data[first : last + 1] if first <= last else data)


@given(st.text(max_size=30), st.integers(0, 100))
def test_any_range_header_is_harmless(header: str, size: int):
    try:
        piece = parse_range(header, size)
    except RangeError:
        return
    assert piece is None or 0 <= piece[0] < piece[1] <= size


@pytest.mark.parametrize(
    "path",
    [
        "../../../../secret", "..%2F..%2F..%2F..%2Fsecret", "%2e%2e/%2e%2e/%2e%2e/%2e%2e/secret", "%2Fetc%2Fpasswd",
        "/etc/passwd", "link-out", "link-dir/secret", "link-absolute", "a/../../../../../secret", "x%00y", ".", "",
        "sub", "..", "fifo", "unix", "loop", "../.runyard/log.1",
    ],
)  # fmt: skip
def test_nothing_outside_of_the_tree_is_served(server: Running, path: str):
    run = server.submit()
    tree = server.tree_dir(run)
    secret = Path(server.home.path) / "secret"
    assert secret.is_file()
    server.log_file(run).write_bytes(b"log")
    (tree / "sub").mkdir()
    (tree / "link-out").symlink_to(os.path.relpath(secret, tree))
    (tree / "link-absolute").symlink_to("/etc/passwd")
    (tree / "link-dir").symlink_to(server.home.path)
    (tree / "loop").symlink_to("loop")
    os.mkfifo(tree / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        os.chdir(tree)  # the name of a socket must be short
        sock.bind("unix")
        os.chdir("/")
        raw = f"GET /api/v1/runs/{run['id']}/files/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        data = exchange(server, raw.encode())
    assert data.split(b" ")[1] in (b"400", b"403", b"404"), data[:200]
    assert b'{"error":' in data
    assert secret.read_bytes() not in data


def exchange(server: Running, raw: bytes) -> bytes:
    """Send bytes as they are (clients tidy paths up) and return the answer."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(server.socket)
        sock.sendall(raw)
        data = b""
        while piece := sock.recv(65536):
            data += piece
    return data


def test_a_link_within_the_tree_is_followed(server: Running, run: dict[str, Any]):
    tree = server.tree_dir(run)
    (tree / "real.txt").write_text("here")
    (tree / "alias.txt").symlink_to("real.txt")
    assert get(server, run, "alias.txt").text == "here"


@pytest.mark.parametrize(
    ("name", "kind", "shown"),
    [
        ("a.png", "image/png", True), ("a.svg", "image/svg+xml", True), ("a.html", "text/html; charset=utf-8", True),
        ("a.json", "text/plain; charset=utf-8", True), ("a.pt", "application/octet-stream", False),
        ("a.pdf", "application/octet-stream", False), ("a.tar.gz", "application/octet-stream", False),
        ("a", "application/octet-stream", False), ("a.py", "text/x-python; charset=utf-8", True),
    ],
)  # fmt: skip
def test_types(name: str, kind: str, shown: bool):
    assert media_type("sub/" + name) == (kind, shown)


def test_html_of_a_run_is_served_in_a_sandbox(server: Running, run: dict[str, Any]):
    (server.tree_dir(run) / "page.html").write_text("<script>alert(1)</script>")
    csp = get(server, run, "page.html").headers["content-security-policy"]
    assert csp.startswith("sandbox;")
    assert "allow-scripts" not in csp
    assert "default-src 'none'" in csp


def test_names_with_any_bytes(server: Running, run: dict[str, Any]):
    tree = os.fsencode(server.tree_dir(run))
    for raw in (b"caf\xc3\xa9.txt", b"caf\xe9.txt", b'quote"and;semi.txt', b"line\nbreak.txt", b"per%41cent.txt"):
        with open(os.path.join(tree, raw), "wb") as file:
            file.write(raw)
        answer = get(server, run, quote(os.fsdecode(raw)))
        assert answer.content == raw
        assert "\n" not in answer.headers["content-disposition"]


def reported(server: Running, *paths: str) -> tuple[dict[str, Any], str]:
    """Take a run to its phase running on a host that shares no directory, with these outputs reported."""
    run, assignment = server.start()
    outputs = [{"path": path, "size": 3, "mtime_us": 1, "type": ""} for path in paths]
    with server.http() as http:
        url = f"/api/v1/attempts/{assignment['attempt']}"
        assert http.json("PUT", url + "/outputs", {"outputs": outputs})["wanted"] == sorted(paths)
    return run, url


@pytest.mark.parametrize("beyond", [TIMES_US[0] - 1, TIMES_US[1] + 1, 1 << 63])
def test_a_time_that_no_calendar_has_is_refused_and_shown_as_none(server: Running, beyond: int):
    _, url = reported(server, "model.pt")
    output = {"path": "model.pt", "size": 3, "mtime_us": beyond, "type": ""}
    with server.http() as http, pytest.raises(InvalidError) as caught:
        http.json("PUT", url + "/outputs", {"outputs": [output]})
    assert [item["where"] for item in caught.value.details["problems"]] == ["outputs[0].mtime_us"]
    assert iso(beyond) is None
    assert str(iso(TIMES_US[1])).startswith("9999-12-31T23:59:59.999999")


def test_upload(server: Running):
    run, url = reported(server, "deep/er/model.pt")
    data = os.urandom(3_000_000)
    with server.http() as http:
        pieces = (data[i : i + 65536] for i in range(0, len(data), 65536))
        answer = http.open("PUT", url + "/files/deep/er/model.pt", pieces)
        assert b'"size":3000000' in answer.read()
    assert get(server, run, "deep/er/model.pt").content == data
    assert list((server.tree_dir(run) / "deep" / "er").iterdir()) == [server.tree_dir(run) / "deep" / "er" / "model.pt"]


def test_an_upload_that_breaks_off_leaves_nothing(server: Running):
    run, url = reported(server, "model.pt")
    place = server.tree_dir(run).parent / ".runyard"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(server.socket)
        sock.sendall(f"PUT {url}/files/model.pt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n".encode())
        sock.sendall(b"x" * 50_000)
        until(lambda: [path for path in place.glob("upload.*.part") if path.stat().st_size == 50_000])
        assert not list(server.tree_dir(run).glob("*"))
        assert get(server, run, "model.pt").status_code == 404
    until(lambda: not list(place.glob("upload.*")))


@pytest.mark.parametrize("path", ["../../x", "%2e%2e/x", "out/x", "other", "a/../../x"])
def test_an_upload_stays_in_the_tree(server: Running, tmp_path: Path, path: str):
    run, url = reported(server, "out/x", "fine")
    tree = server.tree_dir(run)
    (tree / "out").symlink_to(tmp_path)
    raw = f"PUT {url}/files/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
    data = exchange(server, raw.encode())
    assert data.split(b" ")[1] in (b"400", b"403", b"404"), data[:300]
    assert list(tmp_path.iterdir()) == []
    assert not any(p.name == "x" for p in Path(server.home.runs).rglob("*"))


def test_uploaded_files_are_not_executable_nor_special(server: Running):
    run, url = reported(server, "a.sh")
    with server.http() as http:
        http.open("PUT", url + "/files/a.sh", b"abc").read()
    mode = os.lstat(server.tree_dir(run) / "a.sh").st_mode
    assert stat.S_ISREG(mode)
    assert not mode & 0o111
