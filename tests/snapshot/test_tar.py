"""The reader of tars agrees with Python's own writer, and refuses what is damaged."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runyard.wire.tar import DIRECTORY, FILE, SYMLINK, Reader, TarError

KINDS = {FILE: tarfile.REGTYPE, SYMLINK: tarfile.SYMTYPE, DIRECTORY: tarfile.DIRTYPE}
NAMES = st.lists(
    st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=60),
    min_size=1, max_size=8,
).map("/".join)  # fmt: skip
MEMBERS = st.lists(
    st.one_of(
        st.tuples(NAMES, st.just(FILE), st.binary(max_size=1500)),
        st.tuples(NAMES, st.just(SYMLINK), NAMES.map(str.encode)),
        st.tuples(NAMES, st.just(DIRECTORY), st.just(b"")),
    ),
    max_size=6,
)


def write(members: list[tuple[str, str, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return the tar of members (name, kind, content or target)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, pax_headers={"comment": "0" * 40}) as tar:
        for name, kind, data in members:
            info = tarfile.TarInfo(name)
            info.type = KINDS[kind]
            if kind == SYMLINK:
                info.linkname = data.decode()
            info.size = len(data) if kind == FILE else 0
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def read(data: bytes) -> list[tuple[str, str, bytes]]:
    """Return what the reader finds in a tar."""
    reader = Reader(io.BytesIO(data))
    return [
        (m.name.decode(), m.kind, m.target if m.kind == SYMLINK else b"".join(reader.content())) for m in reader
    ]  # fmt: skip


@settings(deadline=None)
@given(MEMBERS)
def test_it_reads_what_was_written(members: list[tuple[str, str, bytes]]) -> None:
    found = read(write(members))
    assert [(name.rstrip("/"), kind, data) for name, kind, data in found] == [
        (name.rstrip("/"), kind, data) for name, kind, data in members
    ]


def test_content_that_is_not_asked_for_is_skipped() -> None:
    reader = Reader(io.BytesIO(write([("a", FILE, b"x" * 700), ("b", FILE, b"y" * 512), ("c", FILE, b"")])))
    assert [member.name for member in reader] == [b"a", b"b", b"c"]


def test_names_of_the_older_format_that_are_split_in_two() -> None:
    name = "d" * 80 + "/" + "e" * 90
    assert read(write([(name, FILE, b"x")], tarfile.USTAR_FORMAT)) == [(name, FILE, b"x")]


def test_nothing_is_read_after_the_end() -> None:
    stream = io.BytesIO(write([("a", FILE, b"x")]) + b"more")
    assert [member.name for member in Reader(stream)] == [b"a"]


@settings(deadline=None)
@given(st.integers(0, 4000))
def test_a_tar_that_ends_early_is_refused(cut: int) -> None:
    data = write([("a", FILE, b"x" * 700), ("b" * 120, FILE, b"y")])
    end = len(data.rstrip(b"\0")) // 512 * 512 + 512  # where the first of the two blocks that end it begins
    if cut < end + 512:
        with pytest.raises(TarError):
            read(data[:cut])
    else:
        assert len(read(data[:cut])) == 2


@settings(deadline=None)
@given(st.integers(0, 511), st.integers(1, 255))
def test_a_damaged_header_is_refused(at: int, change: int) -> None:
    data = bytearray(write([("a", FILE, b"x" * 700)]))
    start = data.index(b"a\0")
    data[start + at] ^= change
    try:
        found = read(bytes(data))
    except TarError:
        return
    assert found == [("a", FILE, b"x" * 700)]  # a change within the checksum's own padding


@pytest.mark.parametrize("records", [b"9 path=a\n", b"x path=a\n", b"-3 path=a\n", b"0 path=a\n", b"11 size=-1\n"])
def test_malformed_pax_records_are_refused(records: bytes) -> None:
    data = bytearray(write([("b" * 120, FILE, b"y")]))
    at = data.index(b"130 path=" if b"130 path=" in data else b" path=") // 512 * 512
    data[at : at + 512] = records.ljust(512, b"\0")
    with pytest.raises(TarError):
        read(bytes(data))
