"""The two doors: a Unix socket for the owner's processes on this host, TCP for browsers and other hosts."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat

from runyard.wire.errors import ConfigError, HomeError
from runyard.wire.settings import DEFAULT_PORT, split_address

PORTS_TRIED = 100


def private_directory(path: str) -> None:
    """Make a directory that only this user can enter, or check one that exists.

    Raises HomeError when it belongs to somebody else, who could then put a socket of their own in its place.
    """
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise HomeError(
                f"{path} is no directory of yours (it belongs to uid {found.st_uid})",
                "remove it, or set RUNYARD_HOME to another directory",
            )
        if found.st_mode & 0o077:
            os.chmod(path, 0o700)
    except OSError as exc:
        raise HomeError(
            f"the directory {path} cannot be used: {exc.strerror}", "set RUNYARD_HOME to another directory"
        ) from exc


def bind_unix(path: str) -> socket.socket:
    """Bind the Unix socket; one that a dead server left is replaced. The caller holds the server's lock."""
    private_directory(os.path.dirname(path))
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        sock.bind(path)
        os.chmod(path, 0o600)
        sock.setblocking(False)
    except OSError as exc:
        sock.close()
        raise HomeError(
            f"the socket {path} cannot be made: {exc.strerror}", "set RUNYARD_HOME to a directory on a local disk"
        ) from exc
    return sock


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this host only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind_tcp(listen: str) -> socket.socket:
    """Bind the web address. Raises ConfigError when that port is taken.

    Only where no port was asked for, and on loopback, is it the next free one: agents and browsers elsewhere know the port.
    """
    host, asked = split_address(listen)
    ports = [DEFAULT_PORT if asked is None else asked]
    if asked is None and is_loopback(host):
        ports = [*range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED), 0]
    for candidate in ports:
        sock = None
        try:
            family, kind, proto, _, address = socket.getaddrinfo(
                host, candidate, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            sock = socket.socket(family, kind, proto)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            # Binding succeeds while another process is bound but does not listen yet; listening then tells.
            sock.listen(1)
            sock.setblocking(False)
            return sock
        except OSError as exc:
            if sock is not None:
                sock.close()
            if exc.errno in (errno.EADDRINUSE, errno.EACCES) and candidate != ports[-1]:
                continue
            raise ConfigError(
                f"cannot listen on {listen}: {exc.strerror or exc}", "choose another address with --listen"
            ) from exc
    raise ConfigError(f"cannot listen on {listen}")


def has_moved(sock: socket.socket, listen: str) -> bool:
    """Tell whether `bind_tcp` took another port than the usual one, because that was taken."""
    return split_address(listen)[1] is None and sock.getsockname()[1] != DEFAULT_PORT


def address_url(sock: socket.socket) -> str:
    """Return the URL by which a TCP socket is reached; for one on all addresses, with this host's name."""
    host, port = sock.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def host_names(sock: socket.socket, listen: str) -> frozenset[str]:
    """Return the values of the Host header that mean this server; ``*`` stands for any address in digits."""
    asked, _ = split_address(listen)
    bound = str(sock.getsockname()[0])
    names = {"localhost", "127.0.0.1", "::1", asked.lower(), bound.lower()}
    if not is_loopback(bound):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    if ipaddress.ip_address(bound).is_unspecified:
        names.add("*")
    return frozenset(names)
