"""The way in for browsers."""

from __future__ import annotations

import re

import httpx
import pytest

from runyard.server.auth import ONE_TIME_S, SESSION_S, Gates
from runyard.wire.errors import AuthError
from tests.server.harness import Running, until


def address(server: Running) -> tuple[str, str]:
    with server.http() as http:
        url, _, token = http.json("POST", "/api/v1/open")["url"].partition("#")
    return url, token


def test_the_token_is_behind_the_number_sign_and_lets_one_browser_in_once(server: Running):
    url, token = address(server)
    assert url == server.url + "/open"
    assert len(token) == 64
    with server.client(headers={"Origin": server.url}) as browser:
        page = browser.get(url)
        assert page.status_code == 200
        script = browser.get(re.findall(r'src="([^"]+)"', page.text)[0])
        assert script.status_code == 200
        assert browser.get("/").status_code == 401
        assert "runyard open" in browser.get("/").text
        answer = browser.post("/open", json={"token": token})
        assert answer.status_code == 200
        cookie = answer.headers["set-cookie"]
        for flag in ("HttpOnly", "SameSite=strict", "Path=/"):
            assert flag in cookie
        assert browser.get("/").status_code == 200
        assert browser.get("/api/v1/runs").status_code == 200
    with server.client(headers={"Origin": server.url}) as second:
        answer = second.post("/open", json={"token": token})
        assert answer.status_code == 401
        assert "runyard open" in answer.json()["error"]["hint"]
        assert second.get("/").status_code == 401


def test_a_token_in_the_query_is_worth_nothing(server: Running):
    _, token = address(server)
    with server.client() as browser:
        browser.get("/open?token=" + token)
        assert browser.get("/?token=" + token).status_code == 401


def test_another_site_cannot_trade_a_token(server: Running):
    _, token = address(server)
    with server.client() as browser:
        assert (
            browser.post("/open", json={"token": token}, headers={"Origin": "http://evil.example"}).status_code == 403
        )


def test_the_page_of_a_run_shows_its_log(server: Running):
    run, assignment = server.start(command=["echo", "a b", "<i>"])
    server.log_file(run).write_bytes(b"x" * 100_000 + b"\xff<script>alert(1)</script>")
    with server.client("socket") as client:
        text = client.get("/runs/" + run["id"]).text
    assert "&lt;script&gt;alert(1)" in text
    assert "echo &#x27;a b&#x27; &#x27;&lt;i&gt;&#x27;" in text
    assert "<script" not in text
    assert len(text) < 80_000
    server.finish(assignment)


def test_pages_run_no_scripts_but_their_own(server: Running):
    with server.client() as browser:
        for path in ("/", "/open"):
            answer = browser.get(path)
            csp = answer.headers["content-security-policy"]
            assert "default-src 'none'" in csp
            assert "script-src 'self';" in csp
            assert "unsafe" not in csp
            assert "frame-ancestors 'none'" in csp
            assert not re.search(r"<script(?! src=)|<style|\son\w+=|https?://", answer.text)


def test_secrets_are_not_logged(server: Running, caplog: pytest.LogCaptureFixture):
    caplog.set_level("DEBUG")
    _, token = address(server)
    with server.client(headers={"Authorization": "Bearer ryt_planted"}) as client:
        client.get("/api/v1/runs?q=planted-query")
    httpx.post(server.url + "/open", json={"token": token}, headers={"Origin": server.url})

    def lines() -> str:
        return "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("runyard"))

    until(lambda: "POST /open 200" in lines())  # written once the answer is out
    assert token not in lines()
    assert "planted" not in lines()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_times():
    clock = Clock()
    gates = Gates("somebody", "cookie", "local", clock)
    token = gates.one_time(gates.owner)
    clock.now += ONE_TIME_S + 1
    with pytest.raises(AuthError, match="60 seconds"):
        gates.exchange(token)
    secret = gates.exchange(gates.one_time(gates.owner))
    clock.now += SESSION_S - 1
    assert gates.session(secret) == gates.owner
    clock.now += 2
    assert gates.session(secret) is None
    assert not gates.is_local("locaL")
    assert not gates.is_local("\udce9")


def test_many_tokens_do_not_pile_up():
    gates = Gates("somebody", "cookie", "local", Clock())
    tokens = [gates.one_time(gates.owner) for _ in range(300)]
    assert gates.exchange(tokens[-1])
    with pytest.raises(AuthError):
        gates.exchange(tokens[0])
