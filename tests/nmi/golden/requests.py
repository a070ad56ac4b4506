"""What is wrong with the request itself: said at once, whoever asks."""

from __future__ import annotations

from tests.fakes import CLIENT, OTHER_CLIENT, RESOURCE_ID, VAULT, pod
from tests.nmi.golden.situation import HEADER, TOKEN, Situation, asking

STRANGER = (pod(addresses=("10.0.0.1",)),)
"""Nobody has the address of whoever asks: these answers need no pod."""
INVALID = "InvalidRequest"


def _at(target: str) -> Situation:
    return Situation(objects=STRANGER, target=target)


def _wrong(target: str = TOKEN, *headers: str) -> Situation:
    return Situation(objects=STRANGER, target=target, headers=headers or (HEADER,), why=INVALID)


_BARE = TOKEN.partition("?")[0]
SITUATIONS: dict[str, Situation] = {
    "no header Metadata": _wrong(TOKEN, "Accept: */*"),
    "header Metadata false": _wrong(TOKEN, "Metadata: false"),
    "through a proxy": _wrong(TOKEN, HEADER, "X-Forwarded-For: 10.0.0.1"),
    "no resource": _wrong(f"{_BARE}?api-version=2018-02-01"),
    "an empty resource": _wrong(f"{_BARE}?resource="),
    "a resource of 513 characters": _wrong(f"{_BARE}?resource={'a' * 513}"),
    "white space in the resource": _wrong(f"{_BARE}?resource=a%20b"),
    "a control character in the resource": _wrong(f"{_BARE}?resource=a%0d%0ab"),
    "a parameter twice": _wrong(f"{TOKEN}&resource={VAULT}"),
    "two kinds of ids": _wrong(asking(client_id=CLIENT, msi_res_id=RESOURCE_ID)),
    "two client ids": _wrong(asking(client_id=CLIENT, clientid=OTHER_CLIENT)),
    "a client id that is none": _wrong(asking(client_id="orders")),
    "an object id that is none": _wrong(asking(object_id="orders")),
    "a resource id that is none": _wrong(asking(msi_res_id="orders")),
    "an authority that is none": _wrong(asking(authority="orders")),
    "33 parameters": _wrong(f"{_BARE}?{'&'.join(f'a{n}=' for n in range(33))}"),
    "a query that is no UTF-8": _wrong(f"{_BARE}?resource=%ff"),
    "back-slashes": _at(r"/metadata/identity\oauth2\token?resource=a"),
    "an encoded slash": _at("/metadata/identity%2foauth2/token?resource=a"),
    "an encoded back-slash": _at("/metadata/identity%5coauth2/token?resource=a"),
    "dot segments": _at("/metadata/instance/../identity/oauth2/token?resource=a"),
    "a look-alike": _at("/metadata/Identity/oauth2/token?resource=a"),
    "IMDSv2": _at("/metadata/identity/issuecredential?cred-api-version=2.0"),
    "IMDSv2 without the header": Situation(
        objects=STRANGER,
        target="/metadata/identity/getplatformmetadata?cred-api-version=2.0",
        headers=(),
    ),
    "no path of IMDS": _at("/"),
    "metadata that is not open": _at("/metadata/attested/document?api-version=2020-09-01"),
    "the machine's user data": _at("/metadata/instance/compute/userData?api-version=2021-01-01"),
    "another method": Situation(objects=STRANGER, method="POST"),
    "another method for metadata": Situation(
        objects=STRANGER, method="PUT", target="/metadata/instance"
    ),
}
