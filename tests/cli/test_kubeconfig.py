"""A kubeconfig that is wrong in each way: an error with its cause and the next step, in time."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from podidentity.adapters import kube as client
from podidentity.cli import main
from podidentity_sandbox.world.authority import Authority
from tests.cli.binding import Run
from tests.cli.world import World

SECRET = "kept-to-itself"
CHECK = "Check --kubeconfig and --context."
SIGN_IN = "Sign in to the cluster again"
HOW = "Give --kubeconfig or set KUBECONFIG."


def configuration(world: World, **changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a kubeconfig for the world, its cluster, context and user changed by these."""
    cluster = {
        "server": f"https://127.0.0.1:{world.plan.apiserver_port}",
        "certificate-authority": str(world.plan.ca_certificate),
    }
    return {
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": _without_none(cluster, changes.get("cluster", {}))}],
        "contexts": [
            {
                "name": "here",
                "context": _without_none({"cluster": "c", "user": "u"}, changes.get("context", {})),
            }
        ],
        "users": [
            {
                "name": "u",
                "user": _without_none({"token": world.plan.admin_token}, changes.get("user", {})),
            }
        ],
    }


def _without_none(known: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**known, **changes}.items() if value is not None}


def written(path: Path, content: object) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def plugin(version: str = "client.authentication.k8s.io/v1beta1", **more: Any) -> dict[str, Any]:
    return {"token": None, "exec": {"apiVersion": version, "command": "./plugin", **more}}


TOKENLESS = '{"status": {"clientCertificateData": "x"}}'
USER_OF_OLD = {"token": None, "auth-provider": {"name": "azure"}}
OURS: list[tuple[dict[str, Mapping[str, Any]], str]] = [
    ({"context": {"cluster": "moon"}}, "context 'here' names cluster 'moon', which is not there"),
    ({"context": {"cluster": None}}, "context 'here' names no cluster"),
    ({"context": {"cluster": ["c"]}}, "context 'here' names no cluster"),
    ({"context": {"cluster": ""}}, "context 'here' names no cluster"),
    ({"context": {"user": "moon"}}, "context 'here' names user 'moon', which is not there"),
    ({"cluster": {"server": None}}, "cluster 'c' in CONFIG has no server"),
    ({"cluster": {"server": "example.com"}}, "the server of cluster 'c' in CONFIG is no https://"),
    ({"cluster": {"server": "https://[::1"}}, "the server of cluster 'c' in CONFIG is no https://"),
    ({"cluster": {"server": "https://a:b"}}, "the server of cluster 'c' in CONFIG is no https://"),
    ({"cluster": {"server": "https://"}}, "the server of cluster 'c' in CONFIG is no https://"),
    ({"cluster": {"server": "https://a:99999"}}, "the server of cluster 'c' in CONFIG is no "),
    ({"cluster": {"certificate-authority": "gone"}}, "certificate-authority FOLDER/gone not found"),
    (
        {"cluster": {"certificate-authority": None, "certificate-authority-data": "rub bish!"}},
        "certificate-authority-data is not base64",
    ),
    (
        {
            "cluster": {
                "certificate-authority": None,
                "certificate-authority-data": encoded("no certificate"),
            }
        },
        "The credentials of context 'here' cannot be used: ",
    ),
    ({"cluster": {"tls-server-name": "other"}}, "podidentity does not know tls-server-name"),
    ({"cluster": {"proxy-url": "socks5://x"}}, "the proxy-url of context 'here' "),
    ({"cluster": {"proxy-url": "http://127.0.0.1:1"}}, ", by the proxy 127.0.0.1:1 of "),
    ({"user": {"as": "somebody"}}, "podidentity does not know as, and would act otherwise than"),
    ({"user": {"token": 3}}, "Expected `str | null`, got `int` - at `$.token`"),
    ({"user": {"token": SECRET}}, "401"),
    ({"user": {"token": None, "tokenFile": "gone"}}, "tokenFile FOLDER/gone not found"),
    ({"user": USER_OF_OLD}, "auth-provider not supported"),
    ({"user": {"client-certificate-data": encoded("x")}}, "client-key one is missing"),
    (
        {"user": {"client-certificate-data": encoded("x"), "client-key-data": encoded("y")}},
        "The credentials of context 'here' cannot be used: ",
    ),
    ({"user": plugin(command="no-such-plugin-here", installHint="Get it.")}, "Get it. "),
    (
        {"user": plugin(command="no-such-plugin-here")},
        "run: No such file or directory. Check --kubeconfig ",
    ),
    ({"user": plugin("v9")}, "is of API version 'v9', which nobody knows here"),
]


