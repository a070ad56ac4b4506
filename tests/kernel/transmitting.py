"""Other ways for a pod to send frames of its own making than a call for each.

A ring of a packet socket (packet(7), PACKET_TX_RING) and a socket of AF_XDP, both in memory that
the pod shares with the kernel: linux/if_packet.h, linux/if_xdp.h. CAP_NET_RAW is enough for either.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct

_SOL_PACKET, _VERSION, _TX_RING, _V2 = 263, 10, 13, 1
_PAGE, _FRAME, _FRAMES = 4096, 2048, 16
_HEAD = 32  # TPACKET2_HDRLEN without the sockaddr_ll
_SEND_REQUEST = 1

_AF_XDP, _SOL_XDP = 44, 283
_OFFSETS, _TX, _MEMORY, _FILL, _DONE = 1, 3, 4, 5, 6
_AT_TX, _AT_DONE = 0x80000000, 0x180000000
_COPY = 2

_libc = ctypes.CDLL(None, use_errno=True)


class PacketRing:
    """Puts frames into a ring of a packet socket."""

    def __init__(self) -> None:
        self._sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._sender.setsockopt(_SOL_PACKET, _VERSION, _V2)
        ring = struct.pack("=IIII", _PAGE, _FRAMES // 2, _FRAME, _FRAMES)
        self._sender.setsockopt(_SOL_PACKET, _TX_RING, ring)
        self._sender.bind(("eth0", 0))
        self._ring = mmap.mmap(self._sender.fileno(), _FRAME * _FRAMES)
        self._sent = 0

    def send(self, frame: bytes) -> None:
        """Send one frame."""
        at = self._sent % _FRAMES * _FRAME
        self._sent += 1
        self._ring[at + _HEAD : at + _HEAD + len(frame)] = frame
        struct.pack_into("=II", self._ring, at, _SEND_REQUEST, len(frame))
        self._sender.send(b"")


class XdpSocket:
    """Puts frames into a socket of AF_XDP, which needs no program at the interface to send.

    Raises OSError where the kernel has none.
    """

    def __init__(self) -> None:
        self._sender = socket.socket(_AF_XDP, socket.SOCK_RAW, 0)
        self._frames = mmap.mmap(-1, _FRAME * _FRAMES)
        place = ctypes.addressof(ctypes.c_char.from_buffer(self._frames))
        memory = struct.pack("=QQIII4x", place, _FRAME * _FRAMES, _FRAME, 0, 0)
        self._sender.setsockopt(_SOL_XDP, _MEMORY, memory)
        for ring in (_FILL, _DONE, _TX):
            self._sender.setsockopt(_SOL_XDP, ring, _FRAMES)
        offsets = struct.unpack("=16Q", self._sender.getsockopt(_SOL_XDP, _OFFSETS, 128))
        # Of each ring: producer, consumer, descriptors, flags; of received, sent, free, done ones.
        self._of_sent, self._of_done = offsets[4:8], offsets[12:16]
        end = self._of_sent[2] + _FRAMES * 16
        self._ring = mmap.mmap(self._sender.fileno(), end, offset=_AT_TX)
        end = self._of_done[2] + _FRAMES * 8
        self._done = mmap.mmap(self._sender.fileno(), end, offset=_AT_DONE)
        bound = struct.pack("=HHIII", _AF_XDP, _COPY, socket.if_nametoindex("eth0"), 0, 0)
        if _libc.bind(self._sender.fileno(), bound, len(bound)):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self._sent = 0

    def send(self, frame: bytes) -> None:
        """Send one frame."""
        at = self._sent % _FRAMES
        self._frames[at * _FRAME : at * _FRAME + len(frame)] = frame
        entry = self._of_sent[2] + at * 16
        struct.pack_into("=QII", self._ring, entry, at * _FRAME, len(frame), 0)
        self._sent += 1
        struct.pack_into("=I", self._ring, self._of_sent[0], self._sent)
        _libc.sendto(self._sender.fileno(), None, 0, socket.MSG_DONTWAIT, None, 0)
        # What has been sent is taken back at once.
        done = struct.unpack_from("=I", self._done, self._of_done[0])
        struct.pack_into("=I", self._done, self._of_done[1], *done)
