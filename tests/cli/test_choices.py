"""What NMI was told on its command line decides what `explain` says."""

from __future__ import annotations

from typing import Any

import pytest

from podidentity.cli.choices import Choices, chosen
from podidentity.core.permission import Authorization
from podidentity.manifests import nmi


def daemon_set(*flags: str) -> Any:
    return nmi(extra_args=flags)[-1]


def test_the_manifest_as_it_is_chooses_the_strict_rules_but_for_its_namespaces() -> None:
    choices = chosen(daemon_set())
    assert choices.authorization is Authorization.RBAC
    assert choices.rules.exception_namespaces == frozenset({"kube-system"})
    assert not choices.rules.standard
    assert not choices.rules.cross_namespace


def test_flags_of_nmi_are_obeyed() -> None:
    flags = (
        "--operation-mode=standard",
        "--authorization=observe",
        "--exception-namespaces=*",
        "--compat-any-label-exceptions",
    )
    choices = chosen(daemon_set(*flags))
    assert choices.authorization is Authorization.OBSERVE
    assert choices.rules.standard
    assert choices.rules.any_label
    assert choices.rules.exception_namespaces is None


@pytest.mark.parametrize("flag", ["--no-such-flag", "--authorization=maybe", "--version"])
def test_what_does_not_parse_is_taken_as_the_defaults(flag: str) -> None:
    assert chosen(daemon_set(flag)) == Choices()
