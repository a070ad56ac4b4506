"""`az login --identity` in a pod of azure-workload-identity, which its own webhook cannot serve.

https://github.com/Azure/azure-cli/issues/26858
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.weather import CALM
from tests.acceptance.directory import register
from tests.acceptance.sandbox import one_node

AZ = Path(__file__).parents[3] / ".venvs/az/tools/az"

pytestmark = pytest.mark.net


async def test_az_signs_in_by_the_annotations_of_its_service_account() -> None:
    # Calm: az asks once, and what it is told then is the subject.
    async with one_node("az-in-pods", weather=CALM) as place:
        place.run("podidentity", "enable")
        async with AzureOperator(place.plan) as azure:
            here = await register(place, azure)
            client_id = here.client_ids["annotated"]
            login = f"{AZ} login --identity --client-id {client_id} --allow-no-subscriptions"
            ask = f"{AZ} account get-access-token --resource https://vault.azure.net -o json"
            said = await here.inside(
                "annotated", f"export HOME=/tmp; {login} -o none && {ask} --only-show-errors"
            )
            assert json.loads(said)["tenant"] == azure.tenants.home.id
            assert await here.read_with(json.loads(said)["accessToken"], pod="annotated")
