"""What a take-over would cost: for any cluster, and then each loss with its way out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.authorities import KNOWN_AUTHORITIES
from podidentity.core.decision import STRICT, Rules, Use, match, permission_names
from podidentity.core.migration import Loss, Switch, archived_rules, losses, turned
from podidentity.core.refusals import Reason
from podidentity.core.resources import (
    Authority,
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    Malformed,
    ObjectRef,
    Phase,
    Pod,
    WorkloadIdentity,
)
from tests.core.objects import binding, client_id, exception, identity, pod, principal
from tests.core.worlds import EVIL, World, occurs, pods, worlds

ARCHIVED = archived_rules([EVIL], namespaced=False)
NAMESPACED = archived_rules([EVIL], namespaced=True)


def lost(
    world: World,
    *asking: Pod,
    before: Rules = ARCHIVED,
    after: Rules = STRICT,
    granted: bool = False,
    attaches: bool = True,
) -> list[Loss]:
    return losses(
        asking,
        world.all_bindings,
        world.all_exceptions,
        world,
        before=before,
        after=after,
        permitted=lambda _: granted,
        attaches=attaches,
    )


def of(world: World, asker: Pod) -> list[Loss]:
    """Return the losses of this pod, where nothing is granted."""
    return [each for each in lost(world, asker) if asker.ref in each.pods]


@given(worlds(), pods())
def test_with_its_switches_and_grants_a_pod_has_all_that_it_had(world: World, asker: Pod) -> None:
    """The whole promise of the list: who does what it says loses nothing."""
    mine = of(world, asker)
    if asker.ended:
        assert mine == []
    if asker.ended or asker.host_network:
        assert {each.refusal.reason for each in mine} <= {Reason.HOST_NETWORK}
        return
    every = sorted({switch for each in mine for switch in each.switches})
    rules = turned(STRICT, every, ARCHIVED, asker.ref.namespace)
    old, new = match(asker, world, ARCHIVED), match(asker, world, rules)
    if old.exception is not None:
        assert new.exception is not None
        return
    had = {each.identity.ref: each.identity for each in old.entitlements}
    assert had.keys() <= {each.identity.ref for each in new.entitlements}
    if not any(isinstance(each, WorkloadIdentity) for each in world.accounts):
        named = {name for each in mine for name in each.permissions}
        assert {name for each in had.values() for name in permission_names(each)} == named


@given(worlds(), pods())
def test_what_a_pod_has_under_our_rules_and_by_its_grants_is_not_listed(
    world: World, asker: Pod
) -> None:
    new = match(asker, world, STRICT)
    has = {each.identity.ref for each in new.entitlements}
    for each in lost(world, asker, granted=True):
        if asker.ref not in each.pods:
            continue
        if each.refusal.reason is Reason.EXCEPTION_IGNORED:
            assert new.exception is None
        else:
            assert each.refusal.about not in has


@given(worlds(), pods())
def test_whoever_keeps_the_archived_rules_and_grants_loses_what_nobody_can_read_at_most(
    world: World, asker: Pod
) -> None:
    for each in lost(world, asker, after=ARCHIVED, granted=True, attaches=False):
        assert (each.refusal.reason, each.switches) == (Reason.MALFORMED_IDENTITY, ())


@pytest.mark.parametrize("switch", Switch)
def test_losses_that_each_switch_brings_back_occur(switch: Switch) -> None:
    def needs_it(case: tuple[World, Pod]) -> bool:
        return any(switch in each.switches for each in of(*case))

    occurs(st.tuples(worlds(), pods()), needs_it)


def test_losses_that_a_grant_brings_back_occur() -> None:
    def needs_a_grant(case: tuple[World, Pod]) -> bool:
        return any(each.granting_is_enough for each in of(*case))

    occurs(st.tuples(worlds(), pods()), needs_a_grant)


HERE = binding("blue", "b", "alpha", "app")
THERE = binding("green", "b", "alpha", "app")
FOREIGN = principal("blue", "alpha", secret=ObjectRef("green", "secret"))
"""An identity whose secret is in another namespace."""


def world(*objects: Any) -> World:
    return World(
        all_bindings=[each for each in objects if isinstance(each, AzureIdentityBinding)],
        identities=[each for each in objects if isinstance(each, AzureIdentity | Malformed)],
        all_exceptions=[each for each in objects if isinstance(each, AzurePodIdentityException)],
    )


@pytest.mark.parametrize(
    ("objects", "asker", "reason", "switches", "permissions"),
    [
        ([identity("blue", "alpha"), HERE], pod(), Reason.NOT_PERMITTED, (), (1,)),
        (
            [identity("green", "alpha"), THERE],
            pod(),
            Reason.OTHER_NAMESPACE,
            (Switch.CROSS_NAMESPACE,),
            (1,),
        ),
        ([FOREIGN, HERE], pod(), Reason.FOREIGN_SECRET, (Switch.FOREIGN_SECRETS,), (1,)),
        (
            [principal("blue", "alpha", authority=EVIL), HERE],
            pod(),
            Reason.UNKNOWN_AUTHORITY,
            (Switch.AUTHORITIES,),
            (1,),
        ),
        (
            [principal("green", "alpha", secret=ObjectRef("blue", "s")), THERE],
            pod(),
            Reason.OTHER_NAMESPACE,
            (Switch.CROSS_NAMESPACE, Switch.FOREIGN_SECRETS),
            (1,),
        ),
        (
            [exception("blue", "e", {"tier": "web"})],
            pod(selector=None, more={"tier": "web"}),
            Reason.EXCEPTION_IGNORED,
            (Switch.EXCEPTION_NAMESPACES,),
            (),
        ),
        (
            [exception("kube-system", "e", {"tier": "web", "team": "a"})],
            pod("kube-system", selector=None, more={"tier": "WEB"}),
            Reason.EXCEPTION_IGNORED,
            (Switch.ANY_LABEL,),
            (),
        ),
        (
            [exception("blue", "e", {"tier": "web", "team": "a"})],
            pod(selector=None, more={"tier": "web"}),
            Reason.EXCEPTION_IGNORED,
            (Switch.ANY_LABEL, Switch.EXCEPTION_NAMESPACES),
            (),
        ),
        (
            [Malformed(ref=ObjectRef("blue", "alpha"), kind="AzureIdentity", why="odd"), HERE],
            pod(),
            Reason.MALFORMED_IDENTITY,
            (),
            (),
        ),
    ],
)
def test_a_pod_that_would_be_refused_is_listed_with_what_would_keep_it_working(
    objects: list[Any],
    asker: Pod,
    reason: Reason,
    switches: tuple[Switch, ...],
    permissions: tuple[int, ...],
) -> None:
    (found,) = [each for each in lost(world(*objects), asker) if each.pods]
    assert (found.refusal.reason, found.switches) == (reason, switches)
    assert found.permissions == tuple(str(client_id(each)) for each in permissions)
    assert found.pods == (asker.ref,)
    assert found.refusal.next_step.endswith(".")


def test_in_namespaced_mode_nobody_had_what_is_elsewhere() -> None:
    elsewhere = world(identity("green", "alpha"), THERE)
    found = lost(elsewhere, pod(), before=NAMESPACED)
    assert [(each.namespace, each.pods) for each in found] == [("green", ())]


def test_pods_to_come_are_thought_of() -> None:
    """The pods of a CronJob come at night, and an exception may wait for its own."""
    bound = world(identity("blue", "alpha"), HERE, exception("blue", "e", {"tier": "web"}))
    found = lost(bound)
    assert [(each.namespace, each.pods, each.refusal.reason) for each in found] == [
        ("blue", (), Reason.NOT_PERMITTED),
        ("blue", (), Reason.EXCEPTION_IGNORED),
    ]


def test_pods_with_the_same_loss_are_one() -> None:
    bound = world(identity("blue", "alpha"), HERE)
    web, job = (replace(pod(), ref=ObjectRef("blue", name)) for name in ("web", "job"))
    (found,) = lost(bound, web, job)
    assert found.pods == (job.ref, web.ref)


def test_a_pod_that_has_ended_loses_nothing() -> None:
    (found,) = lost(world(identity("blue", "alpha"), HERE), replace(pod(), phase=Phase.SUCCEEDED))
    assert found.pods == ()


def test_a_pod_of_the_nodes_network_loses_what_the_archived_mic_attaches_for_it() -> None:
    """The plan names the identity to attach by hand; a principal is attached by nobody."""
    whose = replace(pod(), host_network=True)
    alpha = identity("blue", "alpha")
    (found,) = [each for each in lost(world(alpha, HERE), whose, granted=True) if each.pods]
    assert (found.refusal.reason, found.pods) == (Reason.HOST_NETWORK, (whose.ref,))
    assert str(alpha.resource_id) in found.refusal.next_step
    assert "--attach-for-node-network" in found.refusal.next_step
    assert not any(each.pods for each in lost(world(principal("blue", "alpha"), HERE), whose))


@pytest.mark.parametrize(
    ("asker", "after", "listed"),
    [
        (pod(more={"tier": "web"}), ARCHIVED, [Reason.NOT_ASSIGNED]),
        (pod(more={"tier": "web"}), STRICT, [Reason.EXCEPTION_IGNORED]),
        (pod(more={"tier": "web"}, host_network=True), ARCHIVED, [Reason.NOT_ASSIGNED]),
        (pod(more={"tier": "web"}, host_network=True), STRICT, [Reason.HOST_NETWORK]),
    ],
    ids=["excepted", "served by NMI", "both", "the node's network"],
)
def test_an_excepted_pod_that_asks_imds_itself_loses_what_the_archived_mic_attaches_for_it(
    asker: Pod, after: Rules, listed: list[Reason]
) -> None:
    """The archived MIC looks at no exception; our NMI serves a pod whose exception counts not."""
    alpha = identity("blue", "alpha")
    bound = world(alpha, HERE, exception("blue", "e", {"tier": "web"}))
    found = [each for each in lost(bound, asker, after=after, granted=True) if each.pods]
    assert [each.refusal.reason for each in found] == listed
    if Reason.NOT_ASSIGNED in listed:
        assert str(alpha.resource_id) in found[0].refusal.next_step
        assert "--attach-for-node-network" not in found[0].refusal.next_step


@pytest.mark.parametrize(
    ("bound", "reason", "switches"),
    [
        (HERE, Reason.NOT_PERMITTED, ()),
        (THERE, Reason.OTHER_NAMESPACE, (Switch.CROSS_NAMESPACE,)),
    ],
    ids=["its own namespace", "another namespace"],
)
def test_what_is_bound_to_a_pod_whose_exception_has_no_effect_is_listed(
    bound: AzureIdentityBinding, reason: Reason, switches: tuple[Switch, ...]
) -> None:
    """Our NMI serves such a pod: by what is bound to it, and as any other."""
    asker = pod(more={"tier": "web"})
    alpha = identity(bound.ref.namespace, "alpha")
    there = world(alpha, bound, exception("blue", "e", {"tier": "web"}))
    found = {each.refusal.reason: each for each in of(there, asker)}
    assert found.keys() == {Reason.EXCEPTION_IGNORED, reason}
    assert (found[reason].refusal.about, found[reason].switches) == (alpha.ref, switches)
    assert found[reason].permissions == tuple(permission_names(alpha))


def test_a_pod_of_the_nodes_network_and_an_excepted_one_are_told_apart() -> None:
    host = replace(pod(), ref=ObjectRef("blue", "host"), host_network=True)
    web = replace(pod(more={"tier": "web"}), ref=ObjectRef("blue", "web"))
    bound = world(identity("blue", "alpha"), HERE, exception("blue", "e", {"tier": "web"}))
    found = [each for each in lost(bound, host, web, after=ARCHIVED, granted=True) if each.pods]
    assert {each.refusal.reason: each.pods for each in found} == {
        Reason.HOST_NETWORK: (host.ref,),
        Reason.NOT_ASSIGNED: (web.ref,),
    }


def test_a_grant_to_one_account_is_enough_for_its_pods_and_no_others() -> None:
    bound = world(identity("blue", "alpha"), HERE)
    web = replace(pod(), ref=ObjectRef("blue", "web"), service_account="web")

    def permitted(use: Use) -> bool:
        return use.service_account.name in {"", "web"}

    def found(*asking: Pod) -> list[Loss]:
        return losses(
            asking,
            bound.all_bindings,
            [],
            bound,
            before=ARCHIVED,
            after=STRICT,
            permitted=permitted,
            attaches=False,
        )

    assert found(web) == []
    (loss,) = found(web, pod())
    assert loss.pods == (pod().ref,)


def test_losses_come_by_namespace_and_object() -> None:
    names = ["b", "a"]
    several = world(
        *(identity(where, each) for where in ("green", "blue") for each in names),
        *(binding(where, each, each, each) for where in ("green", "blue") for each in names),
    )
    found = [(each.namespace, each.refusal.about) for each in lost(several, before=NAMESPACED)]
    assert found == [
        (where, ObjectRef(where, each)) for where in ("blue", "green") for each in ("a", "b")
    ]


def test_a_grant_is_enough_where_no_switch_is_needed() -> None:
    (plain,) = lost(world(identity("blue", "alpha"), HERE))
    assert (plain.switches, plain.granting_is_enough) == ((), True)
    (foreign,) = lost(world(FOREIGN, HERE))
    assert foreign.permissions
    assert not foreign.granting_is_enough
    odd = Malformed(ref=ObjectRef("blue", "alpha"), kind="AzureIdentity", why="odd")
    (unread,) = lost(world(odd, HERE))
    assert (unread.switches, unread.permissions) == ((), ())
    assert not unread.granting_is_enough


def test_what_is_not_granted_says_how_it_is_granted() -> None:
    (found,) = lost(world(identity("blue", "alpha"), HERE))
    (name,) = found.permissions
    assert found.refusal.message == (
        f"Pods of namespace blue may not use AzureIdentity blue/alpha: nobody has granted {name}."
    )
    assert found.refusal.next_step == (
        f"An operator grants it: podidentity grant --namespace blue --identity {name}."
    )


def test_where_exceptions_count_everywhere_no_switch_changes_it() -> None:
    everywhere = replace(STRICT, exception_namespaces=None)
    found = turned(everywhere, [Switch.EXCEPTION_NAMESPACES], ARCHIVED, "blue")
    assert found.exception_namespaces is None


def test_a_switch_is_the_flag_of_nmi() -> None:
    assert {f"{switch}" for switch in Switch} == {
        "--compat-cross-namespace",
        "--compat-foreign-secrets",
        "--compat-any-label-exceptions",
        "--exception-namespaces",
        "--authorities",
    }


def test_each_switch_says_what_it_opens() -> None:
    for switch in Switch:
        assert switch.opens
        assert not switch.opens.endswith(".")


def test_the_archived_rules_are_open_but_for_namespaces_where_it_was_forced_into_them() -> None:
    opened = Rules(
        exception_namespaces=None,
        any_label=True,
        cross_namespace=True,
        foreign_secrets=True,
        authorities=KNOWN_AUTHORITIES | {EVIL},
    )
    assert archived_rules([EVIL], namespaced=False) == opened
    assert archived_rules([EVIL], namespaced=True) == replace(opened, cross_namespace=False)


def test_the_archived_rules_know_every_authority_that_is_named() -> None:
    other = Authority.parse("https://login.contoso.example")
    assert {EVIL, other} <= archived_rules([EVIL, other], namespaced=True).authorities
