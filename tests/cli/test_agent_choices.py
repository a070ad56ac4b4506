"""`explain` judges by the flags of NMI."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from podidentity.cli.agent_choices import Choices, chosen
from podidentity.core.attestation import Trust
from podidentity.core.decision import Authorization
from podidentity.core.resources import ObjectRef
from podidentity.manifests import nmi


def daemon_set(*flags: str) -> Any:
    return nmi(extra_args=flags)[-1]


def test_the_manifest_as_it_is_chooses_the_strict_rules_but_for_its_namespaces() -> None:
    choices = chosen(daemon_set())
    assert choices.authorization is Authorization.RBAC
    assert choices.rules.exception_namespaces == frozenset({"kube-system"})
    assert not choices.rules.standard
    assert not choices.rules.cross_namespace
    assert choices.doubt == ""


def test_flags_of_nmi_are_obeyed() -> None:
    flags = (
        "--operation-mode=standard",
        "--authorization=observe",
        "--exception-namespaces=*",
        "--compat-any-label-exceptions",
        "--trusted-proxies=istio-system/ztunnel",
    )
    choices = chosen(daemon_set(*flags))
    assert choices.trust == Trust(proxies=(ObjectRef("istio-system", "ztunnel"),))
    assert choices.authorization is Authorization.OBSERVE
    assert choices.rules.standard
    assert choices.rules.any_label
    assert choices.rules.exception_namespaces is None


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        ("--no-such-flag", "No such option"),
        ("--authorization=maybe", "'maybe' is not one of"),
        ("--version", "No such option"),
    ],
)
def test_what_does_not_parse_is_taken_as_the_defaults_and_that_is_said(flag: str, why: str) -> None:
    choices = chosen(daemon_set(flag))
    assert replace(choices, doubt="") == Choices()
    assert choices.doubt.startswith("NMI's flags cannot be read, so its defaults are assumed: ")
    assert why in choices.doubt


def test_a_daemon_set_without_the_container_is_doubted() -> None:
    made = daemon_set()
    made["spec"]["template"]["spec"]["containers"][0]["name"] = "other"
    assert "has no container serve or nmi" in chosen(made).doubt


def test_variables_are_the_containers_and_not_the_shells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_NAMESPACE", "of-the-shell")
    monkeypatch.setenv("FORCENAMESPACED", "true")
    made = daemon_set("--compat-cross-namespace", "--identities-namespace=$(WHERE)")
    made["metadata"]["namespace"] = "identity"
    container = made["spec"]["template"]["spec"]["containers"][0]
    container["args"].remove("--forceNamespaced")
    container["env"] += [{"name": "PART", "value": "ids"}, {"name": "WHERE", "value": "my-$(PART)"}]
    choices = chosen(made)
    assert (choices.doubt, choices.identities_namespace) == ("", "my-ids")
    assert choices.rules.cross_namespace
    assert choices.rules.exception_namespaces == frozenset({"kube-system", "identity"})
    container["env"] += [{"name": "FORCENAMESPACED", "value": "true"}]
    assert "--forceNamespaced and --compat-cross-namespace contradict" in chosen(made).doubt


def test_a_file_of_nmis_nodes_that_is_not_here_leaves_the_other_flags_readable() -> None:
    choices = chosen(
        daemon_set(
            "--cloud=AzureStackCloud",
            "--azure-environment-file=/etc/stack.json",
            "--authorization=observe",
        )
    )
    assert choices.authorization is Authorization.OBSERVE
    assert choices.cloud is None
    assert "--azure-environment-file cannot be read here" in choices.doubt
