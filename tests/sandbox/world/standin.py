"""A program in place of the cluster, Azure or a kubelet: the least that the world expects of one.

As the cluster it serves the list of nodes, all Ready, over TLS; as a kubelet it keeps a grandchild,
an orphan and a cgroup, which must be gone afterwards. `--fail` ends it before it is ready.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

from podidentity_sandbox.plan import Plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part")
    parser.add_argument("--fail", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--node")
    parser.add_argument("--listen-fd", type=int, action="append", default=[])
    for option in ("--https-fd", "--imds-fd", "--dns-fd", "--proxy-fd", "--ready-fd"):
        parser.add_argument(option, type=int)
    options = parser.parse_args()
    sys.stderr.write(f"{options.part} starts\n")
    if options.fail:
        sys.exit("the stand-in was told to fail")
    plan = Plan.load(options.folder)
    for fd in options.listen_fd:
        threading.Thread(target=serve, args=(plan, fd), daemon=True).start()
    if options.node:
        live_as_kubelet(plan, options.node)
    os.write(options.ready_fd, b"ready\n")
    os.close(options.ready_fd)
    signal.sigwait({signal.SIGTERM})


def serve(plan: Plan, fd: int) -> None:
    nodes = {
        "metadata": {"resourceVersion": "1"},
        "items": [
            {
                "metadata": {"name": node.name},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            }
            for node in plan.nodes
        ],
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(nodes).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(plan.path / "apiserver.crt", plan.path / "apiserver.key")
    listener = socket.socket(fileno=fd)
    server = http.server.ThreadingHTTPServer(
        listener.getsockname(), Handler, bind_and_activate=False
    )
    server.socket.close()
    server.socket = tls.wrap_socket(listener, server_side=True)
    server.serve_forever()


def live_as_kubelet(plan: Plan, node: str) -> None:
    # A pod that would outlive its kubelet if the namespace of processes let it.
    subprocess.run(
        ["sh", "-c", "setsid sleep 1000 & setsid sh -c 'sleep 0.1' & exit 0"], check=True
    )
    subprocess.run(["ip", "netns", "add", f"cni-of-{node}"], check=True)
    for root in {plan.cgroup_root, plan.memory_root} - {""}:
        group = Path(root, node, "kubepods", "pod1")
        group.mkdir(parents=True, exist_ok=True)
        sleeper = subprocess.Popen(["sleep", "1000"])
        (group / "cgroup.procs").write_text(str(sleeper.pid))
    shut = plan.path / "nodes" / node / "shut"
    shut.mkdir(parents=True, exist_ok=True)
    (shut / "file").write_text("in a folder that is closed to its owner")
    shut.chmod(0)


if __name__ == "__main__":
    main()
