"""Who may do what: every route with every kind of credential, on both doors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Route

from runyard.server.app import create_api
from tests.server.harness import Running, spec

READ = {"owner", "read", "attempt"}
AGENT = {"owner", "agent"}
OWNER = {"owner"}
PUBLIC: set[str] = set()
RUN, ATTEMPT, TREE = "aaaaaaaaaaaa", "0" * 32, "0" * 40
END = {"attempt": ATTEMPT, "epoch": 1, "reason": "exited", "origin": "user", "ended_at": 1}
ROUTES: dict[tuple[str, str], tuple[set[str], object]] = {
    # (method, path): (scopes that may use it, a body that is well-formed)
    ("GET", "/health"): (PUBLIC, None),
    ("GET", "/"): (PUBLIC, None),
    ("GET", "/runs/{ref}"): (PUBLIC, None),
    ("GET", "/open"): (PUBLIC, None),
    ("POST", "/open"): (PUBLIC, {"token": "no"}),
    ("GET", "/static/open.js"): (PUBLIC, None),
    ("GET", "/static/page.css"): (PUBLIC, None),
    ("GET", "/openapi.json"): (READ | AGENT, None),
    ("GET", "/metrics"): (READ, None),
    ("GET", "/api/v1/status"): (READ, None),
    ("GET", "/api/v1/du"): (OWNER, None),
    ("POST", "/api/v1/gc"): (OWNER, {}),
    ("POST", "/api/v1/backup"): (OWNER, {"path": "/nonexistent/directory/x"}),
    ("POST", "/api/v1/shutdown"): (OWNER, None),
    ("POST", "/api/v1/open"): (OWNER, None),
    ("GET", "/api/v1/tokens"): (OWNER, None),
    ("POST", "/api/v1/tokens"): (OWNER, {"name": "", "scope": "read"}),
    ("DELETE", "/api/v1/tokens/{name:path}"): (OWNER, None),
    ("GET", "/api/v1/runs"): (READ, None),
    ("GET", "/api/v1/table"): (READ, None),
    ("POST", "/api/v1/runs"): (OWNER, {"runs": []}),
    ("PUT", "/api/v1/runs/{run_id}"): (OWNER, {"id": "no"}),
    ("GET", "/api/v1/runs/{ref}"): (READ, None),
    ("PATCH", "/api/v1/runs/{ref}"): (OWNER, {"message": "x"}),
    ("DELETE", "/api/v1/runs/{ref}"): (OWNER, None),
    ("POST", "/api/v1/runs/{ref}/kill"): (OWNER, {}),
    ("POST", "/api/v1/runs/{ref}/hold"): (OWNER, None),
    ("POST", "/api/v1/runs/{ref}/release"): (OWNER, None),
    ("POST", "/api/v1/runs/{ref}/restore"): (OWNER, None),
    ("GET", "/api/v1/runs/{ref}/events"): (READ, None),
    ("GET", "/api/v1/runs/{ref}/wait"): (READ, None),
    ("GET", "/api/v1/runs/{ref}/log"): (READ, None),
    ("GET", "/api/v1/runs/{ref}/outputs"): (READ, None),
    ("GET", "/api/v1/runs/{ref}/series"): (READ, None),
    ("GET", "/api/v1/runs/{ref}/media"): (READ, None),
    ("GET", "/api/v1/runs/{ref}/media/{sha256}"): (READ, None),
    ("GET", "/api/v1/runs/{ref}/files/{path:file}"): (READ, None),
    ("GET", "/api/v1/trees/{tree}.tar"): (READ | AGENT, None),
    ("PUT", "/api/v1/agents/{agent}"): (AGENT, {}),
    ("POST", "/api/v1/agents/{agent}/heartbeat"): (AGENT, {}),
    ("POST", "/api/v1/agents/{agent}/drain"): (OWNER, {}),
    ("POST", "/api/v1/agents/{agent}/poll"): (AGENT, {"known": [], "wait_s": 0}),
    ("POST", "/api/v1/attempts/finish"): (AGENT, {"ends": [END]}),
    ("POST", "/api/v1/attempts/{attempt}/phase"): (AGENT, {"epoch": 1, "phase": "running"}),
    ("POST", "/api/v1/attempts/{attempt}/hand-back"): (AGENT, {"epoch": 1}),
    ("PUT", "/api/v1/attempts/{attempt}/log"): (AGENT, b"x"),
    ("PUT", "/api/v1/attempts/{attempt}/outputs"): (AGENT, {"outputs": []}),
    ("PUT", "/api/v1/attempts/{attempt}/spool/{stream}"): (AGENT, None),
    ("POST", "/api/v1/agents/{agent}/runs"): (AGENT, {"runs": [{"run": {}, "started_us": 0}]}),
    ("PUT", "/api/v1/attempts/{attempt}/files/{path:file}"): (AGENT, b"x"),
}


PAGES = ("/", "/runs/{ref}")  # they say how to get in, instead of an error


def address(path: str) -> str:
    for name, value in (
        ("{ref}", RUN), ("{run_id}", RUN), ("{attempt}", ATTEMPT), ("{tree}", TREE), ("{agent}", "a"),
        ("{name:path}", "nobody"), ("{path:file}", "x.txt"),
    ):  # fmt: skip
        path = path.replace(name, value)
    return path + ("?offset=0" if path.endswith("/log") else "?timeout=0" if path.endswith("/wait") else "")


def send(client: httpx.Client, method: str, path: str, body: object) -> httpx.Response:
    if isinstance(body, bytes):
        return client.request(method, address(path), content=body)
    return client.request(method, address(path), json=body)


@pytest.fixture(scope="module")
def clients(server: Running) -> Iterator[dict[str, httpx.Client]]:
    server.context.stop = lambda: None  # POST shutdown is asked for more than once here
    with server.http() as http:
        for made in http.json("GET", "/api/v1/tokens")["tokens"]:
            http.json("DELETE", "/api/v1/tokens/" + made["name"])
        http.json("POST", "/api/v1/tokens", {"name": "revoked", "scope": "owner"})
        revoked = http.json("POST", "/api/v1/tokens", {"name": "gone", "scope": "owner"})["token"]
        http.json("DELETE", "/api/v1/tokens/gone")
        expired = http.json("POST", "/api/v1/tokens", {"name": "old", "scope": "owner", "lifetime_s": 1e-6})["token"]
        session = httpx.post(
            server.url + "/open",
            json={"token": http.json("POST", "/api/v1/open")["url"].partition("#")[2]},
            headers={"Origin": server.url},
        )
    _, assignment = server.start()
    bearer = {
        "owner": server.token("owner"), "read": server.token("read"), "agent": server.token("agent"),
        "attempt": assignment["token"], "local": server.context_token(), "wrong": "ryt_" + "0" * 64,
        "revoked": revoked, "expired": expired, "attempt-wrong": "rya_" + ATTEMPT + "_" + "0" * 64,
    }  # fmt: skip
    made = {name: server.client(headers={"Authorization": "Bearer " + token}) for name, token in bearer.items()}
    made["none"] = server.client()
    made["session"] = server.client(cookies=session.cookies, headers={"Origin": server.url})
    made["session-wrong"] = server.client(cookies={server.context.gates.cookie: "0" * 64})
    made["socket"] = server.client("socket")
    yield made
    for client in made.values():
        client.close()


def leaves(routes: Iterable[BaseRoute]) -> Iterator[Route | APIRoute]:
    """Yield all routes; included routers are entries of their own in newer versions of FastAPI."""
    for route in routes:
        if hasattr(route, "original_router"):
            yield from leaves(route.original_router.routes)
        else:
            assert isinstance(route, Route | APIRoute), f"{route} is of a kind that this test does not know"
            yield route


def test_every_route_is_in_the_table(server: Running):
    found = {
        (method, route.path)
        for route in leaves(create_api(server.context).routes)
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert found == set(ROUTES)


SCOPE_OF = {
    "owner": "owner", "local": "owner", "session": "owner", "socket": "owner", "read": "read", "agent": "agent",
    "attempt": "attempt", "none": "", "wrong": "!", "revoked": "!", "expired": "!", "attempt-wrong": "!",
    "session-wrong": "",
}  # fmt: skip


@pytest.mark.parametrize("who", sorted(SCOPE_OF))
def test_matrix(clients: dict[str, httpx.Client], who: str):
    scope = SCOPE_OF[who]
    wrong = []
    for (method, path), (scopes, body) in ROUTES.items():
        status = send(clients[who], method, path, body).status_code
        if path in PAGES and scope not in ("owner", "read"):
            expected = status == 401
        elif (method, path) == ("POST", "/open"):
            expected = status == 401  # its own token is wrong
        elif scope == "!":  # a credential that is wrong is refused everywhere, even where none is needed
            expected = status == 401
        elif scopes == PUBLIC:
            expected = status == 404 if path == "/runs/{ref}" else status < 400
        elif scope == "":
            expected = status == 401
        else:
            expected = (status not in (401, 403)) if scope in scopes else status == 403
        if not expected:
            wrong.append((method, path, status))
    assert wrong == []


def test_index_shows_runs_to_owner_and_reader_only(clients: dict[str, httpx.Client], server: Running):
    run = server.submit(message="<b>look</b>")
    for who, shown in (("session", True), ("read", True), ("agent", False), ("attempt", False), ("none", False)):
        text = clients[who].get("/").text
        assert (run["id"] in text) is shown, who
        assert "<b>look" not in text
        page = clients[who].get("/runs/" + run["id"]).text
        assert (run["project"] in page) is shown, who
        assert "<b>look" not in page


def test_a_token_on_the_socket_counts_instead_of_the_uid(server: Running):
    with server.client("socket", headers={"Authorization": "Bearer " + server.token("read")}) as client:
        assert client.get("/api/v1/runs").status_code == 200
        assert client.post("/api/v1/open").status_code == 403


def test_a_token_ends_with_its_attempt(server: Running):
    run, assignment = server.start()
    with server.client(headers={"Authorization": "Bearer " + assignment["token"]}) as client:
        assert client.get("/api/v1/runs/" + run["id"]).status_code == 200
        assert server.finish(assignment) == "accepted"
        assert client.get("/api/v1/runs/" + run["id"]).status_code == 401


def test_an_unknown_address_needs_a_credential_too(clients: dict[str, httpx.Client]):
    assert clients["none"].get("/api/v1/nothing").status_code == 401
    assert clients["owner"].get("/api/v1/nothing").status_code == 404


ANOTHER = """
import encodings.idna, http.client, json, os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX); self.sock.connect(sys.argv[1])
found = []
for connection in (Unix("localhost"), http.client.HTTPConnection(sys.argv[2])):
    connection.request("GET", "/api/v1/runs")
    answer = connection.getresponse()
    found.append([answer.status, json.loads(answer.read())["error"]["message"]])
