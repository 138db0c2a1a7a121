"""Doors: addresses, ports, private directories."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from runyard.server import sockets
from runyard.wire.errors import ConfigError, HomeError
from runyard.wire.settings import split_address
from tests.server.harness import running

EVERYWHERE = "0.0.0.0"


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:8086", ("127.0.0.1", 8086)), (EVERYWHERE, (EVERYWHERE, None)), (":9000", (EVERYWHERE, 9000)),
        ("[::1]:80", ("::1", 80)), ("[::1]", ("::1", None)), ("::1", ("::1", None)),
        ("lab.example:1", ("lab.example", 1)),
    ],
)  # fmt: skip
def test_split_address(listen: str, expected: tuple[str, int | None]):
    assert split_address(listen) == expected


@pytest.mark.parametrize("listen", ["127.0.0.1:http", "127.0.0.1:99999", "x:-1"])
def test_no_address(listen: str):
    with pytest.raises(ConfigError, match="address"):
        split_address(listen)


def test_the_next_free_port_only_where_none_was_named(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(sockets, "DEFAULT_PORT", port)
        with sockets.bind_tcp("127.0.0.1") as found:
            assert found.getsockname()[1] > port
            assert sockets.has_moved(found, "127.0.0.1")
        for listen in (f"127.0.0.1:{port}", f"0.0.0.0:{port}", EVERYWHERE):
            with pytest.raises(ConfigError, match=f"{listen}.*in use"):
                sockets.bind_tcp(listen)
    with sockets.bind_tcp("127.0.0.1") as found:
        assert not sockets.has_moved(found, "127.0.0.1")


def test_two_servers_of_two_homes_side_by_side(home: Path, tmp_path: Path):
    with running(home) as one, running(tmp_path) as two:
        assert one.url != two.url
        for each in (one, two):
            with each.tcp() as http:
                assert http.json("GET", "/health")["yard"] == each.yard.yard_id
        assert one.context.gates.cookie != two.context.gates.cookie


def test_private_directory(tmp_path: Path, require: Callable[[str], None]):
    place = tmp_path / "sock"
    place.mkdir(mode=0o755)
    sockets.private_directory(str(place))
    assert place.stat().st_mode & 0o777 == 0o700
    (tmp_path / "link").symlink_to(place)
    with pytest.raises(HomeError, match="no directory of yours"):
        sockets.private_directory(str(tmp_path / "link"))
    require("root")
    os.chown(place, 65534, 65534)
    with pytest.raises(HomeError, match="uid 65534"):
        sockets.private_directory(str(place))


def test_beyond_loopback(home: Path):
    with socket.socket() as probe:
        probe.bind((EVERYWHERE, 0))
        port = probe.getsockname()[1]
    with running(home, f"{EVERYWHERE}:{port}") as server:  # agents on other hosts
        assert server.url == f"http://{socket.gethostname()}:{port}"
        with server.client() as client:
            client.base_url = f"http://127.0.0.1:{port}"
            for host, status in ((f"10.9.8.7:{port}", 200), (socket.gethostname(), 200), ("evil.example", 403)):
                assert client.get("/health", headers={"Host": host}).status_code == status
            assert client.get("/api/v1/runs").status_code == 401
