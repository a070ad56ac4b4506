"""Plans of the agent's processes, made of its settings before any of them runs."""

from __future__ import annotations

import os
import pickle
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import msgspec

from podidentity.cli.output import CommandError
from podidentity.cli.programs import AgentPlan
from podidentity.cli.redirects import redirect_of
from podidentity.core.data_path import Backend
from podidentity.kernel.rules import Redirect
from podidentity.net.plan import NetPlan
from podidentity.settings import (
    NET_FOLDER,
    NET_SOCKET,
    RUNTIME_DIR,
    SERVE_FOLDER,
    SERVE_UID,
    NmiSettings,
)
from podidentity.supervisor import privileges
from podidentity.supervisor.listeners import Address
from podidentity.supervisor.main import Plan

_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - the kubelet and Prometheus ask at the node's address


def plan_of(settings: NmiSettings, program: Literal["net", "serve"]) -> AgentPlan:
    return _plan(replace(settings, runtime_dir=settings.runtime_dir or RUNTIME_DIR), program)


def plan_of_both(settings: NmiSettings) -> AgentPlan:
    """Return the plan of `net` and `serve` from one command; a folder is made for them.

    Raises CommandError.
    """
    uid = SERVE_UID if privileges.may_become(SERVE_UID, reading=_needed(settings)) else None
    stays = ""
    if uid is None and not os.getuid():
        stays = (
            f"serve stays user 0, without a capability: it may not become user {SERVE_UID}, or "
            "that user cannot read its token, its kubeconfig, podidentity or Python. Install "
            "these where every user can read, not below a home folder; or use the manifest of "
            "podidentity enable"
        )
    made = "" if settings.runtime_dir else _private_folder(uid)
    found = _plan(replace(settings, runtime_dir=settings.runtime_dir or made), "both")
    return replace(found, serve_user=uid, unprivileged=stays, made=made)


def _plan(settings: NmiSettings, program: Literal["net", "serve", "both"]) -> AgentPlan:
    redirect = redirect_of(settings)
    if settings.backend is Backend.LRP and not settings.host_ip:
        raise CommandError(
            "--backend=lrp needs --host-ip, the address of this node",
            "Run podidentity enable --backend=lrp: its manifest has it.",
        )
    return AgentPlan(
        program=program,
        log_format=settings.log_format,
        verbose=settings.verbose,
        net=pickle.dumps(_of_net(settings, redirect)),
        serve=pickle.dumps(_of_serve(settings, redirect)),
        worker=pickle.dumps(settings),
    )


def _of_net(settings: NmiSettings, redirect: Redirect) -> NetPlan:
    handover = Path(settings.handover_dir) if settings.handover_dir else None
    return NetPlan(
        node=settings.node,
        redirect=redirect,
        attestation=settings.attestation,
        guards_bridges=settings.source_guard == "on",
        netns_dirs=tuple(map(Path, settings.netns_dirs)),
        cgroup_root=Path(settings.cgroup_root),
        socket=Path(settings.runtime_dir, NET_SOCKET),
        serve_user=SERVE_UID,
        lock_folder=handover / NET_FOLDER if handover else None,
        handover_folder=handover / SERVE_FOLDER if handover else None,
        removes=settings.on_exit != "keep",
        closes=settings.on_exit == "close",
    )


def _of_serve(settings: NmiSettings, redirect: Redirect) -> Plan:
    return Plan(
        addresses=addresses(settings, redirect),
        runtime_dir=Path(settings.runtime_dir),
        agent=f"{settings.own_namespace}/{settings.own_pod}" if settings.own_pod else "",
        handover_dir=Path(settings.handover_dir, SERVE_FOLDER) if settings.handover_dir else None,
        # Under a manifest with one container this one may be root, and the next is not.
        handover_users=frozenset({SERVE_UID}),
        memory=settings.memory_limit,
        removes=settings.on_exit != "keep",
    )


def addresses(settings: NmiSettings, redirect: Redirect) -> list[Address]:
    found = [
        # Pods' connections arrive at the first, those of the node itself at the second, and what
        # Cilium redirects at the third.
        *(
            # `net` puts the address of the first on a link.
            Address(
                name,
                host,
                redirect.listen_port,
                freebind=name == "pods",
                late=name == "host",
            )
            for name, host in zip(("pods", "host", "node"), redirect.listen_addresses, strict=False)
            if not (name == "host" and settings.host_token == "off")  # noqa: S105 - a choice
        ),
        Address("probes", _EVERYWHERE, settings.probe_port, late=True),
    ]
    if settings.prometheus_port:
        found.append(Address("metrics", _EVERYWHERE, settings.prometheus_port, late=True))
    if settings.metrics_secure_port:
        found.append(
            Address("secure-metrics", _EVERYWHERE, settings.metrics_secure_port, late=True)
        )
    if settings.debug_port:
        found.append(Address("debug", "127.0.0.1", settings.debug_port, late=True))
    return found


def _private_folder(uid: int | None) -> str:
    """Return a new folder for this user and group `uid`, also on a read-only root."""
    for parent in (None, "/dev/shm", "/run"):  # noqa: S108 - the folder in it is ours alone
        with suppress(OSError):
            made = tempfile.mkdtemp(prefix="podidentity-", dir=parent)
            if uid is not None:
                os.chown(made, -1, uid)
                Path(made).chmod(0o770)
            return made
    raise CommandError("no folder is writable", "Name one by --runtime-dir.")


def _needed(settings: NmiSettings) -> list[Path]:
    """Return the files that `serve` must be able to read as its own user, of Python one each."""
    program = [Path(os.__file__), Path(msgspec.__file__), Path(__file__)]
    if settings.kubeconfig:
        return [*program, Path(settings.kubeconfig)]
    return [*program, _TOKEN] if _TOKEN.exists() else program
