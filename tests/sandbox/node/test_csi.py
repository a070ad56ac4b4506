"""CSI volumes, with a small driver in a pod: what it is asked, and what a pod is told without it.

Texts: pkg/volume/csi/csi_client.go of https://github.com/kubernetes/kubernetes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.sandbox.node.site import Object, Site, container, pod

pytestmark = pytest.mark.net

NAME = "test.example"
PREFIX = 'MountVolume.SetUp failed for volume "store" : '
READY = "/run/kubelet/listens"
"""A pipe: who reads it learns that the driver listens."""
CALLS = f"/run/kubelet/plugins/{NAME}/calls"
# Writes down each call, and fills the folder.
PROGRAM = f"""
import json, os, socket
folder = "/run/kubelet/plugins/{NAME}"
os.makedirs(folder, exist_ok=True)
listening = socket.socket(socket.AF_UNIX)
listening.bind(folder + "/csi.sock")
listening.listen()
open("{READY}", "w").close()
while True:
    connection, _ = listening.accept()
    line = connection.makefile().readline()
    call = json.loads(line)
    open("{CALLS}", "a").write(line)
    if call["op"] == "publish":
        open(call["target"] + "/value", "w").write("from the driver")
    connection.sendall(b"{{}}\\n")
    connection.close()
"""


@pytest.fixture
def driver(site: Site) -> Iterator[Site]:
    """The driver's program, which listens."""
    site.on_node(f"mkdir -p /run/kubelet && mkfifo {READY}")
    mount = {"name": "kubelet", "mountPath": "/run/kubelet"}
    host = {"name": "kubelet", "hostPath": {"path": "/run/kubelet"}}
    program = container("python3", "-c", PROGRAM, volumeMounts=[mount])
    site.run(pod("driver", program, volumes=[host]))
    site.says("driver", f"cat {READY}")
    yield site
    site.on_node(f"rm -rf /run/kubelet/plugins/{NAME} {READY}")


def mounting(name: str) -> Object:
    csi = {"driver": NAME, "readOnly": True, "volumeAttributes": {"a": "b"}}
    mounts = [{"name": "store", "mountPath": "/store"}]
    return pod(name, container(volumeMounts=mounts), volumes=[{"name": "store", "csi": csi}])


def test_a_driver_that_does_not_run_mounts_no_volume(site: Site) -> None:
    site.create(mounting("alone"))
    assert site.event("alone", "FailedMount") == (
        f"{PREFIX}kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: driver name {NAME} "
        "not found in the list of registered CSI drivers"
    )


def test_what_the_driver_writes_is_in_the_pod_read_only_and_let_go_when_it_ends(
    driver: Site,
) -> None:
    made = driver.run(mounting("served"))
    assert driver.says("served", "cat /store/value") == "from the driver"
    assert driver.sh("served", "echo x >/store/value").exit != 0
    driver.delete("served")
    calls = [json.loads(line) for line in driver.on_node(f"cat {CALLS}").splitlines()]
    publish, unpublish = (call for call in calls if made["metadata"]["uid"] in call["target"])
    assert (publish["op"], publish["readOnly"]) == ("publish", True)
    assert publish["attributes"] == {
        "a": "b",
        "csi.storage.k8s.io/pod.name": "served",
        "csi.storage.k8s.io/pod.namespace": "default",
        "csi.storage.k8s.io/pod.uid": made["metadata"]["uid"],
        "csi.storage.k8s.io/serviceAccount.name": "default",
        "csi.storage.k8s.io/ephemeral": "true",
    }
    assert (unpublish["op"], unpublish["target"]) == ("unpublish", publish["target"])
    assert driver.on_node(f"ls {publish['target']} 2>/dev/null || echo gone") == "gone"
