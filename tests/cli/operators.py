"""A person of Entra in the loopback's cluster, who may do what a test gives him alone."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from podidentity.cli.cluster_rights import Single
from podidentity.cli.rights import bindings, roles
from tests.cli.world import World

_GROUP = "rbac.authorization.k8s.io"
_RBAC = f"/apis/{_GROUP}/v1"


@contextmanager
def holding(world: World, object_id: str, rights: Iterable[Single]) -> Iterator[None]:
    """Give somebody these rights, by the roles that `podidentity rights` prints."""
    subject = {"apiGroup": _GROUP, "kind": "User", "name": object_id}
    made = roles(rights, f"test-{uuid.uuid4().hex[:8]}")
    paths = []
    for each in (*made, *bindings(made, [subject])):
        namespace = each["metadata"].get("namespace", "")
        where = f"/namespaces/{namespace}" if namespace else ""
        path = f"{_RBAC}{where}/{each['kind'].lower()}s"
        world.send("POST", path, each)
        paths.append(f"{path}/{each['metadata']['name']}")
    try:
        yield
    finally:
        for path in reversed(paths):
            world.send("DELETE", path)
