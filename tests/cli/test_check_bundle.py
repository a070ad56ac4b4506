"""`check --bundle`: what a ticket needs is in the archive, and no secret, whatever was written."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import tarfile
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import pytest

from podidentity.cli.agent_choices import Choices
from podidentity.cli.checks import bundle
from podidentity.cli.checks.reading import ReadOnce
from podidentity.cli.checks.redaction import GONE, LEVELS, redacted, redacted_object
from podidentity.cli.output import CommandError
from podidentity.manifests import crds
from podidentity.wire.kube import parse_object
from tests.cli.conftest import Ran
from tests.cli.world import World

JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiJwb2QiLCJhdWQiOiJ4In0.c2lnbmF0dXJl-_abc"
PLANTED = {
    "a token": (f"asked with {JWT}, and got", JWT),
    "a token that is cut": (f"log: {JWT[:60]}", JWT[:60]),
    "a bearer": ("Authorization: Bearer opaque.value-1234~5", "opaque.value-1234~5"),
    "basic": ("Authorization: Basic dXNlcjpwYXNzd29yZA==", "dXNlcjpwYXNzd29yZA=="),
    "an answer": ('{"access_token": "opaque-access-token-1"}', "opaque-access-token-1"),
    "a body in a string": (r'"{\"refresh_token\":\"opaque-refresh-1\"}"', "opaque-refresh-1"),
    "a form": ("client_id=a&client_secret=hunter2-hunter2&x=1", "hunter2-hunter2"),
    "a client secret of Entra": ("secret abc8Q~" + "Az9_" * 8 + " is old", "abc8Q~" + "Az9_" * 8),
    "an assertion": ("client_assertion: opaque-assertion-9", "opaque-assertion-9"),
    "a flag": ("--client-secret=in-a-flag-77 --x", "in-a-flag-77"),
    "a flag of two words": ("--password in-two-words-78", "in-two-words-78"),
    "a key of storage": ("key " + "aB3/" * 21 + "aB==", "aB3/" * 21 + "aB=="),
    "a signed URL": ("https://a.blob/x?sv=1&sig=SGVsbG8lM0Q%3D&se=2", "SGVsbG8lM0Q%3D"),
    "a password in a URL": ("https://ada:lovelace99@registry.example/x", "lovelace99"),
    "a private key": (
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQ\n-----END RSA PRIVATE KEY-----",
        "MIIEpAIBAAKCAQ",
    ),
    "a private key that is cut": ("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg", "MIIEvQIBADANBg"),
}
HARMLESS = (
    "level=info msg=granted pod=shop/orders-0 clientID=11111111-2222-3333-4444-555555555555 "
    "resource=/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/x status=200"
)


@pytest.mark.parametrize("name", PLANTED)
def test_a_text_loses_what_has_the_form_or_the_name_of_a_secret(name: str) -> None:
    text, secret = PLANTED[name]
    assert secret in text
    for around in (text, f"before {text} after", json.dumps({"message": text}), repr(text)):
        assert secret not in redacted(around)
        assert GONE in redacted(around)


def test_a_text_without_secrets_stays_as_it_is() -> None:
    assert redacted(HARMLESS) == HARMLESS
    data = '{"automountServiceAccountToken": false, "tokenExpirationSeconds": 3600}'
    assert redacted(data) == data


def test_objects_lose_values_of_variables_copies_and_the_data_of_secrets() -> None:
    given = {
        "metadata": {
            "name": "nmi",
            "managedFields": [{"manager": "managed-secret"}],
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "copied-secret",
                "mine": "kept",
            },
        },
        "data": {"clientSecret": "ZGF0YS1zZWNyZXQ="},
        "env": [
            {"name": "ANY", "value": "variable-secret"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
    }
    text = json.dumps(redacted_object(given))
    for secret in ("managed-secret", "copied-secret", "ZGF0YS1", "variable-secret"):
        assert secret not in text
    assert '"mine": "kept"' in text
    assert "spec.nodeName" in text


@pytest.mark.parametrize("levels", [900, 9_000])
def test_what_a_tenant_nests_takes_no_more_of_the_archive_than_it_has(levels: int) -> None:
    inner = ",".join(["[]"] * 100_000)
    given = f'{{"spec":{{"odd":{"[" * levels}{inner}{"]" * levels}}},"kind":"AzureIdentity"}}'
    shown = json.dumps(redacted_object(parse_object(given.encode())))
    assert len(shown) < len(given)
    assert f"more than {LEVELS} levels" in shown


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("clientSecret", "opaque", GONE),
        ("example.com/api-key", 'a "quoted" one', GONE),
        ("pin-token", 1234, GONE),
        (f"of {JWT}", "x", "x"),
        ("tokenExpirationSeconds", 3600, 3600),
        ("automountServiceAccountToken", False, False),
        ("clientPassword", {"name": "keys"}, {"name": "keys"}),
        ("tokens", ["opaque", ["deeper"], {"name": "keys"}], [GONE, [GONE], {"name": "keys"}]),
    ],
)
def test_a_member_loses_its_value_where_its_name_is_a_secrets(
    name: str, value: object, shown: object
) -> None:
    (found,) = json.loads(json.dumps(redacted_object({name: value}))).items()
    assert found == (name.replace(JWT, GONE), shown)


def test_our_own_definitions_are_shown_whole() -> None:
    assert "levels]" not in json.dumps(redacted_object(crds()))


# ---- An archive of a cluster in whose every answer secrets are planted

EVERYTHING = "\n".join(text for text, _ in PLANTED.values())
LABELS = {"app.kubernetes.io/name": "podidentity", "app.kubernetes.io/component": "nmi"}


def planted(kind: str, name: str) -> dict[str, Any]:
    """Return an object that has secrets wherever somebody may write."""
    containers = [{"name": "serve", "args": [EVERYTHING], "env": [{"name": "X", "value": "env-1"}]}]
    return {
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "kube-system",
            "labels": LABELS,
            "annotations": {
                "any": EVERYTHING,
                "kubectl.kubernetes.io/last-applied-configuration": '{"x":"copied-1"}',
            },
        },
        "spec": {
            "containers": containers,
            "nodeName": "node-7",
            "free": EVERYTHING,
            "template": {},
        },
        "status": {"conditions": [{"type": "Ready", "status": "False", "message": EVERYTHING}]},
        "message": EVERYTHING,
        "data": {"x": "data-1"},
    }


class Planted:
    """An API server that tells secrets with each answer, and remembers what it was asked."""

    def __init__(self, refused: str = "") -> None:
        self.asked: list[str] = []
        self.given: list[Any] = []
        """What it was asked for tokens."""
        self.shown: dict[str, str] = {}
        """The tokens that were passed on to pods, by path."""
        self._refused = refused

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        self.asked.append(path)
        if self._refused and self._refused in path:
            status = {"kind": "Status", "reason": "Forbidden", "message": f"{path}: {EVERYTHING}"}
            return httpx2.Response(403, json={**status, "code": 403})
        if path.endswith("/token"):
            self.given.append((path, json.loads(request.content)["spec"]))
            status = {"token": JWT, "expirationTimestamp": "2030-01-01T00:00:00Z"}
            return httpx2.Response(201, json={"status": status})
        if token := request.headers.get("podidentity-authorization"):
            self.shown[path] = token
        if path.endswith(("/log", "/readyz", "/debug")):
            return httpx2.Response(200, text=f"{HARMLESS}\n{EVERYTHING}\n")
        name = path.rpartition("/")[2]
        if name.count("."):
            return httpx2.Response(200, json=planted("CustomResourceDefinition", name))
        of_mic = name == "pods" and "component%3Dmic" in str(request.url)
        items = [] if of_mic else [planted("Any", f"{name}-0")]
        return httpx2.Response(200, json={"kind": "List", "metadata": {}, "items": items})

    def archive(self, secure_port: int = 9447) -> bytes:
        async def collected(path: Path) -> None:
            client = httpx2.AsyncClient(
                base_url="https://api", transport=httpx2.MockTransport(self.answer)
            )
            kube = ReadOnce(client)
            try:
                with bundle.new_archive(path) as archive:
                    await bundle.collect(kube, Choices(secure_port=secure_port), archive)
            finally:
                await kube.close()

        with TemporaryDirectory() as folder:
            asyncio.run(collected(path := Path(folder, "a.tar.gz")))
            return path.read_bytes()

    def files(self, secure_port: int = 9447) -> Mapping[str, str]:
        return files(self.archive(secure_port))


def files(archive: bytes) -> Mapping[str, str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {
            each.name.removeprefix("podidentity-check/"): opened.extractfile(each).read().decode()  # type: ignore[union-attr]
            for each in opened.getmembers()
        }


SECRETS = [*(secret for _, secret in PLANTED.values()), "env-1", "copied-1", "data-1"]


@pytest.mark.parametrize(
    "refused", ["", "/log", "/pods", "azureidentities", "/readyz", "/token", "/debug"]
)
def test_no_secret_that_is_planted_in_any_answer_is_in_the_archive(refused: str) -> None:
    server = Planted(refused)
    found = server.files()
    for name, text in found.items():
        assert [each for each in SECRETS if each in text] == [], name
    assert not [path for path in server.asked if "secret" in path], "they are not read at all"
    if not refused:
        assert {
            *("objects/azureidentities.json", "objects/azureidentitybindings.json"),
            *("objects/azurepodidentityexceptions.json", "objects/azureassignedidentities.json"),
            *("objects/nodes.json", "objects/events.json", "objects/pods.json"),
            *("objects/daemonsets.json", "objects/deployments.json", "missing.txt"),
            *("objects/customresourcedefinitions.json",),
            *("logs/pods-0-serve.log", "pages/pods-0-readyz.json", "pages/pods-0-debug.json"),
        } == set(found)
        assert HARMLESS in found["logs/pods-0-serve.log"]
        assert found["missing.txt"] == ""
    else:
        assert found["missing.txt"]


class WithMic(Planted):
    """One with a pod of MIC beside NMI's."""

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        if "component%3Dmic" not in str(request.url) or not request.url.path.endswith("/pods"):
            return super().answer(request)
        pod = planted("Pod", "mic-0")
        pod["metadata"]["labels"] = {**LABELS, "app.kubernetes.io/component": "mic"}
        probe = {"httpGet": {"path": "/readyz", "port": 8080}}
        pod["spec"]["containers"][0]["readinessProbe"] = probe
        return httpx2.Response(200, json={"kind": "List", "metadata": {}, "items": [pod]})


