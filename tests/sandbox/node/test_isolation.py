"""What a pod may do, and what not: to the node, to other pods, to the machine of the person."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.node.site import Site, container, pod

pytestmark = pytest.mark.net

PLAIN = 0x00000000A80425FB
WRITTEN = ("", "/root", "/run")
SYSTEM = ("/etc", "/usr/bin", "/var/lib")
"""Only their owner may write into the machine's folders, also in a copy of his own."""
FORBIDDEN = (
    "unshare --net true",
    "nsenter --target 1 --net true",
    "mount -t tmpfs none /mnt",
    "umount /proc/sys",
    "ip address add 10.244.0.99/24 dev eth0",
    "ip link set eth0 address 02:00:00:00:00:01",
    "echo 1 >/proc/sys/kernel/panic",
    "echo 1 >/proc/sys/net/ipv4/ip_forward",
    "mkdir /sys/fs/cgroup/mine",
    "hostname other",
)
REFUSED = (b"not permitted", b"Read-only", b"ermission denied", b"must be")


def test_a_plain_pod_sees_and_has_what_is_its_own_and_may_not_change_the_node(site: Site) -> None:
    site.run(pod("plain"))
    site.run(pod("other"))
    # The program, this shell, and the two that it runs.
    assert int(site.says("plain", "ls -d /proc/[0-9]* | wc -l")) <= 4
    assert site.says("plain", "cat /proc/1/comm") == "sleep"
    held = sets(status(site, "plain"))
    assert held == {"Inh": 0, "Prm": PLAIN, "Eff": PLAIN, "Bnd": PLAIN, "Amb": 0}
    for deed in FORBIDDEN:
        result = site.sh("plain", deed)
        assert result.exit != 0, deed
        assert any(word in result.stderr for word in REFUSED), (deed, result.stderr)
    assert site.says("plain", "find /dev -type b | wc -l") == "0"
    assert site.says("plain", "head -c 2 /dev/zero | wc -c; echo x >/dev/null") == "2"
    assert site.says("plain", "ls -A /run/netns 2>/dev/null | wc -l") == "0"
    assert site.says("plain", f"ls -A {site.plan.folder} | wc -l") == "0"
    assert site.plan.admin_token in (site.plan.path / "plan.json").read_text()


def test_what_a_pod_writes_and_removes_is_as_it_was_on_the_machine(site: Site) -> None:
    site.run(pod("writer"))
    for folder in (*WRITTEN, *(SYSTEM if os.geteuid() == 0 else ())):
        name = f"{folder}/written-by-a-pod-of-podidentity"
        assert site.says("writer", f"echo mine >{name}; cat {name}") == "mine"
        assert not Path(name).exists()
    site.says("writer", "rm -r /etc/fstab /etc/hostname /usr/share/doc 2>/dev/null; true")
    assert site.sh("writer", "ls /usr/share/doc").exit != 0
    assert Path("/usr/share/doc").is_dir()


def test_a_read_only_root_is_read_only_and_its_volumes_are_not(site: Site) -> None:
    sealed = container(
        securityContext={"readOnlyRootFilesystem": True},
        volumeMounts=[{"name": "v", "mountPath": "/data"}],
    )
    site.run(pod("sealed", sealed, volumes=[{"name": "v", "emptyDir": {}}]))
    for path in ("/x", "/etc/x", "/usr/x"):
        assert b"Read-only" in site.sh("sealed", f"touch {path}").stderr
    site.says("sealed", "touch /data/x")


def test_a_device_node_that_a_pod_makes_opens_nothing(site: Site) -> None:
    maker = container(volumeMounts=[{"name": "v", "mountPath": "/data"}])
    site.run(pod("maker", maker, volumes=[{"name": "v", "emptyDir": {}}]))
    for folder in ("", "/dev", "/root", "/etc", "/data"):
        # 1:5 is /dev/zero, which would hurt nobody.
        made = f"{folder}/zero-of-mine"
        result = site.sh("maker", f"mknod {made} c 1 5 && head -c 1 {made}")
        assert result.exit != 0, folder
        assert any(word in result.stderr for word in REFUSED), (folder, result.stderr)


