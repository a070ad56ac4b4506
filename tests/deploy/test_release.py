"""A release: made twice of one commit the same to the byte, whole, and verified by OpenSSL.

The image's part is proved by test_image.py, and Helm judges the chart's package in test_chart.py.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from deploy.release.addresses import NONE, fill_in
from deploy.release.bills import PRODUCT, SANDBOX, needed, of_distribution, pins
from deploy.release.chart import files, gzipped, package
from deploy.release.signing import key_of
from deploy.release.statement import NotReleasable, agreed, plain, section, versions
from podidentity import __version__
from tests.deploy.images import ROOT, copied_checkout
from tests.docs.blocks import blocks_of

SIGNATURES = {"SHA256SUMS.sig", "SHA256SUMS.sigstore.json"}
AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@example.com")
PEM = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)


def git(place: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=place, check=True, capture_output=True)


def clone(place: Path) -> Path:
    """Return a clean checkout of a commit with the files of this one, the same for everybody."""
    copied_checkout(place)
    (place / "sandbox/podidentity_sandbox").symlink_to("../src/podidentity_sandbox")
    (place / ".git").unlink()
    git(place, "init", "--quiet")
    git(place, "add", "--all")
    git(place, *AUTHOR, "commit", "-qm", "A release", "--date", "2026-01-02T03:04:05Z")
    return place


@pytest.fixture(scope="module", autouse=True)
def at_one_time() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_COMMITTER_DATE", "2026-01-02T03:04:05Z")
        yield


def release(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.release", *words],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(
        tmp_path_factory.mktemp("key") / "key.pem", ec.generate_private_key(ec.SECP256R1())
    )


def written(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> Path:
    path.write_bytes(key.private_bytes(*PEM, serialization.NoEncryption()))
    return path


def documented() -> list[str]:
    """Return the words behind `./scripts/release` in the page on releases."""
    (block,) = (
        each for each in blocks_of(ROOT / "docs/how-to/release.md") if each.mark == "run=release"
    )
    script, *words = block.text.split()
    assert script == "./scripts/release"
    return words


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, key: Path) -> list[Path]:
    """Return two clean clones, with a release made in each."""
    made = []
    for name in ("one", "another"):
        checkout = clone(tmp_path_factory.mktemp(name))
        ran = release(checkout, *documented(), "--key", str(key))
        assert ran.returncode == 0, ran.stderr
        made.append(checkout)
    return made


@pytest.fixture(scope="module")
def made(places: list[Path]) -> Path:
    return places[0] / "dist/release" / __version__


def test_two_clean_clones_give_the_same_bytes_signatures_apart(places: list[Path]) -> None:
    one, another = (
        {path.name: path.read_bytes() for path in (place / "dist/release" / __version__).iterdir()}
        for place in places
    )
    assert one.keys() == another.keys()
    assert {name for name in one if one[name] != another[name]} == SIGNATURES


def test_it_has_wheels_chart_manifests_bills_notes_and_checksums(made: Path) -> None:
    assert {path.name for path in made.iterdir()} == {
        f"podidentity-{__version__}-py3-none-any.whl",
        f"podidentity_sandbox-{__version__}-py3-none-any.whl",
        f"podidentity-{__version__}.cdx.json",
        f"podidentity-sandbox-{__version__}.cdx.json",
        f"chart-podidentity-{__version__}.tgz",
        f"podidentity-{__version__}.yaml",
        f"podidentity-{__version__}-mic.yaml",
        "release-notes.md",
        "SHA256SUMS",
        *SIGNATURES,
    }


def test_the_checksums_are_of_all_files_and_openssl_verifies_their_signature(
    made: Path, key: Path, tmp_path: Path
) -> None:
    summed = {line.split()[1] for line in (made / "SHA256SUMS").read_text().splitlines()}
    assert summed == {path.name for path in made.iterdir()} - SIGNATURES - {"SHA256SUMS"}
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=made, check=True)
    public, signature = tmp_path / "release.pub", tmp_path / "sig"
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
    signature.write_bytes(base64.b64decode((made / "SHA256SUMS.sig").read_bytes(), validate=True))
    verify = ["openssl", "dgst", "-sha256", "-verify", str(public), "-signature", str(signature)]
    subprocess.run([*verify, str(made / "SHA256SUMS")], check=True)
    assert subprocess.run([*verify, str(made / "release-notes.md")], check=False).returncode == 1
    bundle = json.loads((made / "SHA256SUMS.sigstore.json").read_text())
    assert bundle["messageSignature"]["signature"] == (made / "SHA256SUMS.sig").read_text()


def test_the_wheels_hold_what_their_record_says_and_nothing_is_compressed(
    made: Path, tmp_path: Path
) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    for wheel in made.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            assert archive.testzip() is None
            assert {each.compress_type for each in archive.infolist()} == {zipfile.ZIP_STORED}
            (record,) = (each for each in archive.namelist() if each.endswith("/RECORD"))
            listed = {line.split(",")[0] for line in archive.read(record).decode().splitlines()}
            assert listed == set(archive.namelist())
        install = [uv, "pip", "install", "--quiet", "--offline", "--no-deps"]
        subprocess.run([*install, "--target", str(tmp_path), str(wheel)], check=True)
    assert (tmp_path / "podidentity_sandbox/__init__.py").is_file()


def test_the_manifests_are_those_of_enable_with_and_without_the_controller(made: Path) -> None:
    def kinds(name: str) -> list[str]:
        return [each["kind"] for each in yaml.safe_load_all((made / name).read_text())]

    assert "DaemonSet" in kinds(f"podidentity-{__version__}.yaml")
    assert "Deployment" not in kinds(f"podidentity-{__version__}.yaml")
    assert "Deployment" in kinds(f"podidentity-{__version__}-mic.yaml")


def test_a_bill_names_what_its_distribution_needs_and_no_tool(made: Path) -> None:
    found = {}
    for name in (PRODUCT, SANDBOX):
        document = json.loads((made / f"{name}-{__version__}.cdx.json").read_text())
        assert document["metadata"]["component"]["name"] == name
        found[name] = {each["name"] for each in document["components"]}
        known = {name, *(each["bom-ref"] for each in document["components"])}
        for each in document["dependencies"]:
            assert {each["ref"], *each["dependsOn"]} <= known
    assert {"httptools", "cryptography", "cffi"} <= found[PRODUCT] < found[SANDBOX]
    assert {"aiohttp", "multidict"} <= found[SANDBOX]
    assert not found[SANDBOX] & {"pytest", "mypy", "azure-identity", "podidentity"}


def test_a_library_is_billed_with_its_version_hashes_and_where_it_is_installed() -> None:
    read = pins(
        "one==1.0 ; sys_platform == 'linux' \\\n"
        f"    --hash=sha256:{'b' * 64} \\\n    --hash=sha256:{'a' * 64}\n"
        "    # via\n    #   two\n    #   three\n"
        f"two==2.0 \\\n    --hash=sha256:{'c' * 64}\n    # via root\n"
        f"other==3 \\\n    --hash=sha256:{'d' * 64}\n"
    )
    assert read["one"].hashes == ("a" * 64, "b" * 64)
    assert read["one"].marker == 'sys_platform == "linux"'
    assert read["one"].needed_by == {"two", "three"}
    assert needed(read, "root").keys() == {"one", "two"}
    assert all(each.hashes for each in of_distribution(ROOT, SANDBOX).values())


def test_the_chart_is_packed_with_its_description_first_and_all_its_files() -> None:
    name, data = package(ROOT / "deploy/chart", 1)
    assert name == f"podidentity-{__version__}.tgz"
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        entries = archive.getmembers()
    assert entries[0].name == "podidentity/Chart.yaml"
    assert {each.name for each in entries} == {
        f"podidentity/{path.relative_to(ROOT / 'deploy/chart')}"
        for path in files(ROOT / "deploy/chart")
    }
    assert {(each.mtime, each.mode, each.uid, each.uname) for each in entries} == {
        (1, 0o644, 0, "")
    }


def test_helms_list_of_what_is_ignored_is_kept(tmp_path: Path) -> None:
    (tmp_path / ".helmignore").write_text("# a comment\n.git*\n*.tgz\n")
    for name in ("Chart.yaml", "old.tgz", ".gitignore"):
        (tmp_path / name).write_text("")
    assert {path.name for path in files(tmp_path)} == {"Chart.yaml", ".helmignore"}


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 200_000])
def test_any_gunzip_reads_what_is_stored(size: int) -> None:
    data = os.urandom(size)
    assert zlib.decompress(gzipped(data), wbits=31) == data


# ---- What is refused


def without_a_date(place: Path) -> None:
    """Have the changelog call the version unreleased, whatever it does today."""
    path = place / "CHANGELOG.md"
    heading = f"## {__version__}"
    path.write_text(re.sub(rf"(?m)^{heading}.*$", f"{heading} (unreleased)", path.read_text()))
    if subprocess.run(["git", "diff", "--quiet"], cwd=place, check=False).returncode:
        git(place, *AUTHOR, "commit", "-qam", "Not released")


@pytest.mark.parametrize(
    ("spoil", "words", "told"),
    [
        (lambda _: None, ["9.9.9", "--draft"], "This is not 9.9.9: pyproject.toml: version is"),
        (lambda _: None, [__version__, "--draft"], "has files. Remove it"),
        (
            lambda place: (place / "src/new.py").write_text(""),
            [__version__, "--draft", "--output", "elsewhere"],
            "Not all is committed:\n?? src/new.py",
        ),
        (without_a_date, [__version__, "--output", "elsewhere"], f"gives {__version__} no date"),
        (lambda _: None, [__version__, "--key", "/nowhere"], "The key cannot be read: /nowhere"),
    ],
    ids=["another version", "made already", "not committed", "no date", "no key"],
)
def test_a_release_that_would_not_be_what_it_says_is_refused_with_the_next_step(
    places: list[Path], spoil: Callable[[Path], object], words: list[str], told: str
) -> None:
    place = places[1]
    spoil(place)
    ran = release(place, "--no-image", *words)
    assert ran.returncode == 1
    assert told in ran.stderr
    assert not (place / "elsewhere").exists()
    (place / "src/new.py").unlink(missing_ok=True)


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    ran = release(tmp_path, __version__)
    assert ran.returncode == 1
    assert "release: This is no checkout of a commit" in ran.stderr


def test_every_place_that_states_the_version_must_agree() -> None:
    agreed(ROOT, __version__)
    assert len(versions(ROOT)) == 6
    with pytest.raises(NotReleasable, match=r"Chart.yaml: appVersion is .*Correct them and commit"):
        agreed(ROOT, "1.0.0")


CHANGES = """# Changelog

