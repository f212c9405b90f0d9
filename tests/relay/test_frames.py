"""Where frames begin and end in a WebSocket's stream of bytes."""

import pytest
from websockets.frames import Close, Frame, Opcode

from pat_service.relay.frames import FrameBoundary, close_frame

PAYLOADS = [b"", b"x", b"y" * 125, b"z" * 126, b"a" * 65_535, b"b" * 65_536]


def frame(payload: bytes, *, mask: bool = False) -> bytes:
    return Frame(Opcode.BINARY, payload).serialize(mask=mask)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("payload", PAYLOADS, ids=len)
def test_a_frame_ends_with_its_last_byte(payload: bytes, mask: bool) -> None:
    data = frame(payload, mask=mask)
    boundary = FrameBoundary()
    assert boundary.is_between_frames
    for first in (data[:1], data[1:-1]):
        boundary.feed(first)
        assert boundary.is_between_frames is (first == b"" and len(data) == 1)
    boundary.feed(data[-1:])
    assert boundary.is_between_frames


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_chunks_of_any_size_give_the_same_boundaries(size: int) -> None:
    data = b"".join(map(frame, PAYLOADS[:4]))
    ends = {sum(len(frame(payload)) for payload in PAYLOADS[:n]) for n in range(5)}
    boundary = FrameBoundary()
    for start in range(0, len(data), size):
        chunk = data[start : start + size]
        boundary.feed(chunk)
        assert boundary.is_between_frames is (start + len(chunk) in ends)


def test_a_close_frame_is_that_of_the_websockets_library() -> None:
    assert close_frame(1008) == Frame(Opcode.CLOSE, Close(1008, "").serialize()).serialize(mask=False)
