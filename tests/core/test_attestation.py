from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.attestation import (
    AttestationMode,
    ConnectionFacts,
    Proof,
    Sighting,
    SocketState,
    Trust,
    Verdict,
    judge,
    judge_local,
)
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import ObjectRef, Phase, Pod
from tests.core.worlds import occurs

KERNEL, NAMESPACE = AttestationMode.KERNEL, AttestationMode.NAMESPACE
NONE, OPEN, CLOSED = SocketState.NONE, SocketState.OPEN, SocketState.CLOSED

UID = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-2222-3333-4444-555555555555"
HASH = "0123456789abcdef0123456789abcdef"

VICTIM = Pod(ref=ObjectRef("demo", "victim"), uid=UID)
ITS_FORMER = Pod(ref=ObjectRef("demo", "former"), uid="former")
STATIC = Pod(ref=ObjectRef("kube-system", "static"), uid="mirror", config_hash=HASH)
CLAIMANT = Pod(ref=ObjectRef("tenant", "claimant"), uid=OTHER)
"""An attacker that has written the victim's address into its own status."""
TWIN = Pod(ref=ObjectRef("tenant", "twin"), uid=OTHER, config_hash=UID)
SAME_HASH = replace(TWIN, config_hash=HASH)

NOTHING = Sighting(network="v")
OWN = Sighting(network="v", state=OPEN, pod=UID)
STALE = OWN._replace(doubt="it is waiting to be closed")
ATTACKERS = Sighting(network="a", state=OPEN, pod=OTHER)
OF_STATIC = Sighting(network="s", state=OPEN, pod=HASH)
NO_PODS = Sighting(network="v", state=OPEN, pod="")
NO_CGROUP = Sighting(network="v", state=OPEN)
BROKEN = Sighting(network="b", failure="no buffer space")
NOT_LOOKED_UP = Sighting(network="v", state=OPEN, failure="not permitted")
GONE = Sighting(network="v", state=CLOSED)


def test_a_mode_is_a_word_of_the_flag_and_a_weaker_one_says_what_it_gives_up() -> None:
    modes = [AttestationMode(word) for word in ("kernel", "namespace", "address")]
    assert modes == [KERNEL, NAMESPACE, AttestationMode.ADDRESS]
    assert KERNEL.weakness == ""
    for mode in modes[1:]:
        what, _, mend = mode.weakness.partition("; ")
        assert what.startswith(("a pod", "any pod"))
        assert "--attestation=kernel" in mend


BY_CGROUP = {
    "its own socket": ([OWN], [VICTIM], Verdict.PROVEN),
    "one of two candidates": ([OWN], [ITS_FORMER, VICTIM], Verdict.PROVEN),
    "a static pod, by its hash": ([OF_STATIC], [STATIC], Verdict.PROVEN),
    "two pods claim the hash": ([OF_STATIC], [STATIC, SAME_HASH], Verdict.FORGED),
    "the attacker has the address too": ([NOTHING, ATTACKERS], [VICTIM], Verdict.FORGED),
    "the owner asks beside him": ([ATTACKERS, OWN], [VICTIM], Verdict.PROVEN),
    "the owner asks beside a broken one": ([BROKEN, OWN], [VICTIM], Verdict.PROVEN),
    "two candidates have a socket of it": ([ATTACKERS, OWN], [CLAIMANT, VICTIM], Verdict.FORGED),
    "a process of no pod": ([NO_PODS], [VICTIM], Verdict.FORGED),
    "no pod, and a candidate without uid": (
        [NO_PODS],
        [Pod(ref=ObjectRef("demo", "odd"), uid="")],
        Verdict.FORGED,
    ),
    "the API server has not told yet": ([OWN], [], Verdict.UNKNOWN),
    "one could not be asked": ([BROKEN], [VICTIM], Verdict.UNKNOWN),
    "one of two could not be asked": ([BROKEN, NOTHING], [VICTIM], Verdict.UNKNOWN),
    "its cgroup could not be looked up": ([NOT_LOOKED_UP], [VICTIM], Verdict.UNKNOWN),
    "cgroups were not asked": ([NO_CGROUP], [VICTIM], Verdict.UNKNOWN),
    "its socket of an earlier connection": ([STALE], [VICTIM], Verdict.FORGED),
    "an earlier one, and nobody known": ([STALE], [], Verdict.FORGED),
    "closed": ([GONE], [VICTIM], Verdict.GONE),
    "no socket": ([NOTHING], [VICTIM], Verdict.FORGED),
    "no namespace with its address is to be seen": ([], [VICTIM], Verdict.UNKNOWN),
    "nobody holds the address, and no pod is known by it": ([], [], Verdict.FORGED),
}
BY_NAMESPACE = {
    "the only holder": ([NO_CGROUP], [VICTIM], Verdict.PROVEN),
    "the only holder, whatever its cgroup": ([ATTACKERS], [VICTIM], Verdict.PROVEN),
    "two hold the address": ([NO_CGROUP, NOTHING], [VICTIM], Verdict.FORGED),
    "one could not be asked": ([NO_CGROUP, BROKEN], [VICTIM], Verdict.UNKNOWN),
    "two candidates": ([NO_CGROUP], [VICTIM, ITS_FORMER], Verdict.UNKNOWN),
    "no candidate": ([NO_CGROUP], [], Verdict.UNKNOWN),
    "its socket of an earlier connection": ([STALE._replace(pod=None)], [VICTIM], Verdict.FORGED),
    "closed": ([GONE], [VICTIM], Verdict.GONE),
    "no socket": ([NOTHING], [VICTIM], Verdict.FORGED),
    "no namespace with its address is to be seen": ([], [VICTIM], Verdict.UNKNOWN),
    "nobody holds the address, and no pod is known by it": ([], [], Verdict.FORGED),
}


