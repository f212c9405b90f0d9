"""Frames of a WebSocket (RFC 6455, section 5.2): their boundaries in a stream, and the closing one."""

from typing import Final

_CLOSE: Final = 0x88  # a final frame with the opcode of a close
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
#: Bytes of a longer length that follow the first two.
_MORE_LENGTH: Final = {126: 2, 127: 8}
_MASK_BYTES: Final = 4


def close_frame(code: int) -> bytes:
    """Return the frame by which a server closes a WebSocket with this code."""
    return bytes((_CLOSE, 2)) + code.to_bytes(2, "big")


class FrameBoundary:
    """Follows one direction of a WebSocket. Only between frames can another frame be added."""

    def __init__(self) -> None:
        self._header = b""
        self._payload_left = 0

    @property
    def is_between_frames(self) -> bool:
        return not self._header and not self._payload_left

    def feed(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._payload_left:
                step = min(self._payload_left, len(data) - at)
                self._payload_left -= step
            else:
                step = min(_header_size(self._header) - len(self._header), len(data) - at)
                self._read_header(data[at : at + step])
            at += step

    def _read_header(self, data: bytes) -> None:
        self._header += data
        if len(self._header) < 2 or len(self._header) < _header_size(self._header):
            return
        length = self._header[1] & _LENGTH
        if more := _MORE_LENGTH.get(length):
            length = int.from_bytes(self._header[2 : 2 + more], "big")
        self._header, self._payload_left = b"", length


def _header_size(header: bytes) -> int:
    if len(header) < 2:
        return 2
    mask = _MASK_BYTES if header[1] & _MASKED else 0
    return 2 + _MORE_LENGTH.get(header[1] & _LENGTH, 0) + mask
