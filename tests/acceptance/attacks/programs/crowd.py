"""Asks for what no cache has, on many connections, for as long as it is told.

    crowd.py token|instance CONNECTIONS SECONDS

Prints how often each status came; 0 where there was no answer.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import threading
import time
from collections import Counter

TOKEN = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://{}.example"
INSTANCE = "/metadata/instance?api-version=2021-02-01"


def ask(path: str, end: float, seen: Counter[int]) -> None:
    """Ask on one connection after the other until the time is over."""
    while time.monotonic() < end:
        connection = http.client.HTTPConnection("169.254.169.254", timeout=30)
        try:
            where = path.format(os.urandom(6).hex())
            connection.request("GET", where, headers={"Metadata": "true"})
            seen[connection.getresponse().status] += 1
        except OSError:
            seen[0] += 1
        finally:
            connection.close()


if __name__ == "__main__":
    kind, many, span = sys.argv[1:]
    statuses: Counter[int] = Counter()
    until = time.monotonic() + float(span)
    wanted = INSTANCE if kind == "instance" else TOKEN
    threads = [
        threading.Thread(target=ask, args=(wanted, until, statuses)) for _ in range(int(many))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(statuses))
