"""Whom a client certificate names to the proxy before a real API server."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from podidentity_sandbox.cluster.authentication import User
from podidentity_sandbox.kubernetes.certificates import ClientCertificates
from podidentity_sandbox.world.authority import Authority


def user_of(judge: ClientCertificates, certificate: Path) -> User | None:
    return judge.user(ssl.PEM_cert_to_DER_cert(certificate.read_text()))


def test_a_user_is_the_common_name_in_the_groups_of_his_organisations(tmp_path: Path) -> None:
    authority, other = Authority.new("ours"), Authority.new("ours")
    judge = ClientCertificates(authority.pem, lambda: datetime.now(UTC))
    certificate, key = tmp_path / "crt", tmp_path / "key"
    authority.issue_client("jane", ["readers", "system:masters"], certificate, key)
    found = user_of(judge, certificate)
    assert found is not None
    assert found.name == "jane"
    assert found.groups == ("readers", "system:masters", "system:authenticated")
    authority.issue_client("", ["system:masters"], certificate, key)
    assert user_of(judge, certificate) is None, "without a name"
    other.issue_client("jane", ["system:masters"], certificate, key)
    assert user_of(judge, certificate) is None, "of another authority"


def test_a_certificate_holds_as_long_as_it_says_and_for_clients(tmp_path: Path) -> None:
    authority = Authority.new("ours")
    authority.issue_client("jane", [], tmp_path / "crt", tmp_path / "key")
    raw = ssl.PEM_cert_to_DER_cert((tmp_path / "crt").read_text())
    time = [datetime.now(UTC)]
    judge = ClientCertificates(authority.pem, lambda: time[0])
    for days, holds in ((-1, False), (1, True), (364, True), (2, False)):
        time[0] += timedelta(days=days)
        assert (judge.user(raw) is not None) is holds
    authority.issue(["127.0.0.1"], tmp_path / "server", tmp_path / "key")
    of_server = ssl.PEM_cert_to_DER_cert((tmp_path / "server").read_text())
    time[0] = datetime.now(UTC)
    assert [judge.user(each) for each in (of_server, b"no", b"", None)] == [None] * 4
    assert ClientCertificates("", lambda: datetime.now(UTC)).user(raw) is None
