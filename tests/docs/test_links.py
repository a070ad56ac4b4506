"""Links that lead out of the repository: each is whole, and its host is one that was looked at.

There is no network where the tests run, so none is followed. A new host is added here by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import pytest

from tests.docs.blocks import DOCUMENTS, ROOT

AUTHORS = {
    *("learn.microsoft.com", "docs.microsoft.com", "aka.ms", "go.microsoft.com"),
    *("github.com", "gist.github.com", "azure.github.io", "pkg.go.dev", "stackoverflow.com"),
    *(
        "kubernetes.io",
        "www.kubernetes.dev",
        "kubernetes-csi.github.io",
        "etcd.io",
    ),
    *("cloud-provider-azure.sigs.k8s.io", "secrets-store-csi-driver.sigs.k8s.io"),
    *("docs.cilium.io", "istio.io", "karpenter.sh", "helm.sh", "prometheus.io", "www.cni.dev"),
    *("docs.kernel.org", "man7.org", "curl.se", "no-color.org"),
    *("www.rfc-editor.org", "datatracker.ietf.org", "openid.net"),
    "developer.mozilla.org",
}
"""Of whom a page is to be read: who makes what it speaks of, or who asked about it first."""
SERVICES = (
    *("windows.net", "azure.com", "azure.net", "azure.cn", "chinacloudapi.cn"),
    *("usgovcloudapi.net", "microsoftonline.com", "microsoftonline.us", "microsoft.com"),
    *("microsoft.us", "azure.sandbox"),
)
"""Azure's, that programs ask: nobody follows them."""
NOBODY = re.compile(
    r"localhost|127\.0\.0\.1|169\.254\.169\.254|(.*\.)?example\.com|[A-Z]+|x|kubelet|"
    r"kubernetes\.default\.svc(\.cluster\.local)?"
)
"""Examples and placeholders."""
_LINK = re.compile(r"https?://(?=[A-Za-z0-9])[^\s\[\]()*^$<>\"'`|\\{}]+")
_OF_GITHUB = re.compile(
    r"/search|/[\w.-]+/[\w.-]+/?|"
    r"/[\w.-]+/[\w.-]+/(blob|tree|commit|issues|pull|releases|wiki|security|discussions)/.+"
)


def files() -> list[Path]:
    """Return all files whose links are ours: documents, the product and the chart."""
    kept = {".py", ".yaml", ".tpl", ".txt"}
    ours = (
        path
        for top in ("src", "deploy/chart")
        for path in sorted((ROOT / top).rglob("*"))
        if path.suffix in kept and "__pycache__" not in path.parts
    )
    return [*DOCUMENTS, *ours]


def links(path: Path) -> Iterator[SplitResult]:
    for found in _LINK.findall(path.read_text()):
        yield urlsplit(found.rstrip(".,;:!?…"))


FOUND = sorted({(link.geturl(), path) for path in files() for link in links(path)})


def faults(url: str) -> Iterator[str]:
    """Yield what is wrong with a link."""
    link = urlsplit(url)
    host = link.hostname or ""
    if NOBODY.fullmatch(link.netloc.rpartition("@")[2].partition(":")[0]):
        return
    if host not in AUTHORS:
        if not host.endswith(SERVICES):
            yield f"nobody has looked at {host}"
        return
    if link.scheme != "https":
        yield "it is not https"
    if host == "learn.microsoft.com" and re.match(r"/[a-z]{2}-[a-z]{2}/", link.path):
        yield "it is for readers of one language"
    if host == "github.com" and not _OF_GITHUB.fullmatch(link.path):
        yield "it is no page of a repository"
    if not re.fullmatch(r"[\w.~%!$&'()*+,;=:@/-]*", link.path):
        yield "its path has characters that a link has not"


def test_each_link_that_leads_out_is_whole_and_of_a_host_that_is_known() -> None:
    assert [
        f"{path.relative_to(ROOT)}: {url}: {fault}" for url, path in FOUND for fault in faults(url)
    ] == []


def test_there_are_links_and_each_author_has_one() -> None:
    assert len(FOUND) > 300
    assert {urlsplit(url).hostname for url, _ in FOUND} >= AUTHORS


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example.org/x",
        "http://kubernetes.io/docs",
        "https://learn.microsoft.com/en-us/azure/aks",
        "https://github.com/Azure",
    ],
)
def test_a_link_that_is_wrong_is_found(url: str) -> None:
    assert len(list(faults(url))) == 1
