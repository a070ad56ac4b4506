from __future__ import annotations

import pytest

from podidentity.kernel.cgroups import pod_of

UID = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-2222-3333-4444-555555555555"
HASH = "0123456789abcdef0123456789abcdef"

CGROUP = "/sys/fs/cgroup"
SLICE = f"{CGROUP}/kubepods.slice/kubepods-burstable.slice"
UNDERSCORED = UID.replace("-", "_")


@pytest.mark.parametrize(
    ("path", "pod"),
    [
        (f"{CGROUP}/kubepods/burstable/pod{UID}/abc", UID),
        (f"{CGROUP}/kubepods/besteffort/pod{UID}", UID),
        (f"{CGROUP}/kubepods/pod{UID}/abc/nested/deeper", UID),
        (f"{CGROUP}/unified/sandbox/node-1/kubepods/burstable/pod{UID}/c", UID),
        (f"{CGROUP}/kubepods/burstable/pod{HASH}/abc", HASH),
        (f"{SLICE}/kubepods-burstable-pod{UNDERSCORED}.slice/cri-containerd-abc.scope", UID),
        (f"{CGROUP}/kubepods.slice/kubepods-pod{UNDERSCORED}.slice/crio-abc.scope", UID),
        (
            f"{CGROUP}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice"
            f"/kubelet-kubepods-besteffort-pod{UNDERSCORED}.slice/cri-containerd-abc.scope",
            UID,
        ),
        # The outermost counts, whatever a pod names its own cgroups.
        (f"{CGROUP}/kubepods/burstable/pod{UID}/c/kubepods/burstable/pod{OTHER}/c", UID),
        (f"{CGROUP}/kubepods/burstable/x/kubepods/burstable/pod{OTHER}/c", ""),
        (f"{CGROUP}/kubepods/burstable/podx/pod{OTHER}/c", ""),
        (f"{CGROUP}/system.slice/kubelet.service", ""),
        (f"{CGROUP}/kubepods", ""),
        (f"{CGROUP}/kubepods/burstable", ""),
        (f"{CGROUP}/user.slice/pod{UID}", ""),
        ("/", ""),
    ],
)
def test_a_cgroups_path_names_the_pod_that_the_kubelet_made_it_for(path: str, pod: str) -> None:
    assert pod_of(path) == pod
