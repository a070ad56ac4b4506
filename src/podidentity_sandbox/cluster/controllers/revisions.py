"""A Deployment's templates: each has a ReplicaSet with a name and a revision of its own.

https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#pod-template-hash-label
The digest is our own: the real one depends on how Go prints a struct, and nobody can rely on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from podidentity_sandbox.cluster.controllers.ownership import reference_to
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.storage import Record, encode

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MOST = "deployment.kubernetes.io/max-replicas"
_OF_ONE_OBJECT = (
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    DESIRED,
    MOST,
    "deployment.kubernetes.io/revision-history",
)
"""Annotations that a set does not take from its Deployment."""
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""No vowels, so that no digest is a word: k8s.io/apimachinery/pkg/util/rand."""


def digest(template: Obj) -> str:
    """Return the hash of a template."""
    number = int.from_bytes(hashlib.sha256(encode(template)).digest()[:8])
    letters = []
    for _ in range(10):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return "".join(letters)


def bare(template: Obj) -> Obj:
    """Return a set's template without the label that the Deployment added."""
    metadata = dict(template.get("metadata", {}))
    labels = {k: v for k, v in metadata.get("labels", {}).items() if k != HASH_LABEL}
    return {**template, "metadata": {**metadata, "labels": labels}}


def present(deployment: Record, sets: Iterable[Record]) -> Record | None:
    """Return the set of the present template, if there is one."""
    template = bare(deployment.object["spec"]["template"])
    return next((s for s in sets if bare(s.object["spec"]["template"]) == template), None)


def revision(record: Record) -> int:
    """Return an object's revision, 0 where it has none."""
    text = record.metadata.get("annotations", {}).get(REVISION, "")
    return int(text) if text.isdigit() else 0


def age(record: Record) -> tuple[str, int, str]:
    """Order sets by age, the oldest first."""
    return record.metadata["creationTimestamp"], revision(record), record.name


def next_revision(sets: Sequence[Record]) -> int:
    """Return the revision of the next template."""
    return max(map(revision, sets), default=0) + 1


def notes(deployment: Record, number: int, wanted: int, most: int) -> dict[str, str]:
    """Return the annotations of the set of the present template."""
    given = deployment.metadata.get("annotations", {})
    own = {key: value for key, value in given.items() if key not in _OF_ONE_OBJECT}
    return {**own, DESIRED: str(wanted), MOST: str(most), REVISION: str(number)}


def new_set(deployment: Record, replicas: int, annotations: dict[str, str]) -> Obj:
    """Return the set for the present template."""
    spec = deployment.thaw()["spec"]
    template = spec["template"]
    name = digest(template)
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    labels[HASH_LABEL] = name
    selector = spec["selector"]
    selector["matchLabels"] = {**selector.get("matchLabels", {}), HASH_LABEL: name}
    return {
        "metadata": {
            "name": f"{deployment.name}-{name}",
            "labels": dict(labels),
            "annotations": annotations,
            "ownerReferences": [reference_to(deployment)],
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template},
    }
