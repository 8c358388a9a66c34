"""Readers over one file do not disturb each other."""

import io
import os
from threading import Lock

from hypothesis import given
from hypothesis import strategies as st

from media.shared_file import SharedFile

CONTENT = bytes(range(200))
MOVES = st.lists(
    st.tuples(st.booleans(), st.sampled_from(["read", "set", "cur", "end"]), st.integers(0, 60)), max_size=30
)


@given(MOVES)
def test_each_reader_behaves_like_a_file_of_its_own(moves: list[tuple[bool, str, int]]) -> None:
    file, lock = io.BytesIO(CONTENT), Lock()
    shared = {which: SharedFile(file, lock) for which in (True, False)}
    own = {which: io.BytesIO(CONTENT) for which in (True, False)}
    for which, move, amount in moves:
        both = (shared[which], own[which])
        if move == "read":
            first, second = (x.read(amount) for x in both)
        else:
            offset, whence = {"set": (amount, 0), "cur": (amount, 1), "end": (-amount, 2)}[move]
            first, second = (x.seek(offset, whence) for x in both)
        assert first == second
        assert shared[which].tell() == own[which].tell()


def test_closing_a_reader_leaves_the_file_open() -> None:
    file = io.BytesIO(CONTENT)
    reader = SharedFile(file, Lock())
    assert reader.readable()
    assert reader.seekable()
    reader.seek(-1, os.SEEK_END)
    assert reader.read() == CONTENT[-1:]
    reader.close()
    assert not file.closed
