"""Whose the files of a pod's volumes are, where its containers run as users of their own.

Rules of pkg/volume/projected, pkg/volume/emptydir and pkg/volume/volume_linux.go of Kubernetes.
"""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from tests.sandbox.node.site import Site, container, pod, script, terminated

pytestmark = pytest.mark.net

SERVE = 64912
TOKEN = {
    "name": "token",
    "projected": {"sources": [{"serviceAccountToken": {"path": "token", "audience": "me"}}]},
}
LOOK = ("stat", "-Lc", "%u:%g %a", "/token/token")


def two(*, user: int | None = SERVE, token: dict[str, Any] = TOKEN, **spec: Any) -> dict[str, Any]:
    """Return a pod of `net`, root without capabilities, and `serve`, which has the token."""
    net = container(
        "sleep",
        "infinity",
        name="net",
        securityContext={"runAsUser": 0, "capabilities": {"drop": ["ALL"]}},
        volumeMounts=[{"name": "shared", "mountPath": "/shared"}],
    )
    serve = container(
        "sleep",
        "infinity",
        name="serve",
        securityContext={} if user is None else {"runAsUser": user, "runAsGroup": user},
        volumeMounts=[
            {"name": "shared", "mountPath": "/shared"},
            {"name": "token", "mountPath": "/token", "readOnly": True},
        ],
    )
    shared = {"name": "shared", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
    return pod(
        "two", net, serve, volumes=[shared, token], automountServiceAccountToken=False, **spec
    )


def said(site: Site, of: str, *command: str) -> str:
    result = site.execute("two", *command, container=of)
    assert result.exit == 0, result.stderr.decode()
    return result.stdout.decode().strip()


ALONE = container("sleep", "infinity", volumeMounts=[{"name": "token", "mountPath": "/token"}])


@pytest.mark.parametrize(
    ("made", "reader", "looks"),
    [
        # Users differ, and no group is named.
        (two(), "serve", "0:0 644"),
        (two(securityContext={"fsGroup": SERVE}), "serve", f"0:{SERVE} 640"),
        (
            pod("two", ALONE, volumes=[TOKEN], securityContext={"runAsUser": SERVE}),
            "main",
            f"{SERVE}:0 600",
        ),
    ],
    ids=["all", "the fsGroup", "the one user of all containers"],
)
def test_a_token_is_closed_to_all_but_those_whom_the_pod_names(
    rooted: Site, made: dict[str, Any], reader: str, looks: str
) -> None:
    rooted.run(made)
    assert said(rooted, reader, *LOOK) == looks
    assert said(rooted, reader, "cat", "/token/token").count(".") == 2


def test_a_mode_that_shuts_the_token_to_its_reader_is_not_repaired(rooted: Site) -> None:
    shut = {**TOKEN, "projected": {**TOKEN["projected"], "defaultMode": 0o400}}  # type: ignore[dict-item]
    rooted.run(two(token=shut))
    result = rooted.execute("two", "cat", "/token/token", container="serve")
    assert b"Permission denied" in result.stderr


def test_a_token_is_in_the_container_alone_that_mounts_it(site: Site) -> None:
    site.run(two(user=None))
    look = "find / -xdev -name token -not -path '/proc/*' 2>/dev/null; ls /var/run/secrets 2>&1"
    assert "kubernetes.io" not in said(site, "net", "sh", "-c", f"{look}; true")
    assert said(site, "serve", "cat", "/token/token").count(".") == 2


def test_an_empty_dir_is_everybodys_and_what_is_made_in_it_is_the_fs_groups(rooted: Site) -> None:
    rooted.run(two(securityContext={"fsGroup": SERVE}))
    assert said(rooted, "net", "stat", "-c", "%u:%g %a", "/shared") == f"0:{SERVE} 2777"
    said(rooted, "net", "sh", "-c", "umask 007; echo hello >/shared/word; mkdir /shared/sub")
    assert said(rooted, "serve", "cat", "/shared/word") == "hello"
    assert said(rooted, "serve", "stat", "-c", "%g", "/shared/sub") == str(SERVE)


def test_an_empty_dir_of_memory_is_a_file_system_of_its_own_with_its_limit(site: Site) -> None:
    site.run(two(user=None))
    assert said(site, "net", "stat", "-fc", "%T", "/shared") == "tmpfs"
    full = site.execute(
        "two", "sh", "-c", "head -c 2000000 /dev/zero >/shared/big", container="serve"
    )
    assert b"No space left" in full.stderr
    site.delete("two")
    assert site.on_node("mount | grep -c empty-dir || true") == "0"


def test_an_empty_dir_of_memory_is_no_larger_than_the_pods_limit(site: Site) -> None:
    limited = container(
        "sleep",
        "infinity",
        resources={"limits": {"memory": "32Mi"}},
        volumeMounts=[{"name": "v", "mountPath": "/v"}],
    )
    volumes = [{"name": "v", "emptyDir": {"medium": "Memory"}}]
    site.run(pod("two", limited, volumes=volumes))
    assert said(site, "main", "df", "--output=size", "-B1", "/v").split()[-1] == str(32 << 20)


def test_an_init_container_counts_among_those_that_must_have_the_same_user(rooted: Site) -> None:
    reader = script(shlex.join(LOOK), volumeMounts=[{"name": "token", "mountPath": "/token"}])
    first = container("true", name="first", securityContext={"runAsUser": 0})
    made = pod(
        "two",
        reader,
        initContainers=[first],
        volumes=[TOKEN],
        securityContext={"runAsUser": SERVE},
    )
    assert rooted.log(rooted.run(made, terminated)) == "0:0 644\n"
