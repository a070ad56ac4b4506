"""Programs at pods' links that send packets past the host's netfilter, as eBPF host routing does.

What Cilium's programs send meets the node's routes: those close IMDS. AKS's restriction is in
netfilter, and lets it pass.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest

from podidentity_sandbox.plan import Network
from podidentity_sandbox.weather import CALM
from tests.acceptance.planes.host_routing import KINDS
from tests.acceptance.planes.links import host_routing, link_of
from tests.acceptance.planes.site import REFUSED, SERVED, TIMES, Site, until
from tests.acceptance.planes.test_others_rules import restriction
from tests.acceptance.sandbox import CLOSED, opened
from tests.sandboxes import own

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a program in the kernel: root"),
    pytest.mark.parametrize("site", Network, indirect=True),
]

PROBE = ("-l", "app.kubernetes.io/component=probe")
CILIUMS = ("single", "looked-up")


@dataclass
class RoutedSite(Site):
    without_ours: dict[str, tuple[list[str], int]]
    """What a pod got beside AKS's restriction, by the program at its link."""

    def program(
        self, *kind: str, pod: str = "app", namespace: str = "default"
    ) -> AbstractContextManager[None]:
        """Have a program of this kind at a pod's link."""
        return host_routing(self.place, link_of(self.place, self.loop, namespace, pod), *kind)


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest) -> Iterator[RoutedSite]:
    network: Network = request.param
    # Calm: the subject is the way of packets on the node, which no delay of Azure changes.
    with opened(own(f"routing-{network}"), network, weather=CALM) as (place, azure, loop):
        place.start_pod()
        site = RoutedSite(place, azure, loop, {})
        restricted = restriction("filter", place.plan.nodes[0].address, there=True)
        place.on_node("sh", "-ec", restricted)
        site.without_ours["none"] = site.ask(seconds=CLOSED)
        for kind in KINDS:
            with site.program(kind):
                site.without_ours[kind] = site.ask()
        with site.program("next-hop", "alone"):
            site.without_ours["alone"] = site.ask()
        loop.run(place.bind())
        assert site.ask() == (SERVED, 0)
        yield site


def test_without_our_rules_each_program_passes_akss_restriction(site: RoutedSite) -> None:
    open_to = dict.fromkeys([*KINDS, "alone"], (SERVED, TIMES))
    assert site.without_ours == {"none": (REFUSED, 0), **open_to}


@pytest.mark.parametrize("kind", CILIUMS)
def test_what_ciliums_programs_send_past_netfilter_meets_a_route_that_closes_imds(
    site: RoutedSite, kind: str
) -> None:
    with site.program(kind):
        assert site.ask(seconds=CLOSED) == (REFUSED, 0)
        status = "curl -s -m 60 -o /dev/null -w %{http_code} -H Metadata:true"
        said = site.place.on_node(*status.split(), "http://169.254.169.254/metadata/instance")
        assert said != "000", "the node itself reaches IMDS"
    assert site.ask() == (SERVED, 0)


@pytest.mark.parametrize("kind", CILIUMS)
def test_the_probe_notices_that_no_request_arrives(site: RoutedSite, kind: str) -> None:
    listed = site.place.run("kubectl", "get", "pods", "-n", "kube-system", "-o", "name", *PROBE)
    pod = listed.strip().removeprefix("pod/")
    with site.program(kind, pod=pod, namespace="kube-system"):
        found = until(site.place.readiness, lambda found: not found["ready"])
    assert found["path"]["hop"] == "no-answer"
    until(site.place.readiness, lambda found: found["ready"])


def test_what_passes_every_rule_has_no_answer_that_comes_back_through_the_node(
    site: RoutedSite,
) -> None:
    with site.program("next-hop", "alone"):
        assert site.ask(seconds=CLOSED) == (REFUSED, 0)


def test_a_program_that_names_the_next_hop_itself_passes_every_rule(site: RoutedSite) -> None:
    """A leak, shown and not closed: docs/reference/nodes.md says so."""
    with site.program("next-hop"):
        assert site.ask()[1] == TIMES
