from __future__ import annotations

import errno
import struct

import pytest

from podidentity.kernel import addresses, netlink, sock_diag
from podidentity.kernel.drift import committer
from podidentity.kernel.sock_diag import Endpoint, TcpInfo, TcpSocket

CLIENT = Endpoint("10.244.0.11", 44016)
IMDS = Endpoint("169.254.169.254", 80)

# As `ss` sends it for one socket, little-endian (the two architectures that AKS has).
SOCKET_REQUEST = bytes.fromhex(
    "48000000 1400 0100 07000000 00000000"  # 72 bytes, SOCK_DIAG_BY_FAMILY, REQUEST, sequence 7
    "02 06 02 00 ffffffff"  # AF_INET, TCP, with INET_DIAG_INFO, any state
    "abf0 0050"  # ports, in network order
    "0af4000b 00000000 00000000 00000000"
    "a9fea9fe 00000000 00000000 00000000"
    "02000000 ffffffffffffffff"  # interface 2, any cookie
)
ADDRESSES_REQUEST = bytes.fromhex(
    "18000000 1600 0103 07000000 00000000"  # 24 bytes, RTM_GETADDR, REQUEST|DUMP
    "02 00 00 00 00000000"
)


def test_the_request_for_a_socket_is_these_bytes() -> None:
    assert sock_diag.encode_request(7, CLIENT, IMDS, interface=2) == SOCKET_REQUEST


def test_the_request_for_addresses_is_these_bytes() -> None:
    assert addresses.encode_request(7) == ADDRESSES_REQUEST


def socket_answer(state: int, inode: int, cgroup: bytes = b"") -> netlink.Message:
    body = struct.pack("=BBBB48sIIIII", 2, state, 0, 0, bytes(48), 0, 0, 0, 1000, inode)
    return netlink.Message(20, 0, 7, body + cgroup)


def test_a_socket_is_described_by_state_inode_cgroup_and_user() -> None:
    cgroup = netlink.attribute(4, b"x") + netlink.attribute(21, (3559).to_bytes(8, "little"))
    assert sock_diag.decode_answer(socket_answer(1, 61808, cgroup)) == TcpSocket(
        1, 61808, 3559, 1000
    )


def test_its_counters_are_read_from_tcp_info() -> None:
    info = bytearray(280)
    struct.pack_into("=IIII", info, 44, 1, 99, 2, 3)
    struct.pack_into("=QQ", info, 120, 4, 5)
    struct.pack_into("=QQ", info, 200, 6, 7)
    found = sock_diag.decode_answer(socket_answer(1, 61808, netlink.attribute(2, bytes(info))))
    assert found.info == TcpInfo(1, 2, 3, 4, 5, 6, 7)


def test_a_kernel_that_counts_no_sent_bytes_gives_no_counters() -> None:
    assert sock_diag.decode_answer(socket_answer(1, 61808)).info is None
    older = netlink.attribute(2, bytes(200))  # Linux 4.18
    assert sock_diag.decode_answer(socket_answer(1, 61808, older)).info is None


def test_a_kernel_that_knows_no_cgroup_of_a_socket_says_so() -> None:
    assert sock_diag.decode_answer(socket_answer(1, 61808)).cgroup == 0


def test_an_answer_of_another_kind_is_no_socket() -> None:
    with pytest.raises(netlink.MalformedMessage, match="describes no socket"):
        sock_diag.decode_answer(netlink.Message(21, 0, 7, bytes(100)))


