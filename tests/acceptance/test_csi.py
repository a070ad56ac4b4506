"""Secrets as files: the CSI driver asks NMI for a pod's token, and nobody else gets one so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.demo.prepare import GROUP, SECRET, SECRET_VALUE, VAULT
from podidentity_sandbox.plan import ISSUER
from podidentity_sandbox.world.api import Object
from tests.acceptance.directory import secret
from tests.acceptance.sandbox import Sandbox, opened
from tests.sandboxes import own

NAME = own("csi-tests")
FILE = f"/mnt/secrets/{SECRET}"
CLASS = """
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {{name: store, namespace: default}}
spec:
  provider: azure
  parameters:
    usePodIdentity: "true"
    keyvaultName: {vault}
    tenantID: {tenant}
    objects: |
      array:
      - |
        objectName: {secret}
        objectType: secret
"""
MOUNTING = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default, labels: {{aadpodidbinding: {label}}}}}
spec:
  containers:
  - name: main
    image: idle
    volumeMounts: [{{name: store, mountPath: /mnt/secrets, readOnly: true}}]
  volumes:
  - name: store
    csi:
      driver: secrets-store.csi.k8s.io
      readOnly: true
      volumeAttributes: {{secretProviderClass: store}}
"""
STRANGER = """
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: kube-system}
spec:
  hostNetwork: true
  containers: [{name: main, image: idle}]
"""
ASK = (
    "curl -s -m 60 -w '\\n%{{http_code}}' -H 'podns: default' -H 'podname: {pod}'"
    " 'http://localhost:2579/host/token/?resource=https://vault.azure.net'"
)

_REQUEST = """
import json, socket, struct, sys, time
def ask(source, to, port, words):
    s = socket.socket()
    s.settimeout(60)
    # Of several sockets with one source port, each has another destination: ip(7).
    s.setsockopt(socket.SOL_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
    s.setsockopt(socket.SOL_IP, 51, struct.pack("=I", port << 16 | port))  # IP_LOCAL_PORT_RANGE
    s.bind((source, 0))
    s.connect((to, 2579))
    s.sendall(b"GET /host/token/?resource=https://vault.azure.net HTTP/1.1\\r\\n"
              b"Host: localhost\\r\\npodns: default\\r\\npodname: mounts\\r\\n\\r\\n")
    words.append([source, to, s.getsockname()[1] == port, s.recv(65536).split()[1].decode()])
    return s
said, port, meeting = [], 43579, ("127.0.0.1", 23578)
"""
PROVIDER = (
    _REQUEST
    + """
kept = ask("127.0.0.1", "127.0.0.1", port, said)
with socket.create_server(meeting) as server:
    other, _ = server.accept()
    other.recv(1)
print(json.dumps(said))
"""
)
SHARER = (
    _REQUEST
    + """
for _ in range(1200):
    try:
        held = socket.create_connection(meeting)
        break
    except ConnectionRefusedError:
        time.sleep(0.05)
for source, to in (("127.0.0.1", "169.254.25.79"), ("127.0.0.2", "127.0.0.1"), (sys.argv[1],) * 2):
    try:
        ask(source, to, port, said)
    except OSError as error:
        said.append([source, to, True, error.strerror])
print(json.dumps(said))
"""
)


class Driven(Sandbox):
    """A sandbox with the driver in it."""

    def provider(self) -> str:
        """Return the name of the provider's pod."""
        pods = self.api.request("GET", "/api/v1/namespaces/kube-system/pods")["items"]
        names = [str(pod["metadata"]["name"]) for pod in pods]
        (found,) = [name for name in names if name.startswith("csi-")]
        return found

    async def inside(self, pod: str, command: str, namespace: str = "default") -> str:
        ran = await self.shell(command, 30, pod=pod, namespace=namespace)
        return ran.stdout.decode()

    async def event(self, pod: str, reason: str) -> str:
        """Return the message of the first event of that reason on a pod, as soon as it is there."""
        return await asyncio.to_thread(self._event, pod, reason)

    def _event(self, pod: str, reason: str) -> str:
        for _, event in self.api.follow("/api/v1/namespaces/default/events", 60):
            if is_of(event, pod, reason):
                return str(event["message"])
        raise AssertionError(f"no event {reason} on pod {pod}")

    async def host_token(self, pod: str, asker: str, namespace: str) -> tuple[int, dict[str, Any]]:
        """Ask for a pod's token as the provider does; return status and body."""
        said = await self.inside(asker, ASK.format(pod=pod), namespace)
        body, _, status = said.rpartition("\n")
        return int(status), json.loads(body)


def is_of(event: Object, pod: str, reason: str) -> bool:
    return bool(event["involvedObject"]["name"] == pod and event["reason"] == reason)


@pytest.fixture(scope="module")
def driven() -> Iterator[Driven]:
    with opened(NAME) as (place, _, loop):
        found = Driven(place.plan)
        loop.run(found.bind())
        found.run("podidentity", "sandbox", "csi", "--rotation-poll-interval", "1s")
        found.apply(CLASS.format(vault=VAULT, tenant=found.plan.tenant_id, secret=SECRET))
        found.apply(MOUNTING.format(name="mounts", label="bound"))
        found.apply(STRANGER, namespace="kube-system")
        yield found


