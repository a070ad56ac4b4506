"""A client with a connection pool: takes one token, and keeps the connection for its next need.

    pool.py

Prints the port and the status at once, and stays: what http.client, requests and azure-identity do.
"""

from __future__ import annotations

import http.client
import json
import time

PATH = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"

if __name__ == "__main__":
    connection = http.client.HTTPConnection("169.254.169.254")
    connection.request("GET", PATH, headers={"Metadata": "true"})
    answer = connection.getresponse()
    answer.read()
    port = connection.sock.getsockname()[1]
    print(json.dumps({"status": answer.status, "port": port}), flush=True)
    time.sleep(3600)
