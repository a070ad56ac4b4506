"""What the kubelet asks a container runtime for, without one: names, limits, rights, mounts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from podidentity_sandbox.node.cri import containerd
from podidentity_sandbox.node.cri.cgroups import cgroup_of
from podidentity_sandbox.node.cri.options import RuntimeOptions
from podidentity_sandbox.node.cri.requests import container_config, sandbox_config
from podidentity_sandbox.node.rootfs import Bind
from podidentity_sandbox.node.spec import parse_pod
from podidentity_sandbox.world.blueprint import Shape, draw_plan
from tests.sandbox.node.site import container, pod
from tests.sandboxes import own

UID = "0a1b2c3d-0000-1111-2222-333344445555"
ALL: dict[str, Any] = {"resources": {"limits": {"cpu": "1", "memory": "64Mi"}}}


@pytest.mark.parametrize(
    ("quality", "driver", "path"),
    [
        ("besteffort", "cgroupfs", f"/kubepods/besteffort/pod{UID}"),
        ("guaranteed", "cgroupfs", f"/kubepods/pod{UID}"),
        (
            "burstable",
            "systemd",
            "/kubepods.slice/kubepods-burstable.slice"
            f"/kubepods-burstable-pod{UID.replace('-', '_')}.slice",
        ),
        (
            "guaranteed",
            "systemd",
            f"/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice",
        ),
    ],
)
def test_a_pods_cgroup_is_named_as_the_driver_names_it(
    quality: str, driver: str, path: str
) -> None:
    assert cgroup_of(UID, quality, driver) == path


def config_of(given: dict[str, Any], **of_pod: Any) -> dict[str, Any]:
    parsed = parse_pod(pod("p", given, **of_pod))
    return container_config(
        parsed.containers[0],
        parsed,
        run=2,
        environment={"A": "b"},
        command=["run"],
        arguments=[],
        binds=[Bind(source="/run/netns", target="/run/netns", follow=True)],
        spaces={},
    )


def test_a_containers_rights_are_asked_for_as_the_spec_has_them() -> None:
    security = {
        "runAsUser": 7,
        "runAsGroup": 8,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
    }
    of_pod = {"fsGroup": 9, "seccompProfile": {"type": "RuntimeDefault"}}
    config = config_of(container(securityContext=security, **ALL), securityContext=of_pod)
    asked = config["linux"]["security_context"]
    assert (asked["run_as_user"], asked["run_as_group"]) == ({"value": 7}, {"value": 8})
    assert asked["supplemental_groups"] == [9]
    assert asked["no_new_privs"] and asked["readonly_rootfs"]  # noqa: PT018 - both are bare
    assert asked["capabilities"] == {
        "add_capabilities": ["NET_ADMIN"],
        "drop_capabilities": ["ALL"],
    }
    assert asked["seccomp"] == {"profile_type": "RuntimeDefault"}
    assert "/proc/kcore" in asked["masked_paths"]
    assert config["linux"]["resources"]["memory_limit_in_bytes"] == 64 << 20
    assert config["log_path"] == "main/2.log"


def test_a_container_that_names_nothing_has_the_runtimes_defaults_and_no_seccomp() -> None:
    config = config_of(container())
    asked = config["linux"]
    assert asked["security_context"]["seccomp"] == {"profile_type": "Unconfined"}
    assert "run_as_user" not in asked["security_context"]
    assert "memory_limit_in_bytes" not in asked["resources"]
    (mount,) = config["mounts"]
    assert mount["propagation"] == "PROPAGATION_HOST_TO_CONTAINER", "it follows the node's"
    assert mount["readonly"]


def test_a_privileged_container_has_no_masked_paths() -> None:
    asked = config_of(container(securityContext={"privileged": True}))["linux"]
    assert asked["security_context"]["privileged"]
    assert "masked_paths" not in asked["security_context"]


def test_a_pod_of_the_nodes_network_has_no_hostname_of_its_own() -> None:
    parsed = parse_pod(pod("p", hostNetwork=True, hostPID=True))
    asked = sandbox_config(parsed, cgroup="/kubepods", logs="/logs", first_user=0)
    assert asked["hostname"] == ""
    spaces = asked["linux"]["security_context"]["namespace_options"]
    assert (spaces["network"], spaces["pid"], spaces["ipc"]) == ("NODE", "NODE", "POD")


def test_what_a_machine_lacks_is_said_with_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = RuntimeOptions(tools=str(tmp_path), images=(__file__,))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert "./scripts/setup-runtime" in containerd.missing(options)
    (tmp_path / ".podidentity-setup").touch()
    monkeypatch.setattr(
        Path, "read_text", lambda _: "nodev\toverlay\nnone /sys/fs/cgroup cgroup2 rw 0 0\n"
    )
    assert containerd.missing(options) == f"{__file__} is no OCI archive that names its images"
    monkeypatch.setattr(Path, "read_text", lambda _: "")
    assert "no overlay file system" in containerd.missing(options)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "needs root" in containerd.missing(options)


ENTER = """
import sys
from pathlib import Path
from podidentity_sandbox.node.cri import machine
vars(machine)["_enter"]([Path(sys.argv[1])])
print(Path("/proc/self/cgroup").read_text(), *sorted(Path("/sys/fs/cgroup").iterdir()), sep="\\n")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="cgroups are made by root")
def test_a_node_has_cgroups_of_its_own_where_v2_stands_alone() -> None:
    """As on a machine without v1: its /sys/fs/cgroup is v2 already. Here a namespace has that."""
    name = own("alone")
    make = 'mount -t cgroup2 cgroup2 /sys/fs/cgroup && mkdir "$1" && exec "$2" -c "$3" "$1"'
    place = f"/sys/fs/cgroup/podidentity-sandbox-{name}"
    entered = ("unshare", "--mount", "--pid", "--fork", "sh", "-c", make, "sh")
    remove = 'mount -t cgroup2 cgroup2 /sys/fs/cgroup; rmdir "$1"/system.slice; rmdir "$1"'
    try:
        ran = subprocess.run(
            [*entered, place, sys.executable, ENTER], capture_output=True, text=True, check=False
        )
    finally:
        removing = ("unshare", "--mount", "sh", "-c", remove, "sh", place)
        removed = subprocess.run(removing, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "0::/system.slice" in ran.stdout
    assert "/sys/fs/cgroup/system.slice\n" in ran.stdout
    assert "/sys/fs/cgroup/podidentity" not in ran.stdout
    assert removed.returncode == 0, removed.stderr


def test_a_node_is_refused_where_no_hierarchy_has_the_memory_controller(tmp_path: Path) -> None:
    """Without a root for it the node would take the folder in which it was started for its cgroup.

    In that it would look for processes to end at its next start, and find its own group.
    """
    plan = draw_plan("bare", tmp_path, Shape(nodes=1), cgroup_root=str(tmp_path / "v2"))
    plan.save()
    (tmp_path / "v2").mkdir()
    program = (sys.executable, "-P", "-m", "podidentity_sandbox.node.cri.machine")
    words = ("--folder", str(tmp_path), "--node", plan.nodes[0].name, "--ready-fd", "1")
    ran = subprocess.run(
        [*program, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert "the machine has no memory controller of cgroups" in ran.stderr
    assert not (tmp_path / plan.nodes[0].name).exists()
    assert not any((tmp_path / "v2").iterdir())
