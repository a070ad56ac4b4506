"""Orders to a running sandbox, over the Unix socket `world.sock` in its folder.

A client (`orders`) sends one JSON object a line, `{"op": …, "part": …}`, and gets one back: what
was asked for, or `{"error": …}`. The folder lets in its owner only.

    status                 every part with its state, process number and memory
    pause, resume PART     it stops answering, and goes on: callers wait, nothing is lost
    kill PART              SIGKILL; `start` brings it back. The cluster's objects live in its memory
    start PART             and wait until it serves; a node starts as a machine that was switched on
    down                   end everything; the answer comes before the end
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from podidentity_sandbox.world.orders import Answer
from podidentity_sandbox.world.parts import ChildProcesses, Part, State

_SIGNALS = {"pause": signal.SIGSTOP, "resume": signal.SIGCONT, "kill": signal.SIGKILL}


class Control:
    """Serves orders."""

    def __init__(
        self, nursery: ChildProcesses, environment: Mapping[str, str], down: Callable[[], None]
    ) -> None:
        self._nursery = nursery
        self._environment = environment
        self._down = down

    async def serve(self, path: Path) -> asyncio.Server:
        """Listen on the Unix socket `path`."""
        return await asyncio.start_unix_server(self._converse, path)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                answer = await self._answer(line)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass  # a client that left, or a line without end: there is nobody to tell
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> Answer:
        try:
            order = json.loads(line)
            return await self._obey(str(order["op"]), order.get("part"))
        except (ValueError, KeyError, TypeError, AttributeError):
            return {"error": 'an order is {"op": "status|pause|resume|kill|start|down", "part": …}'}

    async def _obey(self, operation: str, name: str | None) -> Answer:
        if operation == "status":
            return {"parts": [_shown(part) for part in self._nursery.parts.values()]}
        if operation == "down":
            self._down()
            return {}
        part = self._nursery.parts.get(name or "")
        if part is None:
            return {"error": f"no part {name!r}; there are {', '.join(self._nursery.parts)}"}
        return await self._direct(operation, part)

    async def _direct(self, operation: str, part: Part) -> Answer:
        if operation == "start":
            if part.state is not State.ENDED:
                return {"error": f"{part.name} is running ({part.state})"}
            try:
                part.start(self._environment)
            except (OSError, subprocess.CalledProcessError) as cause:
                return {"error": f"{part.name} cannot be started: {cause}; see the log of `world`"}
            if await part.settled() is State.ENDED:
                return {"error": f"{part.name} ended with {part.exit}; see its log"}
            return _shown(part)
        if part.pid is None:
            return {"error": f"{part.name} is not running; start it first"}
        part.send(_SIGNALS[operation])
        if operation == "kill":
            await part.ended()
        return _shown(part)


def _shown(part: Part) -> Answer:
    return {
        "name": part.name,
        "state": part.state.value,
        "pid": part.pid,
        "exit": part.exit,
        "memory_kib": None if part.pid is None else _proportional_memory(part.pid),
    }


def _proportional_memory(pid: int) -> int | None:
    """Return a process's proportional set size in KiB (proc_pid_smaps(5)); None if it is gone."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    sizes = [line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:")]
    return int(sizes[0]) if sizes else None
