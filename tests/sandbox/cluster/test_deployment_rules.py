"""What a Deployment must be to be taken.

https://github.com/kubernetes/kubernetes/blob/v1.32.3/pkg/apis/apps/validation/validation.go
"""

from __future__ import annotations

import pytest

from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.status import StatusError
from tests.sandbox.cluster.settled import Settled
from tests.sandbox.cluster.test_deployments import KEY, deployment


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"selector": None}, "spec.selector: Required value"),
        (
            {"selector": {"matchLabels": {"app": "other"}}},
            'spec.template.metadata.labels: Invalid value: {"app":"web"}: '
            "`selector` does not match template `labels`",
        ),
        ({"replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        (
            {"strategy": {"type": "Canary"}},
            'spec.strategy.type: Unsupported value: "Canary": supported values: "Recreate", '
            '"RollingUpdate"',
        ),
        (
            {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}},
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is "
            "'Recreate'",
        ),
        (
            {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}},
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when "
            "`maxSurge` is 0",
        ),
    ],
)
def test_a_deployment_that_makes_no_sense_is_refused(
    world: Settled, spec: Obj, message: str
) -> None:
    with pytest.raises(StatusError) as refused:
        world.create(KEY, deployment(**spec))
    assert str(refused.value) == f'Deployment.apps "web" is invalid: {message}'


def test_the_selector_never_changes(world: Settled) -> None:
    world.create(KEY, deployment())
    with pytest.raises(StatusError, match="field is immutable"):
        world.patch(KEY, "web", {"spec": {"selector": {"matchLabels": {"also": "x"}}}})
