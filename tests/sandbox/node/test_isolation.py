"""What a pod cannot do: to the node, to other pods, to the machine of the person."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.root import needs_root
from tests.sandbox.node.site import Site, container, pod

pytestmark = pytest.mark.net

PLAIN = 0x00000000A80425FB
# Only their owner may write into the machine's folders, also in a copy of his own.
SYSTEM = [pytest.param(each, marks=needs_root) for each in ("/etc", "/usr/bin", "/var/lib")]
WRITTEN = ["", "/root", "/run", *SYSTEM]


def adding(*names: str) -> dict[str, object]:
    return container(securityContext={"capabilities": {"add": list(names)}})


def test_a_pod_sees_its_own_processes_only(site: Site) -> None:
    site.run(pod("one"))
    site.run(pod("two"))
    # The program, this shell, and the two that it runs.
    assert int(site.says("one", "ls -d /proc/[0-9]* | wc -l")) <= 4
    assert site.says("one", "cat /proc/1/comm") == "sleep"


def test_a_pod_has_the_capabilities_of_a_plain_container(site: Site) -> None:
    site.run(pod("plain"))
    sets = site.says("plain", "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status | cut -f2").split()
    assert [int(held, 16) for held in sets] == [PLAIN] * 3
    assert int(site.says("plain", "grep CapInh /proc/self/status | cut -f2"), 16) == 0


@pytest.mark.parametrize(
    "deed",
    [
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
    ],
)
def test_a_plain_pod_may_not(site: Site, deed: str) -> None:
    site.run(pod("plain"))
    result = site.sh("plain", deed)
    assert result.exit != 0
    assert any(
        word in result.stderr
        for word in (b"not permitted", b"Read-only", b"ermission denied", b"must be")
    ), result.stderr


def test_a_capability_is_there_when_the_spec_adds_it(site: Site) -> None:
    site.run(pod("admin", adding("NET_ADMIN")))
    site.says("admin", "ip address add 10.244.0.99/24 dev eth0")
    assert site.sh("admin", "unshare --net true").exit != 0


def test_raw_packets_may_be_sent_so_that_a_forger_can_be_played(site: Site) -> None:
    site.run(pod("forger"))
    site.says("forger", "python3 -c 'import socket; socket.socket(socket.AF_PACKET, 3)'")


@pytest.mark.parametrize("folder", WRITTEN)
def test_what_a_pod_writes_never_reaches_the_machine(site: Site, folder: str) -> None:
    site.run(pod("writer"))
    name = f"{folder}/written-by-a-pod-of-podidentity"
    assert site.says("writer", f"echo mine >{name}; cat {name}") == "mine"
    assert not Path(name).exists()


def test_what_a_pod_removes_stays_on_the_machine(site: Site) -> None:
    site.run(pod("remover"))
    site.says("remover", "rm -r /etc/fstab /etc/hostname /usr/share/doc 2>/dev/null; true")
    assert site.sh("remover", "ls /usr/share/doc").exit != 0
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


@pytest.mark.parametrize("folder", ["", "/dev", "/root", "/etc", "/data"])
def test_a_device_node_that_a_pod_makes_opens_nothing(site: Site, folder: str) -> None:
    maker = container(volumeMounts=[{"name": "v", "mountPath": "/data"}])
    site.run(pod("maker", maker, volumes=[{"name": "v", "emptyDir": {}}]))
    # 1:5 is /dev/zero, which would hurt nobody.
    made = site.sh("maker", f"mknod {folder}/zero-of-mine c 1 5 && head -c 1 {folder}/zero-of-mine")
    assert made.exit != 0
    assert b"ermission denied" in made.stderr or b"not permitted" in made.stderr


def test_a_pod_has_the_devices_of_a_container_and_no_disk(site: Site) -> None:
    site.run(pod("devices"))
    assert site.says("devices", "find /dev -type b | wc -l") == "0"
    assert site.says("devices", "head -c 2 /dev/zero | wc -c; echo x >/dev/null") == "2"


def test_the_sandboxs_own_folder_and_its_secrets_are_not_there(site: Site) -> None:
    site.run(pod("curious"))
    assert site.says("curious", f"ls -A {site.plan.folder} | wc -l") == "0"
    assert site.plan.admin_token in (site.plan.path / "plan.json").read_text()


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


def test_the_projects_own_programs_are_found_in_a_pod(site: Site) -> None:
    site.run(pod("programs"))
    assert site.says("programs", "podidentity --version")


def test_the_machines_files_behind_a_host_path_are_read_only(site: Site, tmp_path: Path) -> None:
    mounted = container(volumeMounts=[{"name": "host", "mountPath": "/host"}])
    volume = {"name": "host", "hostPath": {"path": str(tmp_path)}}
    (tmp_path / "kept").write_text("as it was")
    site.run(pod("mounted", mounted, volumes=[volume]))
    assert site.says("mounted", "cat /host/kept") == "as it was"
    assert b"Read-only" in site.sh("mounted", "echo other >/host/kept").stderr


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


def test_a_pod_without_that_volume_sees_no_namespaces(site: Site) -> None:
    site.run(pod("plain"))
    assert site.says("plain", "ls -A /run/netns 2>/dev/null | wc -l") == "0"


def test_a_link_that_a_pod_makes_on_the_node_opens_nothing_of_the_machine_for_writing(
    site: Site, tmp_path: Path
) -> None:
    run = {"name": "run", "hostPath": {"path": "/run"}}
    maker = container(volumeMounts=[{"name": "run", "mountPath": "/node"}])
    site.run(pod("maker", maker, volumes=[run]))
    site.says("maker", f"ln -s {tmp_path} /node/out")
    out = {"name": "out", "hostPath": {"path": "/run/out"}}
    user = container(volumeMounts=[{"name": "out", "mountPath": "/v"}])
    site.run(pod("user", user, volumes=[out]))
    assert "Read-only file system" in site.sh("user", "touch /v/x").stderr.decode()
    site.says("maker", "rm /node/out")
