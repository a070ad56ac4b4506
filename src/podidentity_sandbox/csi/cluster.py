"""The API server, as the driver's pod sees it: SecretProviderClasses, and events on pods."""

from __future__ import annotations

import datetime
import json
import logging
import os
import ssl
import uuid
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import aiohttp

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


class ClusterClient(Protocol):
    """The driver's requests to the cluster."""

    async def secret_provider_class(self, namespace: str, name: str) -> dict[str, Any]:
        """Return the object; raise MountFailed."""

    async def tell(self, pod: PodRef, kind: str, reason: str, message: str) -> None:
        """Put an event on a pod; one that cannot be put is let go."""


class ApiServer:
    """The API server, by the pod's service account."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        self._base = f"https://{host}:{port}"
        self._trust = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
        self._session = session

    async def secret_provider_class(self, namespace: str, name: str) -> dict[str, Any]:
        """Return the object; raise MountFailed in the words of controller-runtime's client."""
        try:
            status, found = await self._ask("GET", _CLASSES.format(namespace, name))
        except (aiohttp.ClientError, TimeoutError) as error:
            status, found = 0, {"message": str(error)}
        if status == 200:
            return found
        why = found.get("message", "")
        if status == 404:
            why = f'SecretProviderClass.secrets-store.csi.x-k8s.io "{name}" not found'
        raise MountFailed(f"failed to get secretproviderclass {namespace}/{name}, error: {why}")

    async def tell(self, pod: PodRef, kind: str, reason: str, message: str) -> None:
        """Put an event on a pod."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{pod.name[:200]}.{uuid.uuid4().hex[:16]}",
                "namespace": pod.namespace,
            },
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                **pod._asdict(),
            },
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": _COMPONENT},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            status, _ = await self._ask("POST", f"/api/v1/namespaces/{pod.namespace}/events", event)
        except (aiohttp.ClientError, TimeoutError) as error:
            _log.warning("an event was lost: %s", error)
        else:
            if status >= 400:
                _log.warning("an event was refused with status %d", status)

    async def _ask(
        self, method: str, path: str, body: object | None = None
    ) -> tuple[int, dict[str, Any]]:
        # Read each time: the kubelet renews it.
        token = (_ACCOUNT / "token").read_text()
        async with self._session.request(
            method,
            self._base + path,
            data=None if body is None else json.dumps(body),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            ssl=self._trust,
        ) as response:
            found: dict[str, Any] = await response.json()
            return response.status, found
