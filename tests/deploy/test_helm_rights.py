"""What whoever installs the chart must be allowed, as docs/how-to/install-with-helm.md says it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import yaml

from deploy.values import CHART
from podidentity.cli.cluster_rights import Places, Single, held_by, singles
from podidentity.cli.needed_rights import COMMANDS
from podidentity.manifests import IDENTITIES
from podidentity_sandbox.world.blueprint import write_kubeconfig
from tests.cli.operators import holding
from tests.cli.world import World, running
from tests.deploy.helm import IMAGE, RELEASE, Helm, HelmRefused, begun, finish
from tests.kubernetes.control_plane import OLDEST_FOLDER
from tests.kubernetes.programs import OLDEST

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
    with running(tmp_path_factory.mktemp("world"), programs=OLDEST_FOLDER) as found:
        for name in ("billing", IDENTITIES):
            found.namespace(name)
        yield found


@pytest.fixture(scope="module")
def objects() -> list[Any]:
    """What the release has on the world's Kubernetes."""
    words = (f"--kube-version=1.{OLDEST}", f"--namespace={SYSTEM}")
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


LIST = Single(SYSTEM, "secrets", "list")


def gone(objects: Iterable[Any]) -> list[Any]:
    """Return the objects that go with the release: the definitions of custom resources stay."""
    return [each for each in objects if each["kind"] != "CustomResourceDefinition"]


def of_page(objects: list[Any]) -> set[Single]:
    """Return the rights as the page has them."""
    made = on(objects, "get", "create", "patch") | on(gone(objects), "delete")
    return made | RECORD | {SEE} | given_away(objects)


@dataclass(frozen=True)
class Installer:
    """Whoever installs, by Helm, with the rights that a test gives him."""

    world: World
    helm: Helm

    def refused(self, held: Iterable[Single], action: str, **options: Any) -> str:
        """Have Helm do it; return its words if it fails, else ""."""
        kubeconfig = str(write_kubeconfig(self.world.plan, PERSON))
        with holding(self.world, PERSON, held):
            try:
                self.helm.ask(
                    "on_cluster",
                    action=action,
                    kubeconfig=kubeconfig,
                    namespace=SYSTEM,
                    name=RELEASE,
                    **options,
                )
            except HelmRefused as error:
                return str(error)
        return ""

    def puts(self, held: Iterable[Single], values: dict[str, Any], **options: Any) -> str:
        """Install the chart, or go on with an install that was refused half-way.

        A record of which Helm could not write the end bars all that comes, and goes by hand.
        """
        self.world.delete(_SECRETS, labelSelector=f"{RECORDS},status=pending-install")
        action = "upgrade" if self.revisions() else "install"
        return self.refused(held, action, chart=str(CHART), values=values, **options)

    def revisions(self) -> list[str]:
        """Return the names of Helm's records, oldest first."""
        found = self.world.send(
            "GET", f"/api/v1/namespaces/{SYSTEM}/secrets", labelSelector=RECORDS
        )
        return sorted(each["metadata"]["name"] for each in found["items"])

    def there(self, objects: Iterable[Any]) -> set[Single]:
        """Return the rights to delete of which an object is in the cluster."""
        return {
            right
            for each in objects
            for right in on([each], "delete")
            if self.world.get(path_of(each)) is not None
        }


@pytest.fixture(scope="module")
def installer(world: World) -> Iterator[Installer]:
    with Helm() as helm:
        yield Installer(world, helm)


_SECRETS = f"/api/v1/namespaces/{SYSTEM}/secrets"
RECORDS = f"owner=helm,name={RELEASE}"
_ASKED = re.compile(
    r'cannot (\w+) resource "([^"]+)" in API group "([^"]*)" '
    r'(?:at the cluster scope|in the namespace "([^"]+)")'
)
_GRANTED = re.compile(
    r"\{APIGroups:\[([^\]]*)\], Resources:\[([^\]]*)\](?:, ResourceNames:\[([^\]]*)\])?, "
    r"Verbs:\[([^\]]*)\]\}"
)
_PATHS = re.compile(r"\{NonResourceURLs:\[([^\]]*)\], Verbs:\[([^\]]*)\]\}")
_OBJECT = re.compile(r"for object ([^/]*)/\S+ \S+, Kind=")


