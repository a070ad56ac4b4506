"""Ten questions of a newcomer: the answer to each is within two links of the front page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT
from tests.docs.test_blocks import headings

QUESTIONS = ROOT / "docs/questions.md"
FRONT_PAGES = ("docs/index.md", "README.md")

ANSWERS = {
    "Can I try it without Azure and without a cluster?": "podidentity sandbox up",
    "Does it work on my cluster?": "Windows nodes",
    "What must I change in my pods?": "podidentity add",
    "How do I install it?": "podidentity enable --image",
    "I run AAD Pod Identity. How do I move?": "podidentity migrate plan",
    "What may it do in my cluster and in Azure?": "ClusterRole podidentity-nmi",
    "What does it protect, and from whom?": "asks IMDS directly",
    "My pod gets no token. Why?": "NoBinding",
    "How do I get rid of it?": "podidentity delete",
    "Why not Azure Workload Identity?": "needs no agent on the node",
}
"""Each question, and words of its answer, which stand where its link leads."""


def sections(text: str) -> dict[str, str]:
    """Return the sections of a page of this level by their headings."""
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


ASKED = sections(QUESTIONS.read_text())


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Yield the pages of ours that a page links, each with the heading."""
    for file, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        yield ((page.parent / file).resolve() if file else page), heading


def within_two_links(front: Path) -> set[Path]:
    """Return the pages that a reader of `front` reaches, the page of the questions apart."""
    first = {page for page, _ in links(front) if page.suffix == ".md"} - {QUESTIONS}
    return first | {page for each in first for page, _ in links(each)}


def answer(question: str) -> tuple[Path, str]:
    """Return the page and the heading that answer a question: the first of its links."""
    (file, heading), *_ = re.findall(r"\]\(([^)#]*)#([^)]*)\)", ASKED[question])
    return (QUESTIONS.parent / file).resolve(), heading


def below(page: Path, anchor: str) -> str:
    """Return what stands under a heading, lower headings included."""
    found = re.split(r"^(#+) (.*)$", page.read_text(), flags=re.MULTILINE)
    for at in range(2, len(found), 3):
        if re.sub(r"[^\w -]", "", found[at].lower()).replace(" ", "-") == anchor:
            text = found[at + 1]
            for later in range(at + 3, len(found), 3):
                if len(found[later - 1]) <= len(found[at - 1]):
                    break
                text += found[later] + found[later + 1]
            return text
    raise LookupError(anchor)


@pytest.mark.parametrize("front", FRONT_PAGES)
@pytest.mark.parametrize("question", ANSWERS)
def test_the_answer_is_within_two_links_of_the_front_page(question: str, front: str) -> None:
    page, heading = answer(question)
    assert heading in headings(page)
    assert page in within_two_links(ROOT / front)


@pytest.mark.parametrize("question", ANSWERS)
def test_the_answer_stands_where_the_link_leads(question: str) -> None:
    assert ANSWERS[question] in below(*answer(question))


@pytest.mark.parametrize("front", FRONT_PAGES)
def test_the_questions_are_a_link_away_from_the_front_page(front: str) -> None:
    assert QUESTIONS in {page for page, _ in links(ROOT / front)}


def test_every_page_of_the_documents_is_within_two_links_of_the_front_page() -> None:
    pages = set((ROOT / "docs").rglob("*.md")) - {QUESTIONS}
    assert pages <= within_two_links(ROOT / "docs/index.md") | {ROOT / "docs/index.md"}


def test_the_first_screen_of_the_readme_says_for_whom_it_works_and_how_that_is_known() -> None:
    screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])
    _, _, told = screen.partition("## Does it work for me?\n")
    for said in ("AKS", "AKS Automatic", "your own machines", "Windows", "no real AKS cluster"):
        assert said in told, said
    assert {page.name for page, _ in links(ROOT / "README.md")} >= {
        *("install-on-aks.md", "install-on-aks-automatic.md", "install-elsewhere.md"),
        "what-is-shown.md",
    }
