"""What an operator and a pod's owner see of a refusal, with their own tools."""

from __future__ import annotations

import json

from tests.acceptance.sandbox import one_node

FIRST = """
exec 3< <(exec kubectl get events --watch {selector} --output name)
watching=$!
read -r -t 30 -u 3 line
kill $watching
echo "$line"
"""
"""Returns with the first event, whether it was there before the watch or comes with it."""


async def test_a_refused_pod_has_an_event_and_prometheus_a_number() -> None:
    async with one_node("seeing") as place:
        place.run("podidentity", "enable")
        place.start_pod()
        assert (await place.ask())[0] == 404
        of_pod = "--field-selector=reason=NoBinding"
        assert place.run("bash", "-c", FIRST.format(selector=of_pod)).startswith("event/app.")
        (event,) = json.loads(place.run("kubectl", "get", "events", of_pod, "-o", "json"))["items"]
        assert event["involvedObject"]["name"] == "app"
        assert event["reportingComponent"] == "podidentity-nmi"
        assert "NoBinding" in place.run("kubectl", "describe", "pod", "app")

        host = place.run("kubectl", "get", "nodes", "-o", "jsonpath={..addresses[0].address}")
        scraped = (await place.shell(f"curl -s http://{host}:9090/metrics")).stdout.decode()
        assert 'decision="refused",reason="NoBinding",basis=""} 1\n' in scraped
        assert "\npodidentity_interception_healthy 1\n" in scraped
