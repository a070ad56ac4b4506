"""The weather between a real API server and those who ask it: pods and commands, no node."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPResponse, HTTPSConnection
from pathlib import Path

import pytest

from podidentity_sandbox.plan import Plan
from podidentity_sandbox.weather import CALM, changed, journal, write
from podidentity_sandbox.world.api import Api, ready
from podidentity_sandbox.world.authority import Authority
from tests.kubernetes.conftest import needs_kubernetes, order
from tests.sandbox.world.places import Place

pytestmark = [needs_kubernetes, pytest.mark.net]
PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture(autouse=True)
def calm_afterwards(plan: Plan) -> Iterator[None]:
    yield
    write(plan.path, CALM)


def falls(plan: Plan, *settings: str) -> None:
    write(plan.path, changed(CALM, settings))


class Client:
    """One connection to the API server."""

    def __init__(self, plan: Plan, *, token: str = "", certificate: bool = False) -> None:
        trust = ssl.create_default_context(cafile=str(plan.ca_certificate))
        if certificate:
            trust.load_cert_chain(*plan.administrator_files)
        self.connection = HTTPSConnection("127.0.0.1", plan.apiserver_port, context=trust)
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> HTTPResponse:
        data = None if body is None else json.dumps(body)
        sent = {"Content-Type": "application/json", **self.headers, **headers}
        self.connection.request(method, path, data, sent)
        return self.connection.getresponse()


@pytest.fixture
def client(plan: Plan) -> Iterator[Client]:
    found = Client(plan, token=plan.admin_token)
    with closing(found.connection):
        yield found


@pytest.mark.parametrize(
    ("effect", "answer"),
    [
        ("'429', seconds: 3", (429, "text/plain", "Too many requests, please try again later.\n")),
        ("html", (502, "text/html", "Bad Gateway")),
        ("'500'", (500, "application/json", "etcdserver: request timed out")),
        (
            "'503'",
            (503, "application/json", "the server is currently unable to handle the request"),
        ),
    ],
)
def test_a_request_is_answered_by_the_weather_and_the_next_one_truly(
    plan: Plan, client: Client, effect: str, answer: tuple[int, str, str]
) -> None:
    status, kind, text = answer
    falls(plan, f"apiserver=[{{effect: {effect}, first: 1, kind: admin create configmaps}}]")
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "made-"}}
    where = "/api/v1/namespaces/default/configmaps"
    struck = client.ask("POST", where, made)
    assert (struck.status, struck.getheader("Content-Type")) == (status, kind)
    assert text in struck.read().decode()
    assert struck.getheader("Retry-After") == ("3" if status == 429 else None)
    assert client.ask("POST", where, made).status == 201
    assert [each.effect for each in journal(plan.path)][-1:] == [
        effect.partition(",")[0].strip("'")
    ]


def test_a_connection_is_reset(plan: Plan, client: Client) -> None:
    falls(plan, "apiserver=[{effect: reset, first: 1, kind: admin list pods}]")
    with pytest.raises(ConnectionResetError):
        client.ask("GET", PODS)


def test_an_answer_comes_late(plan: Plan, client: Client) -> None:
    falls(plan, "apiserver=[{effect: slow, seconds: 0.5, first: 1, kind: admin list pods}]")
    began = time.monotonic()
    assert client.ask("GET", PODS).status == 200
    assert time.monotonic() - began >= 0.5


def test_one_connection_carries_many_requests_each_with_its_own_delay(
    plan: Plan, client: Client
) -> None:
    falls(plan, "answers=[0.001, 0.05]")
    for _ in range(20):
        with client.ask("GET", PODS) as found:
            assert (found.status, found.read() != b"") == (200, True)


def test_an_answer_never_comes_and_the_client_may_leave(plan: Plan, client: Client) -> None:
    falls(plan, "apiserver=[{effect: hang, first: 1, kind: admin list pods}]")
    client.connection.timeout = 0.3
    with pytest.raises(TimeoutError):
        client.ask("GET", PODS)
    client.connection.close()
    assert client.ask("GET", PODS).status == 200


def test_each_user_has_weather_of_its_own(plan: Plan, client: Client) -> None:
    falls(plan, "apiserver=[{effect: '500', kind: 'system:serviceaccount:default:default *'}]")
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    account = "/api/v1/namespaces/default/serviceaccounts/default"
    with client.ask("POST", f"{account}/token", asked) as made:
        token = json.load(made)["status"]["token"]
    with client.ask("GET", PODS) as found:
        assert found.status == 200
    with closing(Client(plan, token=token).connection) as connection:
        headers = {"Authorization": f"Bearer {token}"}
        connection.request("GET", PODS, headers=headers)
        assert connection.getresponse().status == 500


def test_who_shows_a_certificate_is_its_user_and_nobody_else_by_a_header(
    plan: Plan, client: Client
) -> None:
    review = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    forged = {"X-Remote-User": "forged", "X-Remote-Group": "system:masters"}
    with closing(Client(plan, certificate=True).connection) as connection:
        sent = {"Content-Type": "application/json", **forged}
        connection.request("POST", review, json.dumps(asked), sent)
        user = json.load(connection.getresponse())["status"]["userInfo"]
    assert (user["username"], "system:masters" in user["groups"]) == ("masterclient", True)
    with client.ask("POST", review, asked, **forged) as answer:
        assert json.load(answer)["status"]["userInfo"]["username"] == "admin"
    with closing(Client(plan).connection) as connection:
        connection.request("GET", PODS, headers=forged)
        assert connection.getresponse().status in (401, 403)


def test_a_certificate_of_another_authority_is_refused_as_a_wrong_token_is(
    plan: Plan, tmp_path: Path
) -> None:
    files = tmp_path / "client.crt", tmp_path / "client.key"
    Authority.new("another").issue_client("masterclient", ["system:masters"], *files)
    trust = ssl.create_default_context(cafile=str(plan.ca_certificate))
    trust.load_cert_chain(*files)
    connection = HTTPSConnection("127.0.0.1", plan.apiserver_port, context=trust)
    with closing(connection):
        connection.request("GET", PODS)
        with connection.getresponse() as answer:
            assert (answer.status, json.load(answer)["reason"]) == (401, "Unauthorized")
        connection.request("GET", PODS, headers={"Authorization": f"Bearer {plan.admin_token}"})
        assert connection.getresponse().status == 200, "it is no matter beside a good token"


def test_the_server_ends_a_watch_when_the_weather_says(plan: Plan, client: Client) -> None:
    falls(plan, "watches=1")
    with client.ask("GET", f"{PODS}?watch=1&timeoutSeconds=300") as watch:
        assert watch.status == 200
        assert watch.read() == b""


def test_the_sandboxs_own_client_hears_of_all_though_watches_end(
    plan: Plan, client: Client
) -> None:
    falls(plan, "watches=1")
    maps, wanted = "/api/v1/namespaces/default/configmaps", {"one", "two", "three"}

    def heard() -> set[str]:
        names = (each["metadata"]["name"] for _, each in Api(plan).follow(maps, 60))
        return {next(name for name in names if name in wanted) for _ in wanted}

    with ThreadPoolExecutor() as threads:
        hearing = threads.submit(heard)
        for name in wanted:
            time.sleep(0.7)  # meanwhile a watch has ended
            with client.ask("POST", maps, {"metadata": {"name": name}}) as answer:
                assert (answer.status, bool(answer.read())) == (201, True)
        assert hearing.result() == wanted


def test_the_weather_befalls_no_node_and_no_command_of_the_sandbox(
    plan: Plan, place: Place
) -> None:
    falls(plan, "apiserver=[{effect: '500'}]")
    node = plan.nodes[0]
    for operation in ("kill", "start"):
        order(place, operation, node.name)
    assert not Api(plan).wait_for("/api/v1/nodes", [node.name], ready, 60)


def test_a_body_in_chunks_goes_through(client: Client) -> None:
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "chunked-"}}
    text = json.dumps({**made, "data": {"a": "b" * 200_000}}).encode()
    client.connection.request(
        "POST",
        "/api/v1/namespaces/default/configmaps",
        iter([text[:1000], text[1000:]]),
        {"Content-Type": "application/json", **client.headers},
        encode_chunked=True,
    )
    with client.connection.getresponse() as answer:
        assert len(json.load(answer)["data"]["a"]) == 200_000
