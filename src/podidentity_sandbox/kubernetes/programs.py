"""Command lines and files of the programs of a real control plane."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from podidentity_sandbox.plan import (
    APISERVER_ADDRESS,
    ISSUER,
    JWKS_PATH,
    KUBERNETES_ADDRESS,
    Plan,
    kubeconfig,
)

PROGRAMS: Mapping[str, Sequence[str]] = {
    "etcd": (),
    "kube-apiserver": ("etcd",),
    "kube-controller-manager": ("kube-apiserver",),
    "kube-scheduler": ("kube-apiserver",),
}
"""Each, and those that must serve before it starts."""
BEFORE_NODES = ("kube-controller-manager",)
WEBHOOK_PORT = 8444
"""Where kube-apiserver asks who the bearer of a token is."""
SCHEDULER_PORT = 10259
GO: Mapping[str, str] = {"GOMAXPROCS": "1", "GOGC": "400"}
"""Of their environment. Many sandboxes share a machine, and no cluster of one is large: this saves
a sixth of the processor time, and more where they wait for each other; it takes 0.2 GB."""


@dataclass(frozen=True, slots=True)
class At:
    """The addresses of the programs of one control plane."""

    apiserver: str = KUBERNETES_ADDRESS
    port: int = 443
    others: str = "127.0.0.1"
    """Of etcd, of the token webhook, of the controller manager and of the scheduler."""

    @property
    def etcd(self) -> str:
        return f"http://{self.others}:2379"

    @classmethod
    def on(cls, address: str) -> Self:
        """Return those of a control plane that has an address to itself, whoever starts it."""
        return cls(address, 6443, address)


SANDBOX = At()
"""In the namespace of a sandbox's Azure."""


def write_files(plan: Plan, at: At = SANDBOX) -> None:
    """Write the files of the programs into a folder of the owner's alone: tokens, kubeconfigs."""
    folder = _folder(plan)
    folder.mkdir(mode=0o700)
    from podidentity_sandbox.cluster.tokens import load_key  # a program's process needs none of it

    load_key(plan.path / "sa.key")
    users = [
        (plan.admin_token, "admin", "system:masters"),
        (plan.aks_token, "aksService", "system:masters"),
        (_token(plan, "m"), "system:kube-controller-manager", ""),
        (_token(plan, "s"), "system:kube-scheduler", ""),
        (proxy_token(plan), "system:kube-proxy", ""),
        *((node.token, f"system:node:{node.name}", "system:nodes") for node in plan.nodes),
    ]
    with (folder / "tokens.csv").open("w", newline="") as into:
        csv.writer(into).writerows((token, user, user, group) for token, user, group in users)
    server = f"https://{at.apiserver}:{at.port}"
    for name, token in (("manager", _token(plan, "m")), ("scheduler", _token(plan, "s"))):
        cluster = {"server": server, "certificate-authority": str(plan.ca_certificate)}
        write(folder / f"{name}.kubeconfig", kubeconfig(cluster, {"token": token}))
    webhook = {"server": f"http://{at.others}:{WEBHOOK_PORT}/"}
    write(folder / "persons.kubeconfig", kubeconfig(webhook, {}))
    scheduler = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": str(folder / "scheduler.kubeconfig")},
        "leaderElection": {"leaderElect": False},
    }
    write(folder / "scheduler.json", scheduler)
    audit = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata"}],
    }
    write(folder / "audit.json", audit)


def command(plan: Plan, name: str, at: At = SANDBOX) -> Sequence[str]:
    folder, key = _folder(plan), plan.path / "sa.key"
    client, client_key = plan.kubelet_client_files
    options = {
        "etcd": {
            "data-dir": folder / "etcd",
            "unsafe-no-fsync": "true",  # it need not outlive the machine
            "listen-client-urls": at.etcd,
            "advertise-client-urls": at.etcd,
            "listen-peer-urls": f"http://{at.others}:2380",
            "log-level": "error",
        },
        "kube-apiserver": {
            "etcd-servers": at.etcd,
            "bind-address": at.apiserver,
            "secure-port": at.port,
            "advertise-address": APISERVER_ADDRESS,
            "service-cluster-ip-range": "10.96.0.0/16",
            "allow-privileged": "true",
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "tls-cert-file": plan.path / "apiserver.crt",
            "tls-private-key-file": plan.path / "apiserver.key",
            "cert-dir": folder / "apiserver",
            "client-ca-file": plan.ca_certificate,
            "requestheader-client-ca-file": plan.ca_certificate,
            "requestheader-allowed-names": "front-proxy",
            "requestheader-username-headers": "X-Remote-User",
            "requestheader-group-headers": "X-Remote-Group",
            "token-auth-file": folder / "tokens.csv",
            "authentication-token-webhook-config-file": folder / "persons.kubeconfig",
            "authentication-token-webhook-version": "v1",
            "service-account-issuer": ISSUER,
            "service-account-jwks-uri": ISSUER + JWKS_PATH,
            "service-account-key-file": key,
            "service-account-signing-key-file": key,
            "service-account-extend-token-expiration": "false",
            "api-audiences": f"{ISSUER},https://kubernetes.default.svc",
            "kubelet-client-certificate": client,
            "kubelet-client-key": client_key,
            "kubelet-certificate-authority": plan.ca_certificate,
            "kubelet-preferred-address-types": "InternalIP",
            "audit-policy-file": folder / "audit.json",
            "audit-log-path": folder / "audit.log",
        },
        "kube-controller-manager": {
            "kubeconfig": folder / "manager.kubeconfig",
            "authentication-kubeconfig": folder / "manager.kubeconfig",
            "authorization-kubeconfig": folder / "manager.kubeconfig",
            "bind-address": at.others,
            "cert-dir": folder / "manager",
            "use-service-account-credentials": "true",
            "service-account-private-key-file": key,
            "root-ca-file": plan.ca_certificate,
            "leader-elect": "false",
            "kube-api-qps": 200,
            "kube-api-burst": 400,
        },
        "kube-scheduler": {
            "config": folder / "scheduler.json",
            "bind-address": at.others,
            "secure-port": SCHEDULER_PORT,
            "cert-dir": folder / "scheduler",
        },
    }
    words = [f"--{option}={value}" for option, value in options[name].items()]
    return [str(Path(plan.kubernetes, name)), *words]


def _folder(plan: Plan) -> Path:
    return plan.path / "kubernetes"


def _token(plan: Plan, of: str) -> str:
    return f"{of}-{plan.admin_token}"


def proxy_token(plan: Plan) -> str:
    return _token(plan, "p")


def write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, which is YAML too."""
    path.touch(mode=0o600)
    path.write_text(json.dumps(content))
