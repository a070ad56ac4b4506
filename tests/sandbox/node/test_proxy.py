"""Requests to a port of a pod through the API server, as `kubectl get --raw` makes them."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request

import pytest

from tests.sandbox.node.site import PODS, Site, container, pod

pytestmark = pytest.mark.net
ECHO = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Echo(BaseHTTPRequestHandler):
    def do_POST(self):
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        head = {name.lower(): value for name, value in self.headers.items()}
        passed = [head.get(name) for name in ("x-own", "authorization", "x-remote-user", "te")]
        said = repr([self.command, self.path, sent, passed, head["host"], head["x-forwarded-uri"]])
        self.send_response(418)
        self.send_header("Content-Type", "text/odd")
        self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(said.encode())
    do_GET = do_POST
HTTPServer(("", 8080), Echo).serve_forever()
"""


def asked(site: Site, path: str, body: bytes | None = None) -> tuple[int, str, str]:
    """Return status, type and text of an answer through the API server."""
    url = f"https://127.0.0.1:{site.plan.apiserver_port}{PODS}/{path}"
    headers = {
        "Authorization": f"Bearer {site.plan.admin_token}",
        "X-Own": "mine",
        "X-Remote-User": "somebody",
        "TE": "trailers",
    }
    tls = ssl.create_default_context(cafile=str(site.plan.ca_certificate))
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        answer = urllib.request.urlopen(request, context=tls)  # noqa: S310 - the same
    except urllib.error.HTTPError as error:
        answer = error
    assert answer.headers.get("Retry-After", "7") == "7"
    return answer.status, answer.headers["Content-Type"], answer.read().decode()


def test_a_request_reaches_the_port_and_the_answer_comes_back(site: Site) -> None:
    ready = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    ports = [{"name": "web", "containerPort": 8080}]
    serving = container("python3", "-c", ECHO, readinessProbe=ready, ports=ports)
    site.run(pod("echo", serving))
    host, mine = f"127.0.0.1:{site.plan.apiserver_port}", ["mine", None, None, None]
    for name in ("echo", "echo:8080", "echo:web", "http:echo:8080"):
        uri = f"{PODS}/{name}/proxy/a%20b"
        said = repr(["GET", "/a%20b?c=d", "", mine, host, uri])
        assert asked(site, f"{name}/proxy/a%20b?c=d") == (418, "text/odd", said)
    said = repr(["POST", "/", "body", mine, host, f"{PODS}/echo/proxy/"])
    assert asked(site, "echo/proxy/", b"body")[2] == said
    assert asked(site, "echo/proxy")[2].startswith("['GET', '/',"), "it is led to the slash"
    status, _, text = asked(site, "echo:9/proxy/")
    assert status == 503
    assert json.loads(text)["message"].startswith("error trying to reach service: ")
