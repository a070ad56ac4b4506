from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from click.testing import CliRunner

from podidentity.cli import nmi as command
from podidentity.core.attestation import AttestationMode
from podidentity.core.resources import ObjectRef
from podidentity.settings import OLD_FLAGS, Compat, NmiSettings

MANAGED = ["--node=n1", "--operation-mode=managed"]

# All of the archived project's flags, as its manifests and chart write them.
OLD = """
    --nmi-listen-address=127.0.0.1 --nmi-port=2579 --metadata-ip=169.254.169.254
    --metadata-port=80 --node=n1 --ipt-update-interval-sec=60 --forceNamespaced
    --MICNamespace=default --http-probe-port=8085 --retry-attempts-for-created=16
    --retry-attempts-for-assigned=4 --find-identity-retry-interval=5 --enableProfile=false
    --enableScaleFeatures=true --block-instance-metadata=false --metadata-header-required=true
    --prometheus-port=9090 --operation-mode=managed --allow-network-plugin-kubenet=false
    --kubelet-config=/etc/default/kubelet --set-retry-after-header=false
    --enable-conntrack-deletion=false --log-format=text --custom-user-agent=x --host-ip=10.0.0.1
    -v=5 --v=5 --logtostderr --alsologtostderr=false --log_dir=/x --log_file=/y
    --log_file_max_size=1800 --stderrthreshold=2 --vmodule=a=1 --skip_headers --skip_log_headers
    --add_dir_header --one_output --log_backtrace_at=:0
"""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[NmiSettings]:
    """Return what the agent is started with, in place of starting it."""
    found: list[NmiSettings] = []
    monkeypatch.setattr(command, "plan_of", lambda settings, _: found.append(settings))
    return found


def run(*arguments: str, **environment: str) -> Any:
    return CliRunner().invoke(command.nmi, list(arguments), env=environment)


def test_the_old_flags_all_parse_and_the_defaults_are_the_old_ones(
    started: list[NmiSettings],
) -> None:
    result = run(*OLD.split())
    assert result.exit_code == 0, result.output
    assert started == [
        NmiSettings(
            node="n1",
            operation_mode="managed",
            force_namespaced=True,
            probe_port=8085,
            custom_user_agent="x",
            host_ip="10.0.0.1",
            verbosity=5,
        )
    ]


def test_defaults_of_the_command_are_those_of_the_settings(started: list[NmiSettings]) -> None:
    assert run("--node=n1").exit_code == 0
    assert started == [NmiSettings(node="n1")]


@pytest.mark.parametrize(
    ("flag", "changes"),
    [
        ("--block-instance-metadata", {"block_instance_metadata": True}),
        ("--block-instance-metadata=true", {"block_instance_metadata": True}),
        ("--metadata-header-required=false", {"metadata_header_required": False}),
        ("--set-retry-after-header", {"retry_after_header": True}),
        ("--attestation=address", {"attestation": "address"}),
        ("--attestation=namespace", {"attestation": "namespace"}),
        ("--authorization=observe", {"authorization": "observe"}),
        ("--authorization-outlives=2h", {"authorization_outlives": 7200.0}),
        ("--hold=0", {"hold": 0.0}),
        ("--on-exit=remove", {"on_exit": "remove"}),
        ("--on-exit=close", {"on_exit": "close"}),
        ("--log-format=json", {"log_format": "json"}),
        ("--netns-dir=/n", {"netns_dirs": ("/n",)}),
        ("--source-guard=off", {"source_guard": "off"}),
        ("--cgroup-root=/c", {"cgroup_root": "/c"}),
        ("--ambiguous=reject", {"ambiguous": "reject"}),
        ("--kubeconfig=/k", {"kubeconfig": "/k"}),
        ("--metadata-allow=/metadata/attested", {"metadata_allow": ("/metadata/attested",)}),
        ("--host-token=root", {"host_token": "root"}),
        ("--host-token=off", {"host_token": "off"}),
        ("--host-token-callers=a/b", {"host_token_callers": (ObjectRef("a", "b"),)}),
        ("--trusted-proxies=a/b", {"trusted_proxies": (ObjectRef("a", "b"),)}),
        (
            "--attestation-by-runtime-class=kata=namespace",
            {"attestation_by_runtime_class": (("kata", AttestationMode.NAMESPACE),)},
        ),
        ("--prefetch=auto", {"prefetch": "auto"}),
        ("--prefetch=https://a,api://b,https://a", {"prefetch": ("https://a", "api://b")}),
        ("--nmi-port=1234", {"listen_port": 1234}),
        ("-v4", {"verbosity": 4}),
        ("--forceNamespaced=true", {"force_namespaced": True}),
        ("--operation-mode=Managed", {}),
        ("--operation-mode=STANDARD", {"operation_mode": "standard"}),
        ("--enableScaleFeatures=false", {"only_own_records": False}),
        ("--retry-attempts-for-created=1", {"retry_attempts_for_created": 1}),
        ("--retry-attempts-for-assigned=0", {"retry_attempts_for_assigned": 0}),
        ("--find-identity-retry-interval=1", {"find_identity_retry_interval": 1}),
        ("--exception-namespaces=*", {"exceptions_in": frozenset("*")}),
        ("--exception-namespaces=a, b,", {"exceptions_in": frozenset({"a", "b"})}),
        ("--own-namespace=id", {"own_namespace": "id"}),
        ("--compat-cross-namespace", {"compat": Compat(cross_namespace=True)}),
        ("--compat-foreign-secrets", {"compat": Compat(foreign_secrets=True)}),
        ("--compat-any-label-exceptions", {"compat": Compat(any_label_exceptions=True)}),
        ("--compat-text-errors", {"compat": Compat(text_errors=True)}),
        ("--compat-tenant-array", {"compat": Compat(tenant_array=True)}),
    ],
)
def test_a_flag_changes_its_setting_and_no_other(
    started: list[NmiSettings], flag: str, changes: dict[str, Any]
) -> None:
    assert run(*MANAGED, flag).exit_code == 0
    assert started == [NmiSettings(**({"node": "n1", "operation_mode": "managed"} | changes))]


