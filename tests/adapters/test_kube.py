from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest

from podidentity import kubeconfig
from podidentity.adapters import kube as finding
from podidentity.adapters.kube import Kube, together
from podidentity.wire.kube import Event, KubeError, parse_object_version
from podidentity.wire.proxies import parse_proxies
from tests.adapters.proxying import azure, proxy
from tests.adapters.scripted import Conversation, Turn, answers, cuts, hangs, scripted

SECRET = "a-very-secret-token"


def write(folder: Path, url: str, name: str = "config", **user: Any) -> str:
    path = folder / name
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": user or {"token": SECRET}}],
    }
    path.write_text(json.dumps(config))
    return str(path)


@asynccontextmanager
async def connected(folder: Path, url: str) -> AsyncIterator[Kube]:
    kube = Kube.connect(write(folder, url), user_agent="test/1", trust_env=False)
    try:
        yield kube
    finally:
        await kube.close()


async def test_requests_carry_who_asks_and_what_is_meant(tmp_path: Path) -> None:
    async with scripted(answers(b"{}")) as server, connected(tmp_path, server.url) as kube:
        await kube.get("/a", {"x": "1"})
        await kube.create("/b", {"n": 1})
        await kube.merge("/c", {"n": None})
        await kube.delete("/d")
    get, create, merge, delete = server.asked
    assert [each.method for each in server.asked] == ["GET", "POST", "PATCH", "DELETE"]
    assert (get.target, create.body, merge.body) == ("/a?x=1", b'{"n": 1}', b'{"n": null}')
    assert "Content-Type: application/merge-patch+json" in merge.head
    assert delete.path == "/d"
    for each in server.asked:
        assert f"Authorization: Bearer {SECRET}" in each.head
        assert "User-Agent: test/1" in each.head


@pytest.mark.parametrize(
    ("status", "body", "passed"),
    [
        (200, {"ready": True}, True),
        (503, {"ready": False, "kind": "x"}, True),
        (503, {"kind": "Status", "message": "error trying to reach service"}, False),
        (403, {"kind": "Status", "reason": "Forbidden", "message": "no"}, False),
    ],
)
async def test_what_a_pod_answers_behind_the_server_is_passed_on_and_the_servers_own_is_an_error(
    status: int, body: Any, passed: bool
) -> None:
    transport = httpx2.MockTransport(lambda _: httpx2.Response(status, json=body))
    kube = Kube(httpx2.AsyncClient(base_url="https://api", transport=transport), reads=3)
    if passed:
        assert json.loads(await kube.passed_on("/p/proxy/readyz")) == body
    else:
        with pytest.raises(KubeError, match=str(status)):
            await kube.passed_on("/p/proxy/readyz")
    await kube.close()


@pytest.mark.parametrize(
    ("bound", "most", "item", "says"),
    [
        ("MOST_OBJECTS", 1500, "x", "1500 objects asked for"),
        ("LARGEST_LIST", 5 << 20, "x" * (1 << 20), "5 MiB"),
    ],
    ids=["objects", "bytes"],
)
async def test_a_list_that_does_not_end_is_given_up(
    monkeypatch: pytest.MonkeyPatch, bound: str, most: int, item: str, says: str
) -> None:
    monkeypatch.setattr(finding, bound, most)
    parts = count()

    def answer(_: httpx2.Request) -> httpx2.Response:
        metadata = {"resourceVersion": "9", "continue": f"on-{next(parts)}"}
        return httpx2.Response(200, json={"metadata": metadata, "items": [item]})

    client = httpx2.AsyncClient(base_url="https://api", transport=httpx2.MockTransport(answer))
    kube = Kube(client, reads=3)
    with pytest.raises(KubeError) as raised:
        await kube.list_all("/api/v1/pods")
    await kube.close()
    assert raised.value.message == f"https://api sent a list without an end to list pods: {says}."


