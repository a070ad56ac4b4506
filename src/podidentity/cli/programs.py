"""The programs of the node agent, each started in its process: `net`, `serve`, or both.

Each function imports the modules of its program, so that the supervisor loads only its own.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import click

from podidentity.cli.output import CommandError, report
from podidentity.kernel.rules import Redirect
from podidentity.settings import RUNTIME_DIR, SERVE_FOLDER, SERVE_UID, NmiSettings
from podidentity.supervisor.listeners import Address, ListenError
from podidentity.supervisor.main import Plan, Supervisor
from podidentity.supervisor.programs import Ready, run_both
from podidentity.supervisor.worker import Inherited

_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - the kubelet and Prometheus ask at the node's address

_log = logging.getLogger("podidentity.nmi")


def net(settings: NmiSettings, begun: Ready = lambda: None) -> int:
    """Run `net`; return its exit code."""
    import asyncio

    from podidentity.kernel.interception import InterceptionError
    from podidentity.net.main import run
    from podidentity.telemetry.logs import configure

    settings = _with_folder(settings)
    log = configure(settings.log_format, verbose=settings.verbose)
    try:
        asyncio.run(run(settings, redirect_of(settings), begun))
    except (InterceptionError, OSError, ValueError) as error:
        return _cannot_begin(error)
    finally:
        log.close()
    return 0


def serve(settings: NmiSettings, begun: Ready = lambda: None) -> int:
    """Run the supervisor of `serve`; return its exit code."""
    from podidentity.telemetry.logs import configure_unthreaded

    settings = _with_folder(settings)
    configure_unthreaded(settings.log_format, verbose=settings.verbose)
    begun()
    try:
        plan = Plan(
            addresses=addresses(settings),
            runtime_dir=Path(settings.runtime_dir),
            handover_dir=Path(settings.handover_dir, SERVE_FOLDER)
            if settings.handover_dir
            else None,
            # Under a manifest with one container this one may be root, and the next is not.
            handover_users=frozenset({SERVE_UID}),
            memory=settings.memory_limit,
        )
        return Supervisor(plan, lambda given: _work(settings, given)).run()
    except (ListenError, OSError, ValueError) as error:
        return _cannot_begin(error)


def both(settings: NmiSettings) -> int:
    """Run `net` and `serve` from one process; return the exit code."""
    import shutil

    from podidentity.supervisor import privileges
    from podidentity.telemetry.logs import configure_unthreaded

    configure_unthreaded(settings.log_format, verbose=settings.verbose)
    uid = SERVE_UID if privileges.may_become(SERVE_UID, reading=_needed(settings)) else None
    made = ""
    if not settings.runtime_dir:
        made = _private_folder(uid)
        settings = replace(settings, runtime_dir=made)

    def guard(begun: Ready) -> int:
        privileges.end_with_parent()
        return net(settings, begun)

    def server(begun: Ready) -> int:
        if uid is None and not os.getuid():
            _log.warning(
                "serve stays user 0, without a capability: it may not be, or could not read its "
                "files as, user %s. A manifest with two containers gives it that user",
                SERVE_UID,
            )
        privileges.give_up(uid)
        privileges.end_with_parent()
        return serve(settings, begun)

    try:
        return run_both(guard, server)
    finally:
        if made:
            import shutil

            shutil.rmtree(made, ignore_errors=True)


def addresses(settings: NmiSettings) -> list[Address]:
    """Return where `serve` listens; raise ValueError."""
    redirect = redirect_of(settings)
    found = [
        # Pods' connections arrive at the first, those of the node itself at the second.
        *(
            # `net` puts the address of the first on a link.
            Address(name, host, redirect.listen_port, freebind=name == "pods")
            for name, host in zip(("pods", "host"), redirect.listen_addresses, strict=False)
        ),
        Address("probes", _EVERYWHERE, settings.probe_port),
    ]
    if settings.prometheus_port:
        found.append(Address("metrics", _EVERYWHERE, settings.prometheus_port))
    if settings.metrics_secure_port:
        found.append(Address("secure-metrics", _EVERYWHERE, settings.metrics_secure_port))
    if settings.debug_port:
        found.append(Address("debug", "127.0.0.1", settings.debug_port))
    return found


def redirect_of(settings: NmiSettings) -> Redirect:
    """Return the redirection of the settings; raise ValueError."""
    return Redirect(
        metadata_ip=settings.metadata_address,
        metadata_port=settings.metadata_port,
        listen_address=settings.listen_address,
        listen_port=settings.listen_port,
    )


def _work(settings: NmiSettings, given: Inherited) -> int:
    """Run the worker; return its exit code."""
    import asyncio

    from podidentity.nmi.main import run
    from podidentity.telemetry.logs import configure
    from podidentity.wire.kube import KubeError

    log = configure(settings.log_format, verbose=settings.verbose)
    try:
        asyncio.run(run(settings, log, given))
    except (KubeError, ValueError) as error:
        return _cannot_begin(error)
    finally:
        log.close()
    return 0


def _cannot_begin(error: Exception) -> int:
    _log.debug("cannot begin: %r", error)
    return report(error if isinstance(error, OSError) else CommandError(str(error)))


def _with_folder(settings: NmiSettings) -> NmiSettings:
    return replace(settings, runtime_dir=settings.runtime_dir or RUNTIME_DIR)


def _private_folder(uid: int | None) -> str:
    """Return a new folder for this user and group `uid`, also on a read-only root."""
    import tempfile

    for parent in (None, "/dev/shm", "/run"):  # noqa: S108 - the folder in it is ours alone
        with suppress(OSError):
            made = tempfile.mkdtemp(prefix="podidentity-", dir=parent)
            if uid is not None:
                os.chown(made, -1, uid)
                Path(made).chmod(0o770)
            return made
    raise click.ClickException("no folder is writable; name one by --runtime-dir.")


def _needed(settings: NmiSettings) -> list[Path]:
    """Return the files that `serve` must be able to read as its own user."""
    if settings.kubeconfig:
        return [Path(settings.kubeconfig)]
    return [_TOKEN] if _TOKEN.exists() else []
