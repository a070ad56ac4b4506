"""What a storm's journal makes of a refusal."""

from __future__ import annotations

import pytest

from podidentity_sandbox.weather import CHANCES, NAMED, Struck
from tests.acceptance.causes import WORDS, cause

SETS = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets"


def struck(service: str, effect: str, at: float, about: str = "", kind: str = "any") -> Struck:
    """Return a line of a journal."""
    return Struck(service=service, kind=kind, number=1, effect=effect, at=at, about=about)


ETCD = struck("apiserver", "500", 10, "/api/v1/nodes")
LOCKED = struck("arm", "locked", 20, f"{SETS}/pool")
FAILED = struck("arm", "InternalExecutionError", 30, f"{SETS}/pool")
OTHER = struck("arm", "InternalExecutionError", 40, f"{SETS}/pool-1")
MIC = "system:serviceaccount:kube-system:podidentity-mic"
WATCH = struck("apiserver", "429", 50, "/api/v1/pods", f"{MIC} watch pods")
LEASE = struck("apiserver", "429", 60, "/apis/leases/x", f"{MIC} get leases")
COMMAND = struck("apiserver", "429", 40, "/apis/things", "principal patch things")
JOURNAL = [ETCD, LOCKED, FAILED, OTHER, WATCH, LEASE, COMMAND]
MANY = "The API server refused (429): Too many requests"
INTERNAL = "Azure says InternalExecutionError"


@pytest.mark.parametrize(
    ("said", "since", "found"),
    [
        ("Azure says ScopeLocked: The scope", 0, LOCKED),
        ("Error from server: etcdserver: request timed out", 0, ETCD),
        ("Azure says InternalServerError: of which the journal knows nothing", 0, None),
        ("assert 503 == 200", 0, None),
        (f"{INTERNAL} of scale set pool.", 0, FAILED),
        (f"{INTERNAL} of scale set Pool-1", 0, OTHER),
        (INTERNAL, 0, OTHER),
        (f"WARNING cannot watch pods, and try on: {MANY}", 0, WATCH),
        (f"WARNING {MANY}", 0, LEASE),
        # A command is nobody's service account.
        (f"error: {MANY}", 0, COMMAND),
        (f"error: {MANY}", 51, None),
        # A throttle is remembered.
        (f"error: {MANY}", 49, COMMAND),
        # Before the test began: only what the refusal names.
        ("Azure says ScopeLocked: The scope", 25, None),
        (f"{INTERNAL} of {SETS}/pool.", 50, FAILED),
        (f"{INTERNAL} of {SETS}/pool-2", 50, None),
    ],
)
def test_a_refusal_has_the_cause_that_it_names_of_this_test_or_of_this_object(
    said: str, since: float, found: Struck | None
) -> None:
    assert cause(said, JOURNAL, since) == found


def test_whatever_a_storm_does_has_words() -> None:
    storm = NAMED["storm"]
    effects: dict[str, set[str]] = {
        name: {fault.effect.value for fault in faults} for name, faults in storm.faults.items()
    }
    effects["arm"] |= {error[0] for n in range(99) if (error := storm.outcome(n).error)}
    assert {name: set(words) for name, words in WORDS.items()} == effects
    assert set(storm.chances) == set(CHANCES), "both kinds of failed operations"