def facts(*sightings: Sighting, failure: str = "") -> ConnectionFacts:
    holders = len(sightings)
    return ConnectionFacts(accepted=True, sightings=sightings, failure=failure, holders=holders)


@pytest.mark.parametrize("case", BY_CGROUP)
def test_by_cgroup_the_verdict_follows_from_whose_socket_it_is(case: str) -> None:
    sightings, candidates, expected = BY_CGROUP[case]
    assert judge(facts(*sightings), candidates, KERNEL).verdict is expected


@pytest.mark.parametrize("case", BY_NAMESPACE)
def test_by_namespace_only_the_single_holder_of_an_address_is_proven(case: str) -> None:
    sightings, candidates, expected = BY_NAMESPACE[case]
    assert judge(facts(*sightings), candidates, NAMESPACE).verdict is expected


@pytest.mark.parametrize("mode", [KERNEL, NAMESPACE])
def test_a_connection_whose_own_end_has_gone_is_gone_unless_nobody_could_look(
    mode: AttestationMode,
) -> None:
    gone = ConnectionFacts(accepted=False, sightings=(OWN,))
    assert judge(gone, [VICTIM], mode).verdict is Verdict.GONE
    assert judge(gone._replace(failure="x"), [VICTIM], mode).verdict is Verdict.UNKNOWN


def test_by_namespace_a_namespace_that_could_not_be_looked_into_may_hold_the_address_too() -> None:
    assert judge(facts(NO_CGROUP, failure="x"), [VICTIM], NAMESPACE).verdict is Verdict.UNKNOWN
    assert judge(facts(NOTHING, failure="x"), [VICTIM], NAMESPACE).verdict is Verdict.UNKNOWN


def test_by_namespace_all_holders_of_a_contested_address_are_named() -> None:
    found = judge(facts(NO_CGROUP, NOTHING._replace(network="a")), [VICTIM], NAMESPACE)
    assert found.detail.startswith("a, v hold the address")
    nowhere = judge(facts(NOTHING, NOTHING._replace(network="a")), [VICTIM], NAMESPACE)
    assert nowhere.detail == "no socket of this connection in a, v"


def test_by_cgroup_it_only_matters_where_no_socket_is_found() -> None:
    assert judge(facts(OWN, failure="x"), [VICTIM], KERNEL).verdict is Verdict.PROVEN
    assert judge(facts(NOTHING, failure="x"), [VICTIM], KERNEL).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("mode", [KERNEL, NAMESPACE])
def test_a_pod_whose_namespace_is_not_to_be_seen_is_told_from_a_forger(
    mode: AttestationMode,
) -> None:
    found = judge(facts(), [VICTIM], mode)
    assert (found.verdict, found.pod_uid) == (Verdict.UNKNOWN, "")
    assert "somebody has taken it out of the folder of namespaces" in found.detail
    # A pod that may be believed by its address alone is so, as behind a kernel of its own.
    assert found.unseen
    assert Trust().judge_unseen(found, [VICTIM]) is Verdict.UNKNOWN
    # Another namespace that holds the address, and may not send with it, is no such case.
    taken = facts()._replace(holders=1)
    assert judge(taken, [VICTIM], mode).verdict is Verdict.FORGED