## 1.1.0 (unreleased)

New.

### Added

- a

## 1.0.0 (2026-01-02)

Old.
"""


def test_the_notes_are_the_section_of_the_version() -> None:
    newest, oldest = section(CHANGES, "1.1.0"), section(CHANGES, "1.0.0")
    assert (newest.date, newest.text) == ("unreleased", "New.\n\n### Added\n\n- a")
    assert (oldest.date, oldest.text) == ("2026-01-02", "Old.")
    with pytest.raises(NotReleasable, match=r"says nothing of 1\.2\.0: write what changed"):
        section(CHANGES, "1.2.0")


def test_links_to_files_become_words_and_others_stay() -> None:
    text = "[MIC](docs/mic.md#x), [docs/a.md](docs/a.md), [up](#up), [Azure](https://learn.example.com)"
    assert plain(text) == "MIC (docs/mic.md), docs/a.md, up, [Azure](https://learn.example.com)"


def test_a_key_that_cosign_would_not_take_is_refused_with_the_command_for_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "key.pem"
    with pytest.raises(NotReleasable, match="openssl genpkey -algorithm EC"):
        key_of(written(path, ec.generate_private_key(ec.SECP384R1())))
    with pytest.raises(NotReleasable, match="no key of the curve P-256"):
        key_of(written(path, rsa.generate_private_key(65537, 2048)))
    path.write_text("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")
    with pytest.raises(NotReleasable, match="cosign sign-blob --key"):
        key_of(path)
    path.write_text("rubbish")
    with pytest.raises(NotReleasable, match="no private key in PEM"):
        key_of(path)


def test_a_key_with_a_password_is_opened_by_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(key.private_bytes(*PEM, serialization.BestAvailableEncryption(b"open sesame")))
    assert key_of(path, "open sesame").private_numbers() == key.private_numbers()
    with pytest.raises(NotReleasable, match="PODIDENTITY_RELEASE_PASSWORD do not fit"):
        key_of(path)
    with pytest.raises(NotReleasable, match="its password is wrong"):
        key_of(path, "something else")


def test_a_repository_is_named_in_what_is_released_and_only_if_one_is_given(tmp_path: Path) -> None:
    for name in (
        *("README.md", "pyproject.toml", "sandbox/pyproject.toml", "deploy/chart/Chart.yaml"),
        *("deploy/chart/values.yaml", "deploy/chart/README.md", "deploy/chart/files/alerts.yaml"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        text = (ROOT / name).read_text()
        assert "git.example.com" not in text
        (tmp_path / name).write_text(text)
    url = "https://git.example.com/contoso/podidentity"
    runbook = f"{url}/blob/v9.9/docs/how-to/watch-nmi.md"
    fill_in(tmp_path, url, "9.9")
    for project in ("pyproject.toml", "sandbox/pyproject.toml"):
        urls = tomllib.loads((tmp_path / project).read_text())["project"]["urls"]
        assert (urls["Homepage"], urls["Issues"]) == (url, f"{url}/issues")
    chart = tmp_path / "deploy/chart"
    described = yaml.safe_load((chart / "Chart.yaml").read_text())
    assert (described["home"], described["sources"]) == (url, [url])
    values = yaml.safe_load((chart / "values.yaml").read_text())
    assert values["prometheusRule"]["runbookUrl"] == runbook
    assert f"{runbook}#podidentityforgedaddress" in (chart / "files/alerts.yaml").read_text()
    assert NONE not in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("url", ["git.example.com/a", "http://x/a", "https://x", "https://x/a b"])
def test_a_repository_that_is_no_url_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(NotReleasable, match="is no https:// URL of a repository"):
        fill_in(tmp_path, url, "9.9")
