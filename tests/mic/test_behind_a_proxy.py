"""The program itself, started behind a proxy: whom it asks by it, and what it says of it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from tests.adapters.proxying import Server, listening, proxy

CLIENT, TENANT = "11111111-2222-3333-4444-555555555555", "aaaaaaaa-0000-0000-0000-000000000000"
SECONDS = 90.0
"""A failing run alone takes so long."""


def kubeconfig(folder: Path, port: int) -> str:
    path = folder / "config"
    config = {
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {"token": "secret-token"}}],
    }
    path.write_text(json.dumps(config))
    return str(path)


async def test_a_standby_signs_in_by_the_proxy_and_nobody_else_is_asked_by_it(
    tmp_path: Path,
) -> None:
    asked = asyncio.Event()

    async def api_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Be an API server that has too much to do: so this replica never leads."""
        while await reader.readuntil(b"\r\n\r\n"):
            asked.set()
            head = b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"
            writer.write(head)

    async with listening(api_server) as port, proxy(Server(), "407 Who are you") as by:
        url = f"http://me:pass%40word@127.0.0.1:{by.port}"
        variables = {"CLIENT_SECRET": "s3cr3t", "HTTPS_PROXY": url, "HTTP_PROXY": url}
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "podidentity", "mic", "--own-namespace=kube-system"),
            *(f"--azure-client-id={CLIENT}", f"--azure-tenant-id={TENANT}"),
            *("--http-probe-port=0", "--prometheus-port=0"),
            env={"PATH": os.environ["PATH"], "KUBECONFIG": kubeconfig(tmp_path, port), **variables},
            stderr=asyncio.subprocess.PIPE,
        )
        said = ""
        try:
            async with asyncio.timeout(SECONDS):
                assert program.stderr is not None
                while "answers 407" not in said:
                    line = await program.stderr.readline()
                    assert line, said
                    said += line.decode()
                await asked.wait()
        finally:
            program.kill()
            await program.wait()
    assert {head.split("\r\n")[0] for head in by.heads} == {
        "CONNECT login.microsoftonline.com:443 HTTP/1.1"
    }
    assert f"the proxy 127.0.0.1:{by.port} of HTTPS_PROXY answers 407 (Who are you)" in said
    assert not any(word in said for word in ("pass@word", "pass%40word", "s3cr3t", "secret-token"))
