"""Contract: finding runs, changing what is said of them, trash, tokens."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from runyard.services.api import Actor
from runyard.testing.stage import ME, Stage
from runyard.wire import states
from runyard.wire.errors import (
    AmbiguousError,
    AuthError,
    ConflictError,
    InvalidError,
    NotFoundError,
    RunyardError,
    UsageError,
)
from runyard.wire.ids import new_run_id

ODD_TEXTS = {
    "zero": "a\0b",
    "bytes that are no UTF-8": "caf\udce9 \udcff",
    "other lone surrogates": "\ud800 \udbff \udc00 \udfff",
    "the escape itself": "\x1a \x1a1a \x1au0041 1a",
    "emoji": "🧪 rocket 🚀 e\u0301",
    "quotes": "'; DROP TABLE runs; -- \" \\ % _",
    "lines": "first\r\nsecond\ttab",
    "right to left": "\u202eאבג",
}


def file_in(directory: str, name: str, content: str) -> str:
    """Write a file below a directory that may not exist."""
    path = os.path.join(directory, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)
    return path


class RecordsContract:
    """Runs as records."""

    # Text

    @pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
    def test_messages_keep_every_character(self, stage: Stage, text: str) -> None:
        if stage.remote and "\0" in text:
            with pytest.raises(RunyardError):
                stage.submit(message=text)
            return
        run_id = stage.submit(message=text)
        assert stage.run(run_id)["message"] == text
        assert stage.yard.edit(run_id, {"message": text + "2"}, ME)["message"] == text + "2"
        stage.yard.edit(run_id, {"message": text}, ME)
        word = text.split(maxsplit=1)[0]
        if stage.remote and word.encode("utf-8", "replace").decode() != word:
            return  # an address is text
        assert [run["id"] for run in stage.yard.runs({"q": word}, ME)["runs"]] == [run_id]

    @pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
    def test_names_keep_every_character(self, stage: Stage, text: str) -> None:
        if stage.remote and not text.isprintable():
            with pytest.raises(RunyardError):
                stage.submit(name=text)
            return
        run_id = stage.submit(name=text)
        stage.submit(name=text + "2")
        assert stage.run(text)["id"] == run_id
        assert stage.run(text)["name"] == text
        assert [run["id"] for run in stage.yard.runs({"name": text}, ME)["runs"]] == [run_id]

    def test_a_message_of_a_megabyte(self, stage: Stage) -> None:
        text = "é" * (1 << 20)
        run_id = stage.submit(message=text)
        assert stage.run(run_id)["message"] == text
        with pytest.raises(InvalidError):
            stage.yard.edit(run_id, {"message": text + "x"}, ME)

    def test_names_differ_by_case_and_by_accents(self, stage: Stage) -> None:
        ids = {name: stage.submit(name=name) for name in ("Run", "run", "rún", "ru\u0301n")}
        for name, run_id in ids.items():
            assert stage.run(name)["id"] == run_id

    # References

    def test_prefixes(self, stage: Stage) -> None:
        one, two = "abcdef222222", "abcdeg222222"
        stage.submit(run_id=one)
        stage.submit(run_id=two)
        assert stage.run("abcdef")["id"] == one
        assert stage.run(two)["id"] == two
        with pytest.raises(AmbiguousError) as caught:
            stage.run("abcde")
        assert sorted(caught.value.details["matches"]) == [one, two]
        for wrong in ("abcdex", "", "ABCDEF", "abcdef2222222", "abcdef%", "nope\0", "é", "\udcff", "@first", "~"):
            if stage.remote and wrong == "":
                continue  # an empty reference is another address
            with pytest.raises(UsageError if stage.remote and "\0" in wrong else NotFoundError):
                stage.run(wrong)

    def test_a_name_is_found_before_a_prefix(self, stage: Stage) -> None:
        other = stage.submit(run_id="best22222222")
        named = stage.submit(name="best")
        assert stage.run("best")["id"] == named
        assert stage.run("best2")["id"] == other
        stage.submit(name="best")
        with pytest.raises(AmbiguousError):
            stage.run("best")

    def test_a_mistyped_name_gets_a_suggestion(self, stage: Stage) -> None:
        stage.submit(name="baseline")
        with pytest.raises(NotFoundError) as caught:
            stage.run("baselin")
        assert "baseline" in caught.value.hint

    def test_last(self, stage: Stage) -> None:
        with pytest.raises(NotFoundError):
            stage.run("@last")
        stage.submit()
        last = stage.submit()
        assert stage.run("@last")["id"] == last
        stage.yard.kill("@last", False, ME)
        stage.yard.remove(last, False, ME)
        assert stage.run("@last")["id"] != last
        with pytest.raises(NotFoundError):
            stage.inner.run("@last", Actor(user="somebody else"))

    # Lists

    def test_filters(self, stage: Stage) -> None:
        a = stage.submit(project="p", tags=["x", "y"], message="Alpha ÄRGER", name="n1")
        b = stage.submit(project="p", tags=["x"], hold=True, command=["python", "eval.py", "50%"])
        c = stage.submit(project="q")

        def found(**filters: Any) -> list[str]:
            return [run["id"] for run in stage.yard.runs(filters, ME)["runs"]]

        assert found() == [c, b, a]
        assert found(project="p") == [b, a]
        assert found(state=["held"]) == [b]
        assert found(state=["held", "queued"], project="p") == [b, a]
        assert found(tag=["x"]) == [b, a]
        assert found(tag=["x", "y"]) == [a]
        assert found(name="n1") == [a]
        assert found(q="alpha") == [a]
        assert found(q="ÄRGER alpha") == [a]
        assert found(q="50%") == [b]
        assert found(q="5_%") == []
        assert found(q=a[:8]) == [a]
        assert found(q="nothing like it") == []
        assert found(user="nobody") == []
        with pytest.raises(InvalidError):
            found(state=["sleeping"])

    def test_pages(self, stage: Stage) -> None:
        ids = [stage.submit() for _ in range(7)]
        seen: list[str] = []
        before = None
        for _ in range(4):
            page = stage.yard.runs({"limit": 2, **({"before": before} if before else {})}, ME)
            seen += [run["id"] for run in page["runs"]]
            before = page["next"]
            if before is None:
                break
            stage.submit()  # what comes later does not shift the pages
        assert seen == ids[::-1]
        for wrong in ({"limit": -1}, {"before": "tomorrow"}):
            with pytest.raises(RunyardError) as caught:
                stage.yard.runs(wrong, ME)
            assert caught.value.status == 400

    # Edits

    def test_edit(self, stage: Stage) -> None:
        run_id = stage.submit(tags=["a", "b"])
        run = stage.yard.edit(
            run_id,
            {"name": "new", "project": "other", "priority": 7, "add_tags": ["c", "a", "ü"], "remove_tags": ["b", "z"]},
            ME,
        )
        assert (run["name"], run["project"], run["priority"]) == ("new", "other", 7)
        assert run["tags"] == ["a", "c", "ü"]
        assert stage.yard.edit(run_id, {"name": None}, ME)["name"] is None
        event = stage.events(run_id)[-2]
        assert (event["kind"], event["detail"]["priority"]) == ("edited", 7)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"state": "finished"},
            {"priority": 10**9},
            {"priority": "1"},
            {"project": "a/b"},
            {"project": "x" * 300},
            {"name": "@last"},
            {"name": "abcdefghijkl"},
            {"message": 5},
            {"add_tags": "abc"},
            {"add_tags": ["a\0"]},
        ],
        ids=str,
    )
    def test_a_bad_edit_changes_nothing(self, stage: Stage, wrong: dict[str, Any]) -> None:
        run_id = stage.submit()
        before = stage.run(run_id)
        with pytest.raises(RunyardError) as caught:
            stage.yard.edit(run_id, {"message": "changed", **wrong}, ME)
        assert caught.value.status == 400
        assert stage.run(run_id) == before
        assert len(stage.events(run_id)) == 1

    # Trash

    def test_trash_and_restore(self, stage: Stage) -> None:
        run_id = stage.submit(name="gone")
        path = file_in(stage.run(run_id)["run_dir"], "out.txt", "result")
        for _ in range(2):
            with pytest.raises(ConflictError):
                stage.yard.remove(run_id, False, ME)
            stage.yard.hold(run_id, ME)
        stage.yard.kill(run_id, False, ME)
        stage.yard.remove(run_id, False, ME)
        run = stage.run(run_id)
        assert (run["files"], os.path.exists(path)) == ("trashed", False)
        assert os.path.exists(os.path.join(run["run_dir"], "out.txt"))
        assert run["trashed_at"]
        assert stage.yard.runs({}, ME)["runs"] == []
        assert [item["id"] for item in stage.yard.runs({"trashed": True}, ME)["runs"]] == [run_id]
        stage.yard.remove(run_id, False, ME)
        stage.yard.restore(run_id, ME)
        stage.yard.restore(run_id, ME)
        assert os.path.exists(path)
        assert (stage.run("gone")["id"], stage.run(run_id)["trashed_at"]) == (run_id, None)
        assert [event["kind"] for event in stage.events(run_id)][-2:] == ["trashed", "restored"]

    def test_what_is_brought_back_while_the_trash_empties_stays(self, stage: Stage) -> None:
        run_id = stage.submit()
        path = file_in(stage.run(run_id)["run_dir"], "out.txt", "result")
        stage.yard.kill(run_id, False, ME)
        stage.yard.remove(run_id, False, ME)
        stage.clock.advance(8 * 86400.0)

        def bring_back() -> bool:
            """Asked by the upkeep whether to leave off, once it has found what is due."""
            stage.yard.restore(run_id, ME)
            return False

        stage.inner.upkeep(bring_back)
        assert (stage.run(run_id)["trashed_at"], os.path.exists(path)) == (None, True)

    def test_a_name_finds_a_run_in_the_trash_when_no_other_run_has_it(self, stage: Stage) -> None:
        run_id = stage.submit(name="gone")
        stage.yard.kill(run_id, False, ME)
        stage.yard.remove("gone", False, ME)
        stage.yard.restore("gone", ME)
        assert stage.run(run_id)["trashed_at"] is None
        stage.yard.remove("gone", False, ME)
        newer = stage.submit(name="gone")
        assert stage.run("gone")["id"] == newer

    @pytest.mark.parametrize("trashed", [False, True])
    def test_removing_for_good(self, stage: Stage, trashed: bool) -> None:
        run_id = stage.submit(tags=["a"])
        stage.yard.kill(run_id, False, ME)
        top = os.path.dirname(stage.run(run_id)["run_dir"])
        file_in(top, "digits/out.txt", "result")
        if trashed:
            stage.yard.remove(run_id, False, ME)
            top = os.path.dirname(stage.run(run_id)["run_dir"])
        assert os.path.isdir(top)
        stage.yard.remove(run_id, True, ME)
        assert not os.path.exists(top)
        for call in (stage.run, stage.events):
            with pytest.raises(NotFoundError):
                call(run_id)
        with pytest.raises(NotFoundError):
            stage.yard.restore(run_id, ME)

    def test_a_running_run_cannot_be_removed(self, stage: Stage) -> None:
        run_id = stage.submit()
        agent = stage.agent()
        attempt = agent.take_and_start()
        for now in (False, True):
            with pytest.raises(ConflictError):
                stage.yard.remove(run_id, now, ME)
        agent.end(attempt)
        stage.yard.remove(run_id, True, ME)
        assert agent.end(attempt) == "unknown"

    def test_a_run_whose_process_may_live_cannot_be_removed(self, stage: Stage) -> None:
        agent = stage.agent()
        stage.warm_up(agent)
        run_id = stage.submit()
        attempt = agent.take_and_start()
        stage.pass_time(states.LEASE_S + 10)
        stage.yard.kill(run_id, False, ME)
        with pytest.raises(ConflictError):
            stage.yard.remove(run_id, False, ME)
        agent.end(attempt)
        stage.yard.remove(run_id, False, ME)

    def test_what_is_there_of_a_run(self, stage: Stage) -> None:
        run_id = stage.submit()
        agent = stage.agent()
        assert stage.run(run_id)["files"] == "none yet"
        attempt = agent.take_and_start()
        path = file_in(stage.run(run_id)["run_dir"], "out.txt", "result")
        assert stage.run(run_id)["files"] == "here"
        agent.end(attempt)
        base = os.path.dirname(stage.run(run_id)["run_dir"])
        shutil.rmtree(os.path.dirname(path))
        assert stage.run(run_id)["files"] == "here", "of a run elsewhere that wrote no file, there is its log"
        os.makedirs(os.path.join(base, ".runyard"), exist_ok=True)
        Path(base, ".runyard", "manifest").touch()  # the tree was filled here
        assert stage.run(run_id)["files"] == "gone"
        os.unlink(os.path.join(base, ".runyard", "manifest"))
        shutil.rmtree(base)
        assert stage.run(run_id)["files"] == "gone"

    # Tokens

    def test_named_tokens(self, stage: Stage) -> None:
        made = stage.yard.create_token("laptop", "agent", None, ME)
        assert (made["name"], made["scope"]) == ("laptop", "agent")
        assert stage.inner.authenticate(made["token"]).scope == "agent"
        assert made["token"] not in stage.dump()
        (row,) = stage.yard.tokens(ME)
        assert (row["name"], row["scope"], row["expires_at"]) == ("laptop", "agent", None)
        assert made["token"] not in str(row)
        with pytest.raises(ConflictError):
            stage.yard.create_token("laptop", "read", None, ME)
        stage.yard.revoke_token("laptop", ME)
        with pytest.raises(AuthError):
            stage.inner.authenticate(made["token"])
        with pytest.raises(NotFoundError):
            stage.yard.revoke_token("laptop", ME)
        for name, scope in (("", "owner"), ("x", "root"), ("a\n", "owner"), ("é", "owner")):
            with pytest.raises(RunyardError) as caught:
                stage.yard.create_token(name, scope, None, ME)
            assert caught.value.status == 400

    def test_a_token_ends_with_its_time(self, stage: Stage) -> None:
        made = stage.yard.create_token("short", "read", 60.0, ME)
        stage.clock.advance(59)
        assert stage.inner.authenticate(made["token"]).scope == "read"
        stage.clock.advance(2)
        with pytest.raises(AuthError):
            stage.inner.authenticate(made["token"])

    @pytest.mark.parametrize("token", ["", "ryt_", "rya_", "rya_x_y", "\0", "\udcff", "é", "ryt_" + "0" * 64])
    def test_what_is_no_token(self, stage: Stage, token: str) -> None:
        with pytest.raises(AuthError):
            stage.inner.authenticate(token)

    def test_the_token_of_an_attempt_ends_with_it(self, stage: Stage) -> None:
        run_id = stage.submit(retries=1)
        agent = stage.agent()
        first = agent.take()[0]
        actor = stage.inner.authenticate(first["token"])
        assert (actor.scope, actor.attempt) == ("attempt", first["attempt"])
        assert first["token"] not in stage.dump()
        agent.start(first["attempt"])
        agent.end(first["attempt"], 1)
        with pytest.raises(AuthError):
            stage.inner.authenticate(first["token"])
        (second,) = agent.take()
        assert stage.inner.authenticate(second["token"]).attempt == second["attempt"]
        forged = first["token"].replace(first["attempt"], second["attempt"])
        with pytest.raises(AuthError):
            stage.inner.authenticate(forged)
        stage.restart()
        assert stage.inner.authenticate(second["token"]).attempt == second["attempt"]
        assert stage.run(run_id)["state"] == states.RUNNING

    def test_unknown_runs_everywhere(self, stage: Stage) -> None:
        ref = new_run_id()
        calls = (
            lambda: stage.run(ref), lambda: stage.yard.kill(ref, False, ME), lambda: stage.yard.hold(ref, ME),
            lambda: stage.yard.release(ref, ME), lambda: stage.yard.remove(ref, False, ME),
            lambda: stage.yard.restore(ref, ME), lambda: stage.yard.edit(ref, {"message": ""}, ME),
            lambda: stage.events(ref), lambda: stage.yard.outputs(ref, ME),
        )  # fmt: skip
        for call in calls:
            with pytest.raises(NotFoundError):
                call()
