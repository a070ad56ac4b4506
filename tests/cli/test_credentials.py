"""What `explain` says of secrets, certificates and accounts that identities sign in with."""

from __future__ import annotations

import itertools
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from podidentity.cli.chain import Fact, State
from podidentity.cli.explain import shown
from podidentity.core.federation import account_name
from podidentity.core.ids import ObjectRef
from podidentity.core.resources import BINDING_LABEL, AzureIdentityBinding
from tests.cli.conftest import Ran
from tests.cli.explaining import BINDING, GOOD, POD, explained
from tests.cli.scripted import CLIENT
from tests.cli.world import CUSTOM, World
from tests.principals import certificate_of, pem_of, pfx_of, principal, rsa_key

SIGNED = certificate_of(rsa_key(), "orders", starts=0, ends=4_000_000_000)
EXPIRED = certificate_of(rsa_key(), "orders", starts=0, ends=1_000_000_000)
MAIL = replace(principal(), ref=ObjectRef("shop", "mail"))
Run = Callable[..., Ran]
NUMBERS = itertools.count()


class Here(NamedTuple):
    """A namespace of the test's own, and the command."""

    world: World
    ns: str
    podidentity: Run


@pytest.fixture
def here(world: World, podidentity: Run) -> Iterator[Here]:
    name = world.namespace(f"credentials-{next(NUMBERS)}")
    yield Here(world, name, podidentity)
    for plural in ("azureidentities", "azureidentitybindings"):
        world.send("DELETE", f"{CUSTOM}/namespaces/{name}/{plural}")


def bound(world: World, ns: str, **spec: Any) -> None:
    """Bind pod `a` to an identity that signs in to Entra."""
    known = {"clientID": CLIENT, "tenantID": "contoso.com", **spec}
    world.custom(ns, "azureidentities", "orders", known)
    names = {"azureIdentity": "orders", "selector": "orders"}
    world.custom(ns, "azureidentitybindings", "orders", names)
    world.pod(ns, "a", {BINDING_LABEL: "orders"})


def credential(podidentity: Run, ns: str) -> tuple[str, str]:
    """Return state and text of the link, as `explain` prints it."""
    out = podidentity("explain", "pod", f"{ns}/a").out
    (line,) = [each for each in out.splitlines() if each.startswith("credential")]
    _, state, text = line.split(maxsplit=2)
    return state, text.replace(ns, "NS")


@pytest.mark.parametrize(
    ("kind", "entries", "state", "text"),
    [
        (1, None, "no", "orders: Secret NS/keys does not exist"),
        (1, {"clientSecret": b"quiet"}, "ok", "orders: Secret NS/keys has a client secret"),
        (
            1,
            {"a": b"quiet", "b": b"quiet"},
            "no",
            "orders: Secret keys cannot be used: it has no key clientSecret, only: a, b",
        ),
        (
            2,
            {"orders.pem": pem_of(rsa_key(), SIGNED)},
            "ok",
            "orders: Secret NS/keys has a certificate, valid until 2096-10-02",
        ),
        (
            2,
            {"orders.pem": pem_of(rsa_key(), EXPIRED)},
            "no",
            "orders: Secret keys cannot be used: the certificate expired on 2001-09-09 01:46 UTC",
        ),
        (
            2,
            {"certificate": pfx_of(rsa_key(), SIGNED, password=b"x"), "password": b"quiet"},
            "no",
            "orders: Secret keys cannot be used: it is neither PKCS#12 nor PEM, "
            "or its password is wrong",
        ),
    ],
    ids=["absent", "secret", "without its key", "certificate", "expired", "wrong password"],
)
def test_the_secret_of_an_identity_is_looked_at_and_not_shown(
    here: Here, kind: int, entries: dict[str, bytes] | None, state: str, text: str
) -> None:
    world, ns, podidentity = here
    bound(world, ns, type=kind, clientPassword={"name": "keys"})
    if entries is not None:
        data = {key: b64encode(value).decode() for key, value in entries.items()}
        body = {"metadata": {"name": "keys"}, "data": data}
        world.send("POST", f"/api/v1/namespaces/{ns}/secrets", body)
    assert credential(podidentity, ns) == (state, text)
    assert "quiet" not in podidentity("explain", "pod", f"{ns}/a", "-o", "json").out
    why = text.removeprefix("orders: ").replace("NS", ns)
    told = f"AzureIdentity {ns}/orders cannot sign in: {why}."
    assert (told in podidentity("check").out) == (state == "no")


def test_the_own_account_of_a_federated_identity_is_looked_for(
    here: Here,
) -> None:
    world, ns, podidentity = here
    bound(world, ns, type=3, federation={"subject": "identity"})
    account = f"podidentity-identities/{account_name(ObjectRef(ns, 'orders'))}"
    assert credential(podidentity, ns) == ("no", f"orders: ServiceAccount {account} does not exist")


def test_an_identity_that_cannot_sign_in_ends_the_chain_unless_another_can() -> None:
    broken = Fact(State.BROKEN, "Secret shop/keys does not exist")
    assert explained(POD, GOOD, BINDING, credentials={GOOD.ref: broken}).entitled
    other = AzureIdentityBinding(ref=ObjectRef("shop", "x"), identity="mail", selector="orders")
    alone = explained(POD, MAIL, other, credentials={MAIL.ref: broken})
    assert not alone.entitled
    assert "see 'credential' above" in shown(alone)
    both = explained(POD, GOOD, BINDING, MAIL, other, credentials={MAIL.ref: broken})
    assert both.entitled