def test_a_proof_names_the_pod_and_a_forgery_the_forger() -> None:
    assert judge(facts(OWN), [VICTIM], KERNEL).pod_uid == UID
    assert judge(facts(OWN), [], KERNEL).pod_uid == UID
    assert judge(facts(ATTACKERS), [VICTIM], KERNEL) == Proof(
        verdict=Verdict.FORGED,
        pod_uid=OTHER,
        clients_decide=True,
        detail=f"the socket in a belongs to pod {OTHER}",
    )


def test_of_two_pods_with_a_socket_of_it_neither_is_named_unless_one_is_the_only_candidate() -> (
    None
):
    for candidates in ([], [ITS_FORMER], [CLAIMANT, VICTIM]):
        for sightings in ([ATTACKERS, OWN], [OWN, ATTACKERS]):
            found = judge(facts(*sightings), candidates, KERNEL)
            assert found.verdict is not Verdict.PROVEN
            assert found.pod_uid == ""
    assert judge(facts(ATTACKERS, OWN), [VICTIM], KERNEL).pod_uid == UID


def test_a_stale_socket_names_nobody_because_its_owner_has_not_asked() -> None:
    found = judge(facts(STALE), [VICTIM], KERNEL)
    assert found.pod_uid == ""
    assert "is of another connection: it is waiting to be closed" in found.detail


def test_a_config_hash_that_is_a_neighbours_uid_takes_nothing_from_the_neighbour() -> None:
    for candidates in ([TWIN, VICTIM], [VICTIM, TWIN]):
        assert judge(facts(OWN), candidates, KERNEL).pod_uid == UID


UIDS = st.sampled_from([UID, OTHER, HASH, "former", "mirror", ""])
PODS = st.lists(
    st.builds(Pod, ref=st.just(ObjectRef("n", "p")), uid=UIDS, config_hash=UIDS), max_size=4
)
SIGHTINGS = st.lists(
    st.builds(
        Sighting,
        network=st.sampled_from("abc"),
        state=st.sampled_from(SocketState),
        pod=st.none() | UIDS,
        doubt=st.sampled_from(["", "", "old"]),
        failure=st.sampled_from(["", "", "broken"]),
        clients=st.none() | st.lists(UIDS, max_size=3).map(tuple),
    ),
    max_size=3,
)


@given(SIGHTINGS, PODS, st.booleans())
def test_by_cgroup_nobody_is_proven_but_by_a_sound_socket_and_by_uid_before_any_hash(
    sightings: list[Sighting], candidates: list[Pod], accepted: bool
) -> None:
    found = judge(
        ConnectionFacts(accepted=accepted, sightings=tuple(sightings)), candidates, KERNEL
    )
    sound = {each.pod for each in sightings if each.state is OPEN and not each.doubt} - {None, ""}
    if found.verdict is Verdict.PROVEN:
        assert accepted
        assert found.pod_uid in {
            pod.uid for pod in candidates if {pod.uid, pod.config_hash} & sound
        }
    owners = sound & {pod.uid for pod in candidates}
    if accepted and len(owners) == 1:
        assert found.verdict is Verdict.PROVEN
        assert found.pod_uid in owners
    if len(owners) > 1:
        assert found.verdict is not Verdict.PROVEN
        assert found.pod_uid == ""


# A proxy's socket in a pod's namespace.

