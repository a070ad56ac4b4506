from __future__ import annotations

from pathlib import Path

import pytest

from podidentity.adapters.kube import Kube, KubeError
from podidentity.adapters.kube import credentials as finding
from tests.adapters.kubeconfigs import SECRET, write


def failure(kubeconfig: str | None, context: str | None = None) -> str:
    with pytest.raises(KubeError) as caught:
        Kube.connect(kubeconfig, context=context, user_agent="t")
    assert caught.value.unreachable
    return str(caught.value)


def test_a_missing_kubeconfig_is_named_with_the_next_step(tmp_path: Path) -> None:
    text = failure(str(tmp_path / "none"))
    assert f"Configuration file {tmp_path}/none not found" in text
    assert text.endswith("Give --kubeconfig or set KUBECONFIG.")


@pytest.mark.parametrize(
    "text", ["", "[]", "a: [", "clusters: 3", "\0", "clusters: []\ncontexts: []"]
)
def test_a_file_that_is_no_kubeconfig_is_named_and_not_quoted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(f"{text}\nusers: [{{name: u, user: {{token: {SECRET}}}}}]")
    told = failure(str(path))
    assert str(path) in told
    assert SECRET not in told


def test_an_unknown_context_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "http://x")
    assert "Context 'there' not found" in failure(path, "there")


def test_of_several_files_the_first_with_the_context_is_used(tmp_path: Path) -> None:
    second = write(tmp_path, "http://second:1", "second")
    third = write(tmp_path, "http://third:1", "third")
    kube = Kube.connect(f"{tmp_path}/none:{second}:{third}", context="here", user_agent="t")
    assert kube.server == "http://second:1"


def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "https://x", **{"client-certificate": "none.crt", "client-key": "k"})
    assert "credentials of context 'here' cannot be used" in failure(path)


def test_in_a_pod_the_service_account_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "namespace").write_text("kube-system")
    (tmp_path / "ca.crt").write_text(CERTIFICATE)
    monkeypatch.setattr(finding, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    found = finding.credentials(None, None, trust_env=False)
    assert found.server == "https://10.0.0.1:443"
    assert SECRET not in repr(found)


def test_a_pod_without_the_variables_of_a_pod_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "namespace").write_text("kube-system")
    monkeypatch.setattr(finding, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert "KUBERNETES_SERVICE_HOST" in failure(None)


def test_without_any_configuration_the_default_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "SERVICE_ACCOUNT", tmp_path / "none")
    monkeypatch.setattr(finding, "DEFAULT_KUBECONFIG", tmp_path / "kube" / "config")
    assert f"{tmp_path}/kube/config not found" in failure(None)


def make_certificate() -> str:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


CERTIFICATE = make_certificate()
