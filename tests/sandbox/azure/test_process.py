"""The program as the world starts it: inherited sockets in, `ready` out, SIGTERM ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from podidentity_sandbox.world.authority import write_certificates
from tests.sandbox.azure.conftest import listeners
from tests.sandbox.azure.plans import make_plan


def test_the_program_serves_inherited_sockets_until_sigterm_and_cleans_up(folder: Path) -> None:
    sockets = listeners()
    port = sockets.proxy.getsockname()[1]
    imds = f"http://127.0.0.1:{sockets.imds.getsockname()[1]}/metadata/versions"
    plan = replace(make_plan(folder), azure_proxy_port=port)
    write_certificates(plan)
    plan.save()
    read, write = os.pipe()
    fds = {
        "--https-fd": sockets.https.fileno(),
        "--imds-fd": sockets.imds.fileno(),
        "--dns-fd": sockets.dns.fileno(),
        "--proxy-fd": sockets.proxy.fileno(),
        "--ready-fd": write,
    }
    words = [word for name, fd in fds.items() for word in (name, str(fd))]
    command = [sys.executable, "-m", "podidentity_sandbox.azure", "--folder", str(folder), *words]
    with subprocess.Popen(command, pass_fds=tuple(fds.values()), stderr=subprocess.PIPE) as program:
        os.close(write)
        for sock in (sockets.https, sockets.imds, sockets.dns, sockets.proxy):
            sock.close()
        with os.fdopen(read) as ready:
            assert ready.read() == "ready\n"
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(imds)
        assert refusal.value.status == 400
        refusal.value.close()
        program.send_signal(signal.SIGTERM)
        _, log = program.communicate(timeout=60)
    assert program.returncode == 0
    assert b"imds 127.0.0.1 GET 127.0.0.1/metadata/versions 400" in log
    assert not (folder / "azure.sock").exists()
