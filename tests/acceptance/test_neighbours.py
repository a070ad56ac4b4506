"""What pods get while the API server or IMDS misbehaves: a token or a clear answer, in time."""

from __future__ import annotations

import json

from podidentity_sandbox.azure.client import AzureOperator
from tests.acceptance.sandbox import one_node

MALFORMED = """
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata: {name: broken, namespace: default}
spec: {type: 0, clientID: not-a-guid}
---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityBinding
metadata: {name: broken-binding, namespace: default}
spec: {azureIdentity: broken, selector: broken}
---
apiVersion: v1
kind: Pod
metadata: {name: unlucky, namespace: default, labels: {aadpodidbinding: broken}}
spec: {containers: [{name: main, image: idle}]}
"""


async def test_pods_are_served_while_the_api_server_or_imds_is_away() -> None:
    async with one_node("neighbours") as place, AzureOperator(place.plan) as azure:
        await place.bind()
        place.start_pod()
        assert (await place.ask())[0] == 200

        place.run("podidentity", "sandbox", "part", "kill", "cluster")
        assert (await place.ask())[0] == 200, "the API server is away"
        place.run("podidentity", "sandbox", "part", "start", "cluster")
        await place.nmi_ready()

        for fault, expected in {"reset": 503, "rubbish": 503, "500": 503, "hang": 503}.items():
            azure.weather(f"imds=[{{effect: {fault}}}]")
            status, body, _ = await place.ask(resource=f"https://{fault}.example")
            assert status == expected, (fault, body)
            assert body["error_description"], fault
            assert (await place.ask())[0] == 200, f"a cached token is served while IMDS: {fault}"
        azure.weather("imds=[]")
        assert (await place.ask(resource="https://storage.azure.com"))[0] == 200, "healed"

        # A malformed identity, of before admission policies, is explained and touches nobody else.
        place.run("podidentity", "enable", "--no-admission-policies")
        place.apply(MALFORMED)
        listed = json.loads(place.run("podidentity", "list", "-A", "-o", "json"))
        states = {each["name"]: each for each in listed["identities"]}
        assert "spec.clientID must be a GUID" in json.dumps(states["broken"])
        assert (await place.ask())[0] == 200
