"""The real agent, started and stopped in a network namespace of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.root import needs_root

pytestmark = pytest.mark.net

SCRIPT = """
ip link set lo up
mkfifo "$FOLDER/log"
exec 3<>"$FOLDER/log"
"$PYTHON" -m podidentity nmi --node=n1 --operation-mode=managed --http-probe-port=8085 \
    --netns-dir="$FOLDER" --kubeconfig="$FOLDER/kubeconfig" "$@" 2>&3 &
agent=$!
while read -r line <&3; do
    case "$line" in *"serving node n1"*|error:*) break ;; esac
done
echo "began: $line"
if [ "${line#error:}" = "$line" ]; then
    # Pods are redirected as soon as it listens.
    until curl -s http://127.0.0.1:8085/readyz | grep -q '"interception": *"ok"'; do
        sleep 0.05
    done
    echo "ready: $(curl -s http://127.0.0.1:8085/readyz)"
    echo "tables: $(nft list tables | paste -sd,)"
    kill -TERM $agent
fi
wait $agent; echo "exit: $?"
echo "tables at the end: $(nft list tables | paste -sd,)"
"""


GUARD = "table ip podid"
ROOTLESS = ["--user", "--map-root-user"]


@pytest.fixture(params=[pytest.param([], marks=needs_root), ROOTLESS], ids=str)
def user(request: pytest.FixtureRequest) -> list[str]:
    """As root, and as root of a user namespace only."""
    options: list[str] = request.param
    return options


def run(folder: Path, user: list[str], *flags: str) -> dict[str, str]:
    """Run the agent with these flags; return what was seen of it, by its name."""
    # The agent's own folder of programs comes first; nothing else of the environment goes in.
    path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    shown = subprocess.run(
        ["unshare", *user, "--net", "--kill-child", "--fork", "sh", "-c", SCRIPT, "sh", *flags],
        env={"PATH": path, "PYTHON": sys.executable, "FOLDER": str(folder)},
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    return dict(line.split(": ", 1) for line in shown.stdout.splitlines() if ": " in line)


def write_kubeconfig(folder: Path) -> None:
    """Write one that names an API server that is away."""
    config = {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c"}}],
        "current-context": "c",
    }
    (folder / "kubeconfig").write_text(json.dumps(config))


def test_the_guard_stands_even_where_the_agent_cannot_begin(
    tmp_path: Path, user: list[str]
) -> None:
    seen = run(tmp_path, user)
    assert seen["began"].startswith("error: No Kubernetes cluster is configured")
    assert seen["exit"] == "1"
    assert GUARD in seen["tables at the end"].split(",")


def test_while_the_api_server_is_away_the_agent_stands_guard_and_says_what_it_lacks(
    tmp_path: Path, user: list[str]
) -> None:
    write_kubeconfig(tmp_path)
    seen = run(tmp_path, user)
    assert GUARD in seen["tables"].split(",")
    ready = json.loads(seen["ready"])
    assert not ready["ready"]
    assert (ready["checks"]["interception"], ready["checks"]["listener"]) == ("ok", "ok")
    assert len(ready["checks"]["watches"]) == 5
    assert "http://127.0.0.1:1 cannot be asked" in ready["checks"]["watches"][0]


def test_told_to_stop_it_ends_in_order_and_the_guard_stays(tmp_path: Path, user: list[str]) -> None:
    write_kubeconfig(tmp_path)
    seen = run(tmp_path, user)
    assert seen["exit"] == "0"
    assert GUARD in seen["tables at the end"].split(",")


def test_the_guard_goes_where_that_was_chosen(tmp_path: Path, user: list[str]) -> None:
    write_kubeconfig(tmp_path)
    seen = run(tmp_path, user, "--on-exit=remove")
    assert seen["exit"] == "0"
    assert GUARD in seen["tables"].split(",")
    assert seen["tables at the end"] == ""
