from __future__ import annotations

import pytest

from podidentity.kernel.attestation import SLACK_MS, NoCounters, difference, other_end
from podidentity.kernel.sock_diag import TcpInfo, TcpSocket, TcpState

OF_CLIENT = TcpInfo(
    last_data_sent=40,
    last_data_recv=90,
    last_ack_recv=40,
    bytes_acked=101,
    bytes_received=0,
    bytes_sent=100,
    bytes_retrans=0,
)
OURS = TcpInfo(
    last_data_sent=90,
    last_data_recv=40,
    last_ack_recv=40,
    bytes_acked=0,
    bytes_received=100,
    bytes_sent=0,
    bytes_retrans=0,
)
ANSWERED = OURS._replace(bytes_sent=500, bytes_acked=500, last_data_sent=20)
READER = OF_CLIENT._replace(bytes_received=500, last_data_recv=20, last_ack_recv=20)


def end(info: TcpInfo | None, state: TcpState = TcpState.ESTABLISHED) -> TcpSocket:
    return TcpSocket(state, 5, 77, 0, info)


HONEST = {
    "after its request": (OF_CLIENT, OURS),
    "before any request": (
        OF_CLIENT._replace(bytes_sent=0, last_data_sent=90),
        OURS._replace(bytes_received=0, last_data_recv=90),
    ),
    "with a request that is on its way": (OF_CLIENT._replace(bytes_sent=300), OURS),
    "with retransmissions": (OF_CLIENT._replace(bytes_sent=300, bytes_retrans=200), OURS),
    "answered before without a proof": (READER, ANSWERED),
    "which has not got all of the answer": (
        READER._replace(bytes_received=50),
        ANSWERED._replace(bytes_acked=0),
    ),
    "whose answer was sent twice": (
        READER,
        ANSWERED._replace(bytes_sent=900, bytes_retrans=400, bytes_acked=0),
    ),
    "which was acknowledged before the connection was complete": (
        OF_CLIENT._replace(last_ack_recv=91, last_data_sent=41),
        OURS,
    ),
    "an hour in our backlog": (
        OF_CLIENT._replace(last_data_sent=3_600_000, last_ack_recv=3_600_000),
        OURS._replace(last_data_recv=3_600_000, last_data_sent=3_600_050),
    ),
}
STALE = {
    "it has sent less than arrived": (OF_CLIENT._replace(bytes_sent=99), OURS, "has sent 99"),
    "it has received what we have not sent": (
        READER,
        OURS,
        "has received 500 bytes, and we have sent 0",
    ),
    "it has received more than we have sent": (
        READER._replace(bytes_received=501),
        ANSWERED,
        "has received 501",
    ),
    "what we sent twice counts once": (
        READER._replace(bytes_received=501),
        ANSWERED._replace(bytes_sent=900, bytes_retrans=400, bytes_acked=0),
        "we have sent 500",
    ),
    "it has received less than was acknowledged": (
        READER._replace(bytes_received=499),
        ANSWERED,
        "has received 499",
    ),
    "it sent its last data long before": (
        OF_CLIENT._replace(last_data_sent=41 + SLACK_MS),
        OURS,
        "it sent its last data",
    ),
    "it was acknowledged before the connection began": (
        OF_CLIENT._replace(last_ack_recv=91 + SLACK_MS),
        OURS,
        "last acknowledgement",
    ),
}


@pytest.mark.parametrize("state", ["ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2"])
@pytest.mark.parametrize("case", HONEST)
def test_an_honest_client_may_be_the_other_end(case: str, state: str) -> None:
    client, ours = HONEST[case]
    assert difference(end(client, TcpState[state]), end(ours)) == ""


@pytest.mark.parametrize("case", STALE)
def test_a_socket_of_another_connection_differs(case: str) -> None:
    client, ours, why = STALE[case]
    assert why in difference(end(client), end(ours))


@pytest.mark.parametrize("state", ["CLOSE_WAIT", "LAST_ACK", "CLOSING", "SYN_RECV"])
def test_a_client_that_was_told_of_an_end_is_of_another_connection(state: str) -> None:
    assert "we have sent none" in difference(end(OF_CLIENT, TcpState[state]), end(OURS))


def test_the_clients_fin_is_a_byte_that_it_has_not_sent() -> None:
    ours = OURS._replace(bytes_received=101)
    assert difference(end(OF_CLIENT, TcpState.FIN_WAIT2), end(ours, TcpState.CLOSE_WAIT)) == ""
    assert difference(end(OF_CLIENT), end(ours)) != ""


@pytest.mark.parametrize(("client", "ours"), [(None, OURS), (OF_CLIENT, None)])
def test_without_counters_nothing_is_compared(client: TcpInfo | None, ours: TcpInfo | None) -> None:
    with pytest.raises(NoCounters, match="tcpi_bytes_sent"):
        difference(end(client), end(ours))


def test_of_two_sockets_with_one_port_the_fitting_one_counts_and_of_two_that_fit_none() -> None:
    """One is to IMDS, and one to the node's address: Cilium redirects packets, or connect(2)."""
    ours, fits, stale = end(OURS), end(OF_CLIENT), end(OF_CLIENT._replace(bytes_sent=99))
    assert other_end([fits], ours) == (fits, "")
    assert other_end([stale, fits], ours) == (fits, "")
    assert "has sent 99" in other_end([stale, stale], ours)[1]
    assert "another of the same port" in other_end([fits, fits], ours)[1]