def named(said: str) -> set[Single]:
    """Return the rights whose lack Helm gives as its reasons, in the API server's words."""
    found = {
        Single(namespace=where, resource=_resource(plural, group), verb=verb)
        for verb, plural, group, where in _ASKED.findall(said)
    }
    namespace = ""
    for line in said.splitlines():
        if at := _OBJECT.search(line):
            namespace = at[1]
        for each in _GRANTED.findall(line):
            groups, resources, names, verbs = map(_quoted, each)
            found |= {
                Single(namespace, _resource(*resource), verb, name)
                for resource in product(resources, groups)
                for verb in verbs
                for name in names or [""]
            }
        for paths, verbs in (map(_quoted, each) for each in _PATHS.findall(line)):
            found |= {Single("", path, verb) for path in paths for verb in verbs}
    return found


def _quoted(text: str) -> list[str]:
    return re.findall(r'"([^"]*)"', text)


def _resource(plural: str, group: str) -> str:
    return f"{plural}.{group}" if group else plural


def path_of(manifest: Any) -> str:
    """Return the path of an object."""
    (right,) = on([manifest], "get")
    plural, _, group = right.resource.partition(".")
    version = manifest["apiVersion"].rpartition("/")[2]
    where = f"/namespaces/{right.namespace}" if right.namespace else ""
    base = f"/apis/{group}/{version}" if group else f"/api/{version}"
    return f"{base}{where}/{plural}/{manifest['metadata']['name']}"


def test_each_right_of_the_page_is_one_without_which_helm_fails_and_with_all_it_comes_and_goes(
    installer: Installer, objects: list[Any]
) -> None:
    """It begins without any: Helm names what the API server refuses it, is given that, goes on.

    Of what it may not delete Helm says no more than that it failed: that is told by what stays.
    """
    rights = of_page(objects)
    held: set[Single] = set()

    def goes(do: Callable[[], str]) -> None:
        while said := do():
            lacks = named(said)
            assert lacks <= rights - held, said
            assert lacks, said
            held.update(lacks)

    goes(lambda: installer.puts(held, VALUES))
    first = len(installer.revisions())
    changed = {**VALUES, "nmi": {"logVerbosity": 4}}
    goes(lambda: installer.puts(held, changed))
    goes(lambda: installer.refused(held, "rollback", version=first))
    of_nmi = {each for each in held if (each.resource, each.verb) == ("secrets", "list")}
    assert named(installer.puts(held - of_nmi, changed)) == {LIST}, "NMI's own right covers it"
    held.add(LIST)

    to_delete = on(gone(objects), "delete")
    assert rights - held - to_delete == {Single(SYSTEM, "secrets", "delete")}
    there = installer.there(objects)
    assert "failed to delete release" in installer.refused(held, "uninstall")
    assert installer.there(objects) == there, "without any of these rights nothing goes"
    some = set(sorted(to_delete)[::2])
    assert "failed to delete release" in installer.refused(held | some, "uninstall")
    assert installer.there(objects) == there - some, "what may be deleted goes, and no other"
    held |= to_delete
    goes(lambda: installer.refused(held, "uninstall"))
    assert installer.there(gone(objects)) == set()
    assert installer.revisions() == []
    assert held == rights


def test_the_rights_of_enable_are_for_its_objects_by_their_names_and_not_enough(
    installer: Installer,
) -> None:
    of_enable = {*singles(list(COMMANDS["enable"].cluster), PLACES)} | RECORD | {SEE}
    said = installer.puts(of_enable, VALUES, dry_run="server")
    assert re.search(r"aad-pod-identity-\S* is forbidden", said), said


def test_where_identities_are_among_the_values_it_must_see_their_namespaces(
    installer: Installer, objects: list[Any]
) -> None:
    identity = {
        "namespace": "billing",
        "type": 3,
        "clientID": CLIENT,
        "tenantID": "contoso.com",
        "binding": {"selector": "orders"},
    }
    said = installer.puts(of_page(objects), {**VALUES, "azureIdentities": {"orders": identity}})
    assert named(said) == {Single("billing", "namespaces", "get")}
