"""What whoever installs the chart must be allowed, as docs/how-to/install-with-helm.md says it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.values import CHART
from podidentity.cli.cluster_rights import Places, Single, held_by, singles
from podidentity.cli.needed_rights import COMMANDS
from podidentity.manifests import IDENTITIES
from podidentity_sandbox.world.blueprint import write_kubeconfig_of
from tests.cli.operators import holding
from tests.cli.world import World, running
from tests.deploy.helm import IMAGE, RELEASE, HelmRefused, begun, finish

PERSON = "8c0ffee0-0000-4000-8000-000000000001"
CLIENT = "9d0b1f0f-4f8c-4c83-8be3-4b2f0d0a2c11"
SYSTEM = "kube-system"
VALUES = {
    "image": {"repository": IMAGE},
    "mic": {"federation": {"clientID": CLIENT, "tenantID": "contoso.com"}},
    "test": {"enabled": False},
}
PLACES = Places(pods=("billing",), nmi=SYSTEM)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("world")) as found:
        for name in ("billing", IDENTITIES):
            found.namespace(name)
        yield found


@pytest.fixture(scope="module")
def objects() -> list[Any]:
    """What the release has on the world's Kubernetes."""
    words = ("--kube-version=1.32", f"--namespace={SYSTEM}")
    text = finish(begun("template", RELEASE, str(CHART), *words, values=VALUES))
    return [each for each in yaml.safe_load_all(text) if each]


def on(objects: Iterable[Any], *verbs: str) -> set[Single]:
    """Return the rights to these verbs on objects of the same kinds in the same places."""
    found = set()
    for each in objects:
        kind, (group, _, version) = each["kind"].lower(), each["apiVersion"].rpartition("/")
        assert version
        plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
        resource = f"{plural}.{group}" if group else plural
        where = each["metadata"].get("namespace", "")
        found |= {Single(namespace=where, resource=resource, verb=verb) for verb in verbs}
    return found


def given_away(objects: Iterable[Any]) -> set[Single]:
    """Return the rights that the roles among the objects give."""
    return set(singles(list(held_by(objects)), PLACES))


SEE = Single(namespace="", resource="daemonsets.apps", verb="list")
RECORD = {
    Single(namespace=SYSTEM, resource="secrets", verb=verb)
    for verb in ("get", "list", "create", "update", "delete")
}


def helm(world: World, *words: str, values: dict[str, Any] | None = None) -> None:
    """Have Helm's program do it as the person."""
    kubeconfig: Path = write_kubeconfig_of(world.plan, PERSON)
    where = (f"--kubeconfig={kubeconfig}", f"--namespace={SYSTEM}")
    finish(begun(*words, *where, values=values))


def test_with_the_rights_of_the_page_it_comes_changes_goes_back_and_goes(
    world: World, objects: list[Any]
) -> None:
    rights = on(objects, "get", "create", "patch", "delete") | RECORD | {SEE}
    with holding(world, PERSON, rights | given_away(objects)):
        helm(world, "install", RELEASE, str(CHART), values=VALUES)
        changed = {**VALUES, "nmi": {"logVerbosity": 4}}
        helm(world, "upgrade", RELEASE, str(CHART), values=changed)
        helm(world, "rollback", RELEASE, "1")
        helm(world, "uninstall", RELEASE)


def test_without_what_the_roles_give_or_with_the_rights_of_enable_alone_it_is_refused(
    world: World, objects: list[Any]
) -> None:
    install = ("install", RELEASE, str(CHART), "--dry-run=server")
    rights = on(objects, "get", "create", "patch", "delete") | RECORD
    with (
        holding(world, PERSON, rights | given_away(objects)),
        pytest.raises(HelmRefused, match='cannot list resource "daemonsets"'),
    ):
        helm(world, *install, values=VALUES)
    of_enable = {*singles(list(COMMANDS["enable"].cluster), PLACES)} | RECORD | {SEE}
    with (
        holding(world, PERSON, of_enable),
        pytest.raises(HelmRefused, match=r"aad-pod-identity-.* is forbidden"),
    ):
        helm(world, *install, values=VALUES)
    with (
        holding(world, PERSON, rights | {SEE}),
        pytest.raises(HelmRefused, match="attempting to grant RBAC permissions not currently held"),
    ):
        helm(world, "install", RELEASE, str(CHART), values=VALUES)