def test_the_page_of_mic_is_asked_for_at_its_own_port_and_without_secrets_too() -> None:
    server = WithMic()
    found = server.files()
    assert [each for each in SECRETS if each in found["pages/mic-0-readyz.json"]] == []
    pods = "/api/v1/namespaces/kube-system/pods"
    asked = {each for each in server.asked if each.endswith("/proxy/readyz")}
    assert asked == {f"{pods}/pods-0:8085/proxy/readyz", f"{pods}/mic-0:8080/proxy/readyz"}
    assert list(server.shown) == [f"{pods}/https:pods-0:9447/proxy/debug"], "of NMI alone"


def test_what_nmi_knows_is_asked_for_with_a_token_for_that_node_and_nothing_else() -> None:
    server = Planted()
    server.files()
    account = "/api/v1/namespaces/kube-system/serviceaccounts/podidentity-debug-reader/token"
    asked = {"audiences": ["podidentity-nmi/debug/node-7"], "expirationSeconds": 600}
    assert server.given == [(account, asked)]
    path = "/api/v1/namespaces/kube-system/pods/https:pods-0:9447/proxy/debug"
    assert server.shown == {path: f"Bearer {JWT}"}


class Forged(Planted):
    """One behind which somebody else answers at NMI's port."""

    def __init__(self, answer: httpx2.Response) -> None:
        super().__init__()
        self._forged = answer

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        found = super().answer(request)
        return self._forged if request.url.path.endswith("/debug") else found


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (httpx2.Response(401), "NMI does not take the token that the API server made for it"),
        (httpx2.Response(403), "may not get /debug: run podidentity enable"),
        (httpx2.Response(404), "its NMI does not know the pod, or is of a version without /debug"),
        (httpx2.Response(429), "NMI was asked with too many tokens; try again in a moment"),
        (httpx2.Response(503), "NMI cannot ask the API server whose the token is"),
        (httpx2.Response(302), "NMI answered 302"),
        (httpx2.Response(200, content=b"x" * (33 << 20)), "It sent more than 32 MiB."),
        (
            httpx2.Response(
                500, json={"kind": "Status", "message": f"\x1b[2J\nBearer {JWT}", "code": 500}
            ),
            "?[2J?Bearer [redacted]",
        ),
    ],
    ids=["401", "403", "404", "429", "503", "302", "endless", "what a terminal obeys"],
)
def test_what_nmi_does_not_say_is_named_as_missing(answer: httpx2.Response, why: str) -> None:
    found = Forged(answer).files()
    assert "pages/pods-0-debug.json" not in found
    (missing,) = found["missing.txt"].splitlines()
    assert missing.startswith("pages/pods-0-debug.json: ")
    assert missing.endswith(why)