PROXY = "88888888-2222-3333-4444-555555555555"
OF_PROXY = Sighting(network="v", state=OPEN, pod=PROXY)
PROXIED = OF_PROXY._replace(clients=(PROXY, UID))
BEHIND_A_PROXY = {
    "beside the pod's own client": ([PROXIED], [VICTIM], Verdict.PROXIED, UID),
    "nobody asked for clients": ([OF_PROXY], [VICTIM], Verdict.FORGED, PROXY),
    "its clients are no pod's": (
        [OF_PROXY._replace(clients=("", PROXY))],
        [VICTIM],
        Verdict.FORGED,
        PROXY,
    ),
    "the pod has no client there": (
        [OF_PROXY._replace(clients=(PROXY,))],
        [VICTIM],
        Verdict.FORGED,
        PROXY,
    ),
    "nor has the proxy any more": (
        [OF_PROXY._replace(clients=())],
        [VICTIM],
        Verdict.FORGED,
        PROXY,
    ),
    "clients of two pods": (
        [OF_PROXY._replace(clients=(PROXY, UID, OTHER))],
        [VICTIM],
        Verdict.FORGED,
        PROXY,
    ),
    "a client of the pod, and one of none": (
        [OF_PROXY._replace(clients=("", PROXY, UID))],
        [VICTIM],
        Verdict.FORGED,
        PROXY,
    ),
    "in the namespace of a pod that took the address": (
        [NOTHING, OF_PROXY._replace(network="a", clients=(OTHER, PROXY))],
        [VICTIM],
        Verdict.FORGED,
        OTHER,
    ),
    "after its owner has gone": (
        [OF_PROXY._replace(network="a", clients=(OTHER, PROXY))],
        [VICTIM],
        Verdict.FORGED,
        OTHER,
    ),
    "before the API server tells of the address": ([PROXIED], [], Verdict.UNKNOWN, UID),
    "sockets in two namespaces": (
        [PROXIED, OF_PROXY._replace(network="a", clients=(OTHER, PROXY))],
        [VICTIM],
        Verdict.FORGED,
        PROXY,
    ),
    "of an earlier connection": ([PROXIED._replace(doubt="old")], [VICTIM], Verdict.FORGED, ""),
    "its clients could not be asked for": (
        [OF_PROXY._replace(failure="no memory")],
        [VICTIM],
        Verdict.UNKNOWN,
        "",
    ),
    "the pod's own socket": (
        [OWN._replace(clients=(PROXY, UID))],
        [VICTIM],
        Verdict.PROVEN,
        UID,
    ),
}


@pytest.mark.parametrize("case", BEHIND_A_PROXY)
def test_a_foreign_socket_is_the_pods_only_where_all_other_clients_of_the_namespace_are(
    case: str,
) -> None:
    sightings, candidates, verdict, uid = BEHIND_A_PROXY[case]
    found = judge(facts(*sightings), candidates, KERNEL)
    assert (found.verdict, found.pod_uid) == (verdict, uid)


def test_a_static_pod_behind_a_proxy_is_known_by_its_hash() -> None:
    found = judge(facts(OF_PROXY._replace(clients=(PROXY, HASH))), [STATIC], KERNEL)
    assert (found.verdict, found.pod_uid, found.proxy) == (Verdict.PROXIED, "mirror", PROXY)


def test_a_proxied_connection_tells_how_many_hold_its_address() -> None:
    assert judge(facts(PROXIED), [VICTIM], KERNEL).holders == 1
    assert judge(facts(PROXIED, NOTHING), [VICTIM], KERNEL).holders == 2


def test_behind_a_proxy_a_namespace_that_could_not_be_looked_into_may_hold_the_address_too() -> (
    None
):
    assert judge(facts(PROXIED, failure="x"), [VICTIM], KERNEL).verdict is Verdict.UNKNOWN


def test_clients_are_asked_for_only_where_they_can_make_a_difference() -> None:
    for sightings, decide in [
        ([OF_PROXY], True),
        ([PROXIED], False),
        ([OWN], False),
        ([NO_PODS], False),
        ([STALE], False),
        ([NOTHING], False),
        ([OF_PROXY, ATTACKERS._replace(network="b")], False),
    ]:
        assert judge(facts(*sightings), [VICTIM], KERNEL).clients_decide is decide, sightings


