"""Pods that ask for a token again and again, without retry, while what serves them changes.

Half of a pod's clients open a connection for each request; the others keep theirs as HTTP/1.1
allows, until an answer says `Connection: close`. All ask at a pace, whatever the answers take; who
is late goes on at once.
"""

from __future__ import annotations

import asyncio
import json
import shlex
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.acceptance.archived_nmi import ARCHIVED
from tests.acceptance.sandbox import PATIENCE, TIMEOUT, Sandbox

OURS = "ours"
"""Who answers without a header `Server` and without a `refresh_token`."""
_CLIENTS = """
import base64, collections, http.client, json, os, sys, threading, time
nonce, clients, rate, client_id = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]
PATH = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"
found, wrong, lost, over = collections.Counter(), [], [], "/over-" + nonce
slowest = [0.0]
def of(token):
    claims = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["appid"].lower()
def ask(connection):
    began = time.monotonic()
    connection.request("GET", PATH, headers={"Metadata": "true", "X-Nonce": nonce})
    answer = connection.getresponse()
    body = answer.read()
    by = answer.getheader("Server", "ARCHIVED" if b"refresh_token" in body else "OURS")
    slowest[0] = max(slowest[0], time.monotonic() - began)
    if answer.status != 200:
        wrong.append(f"{by} {answer.status} {body[:200]}")
    elif client_id and of(json.loads(body)["access_token"]) not in client_id:
        wrong.append(f"{by}: a token of {of(json.loads(body)['access_token'])}")
    else:
        found[by] += 1
    return by, answer.getheader("Connection", "") != "close"
def client(number):
    kept, due = None, time.monotonic() + number / rate
    while not os.path.exists(over):
        time.sleep(max(0, due - time.monotonic()))
        due = max(due + clients / rate, time.monotonic())
        connection, by = kept or (http.client.HTTPConnection("169.254.169.254", timeout=LIMIT), "")
        try:
            by, stays = ask(connection)
            stays = stays and number % 2 == 0
        except (OSError, http.client.HTTPException) as error:
            lost.append([by, f"{error!r} at {time.strftime('%T', time.gmtime())}"])
            stays = False
        kept = (connection, by) if stays else None
        if not stays:
            connection.close()
open("/begun-" + nonce, "w").close()
threads = [threading.Thread(target=client, args=[number]) for number in range(clients)]
[thread.start() for thread in threads]
def told():
    return json.dumps({"answers": found, "wrong": wrong[:20], "lost": lost, "slowest": slowest[0]})
while any(thread.is_alive() for thread in threads):
    with open("/new-" + nonce, "w") as file:
        file.write(told())
    os.replace("/new-" + nonce, "/so-far-" + nonce)
    threads[0].join(0.5)
[thread.join() for thread in threads]
print(told())
""".replace("OURS", OURS).replace("ARCHIVED", ARCHIVED)


@dataclass
class Load:
    """What the pods got until they ended."""

    answers: Counter[str] = field(default_factory=Counter)
    """How many tokens as they must be, by each NMI."""
    wrong: list[str] = field(default_factory=list)
    """Other answers: by whom, and what; the first twenty of each pod."""
    lost: list[list[str]] = field(default_factory=list)
    """Of each request without an answer: who had answered on its connection before, and the error
    with its time in UTC; "" of a new connection."""
    slowest: float = 0.0
    """Seconds."""

    def add(self, said: bytes) -> None:
        """Add what the clients of a pod say."""
        found = json.loads(said)
        self.answers.update(found["answers"])
        self.wrong += found["wrong"]
        self.lost += found["lost"]
        self.slowest = max(self.slowest, found["slowest"])

    @property
    def failures(self) -> list[str]:
        """What was no token."""
        return [*self.wrong, *(": ".join(each) for each in self.lost)]


@asynccontextmanager
async def load(
    place: Sandbox,
    nonce: str,
    *,
    pods: Sequence[str] = ("app",),
    clients: int = 4,
    rate: float = 100,
    client_id: str = "",
    patience: int = 60,
) -> AsyncIterator[Load]:
    """Ask from before the block until after it, in each pod so many times a second.

    A token of another client id is a wrong answer, if one is given. A request is given up after so
    many seconds of `patience`.
    """
    words = shlex.join([nonce, str(clients), str(rate), *filter(None, [client_id.lower()])])
    program = _CLIENTS.replace("LIMIT", str(patience))
    command = f"python3 -c {shlex.quote(program)} {words}"
    asking = [asyncio.create_task(place.shell(command, TIMEOUT, pod=pod)) for pod in pods]
    for pod in pods:
        await place.shell(f"until test -e /begun-{nonce}; do sleep 0.02; done", pod=pod)
    made = Load()
    try:
        yield made
    finally:
        for pod in pods:
            await place.shell(f"touch /over-{nonce}", pod=pod)
        ran = await asyncio.gather(*asking)
    for each in ran:
        made.add(each.stdout or each.stderr)


async def so_far(place: Sandbox, nonce: str, pods: Sequence[str]) -> Load:
    """Return what the pods had got half a second ago at most."""
    made = Load()
    for pod in pods:
        told = f"until test -e /so-far-{nonce}; do sleep 0.02; done; cat /so-far-{nonce}"
        made.add((await place.shell(told, pod=pod)).stdout)
    return made


async def until_answered(
    place: Sandbox, nonce: str, more_than: int, *, by: str = OURS, pods: Sequence[str] = ("app",)
) -> None:
    """Return when pods that ask have had more than so many tokens from somebody."""
    async with asyncio.timeout(PATIENCE):
        while (await so_far(place, nonce, pods)).answers[by] <= more_than:  # noqa: ASYNC110 - of pods
            await asyncio.sleep(0.2)