def test_an_nmi_without_a_port_for_it_is_asked_nothing() -> None:
    server = Planted()
    found = server.files(secure_port=0)
    assert server.given == []
    (missing,) = found["missing.txt"].splitlines()
    assert missing.endswith("it has no --metrics-secure-port")


def test_the_same_contents_are_the_same_archive() -> None:
    assert Planted().archive() == Planted().archive()


class Crowded(Planted):
    """A cluster in which a tenant has filled two lists with so many of the smallest objects."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        if not request.url.path.endswith(("/azureidentities", "/azureassignedidentities")):
            return httpx2.Response(200, json={"kind": "List", "metadata": {}, "items": []})
        first = int(request.url.params.get("continue", 0))
        end = min(self._number, first + int(request.url.params["limit"]))
        items = [{"metadata": {"name": f"a{each}"}} for each in range(first, end)]
        more = str(end) if end < self._number else ""
        meta = {"continue": more}
        return httpx2.Response(200, json={"kind": "List", "metadata": meta, "items": items})


def test_the_archive_holds_a_page_of_a_list_whatever_the_list_has() -> None:
    Crowded(600).files()  # what is imported and compiled once
    tracemalloc.start()
    try:
        archive = Crowded(20_000).archive()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 << 20
    found = files(archive)
    for name in ("azureidentities", "azureassignedidentities"):
        names = [each["metadata"]["name"] for each in json.loads(found[f"objects/{name}.json"])]
        assert names == [f"a{each}" for each in range(20_000)]


def test_no_long_name_of_a_member_is_kept_when_its_object_is_written() -> None:
    tracemalloc.start()
    try:
        for each in range(100):
            redacted_object({"podLabels": {f"{each}{'x' * 100_000}": "y"}})
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1 << 20


@pytest.mark.parametrize("name", ["s\u0131g", "s\u0130g", "to\u212aen", "\u017fecret"])
def test_a_name_is_a_secrets_in_any_letters_that_count_as_its_own(name: str) -> None:
    assert "hunter2" not in redacted(f"{name}=hunter2")


# ---- The file


def test_a_full_disk_leaves_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    what = r"No space left on device\. Nothing of it is left"
    with pytest.raises(CommandError, match=what), bundle.new_archive(tmp_path / "a.tar.gz"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_is_not_ended_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), bundle.new_archive(tmp_path / "a.tar.gz"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_archive_is_its_owners_alone_and_replaces_nothing(tmp_path: Path) -> None:
    with bundle.new_archive(tmp_path / "a.tar.gz"):
        pass
    assert (tmp_path / "a.tar.gz").stat().st_mode & 0o777 == 0o600
    there = pytest.raises(CommandError, match="exists already, and was not changed")
    with there, bundle.new_archive(tmp_path / "a.tar.gz"):
        pass
    assert "missing.txt" in files((tmp_path / "a.tar.gz").read_bytes())
    absent = pytest.raises(CommandError, match="cannot be written: No such file")
    with absent, bundle.new_archive(tmp_path / "absent/a.tar.gz"):
        pass


def test_the_command_writes_an_archive_with_its_own_findings_and_versions(
    world: World, ns: str, podidentity: Callable[..., Ran], tmp_path: Path
) -> None:
    secret = {"clientPassword": {"name": "keys", "namespace": ns}}
    entra = {"type": 1, "clientID": "11111111-2222-3333-4444-555555555555", "tenantID": "t.example"}
    world.custom(ns, "azureidentities", "orders", {**entra, **secret})
    bound = {"azureIdentity": "orders", "selector": "orders"}
    world.custom(ns, "azureidentitybindings", "orders", bound)
    path = tmp_path / "ticket.tar.gz"
    ran = podidentity("check", "--bundle", str(path))
    assert f"Wrote {path}" in ran.err
    found = files(path.read_bytes())
    told = json.loads(found["findings.json"])
    assert "NotPermitted" in {each["reason"] for each in told if each["name"] == "orders"}
    assert "Credential" not in {each["reason"] for each in told}, "no secret is read for it"
    assert json.loads(found["versions.json"])["version"]
    identities = json.loads(found["objects/azureidentities.json"])
    assert ns in {each["metadata"]["namespace"] for each in identities}
    again = podidentity("check", "--bundle", str(path))
    assert (again.code, again.out) == (1, "")
    assert "exists already" in again.err


def test_a_place_that_cannot_be_written_is_refused_before_the_cluster_is_read(
    world: World, podidentity: Callable[..., Ran], tmp_path: Path
) -> None:
    ran = podidentity("check", "--bundle", str(tmp_path / "absent" / "x.tgz"))
    assert (ran.code, ran.out) == (1, "")
    assert "x.tgz cannot be written: No such file or directory" in ran.err
    assert world.get("/version") is not None
