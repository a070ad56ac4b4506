"""The admission policies that we ship refuse exactly what NMI's own parser cannot use.

Both are asked about the same objects: those that the schema of their definitions lets through, and
those with the names of releases before 1.6, which definitions without a schema let through.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from podidentity import manifests
from podidentity.core.resources import Malformed
from podidentity.wire.manifests import parse_binding, parse_identity
from podidentity_sandbox.cluster.admission_policies import denials
from tests.fakes import CLIENT, RESOURCE_ID
from tests.manifests.conftest import Served
from tests.manifests.rights import give

POLICIES = {
    each["metadata"]["name"]: each["spec"]
    for each in manifests.admission_policies()
    if each["kind"] == "ValidatingAdmissionPolicy"
}
META = {"namespace": "shop", "name": "orders"}
PARSE = {
    "podidentity-azureidentities": parse_identity,
    "podidentity-azureidentitybindings": parse_binding,
}
CUSTOM = "/apis/aadpodidentity.k8s.io/v1/namespaces/default"

SPACE = st.sampled_from(
    ["", "", "", " ", "\n\t", "\x0b", "\x1c", "\x85", "\xa0", "\u2003 ", "\u200b"]
)
CASES: list[Callable[[str], str]] = [str, str.upper, str.lower, str.title]
ODD = st.sampled_from(["", "x", "\u212a", "\u017f", "-", ".", "/", "\u0661", "'", "\n", "é"])


@st.composite
def near(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> str:
    """Return one of these texts as people write them, or a mistake in it."""
    text = draw(st.sampled_from(CASES))(draw(texts))
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(ODD) + text[at + draw(st.integers(0, 2)) :]
    return draw(SPACE) + text + draw(SPACE)


GUIDS = near(st.uuids().map(str))
ARM_IDS = near(
    st.sampled_from(
        [
            RESOURCE_ID,
            RESOURCE_ID + "/x",
            RESOURCE_ID.replace("Managed", ""),
            *(f"{RESOURCE_ID.rpartition('/')[0]}/{name}" for name in (".", "..", "...", "..x")),
        ]
    )
)
LONG = ["a." * 123 + "example", "a." * 124 + "example", "x" * 63 + ".example", "x" * 64 + ".b"]
TENANTS = near(
    st.sampled_from(["contoso.com", "common", "adfs", CLIENT, "a-b.c-d", "-a.example", *LONG])
)
AUTHORITIES = near(
    st.builds(
        "https://{}{}{}".format,
        st.sampled_from(["login.microsoftonline.com", "localhost", "a..b", ""]),
        st.sampled_from(["", ":0", ":1", ":00443", ":65535", ":65536", ":99999", ":123456", ":"]),
        st.sampled_from(["", "/", "//", "/common"]),
    )
)
NAMES = st.sampled_from(
    ["mail", "a.b-c", "shop", "A", "a_b", "-a", "a" * 253, "a" * 254, "", "a/b"]
)
SUBJECTS = st.sampled_from(["pod", "identity", "node", ""])
AUDIENCES = st.sampled_from(["", "api://a", "~!", "a b", "é", "a\n", "a" * 600, "a" * 601])


def objects(fields: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return some of these fields, and none too often."""
    names = st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True)
    return names.flatmap(lambda some: st.fixed_dictionaries({each: fields[each] for each in some}))


