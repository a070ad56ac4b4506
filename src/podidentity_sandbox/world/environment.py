"""The operator's environment, in which kubectl, az and SDKs find the sandbox.

The person's own settings of az and kubectl are neither read nor written: the sandbox has its own in
its folder, and they go with it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from podidentity_sandbox.plan import IMDS_ADDRESS, Plan
from podidentity_sandbox.world import SandboxError
from podidentity_sandbox.world.folder import NAME_VARIABLE

BROUGHT_BY = {
    "az": "run ./scripts/setup-az",
    "kubectl": "run ./scripts/setup, or install Debian's package kubectl",
    "curl": "install Debian's package curl",
    "jq": "install Debian's package jq",
}
"""The programs of the walk-through, and the command that installs each."""

# No questions and no calls home: https://learn.microsoft.com/cli/azure/azure-cli-configuration.
_AZ_CONFIG = """\
[core]
collect_telemetry = no
survey_message = no
[extension]
use_dynamic_install = no
[auto-upgrade]
enable = no
"""


VARIABLES = (
    *("KUBECONFIG", "KUBECACHEDIR", "KUBERC", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"),
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
    *("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_SUBSCRIPTION_ID"),
    *("AZURE_CONFIG_DIR", "AZURE_EXTENSION_DIR", "PODIDENTITY_NMI_ARGS", NAME_VARIABLE),
)
"""What `environment` sets, PATH apart: to a sandbox that is down it leads nowhere."""


def not_here(program: str) -> str:
    return f"{program} is not here: {BROUGHT_BY.get(program, 'PATH leads to no such program')}"


def find_azure_cli() -> str:
    """Return the folder in which scripts/setup-az made the Azure CLI; "" where it did not."""
    made = Path(__file__).parents[3] / ".venvs" / "az"
    return str(made) if (made / "tools" / "az").exists() else ""


def runtime_tools() -> Path:
    """Return the folder in which scripts/setup-runtime puts a container runtime."""
    return Path(__file__).parents[3] / ".venvs" / "runtime"


def built_images() -> tuple[str, ...]:
    """Return the archive that scripts/image has written last; () where it has written none."""
    archives = (Path(__file__).parents[3] / "dist" / "image").glob("podidentity-*.tar")
    return tuple(map(str, sorted(archives, key=lambda each: each.stat().st_mtime)[-1:]))


def environment(plan: Plan, path: str) -> dict[str, str]:
    """Return the variables of a shell whose PATH is `path`; a second time changes nothing."""
    proxy = f"http://127.0.0.1:{plan.azure_proxy_port}"
    direct = f"127.0.0.1,localhost,{IMDS_ADDRESS}"
    bundle = str(plan.ca_bundle)
    # Where pods have no cgroups, NMI is not ready unless a weaker proof is chosen by name.
    nmi_args = "" if plan.cgroup_root else "--attestation=namespace"
    if plan.real_nodes:
        nmi_args = f"--cgroup-root={Path(plan.cgroup_root).parent}"
    return {
        NAME_VARIABLE: plan.name,
        "KUBECONFIG": str(plan.kubeconfig),
        # kubectl's other two files, else in ~/.kube: what it remembers, and a person's aliases.
        "KUBECACHEDIR": str(plan.path / "kube-cache"),
        "KUBERC": "off",
        # Programs differ in which of the two spellings they read.
        "HTTPS_PROXY": proxy,
        "https_proxy": proxy,
        "NO_PROXY": direct,
        "no_proxy": direct,
        "SSL_CERT_FILE": bundle,
        "REQUESTS_CA_BUNDLE": bundle,
        "CURL_CA_BUNDLE": bundle,
        "NODE_EXTRA_CA_CERTS": bundle,
        "AZURE_TENANT_ID": plan.tenant_id,
        "AZURE_CLIENT_ID": plan.operator_id,
        "AZURE_CLIENT_SECRET": plan.operator_secret,
        "AZURE_SUBSCRIPTION_ID": plan.subscription_id,
        "AZURE_CONFIG_DIR": str(plan.az_folder),
        "AZURE_EXTENSION_DIR": str(Path(plan.azure_cli or plan.az_folder) / "extensions"),
        "PODIDENTITY_NMI_ARGS": nmi_args,  # read by `podidentity enable`
        "PATH": search_path(plan.azure_cli, path),
    }


def search_path(azure_cli: str, path: str) -> str:
    """Put az first, since it must be the one with the extension; what else we bring comes last."""
    first = [str(Path(azure_cli) / "tools")] if azure_cli else []
    return ":".join(dict.fromkeys([*first, *path.split(":"), str(Path(sys.executable).parent)]))


def make_az_folder(folder: Path) -> None:
    """Make a folder of az's settings, in which nobody is signed in."""
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "config").write_text(_AZ_CONFIG)


def sign_in(plan: Plan, variables: Mapping[str, str]) -> None:
    """Sign az in as the operator unless somebody is signed in; raise SandboxError.

    az does it itself, with the service principal's secret on its standard input: a command line is
    for all to read.
    """
    az = shutil.which("az", path=variables["PATH"])
    if az is None or _is_signed_in(plan):
        return
    make_az_folder(plan.az_folder)
    done = subprocess.run(
        [
            *(az, "login", "--service-principal", "--username", plan.operator_id),
            *("--tenant", plan.tenant_id, "--password", "@-", "--output", "none"),
        ],
        input=plan.operator_secret,
        env=dict(variables),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SandboxError(f"az could not sign in as the operator: {done.stderr.strip()}")


def _is_signed_in(plan: Plan) -> bool:
    """Whether az knows a subscription; it writes an empty profile before anybody signs in."""
    profile = plan.az_folder / "azureProfile.json"
    if not profile.exists():
        return False
    return bool(json.loads(profile.read_text(encoding="utf-8-sig")).get("subscriptions"))