OF_PODS = st.sampled_from([UID, PROXY, OTHER])
OPEN_SOCKETS = st.lists(
    st.builds(
        Sighting,
        network=st.sampled_from("ab"),
        state=st.sampled_from([OPEN, OPEN, OPEN, NONE]),
        pod=OF_PODS,
        doubt=st.sampled_from(["", "", "", "old"]),
        clients=st.none() | st.lists(OF_PODS | st.just(""), max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=2,
)
OWNERS = st.lists(
    st.builds(Pod, ref=st.just(ObjectRef("n", "p")), uid=OF_PODS, config_hash=st.just("")),
    max_size=2,
)


@given(OPEN_SOCKETS | SIGHTINGS, OWNERS | PODS, st.integers(0, 3), st.sampled_from(["", "broken"]))
def test_a_connection_is_proxied_only_for_the_one_candidate_that_all_its_other_clients_are(
    sightings: list[Sighting], candidates: list[Pod], holders: int, failure: str
) -> None:
    found = judge(
        ConnectionFacts(
            accepted=True, sightings=tuple(sightings), holders=holders, failure=failure
        ),
        candidates,
        KERNEL,
    )
    if found.verdict is not Verdict.PROXIED:
        return
    [proxied] = [each for each in sightings if each.state is OPEN and each.pod and not each.doubt]
    assert found.proxy == proxied.pod
    assert found.pod_uid in {pod.uid for pod in candidates}
    [behind] = set(proxied.clients or ()) - {proxied.pod}
    owners = {pod.uid for pod in candidates if pod.uid == behind}
    by_hash = {pod.uid for pod in candidates if pod.config_hash == behind}
    assert {found.pod_uid} == (owners or by_hash)
    assert found.proxy not in {pod.uid for pod in candidates}
    assert not failure
    assert not any(each.failure for each in sightings)


def test_the_worlds_of_that_property_are_not_empty() -> None:
    occurs(
        st.tuples(OPEN_SOCKETS, OWNERS),
        lambda each: judge(facts(*each[0]), each[1], KERNEL).verdict is Verdict.PROXIED,
    )


# What the operator trusts.

MESH = ObjectRef("istio-system", "ztunnel")
TRUST = Trust(
    proxies=(MESH,),
    by_class={"kata": AttestationMode.NAMESPACE, "gvisor": AttestationMode.ADDRESS},
)
ZTUNNEL = Pod(ref=ObjectRef("istio-system", "ztunnel-x"), uid=PROXY, service_account="ztunnel")
BEHIND = judge(facts(PROXIED), [VICTIM], KERNEL)


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        (ZTUNNEL, None),
        (replace(ZTUNNEL, service_account="default"), Reason.MADE_BY_PROXY),
        (replace(ZTUNNEL, ref=ObjectRef("tenant", "ztunnel")), Reason.MADE_BY_PROXY),
        (
            replace(ZTUNNEL, ref=ObjectRef("istio-system", "ztunnel"), service_account="default"),
            Reason.MADE_BY_PROXY,
        ),
        (replace(ZTUNNEL, phase=Phase.SUCCEEDED), Reason.MADE_BY_PROXY),
    ],
)
def test_a_proxy_is_trusted_by_its_namespace_and_account_and_never_by_its_name(
    proxy: Pod, reason: Reason | None
) -> None:
    refused = TRUST.refuse_proxy(BEHIND, proxy)
    assert (refused.reason if refused else None) is reason
    assert (Trust().refuse_proxy(BEHIND, proxy) or BEHIND) is not BEHIND


def test_the_refusal_of_a_proxy_names_it_and_the_ways_out_and_tells_the_pod_no_names() -> None:
    refused = Trust().refuse_proxy(BEHIND, ZTUNNEL)
    assert refused is not None
    assert refused.message == (
        "The connection was made by a proxy istio-system/ztunnel in the pod's network namespace."
    )
    assert "--trusted-proxies=istio-system/ztunnel" in refused.next_step
    assert "istio.io/dataplane-mode=none" in refused.next_step
    assert "istio-system" not in refused.public


def test_behind_a_trusted_proxy_two_holders_of_the_address_get_nothing() -> None:
    contested = judge(facts(PROXIED, NOTHING), [VICTIM], KERNEL)
    refused = TRUST.refuse_proxy(contested, ZTUNNEL)
    assert refused is not None
    assert refused.reason is Reason.ADDRESS_CONTESTED
    assert "2 network namespaces hold its address" in refused.message


