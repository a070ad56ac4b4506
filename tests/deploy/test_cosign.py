"""cosign itself, Debian's, takes the signature of a release, and signs with a key in its own form.

Without a network: there is no entry in a public log, and the root of trust is an empty one.
"""

from __future__ import annotations

import base64
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deploy.release.signing import bundle, key_of, signed
from deploy.release.statement import NotReleasable
from tests.deploy.images import ROOT

COSIGN = ROOT / ".venvs/runtime/debian/usr/bin/cosign"
SUMS = b"0" * 64 + b"  a-file\n"
VERIFY = ("verify-blob", "--key", "release.pub", "--insecure-ignore-tlog=true")
NO_ROOT = '{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}'
FORMS = {
    "a signature": ("--signature", "SHA256SUMS.sig"),
    "a bundle": (
        *("--new-bundle-format", "--trusted-root", "root.json"),
        *("--bundle", "SHA256SUMS.sigstore.json"),
    ),
}

pytestmark = pytest.mark.skipif(
    not COSIGN.exists(), reason="cosign is fetched by ./scripts/setup-runtime"
)


def cosign(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    surroundings = {**os.environ, "COSIGN_PASSWORD": "", "HOME": str(place)}
    return subprocess.run(
        [COSIGN, *words], cwd=place, env=surroundings, capture_output=True, text=True, check=False
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with checksums, signed as a release's are."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signature = signed(key, SUMS)
    for name, content in {
        "SHA256SUMS": SUMS,
        "SHA256SUMS.sig": signature,
        "SHA256SUMS.sigstore.json": bundle(key, signature, SUMS),
        "release.pub": public,
        "root.json": NO_ROOT.encode(),
    }.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("form", FORMS)
def test_it_verifies_the_checksums_and_refuses_them_changed(place: Path, form: str) -> None:
    ran = cosign(place, *VERIFY, *FORMS[form], "SHA256SUMS")
    assert ran.returncode == 0, ran.stderr
    assert "Verified OK" in ran.stderr
    (place / "SHA256SUMS").write_bytes(SUMS.replace(b"a-file", b"b-file"))
    ran = cosign(place, *VERIFY, *FORMS[form], "SHA256SUMS")
    assert ran.returncode == 1
    assert "invalid signature" in ran.stderr


def test_a_key_in_its_own_form_is_refused_with_the_command_by_which_it_signs(place: Path) -> None:
    assert cosign(place, "generate-key-pair").returncode == 0
    with pytest.raises(NotReleasable) as refused:
        key_of(place / "cosign.key")
    program, *words = shlex.split(str(refused.value).partition("then: ")[2])
    assert program == "cosign"
    # Who has a network says here whether the public log is to know of it.
    ran = cosign(place, *words, "--tlog-upload=false")
    assert ran.returncode == 0, ran.stderr
    public = serialization.load_pem_public_key((place / "cosign.pub").read_bytes())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    signature = base64.b64decode((place / "SHA256SUMS.sig").read_bytes())
    public.verify(signature, SUMS, ec.ECDSA(hashes.SHA256()))
