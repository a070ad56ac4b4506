"""What a SecretProviderClass may say, and the provider's words for what it may not.

Source: pkg/provider/provider.go, validate.go, types/parameters.go of
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
        objectVersion: " v1 "
        objectEncoding: Base64
        filePermission: "0400"
      - |
        objectName: other
        objectType: secret
    """
    first, second = parse(parameters(objects=text)).objects
    assert (first.file, first.version, first.encoding, first.mode) == (
        "db/password",
        "v1",
        "base64",
        0o400,
    )
    assert (second.file, second.mode) == ("other", 0o644)


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
    assert parse(parameters(**changes)).objects


def test_no_objects_need_no_vault_and_no_pod() -> None:
    empty = parameters(objects="array: []", keyvaultName="x")
    assert parse(empty).objects == ()


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
        (
            {"cloudName": "AzureCloud"},
            "cloudName AzureCloud is not valid, error: autorest/azure: There is no cloud "
            'environment matching the name "AZURECLOUD"',
        ),
        (
            {"usePodIdentity": "false"},
            "failed to create auth config, error: failed to get credentials, "
            "nodePublishSecretRef secret is not set",
        ),
        ({"objects": None}, "objects is not set"),
        ({"objects": "- a"}, "failed to yaml unmarshal objects, error: "),
        ({"objects": "array: ['- a']"}, "unmarshal failed for keyVaultObjects at index 0, error: "),
        (
            {"keyvaultName": "kv"},
            'failed to get vault: Invalid vault name: "kv", must be between 3 and 24 chars',
        ),
        (
            {"keyvaultName": "my.vault"},
            'failed to get vault: Invalid vault name: "my.vault", must match [-a-zA-Z0-9]{3,24}',
        ),
        (
            {POD_NAME: ""},
            "failed to get keyvault client: pod information is not available. "
            "deploy a CSIDriver object to set podInfoOnMount: true",
        ),
    ],
)
def test_a_wrong_parameter_is_refused_in_the_providers_words(
    changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(MountFailed) as failed:
        parse(parameters(**changes))
    assert str(failed.value).startswith(why)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"objectFormat": "der"}, "invalid objectFormat: der, should be PEM or PFX"),
        ({"objectEncoding": "rot13"}, "invalid objectEncoding: rot13, should be hex, base64 or"),
        ({"objectAlias": "/etc/passwd"}, "file name must be a relative path"),
        ({"objectAlias": "../../etc/passwd"}, "file name must not contain '..'"),
        ({"objectAlias": "a..b"}, "file name must not contain '..'"),
        ({"objectName": "", "objectAlias": ""}, "file name must not be empty"),
        ({"filePermission": "rw"}, "file permission must be a valid octal number: strconv.ParseI"),
    ],
)
def test_a_wrong_object_is_refused_by_its_name(changes: dict[str, str], why: str) -> None:
    given = ONE | changes
    with pytest.raises(MountFailed) as failed:
        parse(parameters(objects=objects(given)))
    start = f"failed to get objectType:secret, objectName:{given['objectName']}, objectVersion:: "
    assert str(failed.value).startswith(start + why)