KATA = replace(VICTIM, runtime_class="kata")
GVISOR = replace(VICTIM, runtime_class="gvisor")
RUNC = replace(VICTIM, runtime_class="runc")
ONE_HOLDER = ConnectionFacts(accepted=True, sightings=(NOTHING,), holders=1, guarded=True)
UNSEEN = {
    "its class, one holder, guarded": (ONE_HOLDER, [KATA], Verdict.PROVEN),
    "two namespaces hold the address": (
        ONE_HOLDER._replace(holders=2),
        [KATA],
        Reason.ADDRESS_CONTESTED,
    ),
    "none holds it": (
        ONE_HOLDER._replace(sightings=(), holders=0),
        [KATA],
        Reason.ADDRESS_CONTESTED,
    ),
    "others can send with its address": (
        ONE_HOLDER._replace(guarded=False),
        [KATA],
        Verdict.UNKNOWN,
    ),
    "two pods have the address": (ONE_HOLDER, [KATA, ITS_FORMER], Verdict.FORGED),
    "two of the class": (ONE_HOLDER, [KATA, replace(KATA, uid=OTHER)], Verdict.FORGED),
    "no class": (ONE_HOLDER, [VICTIM], Verdict.FORGED),
    "a class that lowers nothing": (ONE_HOLDER, [RUNC], Reason.RUNTIME_CLASS),
    "a label that says so": (
        ONE_HOLDER,
        [replace(VICTIM, labels={"runtimeClassName": "kata"})],
        Verdict.FORGED,
    ),
    "a class that is believed": (ONE_HOLDER._replace(guarded=False), [GVISOR], None),
    "a pod that asks to be believed": (
        ONE_HOLDER._replace(holders=2),
        [replace(VICTIM, attestation="address")],
        None,
    ),
    "one of two asks to be believed": (
        ONE_HOLDER,
        [replace(VICTIM, attestation="address"), ITS_FORMER],
        Verdict.FORGED,
    ),
}


@pytest.mark.parametrize("case", UNSEEN)
def test_an_unseen_connection_is_proved_only_for_the_one_pod_of_a_class_that_has_its_address(
    case: str,
) -> None:
    seen, pods, expected = UNSEEN[case]
    for mode in (KERNEL, NAMESPACE):
        proof = judge(seen, pods, mode)
        assert proof.unseen
        found = TRUST.judge_unseen(proof, pods)
        assert (found.reason if isinstance(found, Refusal) else found) == expected
        strict = Trust().judge_unseen(proof, pods)
        assert strict is not Verdict.PROVEN


def test_the_refusal_of_an_unseen_connection_names_the_runtime_class_and_the_flag() -> None:
    refused = Trust().judge_unseen(judge(ONE_HOLDER, [KATA], KERNEL), [KATA])
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.RUNTIME_CLASS
    assert "runtime class kata" in refused.message
    assert "--attestation-by-runtime-class=kata=namespace" in refused.next_step


@pytest.mark.parametrize("seen", [ATTACKERS, NO_PODS, STALE, OF_PROXY, PROXIED])
def test_a_socket_that_somebody_has_is_never_proved_by_a_runtime_class(seen: Sighting) -> None:
    assert not judge(facts(seen), [KATA], KERNEL).unseen


CLASSES = st.sampled_from(["", "kata", "gvisor", "runc"])


@given(
    st.lists(
        st.builds(
            Pod,
            ref=st.just(ObjectRef("n", "p")),
            uid=UIDS,
            runtime_class=CLASSES,
            attestation=st.sampled_from(["", "address", "namespace"]),
        ),
        max_size=3,
    ),
    st.integers(0, 3),
    st.booleans(),
)
def test_a_class_proves_nobody_without_it_and_nobody_whose_address_others_have_or_can_use(
    pods: list[Pod], holders: int, guarded: bool
) -> None:
    proof = Proof(verdict=Verdict.FORGED, unseen=True, holders=holders, guarded=guarded)
    found = TRUST.judge_unseen(proof, pods)
    if found is Verdict.PROVEN:
        assert [pod.runtime_class for pod in pods] == ["kata"]
        assert (holders, guarded) == (1, True)
    if found is None:
        assert all(pod.attestation == "address" or pod.runtime_class == "gvisor" for pod in pods)
        assert pods


def local(*sightings: Sighting, accepted: bool = True, failure: str = "") -> Proof:
    return judge_local(
        ConnectionFacts(accepted=accepted, sightings=sightings, failure=failure), KERNEL
    )


def test_a_local_connection_is_that_of_a_pod_or_of_a_user() -> None:
    of_root = Sighting(network="n", state=OPEN, pod="", user=0)
    assert local(of_root._replace(pod=UID)) == Proof(
        verdict=Verdict.PROVEN, pod_uid=UID, root=True, detail=f"pod {UID}"
    )
    assert local(of_root).root
    assert local(of_root._replace(user=5)).detail == "a process of user 5"
    assert not local(of_root._replace(user=5)).root


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (GONE, Verdict.GONE),
        (NOTHING, Verdict.FORGED),
        (STALE, Verdict.FORGED),
        (NOT_LOOKED_UP, Verdict.UNKNOWN),
        (NO_CGROUP, Verdict.UNKNOWN),
    ],
)
def test_a_local_connection_without_an_open_socket_is_nobodys(
    found: Sighting, verdict: Verdict
) -> None:
    assert local(found).verdict is verdict


