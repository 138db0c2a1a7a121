"""The HTTP client against servers that are none of Runyard's."""

from __future__ import annotations

import socket
import threading

import pytest

from runyard.wire.errors import RunyardError
from runyard.wire.http import Http


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n<html>hi</html", "no Runyard answer: <html>hi"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "not HTTP"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nsad", "the server answered 502: sad"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP"),
        (b"", "closed the connection"),
    ],
)
def test_another_server_is_named_in_words(answer: bytes, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            sock, _ = listening.accept()
            with sock:
                sock.recv(65536)
                sock.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        url = "http://127.0.0.1:%d" % listening.getsockname()[1]
        with Http(url, timeout=10.0) as http, pytest.raises(RunyardError) as caught:
            http.json("GET", "/health")
        thread.join()
    assert said in caught.value.message
