"""Standard mode: a record of the controller says "assigned", and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from podidentity.core.ids import ObjectRef
from podidentity.core.matching import Rules, match
from podidentity.core.refusals import Reason
from podidentity.core.resources import AzureAssignedIdentity, Pod
from tests.core.objects import binding, identity, pod, principal, record, system
from tests.core.test_matching import MATCHING
from tests.core.worlds import World, occurs, pods, rules, worlds

STANDARD = Rules(standard=True)


@given(worlds(), pods(), rules())
def test_no_record_however_forged_adds_an_entitlement(
    world: World, asker: Pod, chosen: Rules
) -> None:
    without = match(asker, replace(world, records=[]), chosen)
    found = match(asker, world, chosen)
    bare = [replace(each, awaited=None) for each in found.entitlements]
    assert bare == [replace(each, awaited=None) for each in without.entitlements]
    assert (found.exception, found.refusals) == (without.exception, without.refusals)


@given(worlds(), pods(), rules())
def test_in_managed_mode_nothing_is_waited_for(world: World, asker: Pod, chosen: Rules) -> None:
    for each in match(asker, world, replace(chosen, standard=False)).entitlements:
        assert each.awaited is None


@pytest.mark.parametrize("awaited", [True, False])
def test_records_that_count_occur_and_such_that_do_not(awaited: bool) -> None:
    def yields(case: tuple[World, Pod, Rules]) -> bool:
        world, asker, chosen = case
        if not chosen.standard or not world.assigned(asker.ref):
            return False
        found = match(asker, world, chosen).entitlements
        return any(each.identity.resource_id and bool(each.awaited) is awaited for each in found)

    occurs(MATCHING, yields)


ASSIGNED = record("blue", "alpha", "Assigned")


@pytest.mark.parametrize(
    ("records", "says"),
    [
        ([], "no AzureAssignedIdentity yet"),
        ([ASSIGNED], ""),
        ([record("blue", "alpha", "Created")], "AzureAssignedIdentity is Created"),
        ([record("blue", "alpha", "Unassigned")], "AzureAssignedIdentity is Unassigned"),
        ([record("blue", "alpha", "Created"), ASSIGNED], ""),
        ([ASSIGNED, record("blue", "alpha", "Unassigned")], ""),
        # Records of another pod, node, identity or namespace say nothing of this one.
        ([replace(ASSIGNED, pod=ObjectRef("blue", "pod-2"))], "no AzureAssignedIdentity yet"),
        ([replace(ASSIGNED, pod=ObjectRef("green", "pod"))], "no AzureAssignedIdentity yet"),
        ([replace(ASSIGNED, node="n2")], "no AzureAssignedIdentity yet"),
        ([replace(ASSIGNED, node="")], "no AzureAssignedIdentity yet"),
        ([record("blue", "beta", "Assigned")], "no AzureAssignedIdentity yet"),
        ([record("green", "alpha", "Assigned")], "no AzureAssignedIdentity yet"),
        ([replace(ASSIGNED, ref=ObjectRef("any", "where"))], ""),
    ],
)
def test_what_a_record_must_say_for_its_pod(
    records: list[AzureAssignedIdentity], says: str
) -> None:
    world = World([binding("blue", "b", "alpha", "app")], [identity("blue", "alpha")])
    world.records = records
    [found] = match(pod(), world, STANDARD).entitlements
    if not says:
        assert found.awaited is None
        return
    assert found.awaited is not None
    assert found.awaited.reason is Reason.NOT_ASSIGNED
    assert found.awaited.message.endswith(f"{says}.")
    assert found.awaited.public == "The identity alpha is not assigned to the pod's node yet."


@pytest.mark.parametrize("made", [principal("blue", "alpha"), system("blue", "alpha")])
def test_what_no_controller_attaches_is_not_waited_for(made: Any) -> None:
    world = World([binding("blue", "b", "alpha", "app")], [made])
    [found] = match(pod(), world, STANDARD).entitlements
    assert found.awaited is None


def test_an_assigned_record_of_an_identity_that_is_gone_gives_nothing() -> None:
    world = World([binding("blue", "b", "alpha", "app")], records=[ASSIGNED])
    found = match(pod(), world, STANDARD)
    assert (found.entitlements, found.refusals[0].reason) == ((), Reason.NO_IDENTITY)
