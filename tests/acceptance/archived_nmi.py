"""A stand-in for NMI of AAD Pod Identity 1.8.17, true to its contract with the node and with pods.

Its ports (127.0.0.1:2579, *:8085, *:9090), without which it ends; its chain `aad-metadata` of the
table nat, with its rules; at SIGTERM the rules go, and the ports are served for ten seconds more.
It gives every pod a token of one identity, which it keeps: the real one asks IMDS each time, and
the quota of IMDS would be what a test under load sees.

https://github.com/Azure/aad-pod-identity/blob/v1.8.17/pkg/nmi/iptables/iptables.go
https://github.com/Azure/aad-pod-identity/blob/v1.8.17/cmd/nmi/main.go
"""

from __future__ import annotations

import json
from collections.abc import Mapping

NAME = "aad-pod-identity-nmi"
LABELS = {"app.kubernetes.io/component": "nmi", "app.kubernetes.io/name": "aad-pod-identity"}
OF_AKS = "kubernetes.azure.com/managedby"
LEFT = {"component": "nmi", "tier": "node", OF_AKS: "aks"}
"""Labels of NMI of AKS's add-on, which is `kube-system/nmi` as that of the archived manifests.

https://github.com/Azure/aad-pod-identity/blob/v1.8.17/deploy/infra/managed-mode-deployment.yaml
"""
SERVER = "aad-pod-identity"
"""In each answer's header `Server`, which the real one does not send: a test sees who answered."""

_PROGRAM = r"""
import http.server, json, os, signal, subprocess, threading, time, urllib.parse, urllib.request

def rules(*lines):
    for line in lines:
        subprocess.run(["iptables-nft", "-w", "-t", "nat", *line.split()], check=False)

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, tokens = "HTTP/1.1", {}
    def version_string(self):
        return "SERVER"
    def log_message(self, *said):
        pass
    def answer(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        where = urllib.parse.urlsplit(self.path)
        if self.server.server_port == 8085:
            return self.answer(200, b"Active", "text/plain")
        if self.server.server_port == 9090:
            return self.answer(200, b"", "text/plain")
        if self.headers.get("Metadata") != "true":
            return self.answer(400, b"{}")
        resource = dict(urllib.parse.parse_qsl(where.query))["resource"]
        if resource not in self.tokens:
            query = {"api-version": "2018-02-01", "resource": resource,
                     "client_id": os.environ["CLIENT_ID"]}
            asked = urllib.request.Request(
                "http://169.254.169.254/metadata/identity/oauth2/token?"
                + urllib.parse.urlencode(query), headers={"Metadata": "true"})
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with direct.open(asked, timeout=60) as found:
                self.tokens[resource] = found.read()
        self.answer(200, self.tokens[resource])

class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 4096

servers = [Server((host, port), Handler)
           for host, port in (("127.0.0.1", 2579), ("", 8085), ("", 9090))]
for each in servers:
    threading.Thread(target=each.serve_forever, daemon=True).start()
over = threading.Event()
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: over.set())
rules("-N aad-metadata", "-F aad-metadata",
      "-A aad-metadata ! -s 127.0.0.1/32 -d 169.254.169.254/32 -p tcp -m tcp --dport 80"
      " -j DNAT --to-destination 127.0.0.1:2579",
      "-A aad-metadata -j RETURN", "-I PREROUTING 1 -j aad-metadata")
print("serving", flush=True)
over.wait()
rules("-D PREROUTING -j aad-metadata", "-F aad-metadata", "-X aad-metadata")
time.sleep(10)
os._exit(0)
"""


COMMAND = ["python3", "-c", _PROGRAM.replace("SERVER", SERVER)]
"""The program; it takes no notice of arguments."""


def variables(client_id: str) -> dict[str, str]:
    """Return its variables; all pods get tokens of `client_id`."""
    return {"CLIENT_ID": client_id, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def manifest(
    client_id: str,
    namespace: str = "default",
    *,
    name: str = NAME,
    labels: Mapping[str, str] = LABELS,
) -> str:
    """Return its DaemonSet, as the archived chart names it; all pods get tokens of `client_id`."""
    container = {
        "name": "nmi",
        "image": "any",
        "command": COMMAND,
        "env": [{"name": name, "value": text} for name, text in variables(client_id).items()],
        "securityContext": {
            "runAsUser": 0,
            "capabilities": {"drop": ["ALL"], "add": ["DAC_READ_SEARCH", "NET_ADMIN", "NET_RAW"]},
        },
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8085}, "periodSeconds": 1},
    }
    template = {
        "metadata": {"labels": labels},
        "spec": {
            "hostNetwork": True,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
        },
    }
    return json.dumps(
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        }
    )