print(json.dumps(found))
"""


def test_another_local_user_is_refused(own_server: Running, require: Callable[[str], None]):
    require("root")
    place = own_server.home
    os.chmod(place.path, 0o755)
    os.chmod(os.path.dirname(place.host_dir()), 0o755)
    for path in (place.host_dir(), os.path.dirname(own_server.socket), own_server.socket):
        os.chmod(path, 0o777)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ANOTHER), own_server.socket, own_server.url.partition("//")[2]],
        capture_output=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    (on_socket, why), (on_tcp, _) = json.loads(done.stdout)
    assert (on_socket, on_tcp) == (403, 401)
    assert "another user" in why
    os.chmod(os.path.dirname(own_server.socket), 0o700)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ANOTHER), own_server.socket, own_server.url.partition("//")[2]],
        capture_output=True, check=False, timeout=30,
    )  # fmt: skip
    assert b"PermissionError" in done.stderr


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:18086", 200), ("localhost", 200), ("LOCALHOST:1", 200), ("[::1]:8086", 200), ("localhost.", 200),
        ("evil.example", 403), ("127.0.0.1.evil.example", 403), ("10.1.2.3", 403), ("", 403), ("localhost@evil", 403),
        ("evil.example:18086", 403),
    ],
)  # fmt: skip
def test_host_header(server: Running, host: str, status: int):
    for door in ("tcp", "socket"):
        with server.client(door) as client:
            assert client.get("/health", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Origin": "SELF"}, True),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://127.0.0.1:1"}, False),
        ({"Origin": "file://SELFHOST"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, True),
    ],
)  # fmt: skip
def test_origin(server: Running, headers: dict[str, str], allowed: bool):
    """Another site's page cannot change anything, through neither door, even with an owner's credential."""
    for door in ("tcp", "socket"):
        with server.client(door, headers={"Authorization": "Bearer " + server.context_token()}) as client:
            own = str(client.base_url).rstrip("/")
            sent = {k: v.replace("SELFHOST", own.partition("//")[2]).replace("SELF", own) for k, v in headers.items()}
            body = spec()
            status = client.put("/api/v1/runs/" + body["id"], json=body, headers=sent).status_code
            assert status == (200 if allowed else 403)
            assert client.get("/api/v1/runs/" + body["id"]).status_code == (200 if allowed else 404)


def test_a_session_cannot_change_anything_without_an_origin(clients: dict[str, httpx.Client], server: Running):
    cookies = dict(clients["session"].cookies)
    assert httpx.get(server.url + "/api/v1/runs", cookies=cookies).status_code == 200
    assert httpx.post(server.url + "/api/v1/open", cookies=cookies).status_code == 401