def either(name: str, texts: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    """Return the values of a field by its name and by that of releases before 1.6."""
    some = st.none() | st.just("") | texts
    return {name: some, name[0].upper() + name[1:]: some}


PRINCIPAL = {"clientID": CLIENT, "tenantID": "contoso.com", "clientPassword": {"name": "mail"}}
GOOD = st.sampled_from(
    [
        {"clientID": CLIENT, "resourceID": RESOURCE_ID, "type": 0},
        {"ClientID": CLIENT, "ResourceID": RESOURCE_ID},
        {"resourceID": "system-assigned"},
        {**PRINCIPAL, "type": 1},
        {**PRINCIPAL, "type": 2},
        {**PRINCIPAL, "type": 3},
    ]
)
FIELDS = {
    "type": st.none() | st.integers(-1, 4),
    **either("clientID", GUIDS),
    **either("resourceID", near(st.just("system-assigned")) | ARM_IDS),
    **either("objectID", GUIDS),
    **either("tenantID", TENANTS),
    **either("adEndpoint", AUTHORITIES),
    **dict.fromkeys(
        ("auxiliaryTenantIDs", "AuxiliaryTenantIDs"),
        st.none() | st.lists(st.just("") | TENANTS, max_size=4),
    ),
    **dict.fromkeys(
        ("clientPassword", "ClientPassword"),
        st.none() | objects({**either("name", NAMES), **either("namespace", NAMES)}),
    ),
    **dict.fromkeys(
        ("federation", "Federation"),
        st.none() | objects({"subject": SUBJECTS, "audience": AUDIENCES, **either("via", ARM_IDS)}),
    ),
    "adResourceID": st.text(),
    "replicas": st.none() | st.integers(0, 3),
}
IDENTITIES = st.builds(lambda good, odd: {**good, **odd}, GOOD, objects(FIELDS))
TEXTS = st.sampled_from(
    [
        "a",
        "a.b-c",
        "A_b",
        "x" * 63,
        "x" * 64,
        "x" * 253,
        "x" * 254,
        "é" * 63,
        " ",
        "a),b in (c",
        "a\n",
    ]
)
BOUND = st.sampled_from([{"azureIdentity": "a", "selector": "A_b"}, {"AzureIdentity": "a"}, {}])
BINDINGS = st.builds(
    lambda good, odd: {**good, **odd},
    BOUND,
    objects(
        {
            **either("azureIdentity", TEXTS),
            **either("selector", TEXTS),
            "weight": st.none() | st.integers(-(2**63), 2**63 - 1),
        },
    ),
)


def said(policy: str, spec: Any, before: Any = None) -> list[str]:
    """Return what a policy says of an object with this spec; [] if it takes it."""
    made, old = ({"metadata": META, "spec": each} for each in (spec, before))
    request = {"namespace": META["namespace"], "name": META["name"]}
    facts = {"object": made, "oldObject": old if before else None, "request": request}
    return [message for message, _ in denials(POLICIES[policy], facts)]


def agree(policy: str, spec: Any) -> bool:
    """Fail where parser and policy differ; return whether they take it."""
    found = PARSE[policy](json.dumps({"metadata": META, "spec": spec}).encode())
    messages = said(policy, spec)
    if not isinstance(found, Malformed):
        assert messages == [], found
        return True
    assert messages, found.why
    about, _, _ = found.why.partition(", not ")
    assert messages[0].startswith(about) or "auxiliaryTenantIDs" in about, (messages, found.why)
    plain = found.why.isascii() and found.why.isprintable() and "\\" not in found.why
    if ", not " in messages[0] and plain and len(found.why) < 80:
        assert messages[0] == found.why
    return False


@given(IDENTITIES)
@example({**PRINCIPAL, "type": 2, "clientPassword": {}})
@example({**PRINCIPAL, "type": 3, "federation": {"via": "/s"}})
@example({"clientID": CLIENT, "tenantID": "no tenant", "adEndpoint": "no authority"})
@example({})
def test_what_nmi_takes_as_an_identity_its_policy_takes_and_nothing_else(spec: Any) -> None:
    agree("podidentity-azureidentities", spec)


@pytest.mark.parametrize(
    ("group", "taken"),
    [("GRÖSSE", True), ("größe²_Ⅷ", True), ("東京", True), ("a\u0301", False), ("é" * 129, False)],
)
def test_nmi_and_the_policy_take_the_same_letters_in_a_resource_group(
    group: str, *, taken: bool
) -> None:
    path = RESOURCE_ID.split("/")
    path[4] = group
    spec = {"clientID": CLIENT, "resourceID": "/".join(path)}
    assert agree("podidentity-azureidentities", spec) is taken


@given(BINDINGS)
@example({"azureIdentity": "orders", "selector": "orders"})
@example({"azureIdentity": "Orders", "selector": "orders"})
@example({"azureIdentity": "orders", "selector": "a),b in (c"})
@example({"AzureIdentity": "orders", "Selector": "orders", "weight": 3})
def test_what_nmi_takes_as_a_binding_its_policy_takes_and_nothing_else(spec: Any) -> None:
    agree("podidentity-azureidentitybindings", spec)


def test_these_objects_are_of_both_kinds() -> None:
    """Else the properties above would say nothing."""
    seen: dict[str, set[bool]] = {policy: set() for policy in PARSE}

    @given(IDENTITIES, BINDINGS)
    def look(identity: Any, binding: Any) -> None:
        seen["podidentity-azureidentities"].add(agree("podidentity-azureidentities", identity))
        name = "podidentity-azureidentitybindings"
        seen[name].add(agree(name, binding))

    look()
    assert all(each == {True, False} for each in seen.values())


@pytest.mark.parametrize("kind", [1, 2])
@pytest.mark.parametrize(
    ("reference", "taken"),
    [
        ({"name": "mail"}, True),
        ({"name": "mail", "namespace": ""}, True),
        ({"name": "mail", "namespace": "shop"}, True),
        ({"name": "mail", "namespace": "bank"}, False),
        ({"Name": "mail", "Namespace": "bank"}, False),
    ],
)
def test_a_secret_is_of_the_identitys_own_namespace(kind: int, reference: Any, taken: bool) -> None:
    spec = {"type": kind, "clientPassword": reference}
    wrong = [
        "spec.clientPassword names a secret of namespace bank; only one of its own namespace is "
        "read. Put the secret into namespace shop"
    ]
    assert said(manifests.OWN_SECRETS, spec) == ([] if taken else wrong)
    # Of an identity without a secret the field says nothing.
    assert said(manifests.OWN_SECRETS, {**spec, "type": 0}) == []
    assert said(manifests.OWN_SECRETS, {"clientPassword": reference}) == []


@pytest.mark.parametrize("policy", list(POLICIES))
def test_an_object_that_was_wrong_before_may_change_in_all_but_its_spec(policy: str) -> None:
    wrong = {"type": 1, "clientID": "x", "clientPassword": {"namespace": "bank"}}
    assert said(policy, wrong) != []
    assert said(policy, wrong, before=wrong) == []
    assert said(policy, {**wrong, "objectID": "y"}, before=wrong) != []


@pytest.mark.parametrize("policy", list(PARSE))
def test_an_object_without_a_spec_is_refused(policy: str) -> None:
    facts = {"object": {"metadata": META}, "oldObject": None, "request": {"namespace": "shop"}}
    messages = [message for message, _ in denials(POLICIES[policy], facts)]
    assert messages[0] == "spec is missing"


def test_where_secrets_of_other_namespaces_are_read_nothing_is_said_of_them() -> None:
    names = {
        each["metadata"]["name"] for each in manifests.admission_policies(foreign_secrets=True)
    }
    assert names == set(POLICIES) - {manifests.OWN_SECRETS}


async def test_the_api_server_says_it_to_whoever_writes_the_object(
    served: Served, api: httpx2.AsyncClient
) -> None:
    await give(served, manifests.admission_policies())
    head = {"apiVersion": "aadpodidentity.k8s.io/v1", "metadata": {"name": "orders"}}
    wrong = {**head, "kind": "AzureIdentity", "spec": {"clientID": CLIENT, "resourceID": "/s"}}
    answer = await api.post(f"{CUSTOM}/azureidentities", json=wrong)
    assert answer.status_code == 422
    assert "'podidentity-azureidentities' denied request: spec.resourceID must match" in answer.text
    right = {**wrong, "spec": {"clientID": CLIENT.upper(), "resourceID": RESOURCE_ID.upper()}}
    assert (await api.post(f"{CUSTOM}/azureidentities", json=right)).status_code == 201
    patch = {"Content-Type": "application/merge-patch+json"}
    for change, code in (({"clientID": "x"}, 422), ({"objectID": CLIENT}, 200)):
        answer = await api.patch(
            f"{CUSTOM}/azureidentities/orders",
            content=json.dumps({"spec": change}),
            headers=patch,
        )
        assert answer.status_code == code, answer.text
