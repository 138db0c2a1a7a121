"""Starting git: without a shell, without the ``subprocess`` module (importing that costs as much as all of git's work).

Two environments: in the user's repository git reads and never writes; in the yard's it sees no user configuration.
"""

from __future__ import annotations

import os

from runyard.wire.errors import SnapshotError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_CHUNK = 1 << 16
_CONFIG_PLACES = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM")


def user_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for reading a user's repository: no inherited GIT_*, no writing, no network."""
    env = {k: v for k, v in environ.items() if not k.startswith("GIT_") or k in _CONFIG_PLACES}
    env.update(
        GIT_OPTIONAL_LOCKS="0", GIT_NO_LAZY_FETCH="1", GIT_ALLOW_PROTOCOL="none", GIT_TERMINAL_PROMPT="0", LC_ALL="C"
    )
    return env


def yard_environment(environ: Mapping[str, str], git_dir: str) -> dict[str, str]:
    """Return the environment for the yard's own repository: no configuration but the repository's."""
    env = {k: v for k, v in environ.items() if not k.startswith("GIT_")}
    env.update(
        GIT_DIR=git_dir, GIT_CONFIG_NOSYSTEM="1", GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_SYSTEM=os.devnull,
        GIT_ATTR_NOSYSTEM="1", GIT_TERMINAL_PROMPT="0", HOME=git_dir, XDG_CONFIG_HOME=git_dir, LC_ALL="C",
    )  # fmt: skip
    return env


class Git:
    """One git process, started at once; its output is a pipe, so two may run side by side.

    Use as a context manager: leaving it early stops the process. Raises `SnapshotError` when there is no git.
    ``hint``: what the user can do when git fails.
    """

    def __init__(
        self,
        args: Sequence[str | bytes],
        env: Mapping[str, str],
        stdin: bytes = b"",
        hint: str = "see what `git status` says there",
    ) -> None:
        self._args = args
        self._hint = hint
        self._code: int | None = None
        source = _scratch(stdin)
        self._errors = _scratch(b"")
        read_end, write_end = os.pipe()
        actions = [
            (os.POSIX_SPAWN_DUP2, source, 0),
            (os.POSIX_SPAWN_DUP2, write_end, 1),
            (os.POSIX_SPAWN_DUP2, self._errors, 2),
        ]
        try:
            self._pid = os.posix_spawnp("git", ["git", *args], env, file_actions=actions)
        except OSError as exc:
            os.close(read_end)
            os.close(self._errors)
            raise SnapshotError("git cannot be started: %s" % exc.strerror, "install git, it freezes the code") from exc
        finally:
            os.close(source)
            os.close(write_end)
        self._out = read_end

    def chunks(self, size: int = _CHUNK) -> Iterator[bytes]:
        """Yield the output as it comes, at most ``size`` bytes at a time."""
        while True:
            data = os.read(self._out, size)
            if not data:
                return
            yield data

    def wait(self) -> int:
        """Return the exit code (negative: the signal that ended it)."""
        if self._code is None:
            self._code = _exit_code(os.waitpid(self._pid, 0)[1])
        return self._code

    def errors(self) -> str:
        """Return the last lines of what git wrote to stderr."""
        size = os.fstat(self._errors).st_size
        data = os.pread(self._errors, 2000, max(0, size - 2000))
        return data.decode("utf-8", "replace").strip()

    def output(self, limit: int | None = None) -> bytes:
        """Return the whole output; raises `SnapshotError` when git fails, OverflowError beyond ``limit`` bytes."""
        parts, size = [], 0
        for chunk in self.chunks():
            parts.append(chunk)
            size += len(chunk)
            if limit is not None and size > limit:
                raise OverflowError
        if self.wait() != 0:
            raise self.failure()
        return b"".join(parts)

    def failure(self) -> SnapshotError:
        """Return the error that says what git said."""
        words = [arg.decode("utf-8", "replace") if isinstance(arg, bytes) else arg for arg in self._args]
        verb = next((w for w in words if w.replace("-", "").isalpha() and not w.startswith("-")), "")
        said = "; ".join(dict.fromkeys(self.errors().splitlines())) or "exit status %d" % self.wait()
        return SnapshotError("git %s failed: %s" % (verb, said), self._hint)

    def __enter__(self) -> Git:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._code is None:
            os.close(self._out)
            try:
                os.kill(self._pid, 15)
            except ProcessLookupError:
                pass
            self.wait()
        else:
            os.close(self._out)
        os.close(self._errors)


def _scratch(data: bytes) -> int:
    """Return a descriptor of an unnamed file in memory that holds these bytes, placed at its start."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("runyard")
    else:
        import tempfile  # no memory files on this system; slow to import

        fd, path = tempfile.mkstemp()
        os.unlink(path)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _exit_code(status: int) -> int:
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