def test_the_environment_is_read_where_the_archived_project_did(
    started: list[NmiSettings],
) -> None:
    assert run(*MANAGED, FORCENAMESPACED="true", KUBECONFIG="/k").exit_code == 0
    assert started == [
        NmiSettings(node="n1", operation_mode="managed", force_namespaced=True, kubeconfig="/k")
    ]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--node=n1", "--operation-mode=odd"], "'odd' is not one of 'standard', 'managed'"),
        ([*MANAGED, "--forceNamespaced", "--compat-cross-namespace"], "contradict"),
        ([*MANAGED, "--retry-attempts-for-created=-1"], "-1 is not in the range"),
        (["--operation-mode=managed"], "--node is required"),
        ([*MANAGED, "--attestation=none"], "'none' is not one of"),
        ([*MANAGED, "--host-token=all"], "'all' is not one of"),
        ([*MANAGED, "--host-token-callers=provider"], "is not NAMESPACE/NAME"),
        ([*MANAGED, "--trusted-proxies=ztunnel"], "is not NAMESPACE/NAME"),
        ([*MANAGED, "--attestation-by-runtime-class=kata"], "CLASS=namespace or CLASS=address"),
        ([*MANAGED, "--attestation-by-runtime-class=k=kernel"], "CLASS=namespace or CLASS=address"),
        ([*MANAGED, "--attestation-by-runtime-class==address"], "CLASS=namespace or CLASS=address"),
        ([*MANAGED, "--hold=-1"], "--hold"),
        ([*MANAGED, "--nmi-port=x"], "--nmi-port"),
        ([*MANAGED, "--prefetch=auto,"], "resource is missing"),
        ([*MANAGED, "--prefetch=https://a, b"], "white space"),
        ([*MANAGED, "-v=x"], "is no number"),
        ([*MANAGED, "--unknown"], "--unknown"),
        ([*MANAGED, "stray"], "stray"),
    ],
)
def test_wrong_usage_is_said_and_exits_with_2(
    started: list[NmiSettings], arguments: list[str], why: str
) -> None:
    result = run(*arguments)
    assert (result.exit_code, started) == (2, [])
    assert why in result.output


def test_a_flag_without_effect_says_so_in_its_help() -> None:
    text = " ".join(run("--help").output.split())
    for flag in [each.name for each in OLD_FLAGS]:
        at = text.index(f"--{flag} ")
        assert "o effect" in text[at : at + 160], flag


def test_starting_the_agent_imports_nothing_that_only_people_or_the_judge_need() -> None:
    heavy = ["azure", "msal", "aiohttp", "cryptography", "requests", "podidentity_sandbox"]
    program = (
        "import sys, podidentity.cli.nmi, podidentity.nmi.main\n"
        f"print(sorted(set({heavy!r}) & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "[]"


def test_an_agent_that_cannot_begin_says_why_in_one_line() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "podidentity", "nmi", *MANAGED, "--metadata-ip=nonsense"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 1
    assert shown.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "nonsense" in shown.stderr
    assert "Traceback" not in shown.stderr
