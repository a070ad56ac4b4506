"""Azure's Metadata Security Protocol leads connections to IMDS away, before there is a packet."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from podidentity.kernel import connecting
from podidentity.net.main import CHECK_SECONDS
from podidentity_sandbox.weather import CALM
from tests.acceptance.planes.site import REFUSED, SERVED, TIMES, Site, until
from tests.acceptance.sandbox import ANSWERED, CLOSED, opened
from tests.docs.blocks import ROOT
from tests.sandboxes import own

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a program at a cgroup: root")

NOTICED = 10.0
"""Seconds until it must be said, by the product's clock: a slow machine takes longer."""
SAID = "leads connections to 169.254.169.254:80 to 127.0.0.1:3080"
MAPPED = "'::ffff:169.254.169.254'"
"""The address by which an IPv6 socket reaches IMDS."""
BY_IPV6 = f"""python3 -c "
import http.client, socket
asking = http.client.HTTPConnection('169.254.169.254')
asking.sock = socket.socket(socket.AF_INET6)
asking.sock.settimeout({ANSWERED})
try:
    asking.sock.connect(({MAPPED}, 80))
    path = '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net'
    asking.request('GET', path, headers={{'Metadata': 'true', 'X-Nonce': 'NONCE'}})
    print(asking.getresponse().status)
except OSError:
    print('000')
" """


class ProtocolSite(Site):
    @contextmanager
    def protocol(self) -> Iterator[None]:
        """Have the node's machine speak the protocol: all of its pods, and NMI."""
        folder = Path(self.place.plan.cgroup_root, self.place.plan.nodes[0].name)
        program = (sys.executable, "-m", "tests.acceptance.planes.security_protocol", str(folder))
        with subprocess.Popen(
            program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as running:
            assert running.stdout is not None
            assert running.stdin is not None
            assert running.stdout.readline() == b"attached\n"
            yield
            running.stdin.close()


@pytest.fixture(scope="module")
def site() -> Iterator[ProtocolSite]:
    # Calm: the subject is the way of packets on the node, which no delay of Azure changes.
    with opened(own("protocol"), weather=CALM) as (place, azure, loop):
        place.start_pod()
        yield ProtocolSite(place, azure, loop)


def test_the_program_is_no_guard_without_our_rules_an_ipv6_socket_reaches_the_real_imds(
    site: ProtocolSite,
) -> None:
    assert site.ask() == (SERVED, TIMES)
    with site.protocol():
        assert site.ask(seconds=CLOSED) == (REFUSED, 0)
        assert site.ask(command=BY_IPV6) == (SERVED, TIMES)


def test_an_agent_to_which_no_request_of_a_pod_comes_says_what_it_is_and_nothing_leaks(
    site: ProtocolSite,
) -> None:
    site.loop.run(site.place.bind())
    assert site.ask() == (SERVED, 0)
    with site.protocol():
        # The probe may have noticed before that no request comes; this says why.
        found = until(site.place.readiness, lambda found: SAID in str(found["checks"]))
        assert connecting.LOOK_SECONDS + CHECK_SECONDS < NOTICED
        assert not found["ready"]
        log = site.place.run("kubectl", "logs", "-n", "kube-system", "daemonset/nmi", "-c", "net")
        metrics = site.place.on_node("curl", "-s", "http://127.0.0.1:9090/metrics")
        checked = site.until_findings(lambda found: SAID in str(found.get("NotReady")))
        assert site.ask(seconds=CLOSED) == (REFUSED, 0)
        assert site.ask(command=BY_IPV6) == (SERVED, 0), "to NMI, which has the token"
    for text in (str(found["checks"]["interception"]), log, checked["NotReady"]["message"]):
        assert SAID in text
        assert "Metadata Security Protocol" in text
    assert "podidentity_interception_healthy 0\n" in metrics


def test_when_the_protocol_is_off_pods_get_tokens_again(site: ProtocolSite) -> None:
    until(site.place.readiness, lambda found: found["ready"])
    assert site.ask() == (SERVED, 0)