@pytest.mark.parametrize(("changes", "said"), OURS, ids=lambda value: str(value)[:60])
def test_what_is_wrong_in_a_kubeconfig_is_named_with_the_next_step(
    bare: World,
    tmp_path: Path,
    podidentity: Run,
    changes: dict[str, Mapping[str, Any]],
    said: str,
) -> None:
    path = written(tmp_path / "config", configuration(bare, **changes))
    ran = podidentity("version", "--kubeconfig", path)
    said = said.replace("CONFIG", path).replace("FOLDER", str(tmp_path))
    assert (ran.code, said in ran.err) == (1, True), ran.err
    steps = ("See the proxy's own log. ",) if "by the proxy" in said else (CHECK, HOW, SIGN_IN)
    assert any(step in ran.err for step in steps), ran.err
    assert ran.err.count("\n") == 1
    assert SECRET not in ran.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "not found. "),
        ("", "has no current context; --context names one. "),
        ("a: [", "is not YAML (line 2). "),
        ("[]", "has no current context"),
        ("[1]", "is no kubeconfig. "),
        ("just words", "is no kubeconfig. "),
        ("clusters: 3", "is no kubeconfig: its clusters are no list. "),
        ("users: [3]", "is no kubeconfig: one of its users has no name. "),
        ("users: [{name: 3}]", "is no kubeconfig: one of its users has no name. "),
        ("contexts: [{name: a, context: 3}]", "is no kubeconfig: context 'a' says nothing. "),
        ("contexts: [{name: a}]", "has no current context (there is a); --context names one. "),
        ("current-context: b\ncontexts: [{name: a}]", "Context 'b' not found in CONFIG (there is"),
    ],
)
def test_a_file_that_is_no_kubeconfig_is_named_and_not_quoted(
    tmp_path: Path, podidentity: Run, text: str | None, said: str
) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(f"{text}\n")
    ran = podidentity("version", "--kubeconfig", str(path))
    assert ran.code == 1
    assert "No Kubernetes cluster is configured: " in ran.err
    assert said.replace("CONFIG", str(path)) in ran.err
    assert HOW in ran.err


@pytest.mark.parametrize(
    ("life", "said"),
    [
        (timedelta(minutes=-1), "The client certificate of the kubeconfig expired on 20"),
        (timedelta(days=1), "Sign in to the cluster again"),
    ],
    ids=["expired", "of another cluster"],
)
def test_a_client_certificate_that_has_expired_is_named_with_its_end(
    bare: World, tmp_path: Path, podidentity: Run, life: timedelta, said: str
) -> None:
    """The server does not say which: both are Unauthorized."""
    files = tmp_path / "crt", tmp_path / "key"
    Authority.new("ours").issue_client("jane", [], *files, life=life)
    for in_file in (True, False):
        user = {"client-certificate": str(files[0]), "client-key": str(files[1])}
        if not in_file:
            user = {f"{key}-data": encoded(Path(path).read_text()) for key, path in user.items()}
        path = written(tmp_path / "config", configuration(bare, user={"token": None, **user}))
        ran = podidentity("version", "--kubeconfig", path)
        assert (ran.code, said in ran.err, "401" in ran.err) == (1, True, True), ran.err
        assert ("az aks get-credentials" in ran.err) == (life < timedelta())
        assert ran.err.count("\n") == 1


