"""A supervisor as a program, with a worker that a test can make do anything.

    python -m tests.supervisor.program '{"runtime": …, "handover": …, "port": …, "name": …}'

The worker answers each line of a connection with its name and pid. Lines that begin with `!` are
orders: `!exit N`, `!hang`, `!grow`, `!unready`, `!ready`, and the attacks of `taken`. It pauses and
drains as the agent does: what is open is answered once more, then closed. That the rules are to go
it notes by a file `leaving`, and that they are gone a test says by a file `over`, both in the
folder `runtime`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from podidentity.supervisor import control
from podidentity.supervisor import main as supervising
from podidentity.supervisor.control import Readiness, Report
from podidentity.supervisor.listeners import Address, ListenError
from podidentity.supervisor.main import Plan, Supervisor
from podidentity.supervisor.privileges import give_up
from podidentity.supervisor.worker import Inherited
from tests.supervisor import taken

SETTINGS: dict[str, Any] = {}


class Toy:
    """The worker."""

    def __init__(self, given: Inherited) -> None:
        self.given = given
        self.readiness = Readiness.PREPARED
        self.answers_last = False
        self.draining = asyncio.Event()
        self.stopped = asyncio.Event()
        self.open: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        if SETTINGS.get("code"):
            sys.stderr.write("error: cannot begin\n")
            return int(SETTINGS["code"])
        loop = asyncio.get_running_loop()
        loop.add_reader(self.given.control, self.told)
        loop.add_signal_handler(signal.SIGTERM, self.stopped.set)
        beats = asyncio.create_task(self.beat())
        stop = asyncio.create_task(self.stopped.wait())
        drain = asyncio.create_task(self.draining.wait())
        await asyncio.wait({stop, drain}, return_when=asyncio.FIRST_COMPLETED)
        if self.open and not self.stopped.is_set():
            done = asyncio.create_task(self.all_done())
            await asyncio.wait({stop, done}, return_when=asyncio.FIRST_COMPLETED)
        beats.cancel()
        return 0

    async def all_done(self) -> None:
        await asyncio.wait(self.open)

    async def beat(self) -> None:
        over = f"{SETTINGS['runtime']}/over"
        while True:
            ready = Readiness.UNREADY if SETTINGS.get("never") else self.readiness
            if os.access(over, os.F_OK):
                ready = Readiness.OVER
            self.given.control.send(Report(ready, SETTINGS["name"]).encode())
            await asyncio.sleep(0.05)

    def told(self) -> None:
        word, descriptors, _, _ = socket.recv_fds(self.given.control, 100, 1)
        if word.startswith(control.LISTEN):
            self.accept_from(socket.socket(fileno=descriptors[0]))
        elif word == control.ACCEPT:
            self.accept()
        elif word == control.LEAVE:
            Path(SETTINGS["runtime"], "leaving").touch()
        elif word == control.PAUSE:
            self.pause()
        elif word == control.DRAIN and not self.draining.is_set():
            self.pause()
            while self.accepted(self.given.listeners["pods"]):
                pass
            self.draining.set()
        elif not word:
            os._exit(3)

    def accept(self) -> None:
        for each in self.given.listeners.values():
            self.accept_from(each)
        if not SETTINGS.get("never settled"):
            self.readiness = Readiness.READY

    def pause(self) -> None:
        self.answers_last = True
        asyncio.get_running_loop().remove_reader(self.given.listeners["pods"])

    def accept_from(self, listening: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(listening, self.accepted, listening)

    def accepted(self, listening: socket.socket) -> bool:
        # Counted at once: asyncio's own server knows it some turns of its loop later.
        try:
            connection, _ = listening.accept()
        except BlockingIOError:
            return False
        task = asyncio.get_running_loop().create_task(self.serve(connection))
        self.open.add(task)
        task.add_done_callback(self.open.discard)
        return True

    async def serve(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            while line := (await reader.readline()).decode().strip():
                self.obey(line)
                last = " last" if self.answers_last else ""
                writer.write(f"{SETTINGS['name']} {os.getpid()}{last}\n".encode())
                await writer.drain()
                if last:
                    break
        except ConnectionError:
            pass
        finally:
            writer.close()

    def obey(self, line: str) -> None:
        if line.startswith("!exit"):
            os._exit(int(line.split()[1]))
        elif line == "!hang":
            time.sleep(1000)
        elif line == "!grow":
            SETTINGS["ballast"] = b"x" * (200 << 20)
        elif line == "!ready":
            self.readiness = Readiness.READY
        elif line == "!unready":
            self.readiness = Readiness.UNREADY
        elif line.startswith("!attack"):
            _, name, *arguments = line.split()
            result = getattr(taken, name)(*arguments)
            Path(SETTINGS["runtime"], "result").write_text(json.dumps(result))


def work(given: Inherited) -> int:
    if Path(SETTINGS.get("code if", "/nowhere")).exists():
        return 1

    async def main() -> int:
        return await Toy(given).run()

    return asyncio.run(main())


def main() -> int:
    SETTINGS.update({"late": [], **json.loads(sys.argv[1])})
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    for name, value in SETTINGS.get("constants", {}).items():
        owner = getattr(supervising, name.partition(".")[0]) if "." in name else supervising
        setattr(owner, name.rpartition(".")[2], value)
    if "uid" in SETTINGS:
        give_up(SETTINGS["uid"])
    plan = Plan(
        addresses=[
            Address("pods", "127.0.0.1", SETTINGS["port"]),
            *(Address(f"late-{each}", "127.0.0.1", each, late=True) for each in SETTINGS["late"]),
        ],
        runtime_dir=Path(SETTINGS["runtime"]),
        agent=SETTINGS.get("agent", ""),
        handover_dir=Path(SETTINGS["handover"]) if SETTINGS.get("handover") else None,
        handover_users=frozenset(SETTINGS.get("handover_users", ())),
        memory=SETTINGS.get("memory", 0),
        removes=SETTINGS.get("removes", False),
    )
    try:
        return Supervisor(plan, work).run()
    except ListenError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
