"""What a SecretProviderClass may say, and the provider's words for what it may not.

Source: pkg/provider/provider.go, types/parameters.go of
https://github.com/Azure/secrets-store-csi-driver-provider-azure v1.8.2.
"""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from podidentity_sandbox.csi.parameters import (
    POD_NAME,
    POD_NAMESPACE,
    MountFailed,
    parse,
)

ONE = {"objectName": "s", "objectType": "secret"}
MODES = (
    "only one identity mode can be enabled at a time: "
    "usePodIdentity, useVMManagedIdentity, or useAzureTokenProxy"
)
NO_BOOLEAN = "failed to parse usePodIdentity flag, error: strconv.ParseBool: parsing "


def objects(*given: dict[str, Any]) -> str:
    return yaml.safe_dump({"array": [yaml.safe_dump(one) for one in given]})


def parameters(**changes: Any) -> dict[str, str]:
    given = {
        "usePodIdentity": "true",
        "keyvaultName": "demo-kv",
        "tenantID": "t",
        "objects": objects(ONE),
        POD_NAMESPACE: "shop",
        POD_NAME: "orders-0",
    }
    changed = {key.replace("__", "/"): value for key, value in changes.items()}
    return {key: value for key, value in (given | changed).items() if value is not None}


def test_objects_are_read_as_people_write_them() -> None:
    text = """
    array:
      - |
        objectName: s
        objectType: secret
        objectAlias: db/password
        objectVersion: v1
      - |
        objectName: other
        objectType: secret
    """
    _, (first, second) = parse(parameters(objects=text))
    assert (first.file, first.object_version) == ("db/password", "v1")
    assert (second.file, second.object_version) == ("other", "")


@pytest.mark.parametrize(
    "changes",
    [
        *({"usePodIdentity": value} for value in ("True", " true ", "1", "t", "TRUE", "T")),
        {"tenantID": None, "tenantId": "t"},
    ],
)
def test_what_go_takes_for_true_and_the_old_spelling_of_the_tenant_are_read(
    changes: dict[str, Any],
) -> None:
    assert parse(parameters(**changes))[1]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"usePodIdentity": "tru"}, NO_BOOLEAN + '"tru": invalid syntax'),
        ({"usePodIdentity": "yes"}, NO_BOOLEAN + '"yes": invalid syntax'),
        ({"useVMManagedIdentity": "true"}, MODES),
        ({"useAzureTokenProxy": "true"}, MODES),
        ({"keyvaultName": None}, "keyvaultName is not set"),
        ({"keyvaultName": " "}, "keyvaultName is not set"),
        ({"tenantID": None}, "tenantId is not set"),
        ({"cloudName": "AzureChinaCloud"}, "the sandbox's provider serves cloudName AzureP"),
        (
            {"usePodIdentity": "false"},
            "failed to create auth config, error: failed to get credentials, "
            "nodePublishSecretRef secret is not set",
        ),
        ({"objects": None}, "objects is not set"),
        ({"objects": "- a"}, "failed to yaml unmarshal objects, error: "),
        ({"objects": "array: ['- a']"}, "unmarshal failed for keyVaultObjects at index 0, error: "),
        (
            {"objects": objects(ONE | {"objectEncoding": "hex"})},
            "unmarshal failed for keyVaultObjects at index 0, error: Object contains unknown field"
            " `objectEncoding`",
        ),
    ],
)
def test_a_wrong_parameter_is_refused_in_the_providers_words(
    changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(MountFailed) as failed:
        parse(parameters(**changes))
    assert str(failed.value).startswith(why)