def printing(folder: Path, script: str) -> None:
    """Write the credential plug-in of these kubeconfigs."""
    path = folder / "plugin"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


PLUGINS = [
    ("exit 3", "ended with 3; what it said stands above. "),
    ("kill -9 $$", "was ended by signal 9; "),
    ("echo rubbish", "printed no ExecCredential. "),
    ("echo '{}'", "printed no ExecCredential. "),
    ("echo '{\"status\": {}}'", "printed no token. "),
    ('echo \'{"status": {"token": "\\u00e9"}}\'', "printed no token. "),
    (f"echo '{TOKENLESS}'", "gives a certificate, and only tokens are taken here. "),
    (f'echo \'{{"status": {{"token": "{SECRET}"}}}}\'', "Sign in to the cluster again"),
]


@pytest.mark.parametrize(("script", "said"), PLUGINS, ids=lambda value: value[:30])
def test_a_credential_plug_in_that_gives_no_token_is_named(
    bare: World, tmp_path: Path, podidentity: Run, script: str, said: str
) -> None:
    printing(tmp_path, script)
    path = written(tmp_path / "config", configuration(bare, user=plugin()))
    ran = podidentity("version", "--kubeconfig", path)
    assert (ran.code, said in ran.err) == (1, True), ran.err
    assert SECRET not in ran.err


