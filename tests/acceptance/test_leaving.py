"""Leaving as docs/how-to/uninstall.md says: what is gone, what stays, and nothing is open."""

from __future__ import annotations

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.weather import CALM
from tests.acceptance.sandbox import ANSWERED, ASK, CLOSED, Sandbox, leaked, one_node
from tests.acceptance.test_seeing import for_a_cluster, typed

REFUSED, TIMED_OUT = 7, 28
"""How curl ends where nobody listens, and where nobody answers.

https://curl.se/docs/manpage.html#EXIT
"""


async def test_who_leaves_as_the_page_says_leaves_nothing_attached_granted_or_open() -> None:
    (commands,) = for_a_cluster("docs/how-to/uninstall.md")
    async with one_node("leaving", weather=CALM) as place, AzureOperator(place.plan) as azure:
        await place.bind()
        place.start_pod()
        assert (await place.ask())[0] == 200
        said = typed(place, commands, {"shop": "default", "orders": "bound"})
        assert "detached" in said
        objects = (
            "daemonsets,clusterroles,clusterrolebindings,azureidentities,azureidentitybindings"
        )
        left = place.run("kubectl", "get", objects, "-A", "-o", "name")
        ours = {each for each in left.split() if "nmi" in each or "podidentity" in each}
        assert {each.rpartition("/")[2] for each in ours} == {"podidentity-commands"}  # deployer's
        assert "azureidentities" in place.run("kubectl", "get", "crds", "-o", "name")
        # The rules stay: nobody answers, and what is asked does not reach the real IMDS.
        ask = ASK.format(seconds=ANSWERED, nonce="after", resource="https://vault.azure.net")
        assert (await place.shell(ask)).exit == REFUSED
        assert await leaked(azure, "after") == 0
        assert "podid" in place.on_node("nft", "list", "tables")
        # With `close` nobody answers either; but what leads pods to NMI is gone, for another one.
        assert "until another NMI leads" in leave(place, "close")
        assert "podid" not in place.on_node("nft", "list", "tables")
        ask = ASK.format(seconds=CLOSED, nonce="closed", resource="https://vault.azure.net")
        assert (await place.shell(ask)).exit == TIMED_OUT
        assert await leaked(azure, "closed") == 0
        # With `remove` nothing is left, of what was closed before either.
        assert "are open to their pods" in leave(place, "remove")
        assert "podid" not in place.on_node("nft", "list", "tables")
        await place.ask(nonce="open")
        assert await leaked(azure, "open") == 1


def leave(place: Sandbox, on_exit: str) -> str:
    """Have NMI of this way to end come, and go; return what `disable` says."""
    place.run("podidentity", "enable", f"--nmi-arg=--on-exit={on_exit}")
    return place.run("podidentity", "disable")