def test_nothing_of_the_persons_environment_reaches_a_pod(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "the person's own")
    site.run(pod("clean"))
    names = set(site.says("clean", "env | cut -d= -f1 | sort").split())
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {
        "CURL_CA_BUNDLE",
        "HOME",
        "HOSTNAME",
        "KUBERNETES_SERVICE_HOST",
        "KUBERNETES_SERVICE_PORT",
        "NODE_EXTRA_CA_CERTS",
        "PATH",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_FILE",
    }


def test_a_host_path_of_the_wrong_kind_keeps_the_pod_from_starting(
    site: Site, tmp_path: Path
) -> None:
    for kind, what in (("File", "file"), ("Directory", "directory"), ("Socket", "socket file")):
        name, missing = f"no-{kind.lower()}", tmp_path / kind
        volume = {"name": "host", "hostPath": {"path": str(missing), "type": kind}}
        site.create(pod(name, volumes=[volume]))
        assert site.event(name, "FailedMount") == (
            'MountVolume.SetUp failed for volume "host" : '
            f"hostPath type check failed: {missing} is not a {what}"
        )


def test_a_host_path_that_is_to_be_made_is_made_on_the_node_and_not_on_the_machine(
    site: Site, tmp_path: Path
) -> None:
    """As the archived NMI's own manifest asks for /run/xtables.lock and /etc/default/kubelet."""
    wanted = {
        "lock": ("/run/made.lock", "FileOrCreate", "file 644 root"),
        "settings": (str(tmp_path / "settings"), "FileOrCreate", "file 644 root"),
        "folder": (str(tmp_path / "a/b"), "DirectoryOrCreate", "directory 755 root"),
    }
    volumes = [
        {"name": name, "hostPath": {"path": path, "type": kind}}
        for name, (path, kind, _) in wanted.items()
    ]
    mounts = [{"name": name, "mountPath": f"/v/{name}"} for name in wanted]
    for reader in ("first", "second"):
        site.run(pod(reader, container(volumeMounts=mounts), volumes=volumes))
        for name, (_, _, looks) in wanted.items():
            stat = f"stat -c '%F %a %U' /v/{name} | sed 's/regular.* file/file/'"
            assert site.says(reader, stat) == looks
    site.says("first", "echo written >/v/settings")
    assert site.says("second", "cat /v/settings") == "written"
    assert list(tmp_path.iterdir()) == []
    orphan = {"path": str(tmp_path / "no/where"), "type": "FileOrCreate"}
    site.create(pod("orphan", volumes=[{"name": "v", "hostPath": orphan}]))
    assert "no such file or directory" in site.event("orphan", "FailedMount")


def test_namespaces_of_later_pods_appear_where_the_spec_asks_for_them(site: Site) -> None:
    agent = container(
        volumeMounts=[
            {"name": "ns", "mountPath": "/run/netns", "mountPropagation": "HostToContainer"}
        ],
        securityContext={"capabilities": {"add": ["SYS_ADMIN", "NET_ADMIN"]}},
    )
    volume = {"name": "ns", "hostPath": {"path": "/run/netns", "type": "DirectoryOrCreate"}}
    site.run(pod("agent", agent, hostNetwork=True, volumes=[volume]))
    later = site.run(pod("later"))["status"]["podIP"]
    script = "for ns in /run/netns/cni-*; do nsenter --net=$ns ip -brief address show eth0; done"
    assert later in site.says("agent", script)
    site.delete("later")
    assert site.says("agent", "ls -A /run/netns") == ""