def test_a_credential_plug_in_is_run_once_and_speaks_to_the_person(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What it says on its standard error is the code of a sign-in by browser."""
    answer = json.dumps({"status": {"token": world.plan.admin_token}})
    printing(
        tmp_path,
        'echo "run $*" >> "$RUNS"; echo "$KUBERNETES_EXEC_INFO" > "$RUNS.asked"; '
        f"echo 'enter the code ABC' >&2; echo '{answer}'",
    )
    runs = tmp_path / "runs"
    env = [{"name": "RUNS", "value": str(runs)}]
    version = "client.authentication.k8s.io/v1"
    user = plugin(version, env=env, args=["get-token", "--login=devicecode"])
    path = written(tmp_path / "config", configuration(world, user=user))
    assert main.run(["list", "--kubeconfig", path]) == 0
    assert capfd.readouterr().err == "enter the code ABC\n"
    assert runs.read_text() == "run get-token --login=devicecode\n"
    asked = json.loads((tmp_path / "runs.asked").read_text())
    assert (asked["apiVersion"], asked["kind"]) == (version, "ExecCredential")
    assert isinstance(asked["spec"]["interactive"], bool)


def test_several_files_mean_the_cluster_that_kubectl_means(
    bare: World, tmp_path: Path, podidentity: Run
) -> None:
    """`kubectl config use-context` writes into the first file, wherever the context is."""
    whole = configuration(bare)
    away = configuration(bare, cluster={"server": "https://127.0.0.1:1"})
    first = {"current-context": "here", "users": whole["users"]}
    second = {**away, "current-context": "away", "contexts": [], "users": []}
    second["clusters"] = [{"name": "other", "cluster": {}}]
    third = {**whole, "current-context": "away", "users": [{"name": "u", "user": {"token": "x"}}]}
    paths = [
        str(tmp_path / "none"),
        *(
            written(tmp_path / str(number), each)
            for number, each in enumerate((first, second, third))
        ),
    ]
    ran = podidentity("version", "--kubeconfig", ":".join(paths))
    assert (ran.code, ran.err) == (0, "")


def test_files_that_a_kubeconfig_names_are_beside_it(
    bare: World, tmp_path: Path, podidentity: Run
) -> None:
    (tmp_path / "ca.crt").write_text(Path(bare.plan.ca_certificate).read_text())
    (tmp_path / "token").write_text(bare.plan.admin_token)
    changes = {"certificate-authority": "ca.crt"}
    user = {"token": None, "tokenFile": "token"}
    path = written(tmp_path / "config", configuration(bare, cluster=changes, user=user))
    assert podidentity("version", "--kubeconfig", path).code == 0


@contextlib.contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Yield the port of a server that answers each connection so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def page(status: str, body: str) -> Callable[[socket.socket], None]:
    """Return what answers as a web server does."""

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(f"{head}Connection: close\r\n\r\n{body}".encode())

    return answer


def silent(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


SERVERS = {
    "a page": ("http", page("200 OK", "<html>Welcome</html>"), "sent not a Kubernetes list: JSON"),
    "no page": (
        "http",
        page("404 Not Found", "<html>Page not found</html>"),
        "So speaks no Kubernetes API server: ",
    ),
    "TLS alone": (
        "http",
        page("400 Bad Request", "Client sent an HTTP request to an HTTPS server."),
        "So speaks no Kubernetes API server: ",
    ),
    "no TLS": ("https", page("400 Bad Request", "x"), "cannot be asked: [SSL"),
    "silent before TLS": ("https", silent, "no connection within 0.2 s. "),
    "silent": (
        "http",
        silent,
        "no answer within 0.2 s. The API server takes connections and does not answer",
    ),
    "closing": ("http", socket.socket.close, "The connection was cut: run the command again."),
}


@pytest.mark.parametrize(("scheme", "answer", "said"), SERVERS.values(), ids=SERVERS)
def test_a_server_that_is_none_of_kubernetes_is_named(  # noqa: PLR0917 - pytest's
    tmp_path: Path,
    bare: World,
    podidentity: Run,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    answer: Callable[[socket.socket], None],
    said: str,
) -> None:
    if answer is silent:
        short = {"connect": 0.2} if scheme == "https" else {"read": 0.2}
        monkeypatch.setattr(client, "_REQUEST", httpx2.Timeout(60, **short))
    with answering(answer) as port:
        at = {"server": f"{scheme}://127.0.0.1:{port}"}
        path = written(tmp_path / "config", configuration(bare, cluster=at))
        ran = podidentity("list", "--kubeconfig", path)
    assert (ran.code, said in ran.err) == (1, True), ran.err
    assert "podidentity enable" not in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("server", ["https://127.0.0.1:1", "https://no-such-host.invalid:6443"])
def test_a_server_that_is_not_there_is_named(
    tmp_path: Path, bare: World, podidentity: Run, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    path = written(tmp_path / "config", configuration(bare, cluster={"server": server}))
    ran = podidentity("version", "--kubeconfig", path)
    assert ran.code == 1
    assert f"{server} cannot be asked" in ran.err
    assert CHECK in ran.err


def test_a_name_server_that_hangs_has_no_command_wait_for_it(
    tmp_path: Path, bare: World, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread ends with the process."""
    over, real = threading.Event(), socket.getaddrinfo
    looked_up: list[object] = []

    def hanging(host: Any, *rest: Any, **more: Any) -> Any:
        if host not in {"slow.example.com", b"slow.example.com"}:
            return real(host, *rest, **more)
        looked_up.append(host)
        over.wait(60)
        raise OSError("nobody answers")

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    monkeypatch.setattr(client, "_REQUEST", httpx2.Timeout(0.2))
    monkeypatch.setenv("NO_PROXY", "*")
    at = {"server": "https://slow.example.com:6443"}
    path = written(tmp_path / "config", configuration(bare, cluster=at))
    ran = podidentity("list", "--kubeconfig", path)
    waited = over.is_set()
    over.set()
    assert (ran.code, "no connection within 0.2 s. " in ran.err) == (1, True), ran.err
    assert (waited, looked_up != []) == (False, True)


def test_a_server_of_a_foreign_authority_is_not_believed_unless_the_kubeconfig_says_so(
    tmp_path: Path, bare: World, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    foreign = {"certificate-authority": None}
    path = written(tmp_path / "config", configuration(bare, cluster=foreign))
    ran = podidentity("version", "--kubeconfig", path)
    assert (ran.code, "certificate-authority vouches for" in ran.err) == (1, True), ran.err
    trusting = {**foreign, "insecure-skip-tls-verify": True}
    path = written(tmp_path / "config", configuration(bare, cluster=trusting))
    assert podidentity("version", "--kubeconfig", path).code == 0
