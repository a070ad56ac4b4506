"""What an operator and a pod's owner see of a refusal, with their own tools."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator

import pytest

from tests.acceptance.sandbox import PATIENCE, POD, Sandbox, opened
from tests.docs.blocks import ROOT, blocks_of
from tests.sandboxes import own

AGENTS = ("-l", "app.kubernetes.io/component=nmi")
FIRST = """
exec 3< <(exec kubectl get events --watch {selector} --output name)
watching=$!
read -r -t 300 -u 3 line
kill $watching
echo "$line"
"""
"""Returns with the first event, whether it was there before the watch or comes with it."""


def typed(place: Sandbox, command: str, words: dict[str, str]) -> str:
    """Run a document's command with these words in their places; return all that it printed."""
    for placeholder, word in words.items():
        command = command.replace(placeholder, word)
    # `explain` of a refused pod fails, and so do logs of a container's last run if it has one only.
    return place.run("bash", "-c", f"{{ {command}\n}} 2>&1; true")


def for_a_cluster(document: str) -> list[str]:
    """Return the document's commands that a cluster with NMI is needed for."""
    return [block.text for block in blocks_of(ROOT / document) if block.mark == "run=cluster"]


@pytest.fixture(scope="module")
def place() -> Iterator[Sandbox]:
    with opened(own("seeing")) as (found, _, _):
        found.run("podidentity", "enable")
        yield found


async def refused(place: Sandbox, name: str) -> None:
    """Start a pod to whose label no identity is bound, and have it ask."""
    place.apply(POD.replace("name: app", f"name: {name}").replace(": bound", ": unbound"))
    assert (await place.ask(pod=name))[0] == 404


def refusals(scraped: str) -> int:
    """Return how many requests of pods without a binding NMI has counted."""
    told = re.findall(r'decision="refused",reason="NoBinding",basis=""} (\d+)\n', scraped)
    return sum(map(int, told))


async def test_a_refused_pod_has_an_event_and_prometheus_a_number(place: Sandbox) -> None:
    host = place.run("kubectl", "get", "nodes", "-o", "jsonpath={..addresses[0].address}")
    scrape = f"curl -s http://{host}:9090/metrics"
    before = refusals(place.on_node("sh", "-c", scrape))
    await refused(place, "seen")
    scraped = (await place.shell(scrape, pod="seen")).stdout.decode()
    assert refusals(scraped) == before + 1
    assert "\npodidentity_interception_healthy 1\n" in scraped
    of_pod = "--field-selector=reason=NoBinding,involvedObject.name=seen"
    assert place.run("bash", "-c", FIRST.format(selector=of_pod)).startswith("event/seen.")
    (event,) = json.loads(place.run("kubectl", "get", "events", of_pod, "-o", "json"))["items"]
    assert event["reportingComponent"] == "podidentity-nmi"
    assert "NoBinding" in place.run("kubectl", "describe", "pod", "seen")


async def test_the_commands_of_the_page_on_refusals_show_the_reason_and_how_nmi_is(
    place: Sandbox,
) -> None:
    explain, log, nmi = for_a_cluster("docs/how-to/why-was-my-pod-refused.md")
    (all_of_it,) = for_a_cluster("docs/how-to/troubleshoot.md")
    await refused(place, "refused")
    agents = ("get", "pods", *AGENTS, "--output=name")
    name = place.run("kubectl", "-n", "kube-system", *agents).strip()
    words = {"NMI-POD": name, "NAMESPACE": "default", "POD": "refused"}
    assert "Refused (NoBinding)." in typed(place, explain, words)
    (line,) = typed(place, log, words).splitlines()
    assert "reason=NoBinding" in line
    said = typed(place, nmi, words)
    together = typed(place, all_of_it, words)
    checked = "Pod default/refused (NoBinding)"
    for each in (checked, "Refused (NoBinding).", " 2/2 "):
        assert each in together
    assert checked in said
    assert " 2/2 " in said
    for container, known in (("serve", "reason=NoBinding"), ("net", "guarding node ")):
        assert any(f"/{container}]" in line and known in line for line in said.splitlines())
    assert 'previous terminated container "serve" in pod "nmi-' in said


async def test_the_commands_of_the_page_on_watching_tell_who_got_a_token(place: Sandbox) -> None:
    turn_on, who = for_a_cluster("docs/how-to/watch-nmi.md")
    await place.bind()
    place.start_pod()
    place.run("bash", "-ec", turn_on)
    try:
        assert (await place.ask())[0] == 200
        got = typed(place, who, {"orders": "bound"}).splitlines()
    finally:
        place.run("podidentity", "enable", "--forget=nmi-arg")
        agents = ("kubectl", "-n", "kube-system", "get", "pods", "-o", "name", *AGENTS)
        async with asyncio.timeout(PATIENCE):
            while len(place.run(*agents).split()) > 1:  # noqa: ASYNC110 - of the API server
                await asyncio.sleep(0.2)
    assert [line.split()[1] for line in got] == ["default/app"]