def test_the_machines_files_behind_a_host_path_are_read_only_by_a_link_on_the_node_too(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "kept").write_text("as it was")
    run = {"name": "run", "hostPath": {"path": "/run"}}
    maker = container(volumeMounts=[{"name": "run", "mountPath": "/node"}])
    site.run(pod("maker", maker, volumes=[run]))
    site.says("maker", f"ln -s {tmp_path} /node/out")
    places = {"out": "/run/out", "host": str(tmp_path)}
    volumes = [{"name": name, "hostPath": {"path": path}} for name, path in places.items()]
    user = container(volumeMounts=[{"name": name, "mountPath": f"/{name}"} for name in places])
    site.run(pod("user", user, volumes=volumes))
    for name in places:
        assert site.says("user", f"cat /{name}/kept") == "as it was"
        assert b"Read-only" in site.sh("user", f"echo other >/{name}/kept").stderr
    site.says("maker", "rm /node/out")


# ---- What a container's securityContext makes of its program, as the kernel tells it

NET_ADMIN, SYS_ADMIN, DAC_READ_SEARCH = 1 << 12, 1 << 21, 1 << 2
THREE = ["NET_ADMIN", "SYS_ADMIN", "DAC_READ_SEARCH"]
STRICT = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def status(site: Site, name: str, process: str = "self") -> dict[str, str]:
    """Return /proc/…/status of a program executed in a pod, or of its first process."""
    told = site.says(name, f"cat /proc/{process}/status").splitlines()
    lines = (line.partition(":") for line in told)
    return {key: value.strip() for key, _, value in lines}


def sets(told: dict[str, str]) -> dict[str, int]:
    return {name: int(told[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")}


def running(**security: Any) -> dict[str, Any]:
    return container("sleep", "infinity", securityContext=security)


def test_a_root_container_has_exactly_the_capabilities_it_adds(site: Site) -> None:
    wanted = {"drop": ["ALL"], "add": THREE}
    site.run(pod("net", running(allowPrivilegeEscalation=True, capabilities=wanted)))
    mask = NET_ADMIN | SYS_ADMIN | DAC_READ_SEARCH
    for told in (status(site, "net", "1"), status(site, "net")):
        assert sets(told) == {"Inh": 0, "Prm": mask, "Eff": mask, "Bnd": mask, "Amb": 0}
        assert told["NoNewPrivs"] == "0"


def test_a_container_with_a_user_of_its_own_has_no_capability_in_any_set(rooted: Site) -> None:
    rooted.run(pod("serve", running(runAsUser=64912, runAsGroup=64912, **STRICT)))
    for told in (status(rooted, "serve", "1"), status(rooted, "serve")):
        assert sets(told) == dict.fromkeys(("Inh", "Prm", "Eff", "Bnd", "Amb"), 0)
        assert told["Uid"].split() == ["64912"] * 4
        assert told["Gid"].split() == ["64912"] * 4
        assert told["NoNewPrivs"] == "1"


def test_of_a_user_that_is_not_root_added_capabilities_only_bound(rooted: Site) -> None:
    # containerd sets no ambient capabilities: without a file that has them, exec clears the rest.
    wanted = {"drop": ["ALL"], "add": ["NET_ADMIN"]}
    rooted.run(pod("user", running(runAsUser=1000, capabilities=wanted)))
    none = dict.fromkeys(("Inh", "Prm", "Eff", "Amb"), 0)
    told = status(rooted, "user", "1")
    assert sets(told) == {**none, "Bnd": NET_ADMIN}
    assert told["NoNewPrivs"] == "0"


def test_groups_are_the_specs_own_and_no_others(rooted: Site) -> None:
    security = {
        "runAsUser": 1000,
        "runAsGroup": 2000,
        "fsGroup": 3000,
        "supplementalGroups": [4, 5],
    }
    rooted.run(pod("groups", container("sleep", "infinity"), securityContext=security))
    told = status(rooted, "groups", "1")
    assert told["Groups"].split() == ["4", "5", "3000"]
    assert told["Gid"].split() == ["2000"] * 4