async def test_a_secret_is_a_file_in_the_pod_that_the_pod_cannot_change(driven: Driven) -> None:
    assert await driven.inside("mounts", f"cat {FILE}") == SECRET_VALUE
    assert await driven.inside("mounts", f"echo x > {FILE} || echo refused") == "refused\n"


async def test_a_new_version_in_the_vault_is_in_the_file(driven: Driven) -> None:
    async with AzureOperator(driven.plan) as azure:
        await azure.put_secret(VAULT, SECRET, "rotated")
        assert await driven.event("mounts", "MountRotationComplete") == (
            "successfully rotated mounted contents for spc default/store"
        )
        assert await driven.inside("mounts", f"cat {FILE}") == "rotated"
        await azure.put_secret(VAULT, SECRET, SECRET_VALUE)


async def test_a_pod_that_is_not_bound_is_told_so_by_an_event(driven: Driven) -> None:
    driven.apply(MOUNTING.format(name="unbound", label="nothing"), seconds=None)
    message = await driven.event("unbound", "FailedMount")
    assert message.startswith(
        'MountVolume.SetUp failed for volume "store" : rpc error: code = Unknown desc = failed to '
        "mount secrets store objects for pod default/unbound, err: rpc error: code = Unknown desc "
        f"= failed to mount objects, error: failed to get objectType:secret, objectName:{SECRET}, "
        "objectVersion:: nmi response failed with status code: 404, response body: "
    )
    assert "has the selector 'nothing'" in message


async def test_a_stranger_in_the_nodes_network_gets_no_pods_token(driven: Driven) -> None:
    status, body = await driven.host_token("mounts", "stranger", "kube-system")
    assert (status, body["error"]) == (403, "access_denied")
    assert "kube-system/stranger" in body["error_description"]


async def test_a_stranger_gets_none_from_the_very_port_of_the_provider(driven: Driven) -> None:
    """It shares the port number, with another address of the node at either end."""
    ours = asyncio.create_task(
        driven.inside(driven.provider(), f"python3 -c '{PROVIDER}'", "kube-system")
    )
    address = driven.plan.nodes[0].address
    tried = f"python3 -c '{SHARER}' {address}"
    seen = json.loads(await driven.inside("stranger", tried, "kube-system"))
    assert json.loads(await ours) == [["127.0.0.1", "127.0.0.1", True, "200"]]
    assert seen == [
        ["127.0.0.1", "169.254.25.79", True, "403"],
        ["127.0.0.2", "127.0.0.1", True, "403"],
        [str(address), str(address), True, "Connection refused"],
    ]


async def test_a_pod_gets_none_by_its_own_network(driven: Driven) -> None:
    by_imds = ASK.format(pod="mounts").replace("localhost:2579", "169.254.169.254")
    said = await driven.inside("mounts", by_imds)
    assert said.endswith("\n403")
    assert await driven.inside("mounts", ASK.format(pod="mounts")) == "\n000"


async def test_the_provider_gets_no_token_of_a_pod_without_such_a_volume(driven: Driven) -> None:
    driven.start_pod()
    provider = driven.provider()
    assert (await driven.host_token("mounts", provider, "kube-system"))[0] == 200
    status, body = await driven.host_token("app", provider, "kube-system")
    assert status == 403
    assert "mounts no volume of secrets-store.csi.k8s.io" in body["error_description"]


@pytest.mark.parametrize("kind", ["secret", "federated"])
async def test_an_application_of_entra_reads_the_vault_before_its_pod_runs(
    driven: Driven, kind: str
) -> None:
    known: tuple[str, ...] = ("--federated",)
    async with AzureOperator(driven.plan) as azure:
        app = await azure.make_app(kind)
        if kind == "secret":
            made = await azure.add_secret(app)
            driven.apply(secret(kind, clientSecret=made.value.encode()))
            known = ("--secret", kind)
        else:
            account = "system:serviceaccount:default:default"
            await azure.add_federated_credential(app, kind, issuer=ISSUER, subject=account)
        vault = f"of-{kind}"
        await azure.create_vault(GROUP, vault, readers=[app.principal_id])
        await azure.put_secret(vault, SECRET, f"read by {kind}")
    ids = ("--client-id", app.client_id, "--tenant-id", driven.plan.tenant_id)
    driven.add("default", kind, *ids, *known)
    own_class = CLASS.format(vault=vault, tenant=driven.plan.tenant_id, secret=SECRET)
    driven.apply(own_class.replace("name: store", f"name: {vault}"))
    mounting = MOUNTING.format(name=vault, label=kind)
    # Entra takes its time to know a credential.
    driven.apply(mounting.replace("Class: store", f"Class: {vault}"), seconds=300)
    assert await driven.inside(vault, f"cat {FILE}") == f"read by {kind}"
