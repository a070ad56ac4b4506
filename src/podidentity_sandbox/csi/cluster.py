"""The API server, as the driver's pod sees it: SecretProviderClasses, and events on pods."""

from __future__ import annotations

import datetime
import logging
import os
import ssl
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from podidentity_sandbox.apiserver import ApiRefusal, ApiServer, ApiUnreachable
from podidentity_sandbox.csi.parameters import MountFailed

_log = logging.getLogger(__name__)
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_CLASSES = "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/{}/secretproviderclasses/{}"
_COMPONENT = "csi-secrets-store-rotation"


class PodRef(NamedTuple):
    """A pod."""

    namespace: str
    name: str
    uid: str


class Cluster(ApiServer):
    """The API server, by the pod's service account."""

    def __init__(self) -> None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        trust = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
        # The token is read each time: the kubelet renews it.
        token = (_ACCOUNT / "token").read_text
        super().__init__(f"https://{host}:{port}", trust, token, agent="secrets-store-csi/sandbox")

    async def secret_provider_class(self, namespace: str, name: str) -> dict[str, Any]:
        """Return the object; raise MountFailed in the words of controller-runtime's client."""
        try:
            return await self.request("GET", _CLASSES.format(namespace, name))
        except ApiRefusal as error:
            gone = f'SecretProviderClass.secrets-store.csi.x-k8s.io "{name}" not found'
            why = gone if error.status == 404 else error.message
        except ApiUnreachable as error:
            why = str(error)
        raise MountFailed(f"failed to get secretproviderclass {namespace}/{name}, error: {why}")

    async def tell(self, pod: PodRef, kind: str, reason: str, message: str) -> None:
        """Put an event on a pod; one that cannot be put is let go."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{pod.name[:200]}.{uuid.uuid4().hex[:16]}",
                "namespace": pod.namespace,
            },
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", **pod._asdict()},
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": _COMPONENT},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self.request("POST", f"/api/v1/namespaces/{pod.namespace}/events", event)
        except (ApiRefusal, ApiUnreachable) as error:
            _log.warning("an event was lost: %s", error)