@pytest.mark.parametrize("watches", [False, True])
async def test_an_answer_that_does_not_end_is_read_no_further_and_not_asked_for_again(
    *, watches: bool
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b" " * (16 << 20)

    status = 500 if watches else 200
    transport = httpx2.MockTransport(lambda _: httpx2.Response(status, content=endless()))
    kube = Kube(httpx2.AsyncClient(base_url="https://api", transport=transport), reads=3)
    with pytest.raises(KubeError) as raised:
        await (collect(kube, "5") if watches else kube.get("/api/v1/pods"))
    await kube.close()
    asked = "watch pods" if watches else "list pods"
    assert raised.value.message.startswith("The API server at https://api sent more than 32 MiB")
    assert asked in raised.value.message
    assert sent == 3


async def test_a_deep_object_is_read_however_large_it_is(tmp_path: Path) -> None:
    """With each `<` escaped, 1.5 MB of etcd are 9 MB of JSON."""
    odd = b"[" * 20_000 + b"]" * 20_000 + b',"more":"' + b"\\u003c" * 500_000
    deep = b'{"metadata":{"name":"deep"},"spec":{"odd":' + odd + b'"}}'
    page = b'{"metadata":{"resourceVersion":"1"},"items":[' + deep + b"]}"
    event = b'{"type":"ADDED","object":' + deep + b"}\n"
    async with (
        scripted(answers(page), answers(event)) as server,
        connected(tmp_path, server.url) as kube,
    ):
        (item,) = (await kube.list("/a", {"limit": "1"})).items
        (found,) = await collect(kube, "1")
    assert parse_object_version(item).ref.name == parse_object_version(found.object).ref.name


async def test_a_list_in_parts_is_read_whole(tmp_path: Path) -> None:
    first = {"metadata": {"resourceVersion": "9", "continue": "more"}, "items": [1, 2]}
    second = {"metadata": {"resourceVersion": "9"}, "items": [3]}
    async with (
        scripted(answers(first), answers(second)) as server,
        connected(tmp_path, server.url) as kube,
    ):
        page = await kube.list_all("/a", {"fieldSelector": "x=y"})
    assert [bytes(item) for item in page.items] == [b"1", b"2", b"3"]
    assert page.resource_version == "9"
    assert "continue=more" in server.asked[1].query
    assert all("fieldSelector=x%3Dy" in each.query for each in server.asked)


_LARGE = 1 << 20


def of_large_objects(count: int, asked: list[tuple[int, int]]) -> httpx2.MockTransport:
    """Answer a list of so many objects of a megabyte, of which each part is asked for."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        limit = int(request.url.params["limit"])
        first = int(request.url.params.get("continue", "0"))
        last = min(first + limit, count)
        asked.append((first, limit))

        async def body() -> AsyncIterator[bytes]:
            more = str(last) if last < count else ""
            yield b'{"metadata":{"continue":"%s"},"items":[' % more.encode()
            for number in range(first, last):
                yield b'"%s"' % bytes(_LARGE).replace(b"\0", b"x")
                yield b"," if number + 1 < last else b"]}"

        return httpx2.Response(200, content=body())

    return httpx2.MockTransport(answer)


async def test_of_large_objects_fewer_are_asked_for_so_that_a_page_fits_into_memory() -> None:
    asked: list[tuple[int, int]] = []
    transport = of_large_objects(40, asked)
    kube = Kube(httpx2.AsyncClient(base_url="https://api", transport=transport))
    sizes = [sum(map(len, map(bytes, page.items))) async for page in kube.pages("/a")]
    await kube.close()
    assert sum(sizes) == 40 * (_LARGE + len('""'))
    assert max(sizes) < 4 * _LARGE
    assert asked[:5] == [(0, 500), (0, 62), (0, 7), (0, 1), (1, 2)]


async def test_pages_grow_again_behind_large_objects() -> None:
    sizes = [1 << 20] * 8 + [100] * 2_000
    asked: list[int] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        limit, first = int(request.url.params["limit"]), int(request.url.params.get("continue", 0))
        asked.append(limit)
        items = b",".join(b'"%s"' % (b"x" * size) for size in sizes[first : first + limit])
        more = b"%d" % (first + limit) if first + limit < len(sizes) else b""
        return httpx2.Response(
            200, content=b'{"metadata":{"continue":"%s"},"items":[%s]}' % (more, items)
        )

    kube = Kube(httpx2.AsyncClient(base_url="https://api", transport=httpx2.MockTransport(answer)))
    assert sum([len(page.items) async for page in kube.pages("/a")]) == len(sizes)
    await kube.close()
    assert asked == [500, 62, 7, 1, 2, 2, 2, 2, 5, 40, 320, 500, 500, 500, 500]


async def test_a_list_that_names_the_same_part_again_and_again_is_none(tmp_path: Path) -> None:
    part = {"metadata": {"resourceVersion": "9", "continue": "more"}, "items": [1]}
    async with scripted(answers(part)) as server, connected(tmp_path, server.url) as kube:
        with pytest.raises(KubeError, match="a list without an end"):
            await kube.list_all("/a")
        assert len(server.asked) == 2


async def test_one_object_that_is_larger_than_any_can_be_is_an_error() -> None:
    async def body() -> AsyncIterator[bytes]:
        while True:
            yield bytes(_LARGE)

    asked = 0

    def answer(_: httpx2.Request) -> httpx2.Response:
        nonlocal asked
        asked += 1
        return httpx2.Response(200, content=body())

    client = httpx2.AsyncClient(base_url="https://api", transport=httpx2.MockTransport(answer))
    kube = Kube(client, reads=3)
    with pytest.raises(KubeError, match="more than 16 MiB"):
        await kube.list_all("/a")
    await kube.close()
    assert asked == 4, "for 500 objects, and at last for one"


async def test_a_watch_yields_events_however_they_are_cut(tmp_path: Path) -> None:
    line = json.dumps({"type": "ADDED", "object": {"text": "one\u2028line"}}, ensure_ascii=False)

    async def turn(conversation: Conversation) -> None:
        await conversation.begin()
        whole = (line + "\n").encode()
        await conversation.chunk(whole[:10])
        await conversation.chunk(whole[10:] + whole + b"\n")
        await conversation.end()

    async with scripted(turn) as server, connected(tmp_path, server.url) as kube:
        events = await collect(kube, "5")
    assert [event.type for event in events] == ["ADDED", "ADDED"]
    query = server.asked[0].query
    assert "watch=1" in query
    assert "resourceVersion=5" in query
    assert "allowWatchBookmarks=true" in query
    assert "timeoutSeconds=300" in query


async def collect(kube: Kube, version: str, seconds: float = 300) -> list[Event]:
    watch = kube.watch("/api/v1/pods", resource_version=version, seconds=seconds)
    async with aclosing(watch):
        return [event async for event in watch]


async def test_a_watch_says_when_it_has_begun(tmp_path: Path) -> None:
    begun: list[str] = []

    async def turn(conversation: Conversation) -> None:
        await conversation.begin()
        await conversation.end()

    async with scripted(turn) as server, connected(tmp_path, server.url) as kube:
        watch = kube.watch("/a", resource_version="", opened=lambda: begun.append("yes"))
        async with aclosing(watch):
            async for _ in watch:
                pass
    assert begun == ["yes"]


async def test_an_error_event_is_an_error(tmp_path: Path) -> None:
    async def turn(conversation: Conversation) -> None:
        await conversation.begin()
        await conversation.event("ERROR", code=410, reason="Expired", message="too old")

    async with scripted(turn) as server, connected(tmp_path, server.url) as kube:
        with pytest.raises(KubeError) as caught:
            await collect(kube, "5")
    assert caught.value.gone
    assert caught.value.message == "The API server refused to watch pods (410 Expired): too old"


@pytest.mark.parametrize("status", [401, 403, 404, 410, 500])
async def test_a_refusal_keeps_status_reason_and_message_and_says_what_was_asked_for(
    tmp_path: Path, status: int
) -> None:
    body = {"kind": "Status", "code": status, "reason": "Because", "message": "so"}
    async with (
        scripted(answers(body, status)) as server,
        connected(tmp_path, server.url) as kube,
    ):
        for asked, words in (
            (kube.get("/api/v1/nodes/n"), "get nodes n"),
            (kube.delete("/api/v1/nodes/n"), "delete nodes n"),
            (kube.passed_on("/api/v1/namespaces/a/pods/p/proxy/x"), "get pods/proxy p"),
            (collect(kube, "5"), "watch pods"),
        ):
            with pytest.raises(KubeError) as caught:
                await asked
            assert (caught.value.status, caught.value.reason) == (status, "Because")
            assert str(caught.value).startswith(f"The API server refused to {words}")
            assert str(caught.value).endswith(": so")


@pytest.mark.parametrize(
    "turn",
    [
        pytest.param(cuts, id="cut off"),
        pytest.param(answers(b"not json"), id="not JSON"),
        pytest.param(answers(b"x", more="Content-Length: 99\r\n"), id="not HTTP"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_unreachable(tmp_path: Path, turn: Any) -> None:
    async with scripted(turn) as server, connected(tmp_path, server.url) as kube:
        with pytest.raises(KubeError) as caught:
            await kube.list("/a")
    assert caught.value.unreachable
    assert server.url in str(caught.value)
    assert SECRET not in str(caught.value)


async def test_garbage_in_a_watch_ends_it_with_an_error(tmp_path: Path) -> None:
    async def turn(conversation: Conversation) -> None:
        await conversation.begin()
        await conversation.chunk(b'{"type":"ADDED"\n')

    async with scripted(turn) as server, connected(tmp_path, server.url) as kube:
        with pytest.raises(KubeError, match="not a watch event"):
            await collect(kube, "5")


async def test_a_watch_that_the_server_forgets_to_end_is_given_up(tmp_path: Path) -> None:
    async def begins(conversation: Conversation) -> None:
        await conversation.begin()
        await hangs(conversation)

    async with scripted(begins) as server, connected(tmp_path, server.url) as kube:
        with pytest.raises(KubeError, match=r"no answer within 0\.0525 s") as caught:
            await collect(kube, "5", seconds=0.05)
    assert caught.value.unreachable


async def test_a_server_that_is_away_is_named(tmp_path: Path) -> None:
    async with connected(tmp_path, "http://127.0.0.1:1") as kube:
        with pytest.raises(KubeError, match=r"at http://127\.0\.0\.1:1 cannot be asked"):
            await kube.get("/a")


async def test_leaving_a_watch_closes_its_connection(tmp_path: Path) -> None:
    closed = asyncio.Event()

    async def turn(conversation: Conversation) -> None:
        await conversation.begin()
        await conversation.event("ADDED")
        try:
            while True:
                await conversation.event("BOOKMARK")
                await asyncio.sleep(0)
        except ConnectionError:
            closed.set()

    async with scripted(turn) as server, connected(tmp_path, server.url) as kube:
        watch = kube.watch("/a", resource_version="")
        async with aclosing(watch):
            await anext(watch)
        await closed.wait()


def failure(kubeconfig: str | None, context: str | None = None) -> str:
    with pytest.raises(KubeError) as caught:
        Kube.connect(kubeconfig, context=context, user_agent="t")
    assert caught.value.unreachable
    return str(caught.value)


def test_a_missing_kubeconfig_is_named_with_the_next_step(tmp_path: Path) -> None:
    text = failure(str(tmp_path / "none"))
    assert f"configured: {tmp_path}/none not found. " in text
    assert text.endswith("Give --kubeconfig or set KUBECONFIG.")


@pytest.mark.parametrize(
    "text", ["", "[]", "a: [", "clusters: 3", "\0", "clusters: []\ncontexts: []"]
)
def test_a_file_that_is_no_kubeconfig_is_named_and_not_quoted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(f"{text}\nusers: [{{name: u, user: {{token: {SECRET}}}}}]")
    told = failure(str(path))
    assert str(path) in told
    assert SECRET not in told


def test_an_unknown_context_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "http://x")
    assert "Context 'there' not found" in failure(path, "there")


def test_of_several_files_the_first_with_the_context_is_used(tmp_path: Path) -> None:
    second = write(tmp_path, "http://second:1", "second")
    third = write(tmp_path, "http://third:1", "third")
    kube = Kube.connect(f"{tmp_path}/none:{second}:{third}", context="here", user_agent="t")
    assert kube.server == "http://second:1"


def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "https://x", **{"client-certificate": "none.crt", "client-key": "k"})
    assert "credentials of context 'here' cannot be used" in failure(path)


def test_in_a_pod_the_service_account_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "namespace").write_text("kube-system")
    (tmp_path / "ca.crt").write_text(CERTIFICATE)
    monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    found = kubeconfig.load_credentials(None, None, trust_env=False)
    assert found.server == "https://10.0.0.1:443"
    assert SECRET not in repr(found)
    # A kubeconfig that is named counts before it.
    path = write(tmp_path, "https://elsewhere")
    assert kubeconfig.load_credentials(path, None, trust_env=False).server == "https://elsewhere"


def test_a_certificate_of_a_kubeconfig_is_read_of_its_data(tmp_path: Path) -> None:
    data = {
        "client-certificate-data": base64.b64encode(CERTIFICATE.encode()).decode(),
        "client-key-data": base64.b64encode(KEY.encode()).decode(),
    }
    path = write(tmp_path, "https://x", **data)
    assert kubeconfig.load_credentials(path, None, trust_env=False).server == "https://x"
    path = write(tmp_path, "https://x", **{**data, "client-key-data": ""})
    assert "of client-certificate and client-key one is missing" in failure(path)


@pytest.mark.parametrize("name", ["tls-server-name", "as", "as-uid", "as-groups", "as-user-extra"])
def test_what_would_have_kubectl_act_as_somebody_else_is_not_passed_over(
    tmp_path: Path, name: str
) -> None:
    assert f"podidentity does not know {name}, " in failure(
        write(tmp_path, "https://x", **{name: "a"})
    )


def test_a_file_of_no_name_is_none(tmp_path: Path) -> None:
    path = write(tmp_path, "https://x", **{"token": SECRET, "tokenFile": "", "client-key": ""})
    assert kubeconfig.load_credentials(path, None, trust_env=False).server == "https://x"


def with_authority(folder: Path, data: bytes) -> str:
    """Return a kubeconfig with this certificate-authority-data."""
    path = Path(write(folder, "https://x"))
    whole = json.loads(path.read_text())
    text = base64.b64encode(data).decode() or " "
    whole["clusters"][0]["cluster"]["certificate-authority-data"] = text
    path.write_text(json.dumps(whole))
    return str(path)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"", b" \n", b"rubbish"])
def test_an_authority_of_a_kubeconfig_that_is_none_is_named_and_no_other_is_trusted(
    tmp_path: Path, data: bytes
) -> None:
    said = failure(with_authority(tmp_path, data))
    assert "The credentials of context 'here' cannot be used" in said


def test_an_authority_of_a_kubeconfig_may_have_a_comment_of_any_letters(tmp_path: Path) -> None:
    path = with_authority(tmp_path, f"# für den Test\n{CERTIFICATE}".encode())
    found = kubeconfig.load_credentials(path, None, trust_env=False)
    assert found.verify.cert_store_stats()["x509"] == 1


def test_a_pod_without_the_variables_of_a_pod_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "namespace").write_text("kube-system")
    monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert "KUBERNETES_SERVICE_HOST" in failure(None)


def test_without_any_configuration_the_default_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", tmp_path / "none")
    monkeypatch.setattr(kubeconfig, "DEFAULT_KUBECONFIG", tmp_path / "kube" / "config")
    assert f"{tmp_path}/kube/config not found" in failure(None)


def make_certificate() -> tuple[str, str]:
    """Return a certificate and its key."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    kept = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(pem).decode(), kept.decode()


CERTIFICATE, KEY = make_certificate()


def throttles(seconds: str, status: int = 429) -> Turn:
    """An answer of API priority and fairness: text, and no Status."""

    async def turn(conversation: Conversation) -> None:
        text = b"Too many requests, please try again later.\n"
        await conversation.answer(text, status, f"Retry-After: {seconds}\r\n" if seconds else "")

    return turn


@asynccontextmanager
async def sleepless(url: str, reads: int = 1) -> AsyncIterator[tuple[Kube, list[float]]]:
    """A client that does not sleep, and the seconds that it would have."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with httpx2.AsyncClient(base_url=url, trust_env=False) as client:
        yield Kube(client, reads=reads, sleep=sleep, jitter=lambda: 1.0), slept


@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_that_names_a_time_is_asked_again_after_it_and_not_before(
    status: int,
) -> None:
    """https://kubernetes.io/docs/concepts/cluster-administration/flow-control/."""
    async with (
        scripted(throttles("2", status), throttles("4", status), answers(b"{}")) as server,
        sleepless(server.url) as (kube, slept),
    ):
        assert await kube.create("/a", {"n": 1}) == b"{}"
    assert [each.body for each in server.asked] == [b'{"n": 1}'] * 3
    assert slept == [3, 6]  # half as long again, so that not all agents come back at once


@pytest.mark.parametrize("seconds", ["", "0", "soon", "-1"])
async def test_a_server_that_names_no_time_is_not_waited_for(seconds: str) -> None:
    async with scripted(throttles(seconds)) as server, sleepless(server.url) as (kube, slept):
        with pytest.raises(KubeError) as caught:
            await kube.get("/a")
    assert (len(server.asked), slept) == (1, [])
    assert caught.value.throttled
    assert caught.value.retry_after == 0
    assert "Too many requests" in str(caught.value)


async def test_a_server_that_stays_overloaded_is_given_up_after_half_a_minute() -> None:
    async with scripted(throttles("5")) as server, sleepless(server.url) as (kube, slept):
        with pytest.raises(KubeError, match="429"):
            await kube.get("/a")
    assert slept == [7.5] * 4
    assert len(server.asked) == 5


async def test_a_server_that_names_a_long_time_is_asked_again_every_10_s() -> None:
    async with scripted(throttles("31")) as server, sleepless(server.url) as (kube, slept):
        with pytest.raises(KubeError, match="429"):
            await kube.get("/a")
    assert slept == [10] * 3


async def test_a_refusal_for_good_is_not_asked_again_whatever_it_names() -> None:
    async with scripted(throttles("1", 403)) as server, sleepless(server.url) as (kube, slept):
        with pytest.raises(KubeError):
            await kube.get("/a")
    assert (len(server.asked), slept) == (1, [])


async def test_a_command_reads_again_where_its_connection_is_cut() -> None:
    async with (
        scripted(cuts, cuts, answers(b"{}")) as server,
        sleepless(server.url, reads=3) as (kube, slept),
    ):
        assert await kube.get("/a") == b"{}"
    assert (len(server.asked), slept) == (3, [])


async def test_a_command_reads_again_a_second_after_the_server_failed() -> None:
    async with (
        scripted(answers(b"{}", 500), answers(b"{}", 504), answers(b"{}")) as server,
        sleepless(server.url, reads=3) as (kube, slept),
    ):
        assert await kube.get("/a") == b"{}"
    assert (len(server.asked), slept) == (3, [1, 1])


@pytest.mark.parametrize("reads", [1, 3])
async def test_a_server_that_always_fails_is_given_up(reads: int) -> None:
    async with (
        scripted(answers(b"{}", 500)) as server,
        sleepless(server.url, reads) as (kube, slept),
    ):
        with pytest.raises(KubeError):
            await kube.get("/a")
    assert (len(server.asked), slept) == (reads, [1] * (reads - 1))


@pytest.mark.parametrize("turn", [cuts, answers(b"{}", 500)], ids=["cut", "500"])
async def test_a_change_is_not_asked_for_again_where_it_may_have_been_made(turn: Turn) -> None:
    async with scripted(turn) as server, sleepless(server.url, reads=3) as (kube, slept):
        with pytest.raises(KubeError):
            await kube.create("/a", {})
    assert (len(server.asked), slept) == (1, [])


@pytest.mark.parametrize("turn", [cuts, answers(b"{}", 500)], ids=["cut", "500"])
async def test_a_question_that_changes_nothing_is_asked_again_by_an_agent_too(turn: Turn) -> None:
    async with (
        scripted(turn, answers(b"{}")) as server,
        sleepless(server.url) as (kube, _),
    ):
        assert await kube.ask("/a", {}) == b"{}"
    assert [each.method for each in server.asked] == ["POST", "POST"]


@pytest.mark.parametrize(("reads", "asked"), [(1, 2), (3, 3)])
async def test_a_question_that_gets_no_answer_is_given_up(reads: int, asked: int) -> None:
    async with (
        scripted(answers(b"{}", 500)) as server,
        sleepless(server.url, reads) as (kube, _),
    ):
        with pytest.raises(KubeError):
            await kube.ask("/a", {})
    assert len(server.asked) == asked


@pytest.mark.parametrize("reads", [1, 3])
async def test_a_read_that_is_always_cut_is_given_up(reads: int) -> None:
    async with scripted(cuts) as server, sleepless(server.url, reads) as (kube, _):
        with pytest.raises(KubeError) as caught:
            await kube.get("/a")
    assert caught.value.unreachable
    assert len(server.asked) == reads


async def test_of_questions_side_by_side_the_first_failure_counts_when_none_is_open() -> None:
    open_yet = asyncio.Event()
    done = []

    async def refused() -> int:
        raise KubeError("may not list a")

    async def slow() -> str:
        await open_yet.wait()
        done.append("b")
        return "b"

    async def other() -> str:
        open_yet.set()
        raise KubeError("may not list c")

    with pytest.raises(KubeError, match="may not list a"):
        await together(refused(), slow(), other())
    assert done == ["b"]
    assert await together(asyncio.sleep(0, 1), asyncio.sleep(0, "x")) == (1, "x")


def proxied(folder: Path, url: str, **more: object) -> str:
    """Write a kubeconfig whose cluster has these fields as well; return its path."""
    path = write(folder, url)
    found = json.loads(Path(path).read_text())
    found["clusters"][0]["cluster"] |= more
    Path(path).write_text(json.dumps(found))
    return path


async def test_a_command_asks_by_the_kubeconfigs_proxy_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("no_proxy", raising=False)
    async with azure(tmp_path, "api.example.com") as (server, trusted), proxy(server) as by:
        more = {
            "proxy-url": f"http://127.0.0.1:{by.port}",
            "certificate-authority": str(trusted),
        }
        path = proxied(tmp_path, "https://api.example.com:6443", **more)
        kube = Kube.connect(path, user_agent="test/1")
        assert await kube.get("/version") == b"{}"
        await kube.close()
    assert [head.split(" ")[1] for head in by.heads] == ["api.example.com:6443"]
    assert SECRET.encode() not in bytes(by.seen)


@pytest.mark.parametrize(
    "url", ["socks5://me:s3cret@127.0.0.1:1080", "http://me:s3cret@[", "http://me:s3cret@"]
)
def test_a_malformed_proxy_of_a_kubeconfig_is_told_without_its_password(
    tmp_path: Path, url: object
) -> None:
    more = {"proxy-url": url}
    said = failure(proxied(tmp_path, "https://api.example.com:6443", **more))
    assert "cannot be asked: the proxy-url of context 'here' " in said
    assert "s3cret" not in said


@pytest.mark.parametrize(
    ("server", "variables", "proxy"),
    [
        ("https://api.example.com:6443", {"HTTPS_PROXY": "http://p:1"}, "p:1"),
        ("https://api.example.com:6443", {"https_proxy": "p:1"}, "p:1"),
        ("https://127.0.0.1:6443", {"HTTPS_PROXY": "http://p:1"}, "None"),
        ("https://localhost:6443", {"HTTPS_PROXY": "http://p:1"}, "None"),
        ("https://[::1]:6443", {"HTTPS_PROXY": "http://p:1"}, "None"),
        ("https://api.example.com", {"HTTPS_PROXY": "p:1", "NO_PROXY": ".com:443"}, "None"),
        ("https://api.example.com:6443", {"HTTPS_PROXY": "p:1", "NO_PROXY": ".com:443"}, "p:1"),
        ("https://api.example.com", {"ALL_PROXY": "socks5://p:1"}, "None"),
        ("https://127.0.0.1:6443", {"HTTPS_PROXY": "socks5://p:1"}, "None"),
    ],
)
def test_a_command_asks_by_the_environments_proxy_where_kubectl_does(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: str,
    variables: dict[str, str],
    proxy: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    path, proxies = write(tmp_path, server), parse_proxies(variables)
    loaded = kubeconfig.load_credentials(path, None, trust_env=True, proxies=proxies)
    assert str(loaded.proxy) == proxy
    Kube.connect(path, user_agent="t", proxies=proxies)  # the library reads no variable itself


@pytest.mark.parametrize(
    "value", ["socks5://me:s3cret@p:1", "ftp://p:1", "http://[::1", "http://me:s3cret@p:x"]
)
def test_a_proxy_of_the_environment_that_cannot_be_used_is_one_error_without_its_password(
    tmp_path: Path, value: str
) -> None:
    path = write(tmp_path, "https://api.example.com:6443")
    with pytest.raises(KubeError) as caught:
        Kube.connect(path, user_agent="t", proxies=parse_proxies({"HTTPS_PROXY": value}))
    said = str(caught.value)
    assert "https://api.example.com:6443 cannot be asked: HTTPS_PROXY " in said
    assert "s3cret" not in said


async def test_a_failure_behind_a_proxy_names_the_proxy(tmp_path: Path) -> None:
    async with azure(tmp_path, "x") as (server, _), proxy(server, "403 Forbidden") as by:
        proxies = parse_proxies({"HTTPS_PROXY": f"http://me:s3cret@127.0.0.1:{by.port}"})
        path = write(tmp_path, "https://api.example.com")
        kube = Kube.connect(path, user_agent="t", proxies=proxies)
        with pytest.raises(KubeError) as caught:
            await kube.get("/version")
        await kube.close()
    said = f"cannot be asked: 403 Forbidden, by the proxy 127.0.0.1:{by.port} of HTTPS_PROXY."
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


async def test_a_token_that_no_header_may_have_is_not_quoted(tmp_path: Path) -> None:
    async with scripted(answers(b"{}")) as server:
        for trust_env in (True, False):
            path = write(tmp_path, server.url, token=f"{SECRET}\n")
            kube = Kube.connect(path, user_agent="t", trust_env=trust_env)
            with pytest.raises(KubeError, match="the credentials have a line end") as caught:
                await kube.get("/version")
            await kube.close()
            assert SECRET not in str(caught.value)