def test_where_no_cgroup_is_ever_asked_for_a_local_connection_is_its_users() -> None:
    found = judge_local(facts(NO_CGROUP._replace(user=0)), NAMESPACE)
    assert (found.verdict, found.pod_uid, found.root) == (Verdict.PROVEN, "", True)


def test_a_local_connection_that_has_gone_is_gone() -> None:
    assert local(accepted=False).verdict is Verdict.GONE
    assert local(accepted=False, failure="x").verdict is Verdict.UNKNOWN


def test_only_a_connection_that_no_namespace_has_is_unseen() -> None:
    for mode in (KERNEL, NAMESPACE):
        for sightings, unseen in [
            ([], True),
            ([NOTHING], True),
            ([NOTHING, GONE], False),
            ([ATTACKERS], False),
            ([NO_PODS], False),
            ([STALE], False),
            ([BROKEN], False),
        ]:
            facts = ConnectionFacts(accepted=True, sightings=tuple(sightings))
            proof = judge(facts, [CLAIMANT, VICTIM], mode)
            assert proof.unseen is unseen, (mode, sightings)
    assert not judge(ConnectionFacts(accepted=False), [VICTIM], KERNEL).unseen


def test_where_the_socket_of_a_local_connection_cannot_be_looked_into_nobody_is_proved() -> None:
    for mode in (KERNEL, NAMESPACE):
        found = judge_local(facts(NOT_LOOKED_UP._replace(user=0)), mode)
        assert found == Proof(verdict=Verdict.UNKNOWN, detail="not permitted")


def test_a_proof_by_a_socket_says_nothing_else() -> None:
    found = judge(ConnectionFacts(accepted=True, sightings=(OWN,)), [VICTIM], KERNEL)
    assert (found.verdict, found.pod_uid, found.detail) == (Verdict.PROVEN, UID, "v")
    assert not any((found.root, found.unseen, found.proxy, found.holders))
    assert not any((found.guarded, found.clients_decide))
    nobodys = judge(ConnectionFacts(accepted=True), [VICTIM], KERNEL)
    assert not any((nobodys.holders, nobodys.guarded, nobodys.root, nobodys.clients_decide))


def test_a_connection_that_is_nowhere_is_told_with_where_it_was_looked_for() -> None:
    looked = ConnectionFacts(accepted=True, sightings=(NOTHING,))
    assert judge(looked, [VICTIM], KERNEL).detail == "no socket of this connection in v"
    nowhere = "no socket of this connection in any pod: no network namespace has the address"
    assert local().detail == nowhere
    assert local().verdict is Verdict.FORGED
    assert "somebody has taken it out of" in judge(facts(), [VICTIM], KERNEL).detail


def test_all_who_have_a_socket_are_told_and_clients_decide_only_where_nobody_asked_for_them() -> (
    None
):
    found = judge(facts(ATTACKERS, NO_PODS), [VICTIM], KERNEL)
    assert found.detail == (
        f"the socket in a belongs to pod {OTHER}, the socket in v belongs to no pod"
    )
    asked = ATTACKERS._replace(clients=(OTHER,))
    for sightings, decide in (
        ([ATTACKERS], True),
        ([asked], False),
        ([asked, ATTACKERS._replace(network="b")], False),
    ):
        assert judge(facts(*sightings), [VICTIM], KERNEL).clients_decide is decide


def test_a_process_of_no_pod_in_the_namespace_of_one_is_no_proxy() -> None:
    found = judge(facts(NO_PODS._replace(clients=("", UID))), [VICTIM], KERNEL)
    assert (found.verdict, found.proxy) == (Verdict.FORGED, "")
    found = judge(facts(NO_PODS._replace(clients=(UID,))), [VICTIM], KERNEL)
    assert (found.verdict, found.proxy) == (Verdict.FORGED, "")


def test_a_class_whose_address_is_believed_is_named_as_weak_with_what_is_safer() -> None:
    trust = Trust(by_class={"kata": NAMESPACE, "gvisor": AttestationMode.ADDRESS})
    [(what, instead)] = trust.weaknesses()
    assert what.startswith("--attestation-by-runtime-class=gvisor=address: any pod that")
    assert instead.startswith("choose --attestation-by-runtime-class=gvisor=namespace if")