@pytest.mark.parametrize(
    ("state", "inode", "is_open", "is_of_connection"),
    [
        ("ESTABLISHED", 5, True, True),
        ("FIN_WAIT1", 5, True, True),
        ("FIN_WAIT2", 5, True, True),
        ("CLOSE_WAIT", 5, True, True),
        ("FIN_WAIT2", 0, False, True),
        ("ESTABLISHED", 0, False, True),
        ("TIME_WAIT", 0, False, True),
        ("CLOSING", 5, False, True),
        ("LAST_ACK", 5, False, True),
        ("LISTEN", 5, False, False),
        ("SYN_SENT", 5, False, False),
    ],
)
def test_only_a_socket_that_somebody_can_still_read_is_open(
    state: str, inode: int, *, is_open: bool, is_of_connection: bool
) -> None:
    numbers = ["ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT"]
    numbers += ["CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING"]
    found = TcpSocket(numbers.index(state) + 1, inode, 0)
    assert (found.is_open, found.is_of_connection) == (is_open, is_of_connection)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (netlink.attribute(2, bytes([10, 0, 0, 1])), ("10.0.0.1", 3)),
        # On a point-to-point link attribute 1 is the peer's address.
        (
            netlink.attribute(1, bytes([10, 0, 0, 9])) + netlink.attribute(2, bytes([10, 0, 0, 1])),
            ("10.0.0.1", 3),
        ),
        (netlink.attribute(1, bytes([10, 0, 0, 1])), ("10.0.0.1", 3)),
        (b"", None),
    ],
)
def test_an_address_is_the_local_one(attributes: bytes, expected: tuple[str, int] | None) -> None:
    message = netlink.Message(20, 0, 1, struct.pack("=BBBBI", 2, 24, 0, 0, 3) + attributes)
    assert addresses.decode_answer(message) == expected


def test_messages_of_a_datagram_are_read_one_by_one() -> None:
    datagram = netlink.encode(20, 0, 1, b"abcde") + bytes(3) + netlink.encode(3, 2, 1, b"")
    assert [(each.kind, each.payload) for each in netlink.decode(datagram)] == [
        (20, b"abcde"),
        (3, b""),
    ]


def test_an_error_message_carries_its_number() -> None:
    body = struct.pack("=i", -errno.ENOENT) + bytes(16)
    assert netlink.Message(netlink.NLMSG_ERROR, 0, 1, body).errno == errno.ENOENT
    assert netlink.Message(netlink.NLMSG_ERROR, 0, 1, bytes(20)).errno == 0
    assert netlink.Message(20, 0, 1, body).errno == 0


@pytest.mark.parametrize(
    "datagram",
    [
        b"\x10\x00\x00",
        struct.pack("=IHHII", 15, 20, 0, 1, 0),
        struct.pack("=IHHII", 17, 20, 0, 1, 0),
    ],
    ids=["half a header", "shorter than its header", "longer than the datagram"],
)
def test_a_message_that_does_not_fit_is_malformed(datagram: bytes) -> None:
    with pytest.raises(netlink.MalformedMessage):
        list(netlink.decode(datagram))


@pytest.mark.parametrize("length", [0, 3, 9])
def test_an_attribute_that_does_not_fit_is_malformed(length: int) -> None:
    with pytest.raises(netlink.MalformedMessage):
        netlink.attributes(struct.pack("=HH", length, 1) + bytes(4))


def test_flags_in_an_attributes_type_are_no_part_of_it() -> None:
    assert netlink.attributes(struct.pack("=HH", 4, 0x8000 | 5)) == {5: b""}


def generation(pid: int, name: bytes) -> bytes:
    attributes = netlink.attribute(1, struct.pack(">I", 9))
    attributes += netlink.attribute(2, struct.pack(">I", pid)) + netlink.attribute(3, name)
    return netlink.encode((10 << 8) | 15, 0, 0, bytes(4) + attributes)


@pytest.mark.parametrize(
    ("datagram", "cause"),
    [
        (generation(4711, b"nft\0"), "'nft' (pid 4711)"),
        (generation(4711, b"evil\nname\0"), "'evil\\nname' (pid 4711)"),
        (netlink.encode((10 << 8) | 1, 0, 0, bytes(4)), ""),
        (netlink.encode((10 << 8) | 15, 0, 0, bytes(4)), ""),
        (b"\0\0", ""),
        (b"", ""),
    ],
)
def test_who_changed_rules_is_told_as_far_as_the_kernel_tells_it(
    datagram: bytes, cause: str
) -> None:
    assert committer(datagram) == cause
