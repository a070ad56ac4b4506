"""What `podidentity rights` can be asked for: commands, parts of their work, scopes of Azure.

Apart from `needed_rights`, which says what each needs, so that help does not wait for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

NEEDING = (
    *("enable", "disable", "add", "list", "delete", "grant", "revoke", "exception", "explain"),
    *("check", "check NAMESPACE", "check --pre", "migrate", "mic", "nodes", "version"),
)
"""The commands that need a right; the others need none."""


class AzureScope(StrEnum):
    """The resources of Azure at which an action is needed."""

    IDENTITY = "identity"
    """The managed identity."""
    MACHINES = "machines"
    """The scale sets and virtual machines of the nodes: each, or their resource group."""


ADOPT = "migrate-adopt"
GRANT, ATTACH, LOOK_UP, FEDERATED = "grant", "attach", "look-up", "federated"
SHARED, ELSEWHERE = "shared", "elsewhere"
ACCOUNT_PART, DETACH, KEEP, REVOKE = "account", "detach", "keep-attached", "revoke"
OWN_NAMESPACE, AS_NODE, STARTUP_TAINT = "own-namespace", "node-tokens", "startup-taint"
FIRST_GRANTS, EXTENSIONS, OLD = "first-grants", "aks-extensions", "version-0.1"
NO_TAINT, WAIT, PURGE, AZURE, SECRETS = "no-startup-taint", "wait", "purge", "azure", "secrets"
LRP, NO_LRP, AUTOMATIC = "lrp", "no-lrp", "aks-automatic"
MIC, MIC_WAIT, NO_MIC, ARCHIVED_MIC = "mic", "wait-for-mic", "no-mic", "archived-mic"
MIC_THERE, NO_MIC_THERE, BUNDLE = "mic-there", "no-mic-there", "bundle"
MIC_EXCEPTION, MIC_SECRET = "mic-exception", "mic-secret"
HOST, NO_POLICIES = "host", "no-admission-policies"
DETACH_ALL, FINALIZERS = "detach-all", "old-finalizers"
APPLY, ROLLBACK = "migrate-apply", "migrate-rollback"
PROBES, ISSUER, MIC_ROLES = "probes", "issuer", "mic-roles"
EXCEPT, CHANGE, EXCEPTED, NO_EXCEPTION = (
    f"exception-{each}" for each in ("add", "update", "list", "delete")
)
OLDER, TAKE_BACK, GRANTS = "older-grants", "take-back", "grants"
LOST = "lost-release"
PARTS: Mapping[str, str] = {
    GRANT: "lets pods use the identity: without `--no-grant`",
    ATTACH: "attaches a managed identity to the nodes' machines: type 0, without `--no-attach`",
    SHARED: "attaches what AzureIdentities of other namespaces record as attached",
    ELSEWHERE: "sees whether what has NMI's or MIC's labels outside of kube-system is a tenant's",
    LOOK_UP: "asks Azure for the client id: `--identity-resource-id` without `--client-id`",
    FEDERATED: "prints the command by which Entra trusts the cluster: `--federated`",
    ACCOUNT_PART: "works with the service account of an identity: `--subject identity`",
    DETACH: "detaches what `add` attached, if no other AzureIdentity needs it",
    KEEP: "leaves it attached for another AzureIdentity, which gets the record of it",
    DETACH_ALL: "detaches what MIC attached: `disable --detach`",
    LOST: "looks whether the namespace of a Helm release is gone, roles of which are there",
    FINALIZERS: "takes the finalizer of AAD Pod Identity's MIC off its records, where that is gone",
    REVOKE: "takes back the permission that `add` granted",
    OWN_NAMESPACE: "labels NMI's own namespace, if it exists before `enable`: `--namespace`",
    AS_NODE: "lets NMI ask for tokens as its node: Kubernetes 1.36, or `--node-tokens`",
    STARTUP_TAINT: "lets NMI take a taint off its node: `--startup-taint`",
    LRP: "makes or reads Cilium's policies: `--backend lrp`",
    NO_LRP: "takes back what an earlier `--backend lrp` made",
    MIC: "puts MIC into the cluster, or changes it, and NMI into standard mode: `--mic`, or where "
    "it is",
    MIC_EXCEPTION: "excepts MIC's pods, which sign in by their machine's identity: `--mic-arg` "
    "with `--use-managed-identity` or `--cloudconfig`, or `UseMSI` in the admin secret",
    MIC_SECRET: "looks whether the admin secret has MIC sign in by a managed identity: where no "
    "`--mic-arg` says how it signs in",
    MIC_WAIT: "says when MIC is ready: without `--no-wait`, where MIC is",
    NO_MIC: "takes MIC away: `enable --no-mic`, `disable`",
    ARCHIVED_MIC: "lets the exception of AAD Pod Identity's MIC count: where that runs",
    MIC_THERE: "looks at MIC, where it is",
    MIC_ROLES: "asks Azure for the roles of MIC, where it is: `check --azure`",
    PROBES: "asks each NMI about its node: `--probes`",
    ISSUER: "reads the issuer of the cluster's tokens: where identities are federated",
    BUNDLE: "writes an archive for a ticket: `--bundle`",
    NO_MIC_THERE: "looks for records that nobody keeps, where no MIC is",
    HOST: "pauses the machine of a node: `--host NODE`",
    APPLY: "grants what is missing: `migrate apply`",
    ROLLBACK: "takes back what it granted: `migrate rollback`",
    ADOPT: "writes MIC's ledgers by the archived MIC's records: `migrate adopt`",
    AUTOMATIC: "keeps its record in NMI's namespace: `--profile aks-automatic`",
    EXCEPT: "`exception add`",
    CHANGE: "`exception update`",
    EXCEPTED: "`exception list`",
    NO_EXCEPTION: "`exception delete`",
    OLDER: "has grants of earlier versions end with their namespaces",
    TAKE_BACK: "takes back what it made, where it fails",
    GRANTS: "lists who may use which identity: `--grants`",
    FIRST_GRANTS: "grants the identities that are bound already: at the first `enable`",
    EXTENSIONS: "makes the exceptions of AKS's extensions, if their namespaces exist",
    OLD: "deletes NMI of version 0.1 before the new one starts",
    NO_TAINT: "takes back the rights of an earlier `--startup-taint`",
    NO_POLICIES: "takes admission policies back, with `--no-admission-policies`",
    WAIT: "says when NMI is ready on each node, or why it is not: without `--no-wait`",
    PURGE: "deletes the custom resources: `--purge`",
    AZURE: "asks Azure about machines, and `check` about federated credentials: `--azure`",
    SECRETS: "reads the secrets of identities of types 1 and 2",
}
"""The parts of the commands' work, and when they do them."""
