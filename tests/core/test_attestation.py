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
    Verdict,
    judge,
    judge_local,
)
from podidentity.core.resources import ObjectRef, Pod

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
STALE = replace(OWN, doubt="it is waiting to be closed")
ATTACKERS = Sighting(network="a", state=OPEN, pod=OTHER)
OF_STATIC = Sighting(network="s", state=OPEN, pod=HASH)
NO_PODS = Sighting(network="v", state=OPEN, pod="")
NO_CGROUP = Sighting(network="v", state=OPEN)
BROKEN = Sighting(network="b", failure="no buffer space")
NOT_LOOKED_UP = Sighting(network="v", state=OPEN, failure="not permitted")
GONE = Sighting(network="v", state=CLOSED)

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
    "its socket of an earlier connection": ([replace(STALE, pod=None)], [VICTIM], Verdict.FORGED),
    "closed": ([GONE], [VICTIM], Verdict.GONE),
    "no socket": ([NOTHING], [VICTIM], Verdict.FORGED),
    "no namespace with its address is to be seen": ([], [VICTIM], Verdict.UNKNOWN),
    "nobody holds the address, and no pod is known by it": ([], [], Verdict.FORGED),
}


def facts(*sightings: Sighting, failure: str = "") -> ConnectionFacts:
    return ConnectionFacts(accepted=True, sightings=sightings, failure=failure)


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
    assert judge(replace(gone, failure="x"), [VICTIM], mode).verdict is Verdict.UNKNOWN


def test_by_namespace_a_namespace_that_could_not_be_looked_into_may_hold_the_address_too() -> None:
    assert judge(facts(NO_CGROUP, failure="x"), [VICTIM], NAMESPACE).verdict is Verdict.UNKNOWN
    assert judge(facts(NOTHING, failure="x"), [VICTIM], NAMESPACE).verdict is Verdict.UNKNOWN


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


def test_a_proof_names_the_pod_and_a_forgery_the_forger() -> None:
    assert judge(facts(OWN), [VICTIM], KERNEL).pod_uid == UID
    assert judge(facts(OWN), [], KERNEL).pod_uid == UID
    assert judge(facts(ATTACKERS), [VICTIM], KERNEL) == Proof(
        verdict=Verdict.FORGED, pod_uid=OTHER, detail=f"the socket in a belongs to pod {OTHER}"
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


def local(*sightings: Sighting, accepted: bool = True, failure: str = "") -> Proof:
    return judge_local(
        ConnectionFacts(accepted=accepted, sightings=sightings, failure=failure), KERNEL
    )


def test_a_local_connection_is_that_of_a_pod_or_of_a_user() -> None:
    of_root = Sighting(network="n", state=OPEN, pod="", user=0)
    assert local(replace(of_root, pod=UID)) == Proof(
        verdict=Verdict.PROVEN, pod_uid=UID, root=True, detail=f"pod {UID}"
    )
    assert local(of_root).root
    assert local(replace(of_root, user=5)).detail == "a process of user 5"
    assert not local(replace(of_root, user=5)).root


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
