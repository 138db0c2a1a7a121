"""One error body, whatever goes wrong."""

from __future__ import annotations

import errno
import json
import socket

import httpx
import pytest

from runyard.server import gate
from runyard.wire.errors import InvalidError, NotFoundError, UnavailableError, from_body
from runyard.wire.http import query as query_text
from runyard.wire.http import quote
from tests.server.harness import Running, spec, until
from tests.server.test_access import ROUTES, address


def check(response: httpx.Response) -> dict[str, object]:
    """Check the shape of an error and return what is in it."""
    assert response.status_code >= 400
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "hint", "details"}
    assert body["error"]["message"]
    assert isinstance(body["error"]["details"], dict)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    return dict(body["error"])


@pytest.mark.parametrize("route", sorted(ROUTES), ids=" ".join)
def test_shape_on_every_route(server: Running, route: tuple[str, str]):
    method, path = route
    with server.client("socket") as client:
        refused = client.request(method, address(path), headers={"Host": "evil.example"})
        assert check(refused)["code"] == "forbidden"
        other = client.request("OPTIONS", address(path))
        assert check(other)["code"] == "usage"
        assert other.status_code == 405
        if isinstance(ROUTES[route][1], dict) and ROUTES[route][1]:
            bodies = [b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000]
            if not path.startswith("/api/v1/a") and not path.endswith("/gc"):  # newer agents may say more
                bodies.append(b'{"no such field": 1}')
            for body in bodies:
                headers = {"Content-Type": "application/json"}
                answer = client.request(method, address(path), content=body, headers=headers)
                assert answer.status_code == 400, (body, answer.text)
                assert check(answer)["code"] == "invalid"
    if ROUTES[route][0]:
        with server.client() as client:
            assert check(client.request(method, address(path)))["code"] == "unauthorized"


def test_all_problems_are_named_with_their_places(server: Running):
    body = spec(priority="high", retries=-1, links=[{"path": "../../x", "target": "/y"}], command=[])
    with server.http() as http, pytest.raises(InvalidError) as caught:
        http.json("POST", "/api/v1/runs", {"runs": [spec(), body]})
    problems = {item["where"] for item in caught.value.details["problems"]}
    assert problems == {"runs[1].priority", "runs[1].retries", "runs[1].links[0].path", "runs[1].command"}
    with server.http() as http, pytest.raises(InvalidError) as caught:
        http.json("PUT", "/api/v1/runs/" + body["id"], body)
    assert {item["where"] for item in caught.value.details["problems"]} == {
        "priority", "retries", "links[0].path", "command",
    }  # fmt: skip


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "state=nonsense", "before=x", "unknown=1"])
def test_wrong_parameters(server: Running, query: str):
    with server.client("socket") as client:
        assert check(client.get("/api/v1/runs?" + query))["code"] == "invalid"


def test_a_spec_with_another_id_than_the_address_is_refused(server: Running):
    with server.client("socket") as client:
        answer = client.put("/api/v1/runs/aaaaaaaaaaaa", json=spec())
    assert check(answer)["code"] == "invalid"


def test_bytes_that_are_not_utf8_survive_both_ways(server: Running):
    name = b"caf\xe9 \xff.txt".decode("utf-8", "surrogateescape")
    run = server.submit(command=["cat", name], message=name)
    assert run["command"] == ["cat", name]
    with server.http() as http:
        assert http.json("GET", "/api/v1/runs/" + run["id"])["message"] == name
        for query in (query_text(q=name), query_text(user=run["user"], q="\udcff.txt", limit=2)):
            assert [found["id"] for found in http.json("GET", "/api/v1/runs" + query)["runs"]] == [run["id"]]
        for query in (
            query_text(q="caf\ufffd"),
            query_text(tag=[name]),
            query_text(name=name),
            query_text(project=name),
        ):
            assert http.json("GET", "/api/v1/runs" + query)["runs"] == []
        for other in (name, "\U0010ffff"):
            with pytest.raises(NotFoundError):
                http.json("GET", "/api/v1/runs/" + quote(other))
    with server.client("socket") as client:
        assert client.get("/").status_code == 200


def test_too_large(server: Running, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gate, "MAX_JSON", 10_000)
    body = json.dumps(spec(message="x" * 20_000)).encode()
    with server.client("socket", headers={"Content-Type": "application/json"}) as client:
        for content in (body, iter([body[:9000], body[9000:]])):  # with a length, and chunked
            answer = client.put("/api/v1/runs/aaaaaaaaaaaa", content=content)
            assert answer.status_code == 413
            check(answer)


@pytest.mark.parametrize("raw", [b"NONSENSE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n"])
def test_what_is_not_http(server: Running, raw: bytes):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(server.socket)
        sock.sendall(raw)
        data = b""
        while piece := sock.recv(65536):
            data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    assert b" 400 " in head.split(b"\r\n")[0]
    assert json.loads(body)["error"]["code"] == "usage"


def test_a_bug_is_answered_and_logged(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("the secret cause")

    monkeypatch.setattr(server.yard, "run", broken)
    with server.client("socket") as client:
        answer = client.get("/api/v1/runs/aaaaaaaaaaaa")
    error = check(answer)
    assert (answer.status_code, error["code"]) == (500, "internal")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in str(error["message"])
    until(lambda: "the secret cause" in caplog.text)


@pytest.mark.parametrize("filename", [None, "/elsewhere/file"])
def test_a_full_disk_is_said_to_be_one_and_where(
    server: Running, monkeypatch: pytest.MonkeyPatch, filename: str | None
):
    def broken(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", filename)

    monkeypatch.setattr(server.yard, "submit", broken)
    with server.http() as http, pytest.raises(UnavailableError) as caught:
        http.json("POST", "/api/v1/runs", {"runs": [spec()]})
    assert "the server's disk is full" in caught.value.message
    assert (filename or server.home.path) in caught.value.message
    assert "runyard gc" in caught.value.hint


def test_the_client_gets_the_error_that_was_meant(server: Running, monkeypatch: pytest.MonkeyPatch):
    with server.http() as http:
        with pytest.raises(NotFoundError):
            http.json("GET", "/api/v1/runs/aaaaaaaaaaaa")
        monkeypatch.setattr(server.yard, "status", lambda: (_ for _ in ()).throw(UnavailableError("later")))
        with pytest.raises(UnavailableError, match="later"):
            http.json("GET", "/api/v1/status")
        assert from_body(503, UnavailableError("x").body()).status == 503


def test_openapi(server: Running):
    with server.http() as http:
        schema = http.json("GET", "/openapi.json")
    assert schema["openapi"].startswith("3.1")
    tags = {tag["name"] for tag in schema["tags"]}
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            assert operation.get("summary"), (method, path)
            assert set(operation["tags"]) <= tags, (method, path)
    text = json.dumps(schema)
    names = set(schema["components"]["schemas"])
    for part in text.split("#/components/schemas/")[1:]:
        assert part.partition('"')[0] in names


def test_json_is_compressed_for_those_who_take_it(server: Running):
    for _ in range(5):
        server.submit(message="word " * 200)
    with server.client("socket") as client:
        plain = client.get("/api/v1/runs", headers={"Accept-Encoding": "identity"})
        small = client.get("/api/v1/runs", headers={"Accept-Encoding": "gzip"})
    assert small.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert small.json() == plain.json()
