"""The steps of the story in their order, with the commands exactly as they are shown and run.

Numbers are those of the published walk-through's steps, as docs/tutorials/first-token.md lists
them.
"""

from __future__ import annotations

from collections.abc import Callable

from podidentity_sandbox.demo import checks as check
from podidentity_sandbox.demo.prepare import GROUP, IDENTITY, OTHER_VAULT, SECRET, VAULT
from podidentity_sandbox.demo.story import Check, Step
from podidentity_sandbox.plan import IMDS_ADDRESS, Plan

# ---- Parts that several commands have

_TOKEN_URL = f"http://{IMDS_ADDRESS}/metadata/identity/oauth2/token?api-version=2018-02-01"
ASK = f"curl -s -m 15 '{_TOKEN_URL}&resource=https://vault.azure.net' -H Metadata:true"


def step(
    number: str,
    name: str,
    check: Check,
    *,
    in_pod: bool = False,
    opens_pod: bool = False,
    seconds: float = 120,
) -> Callable[[str], Step]:
    """Return what makes a step of its command."""

    def with_command(command: str) -> Step:
        return Step(
            number=number,
            name=name,
            command=command.strip("\n"),
            check=check,
            in_pod=in_pod,
            opens_pod=opens_pod,
            seconds=seconds,
        )

    return with_command


def pod(name: str, namespace: str, *, label: str = "", node: str = "", command: str = "") -> str:
    """Return the command that makes a pod and waits for it."""
    lines = [
        "podidentity sandbox apply --wait -f - <<EOF",
        "apiVersion: v1",
        "kind: Pod",
        f"metadata: {{name: {name}, namespace: {namespace}"
        + (f", labels: {{aadpodidbinding: {label}}}" if label else "")
        + "}",
        "spec:",
        *([f"  nodeName: {node}"] if node else []),
        "  containers:",
        "  - name: main",
        "    image: andriktr/utils:1.0.4",
        *([f"    command: {command}"] if command else []),
        "    resources:",
        "      requests: {cpu: 100m, memory: 100Mi}",
        "      limits: {cpu: 200m, memory: 300Mi}",
        "EOF",
    ]
    return "\n".join(lines)


# ---- Chapters

NAMESPACE = "identity-demo"
POD_IDENTITY = "aad-pod-identity-demo"
_SECRET_URL = f"https://{VAULT}.vault.azure.net/secrets/{SECRET}?api-version=2016-10-01"


def before(plan: Plan) -> list[Step]:
    """Before pod identity: the hole that it closes.

    `podidentity sandbox` acts as the administrator of the cluster and the owner of the
    subscription: it makes groups, vaults, namespaces and pods.
    """
    node = plan.nodes[0].name
    return [
        step("", "Where the sandbox is", check.succeeded)(
            'eval "$(podidentity sandbox env)"; echo $KUBECONFIG'
        ),
        step("4, 6", "A managed identity, and a vault that it may read", check.prepared)(
            'eval "$(podidentity sandbox prepare)"; echo $IDENTITY_CLIENT_ID $IDENTITY_ID'
        ),
        step("10", "A pod that is entitled to nothing", check.created)(
            pod("stranger", "default", node=node)
        ),
        step("18", "Before: any pod takes the node's own identity", check.leaks)(
            f"podidentity sandbox exec stranger -- {ASK}"
        ),
    ]


def rights(plan: Plan) -> list[Step]:
    """Give a deployer what podidentity needs; it runs all commands of podidentity from here on.

    A command of `podidentity` that is not one of `podidentity sandbox` is the deployer's.
    """
    nodes = f"/subscriptions/{plan.subscription_id}/resourceGroups/{plan.node_group}"
    return [
        step(
            "rights", "From here on the shell is a deployer's, who has no rights", check.succeeded
        )('eval "$(podidentity sandbox principal deployer)"; echo $OBJECT_ID'),
        step("rights", "Without rights it enables nothing", check.names_a_right)(
            "podidentity enable"
        ),
        step("rights", "The administrator gives it the roles of the commands", check.created)(
            "podidentity rights --user $OBJECT_ID -o yaml | podidentity sandbox apply -f -"
        ),
        step("rights", "The owner gives it two roles in Azure", check.roles_assigned)(
            "podidentity rights --azure identity --scope $IDENTITY_ID"
            " | podidentity sandbox role --assignee $OBJECT_ID -f -\n"
            f"podidentity rights --azure machines --scope {nodes}"
            " | podidentity sandbox role --assignee $OBJECT_ID -f -"
        ),
    ]


def enable() -> list[Step]:
    """Switch pod identity on."""
    return [
        step("2", "Enable pod identity", check.succeeded, seconds=180)("podidentity enable"),
        step("3", "One NMI pod runs on each node", check.one_nmi_a_node)(
            "podidentity sandbox get pods -n kube-system | grep -i nmi"
        ),
        step("19", "A pod without the label: refused, at once", check.identity_not_found)(
            f"podidentity sandbox exec stranger -- {ASK} -w '\\n%{{http_code}} %{{time_total}}\\n'"
        ),
    ]


def bind(plan: Plan) -> list[Step]:
    """Give a namespace an identity, and a pod of it a label."""
    identity = (
        f"/subscriptions/{plan.subscription_id}/resourceGroups/{GROUP}"
        f"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{IDENTITY}"
    )
    return [
        step("5", "Sign in to ARM", check.succeeded)(
            "ARM_TOKEN=$(curl -s https://login.microsoftonline.com/$AZURE_TENANT_ID/oauth2/v2.0/token"
            " -d grant_type=client_credentials -d client_id=$AZURE_CLIENT_ID"
            " --data-urlencode client_secret=$AZURE_CLIENT_SECRET"
            " -d scope=https://management.azure.com/.default | jq -r .access_token)"
        ),
        step("5", "Look the managed identity up", check.ids_of_the_identity)(
            f"IDENTITY=$(curl -s 'https://management.azure.com{identity}?api-version=2023-01-31'"
            ' -H "Authorization: Bearer $ARM_TOKEN")\n'
            "IDENTITY_ID=$(jq -r .id <<<$IDENTITY)\n"
            "IDENTITY_CLIENT_ID=$(jq -r .properties.clientId <<<$IDENTITY)\n"
            "echo $IDENTITY_ID $IDENTITY_CLIENT_ID"
        ),
        step("8", "The namespace", check.created)(
            "podidentity sandbox apply -f - <<EOF\n"
            "apiVersion: v1\nkind: Namespace\nmetadata:\n"
            f"  name: {NAMESPACE}\n"
            f"  labels: {{name: {NAMESPACE}, environment: demo, itSystemCode: demo,"
            " responsible: demo}\nEOF"
        ),
        step("9", "Give the namespace the identity", check.identity_added, seconds=180)(
            f"podidentity add --namespace {NAMESPACE} --name {POD_IDENTITY}"
            " --identity-resource-id $IDENTITY_ID"
        ),
        step("10", "The pod, with the label and nothing else", check.created)(
            pod("identity-demo", NAMESPACE, label=POD_IDENTITY, node=plan.nodes[0].name)
        ),
    ]


def inside() -> list[Step]:
    """In the pod: a token, and with it the secret."""
    return [
        step("11", "A shell inside the pod's network", check.opens_shell, opens_pod=True)(
            f"podidentity sandbox exec -n {NAMESPACE} -i identity-demo -- sh"
        ),
        step(
            "12", "Ask the metadata service for a token", check.token_of_the_identity, in_pod=True
        )(f'export token=$({ASK} | jq -r ".access_token")'),
        step("13", "Read the secret with it", check.secret, in_pod=True)(
            f'curl -s \'{_SECRET_URL}\' -H "Authorization: Bearer ${{token}}" | jq -r ".value"'
        ),
        step("21", "A vault that grants nothing", check.vault_refuses, in_pod=True)(
            f"curl -s '{_SECRET_URL.replace(VAULT, OTHER_VAULT)}'"
            " -H \"Authorization: Bearer ${token}\" -w '\\n%{http_code}\\n'"
        ),
        step("14", "What NMI wrote about it", check.log_names_everything)(
            "for pod in $(podidentity sandbox get pods -n kube-system -o name | grep -i nmi); do\n"
            '  podidentity sandbox logs -n kube-system "$pod"\ndone'
        ),
    ]


def mounted(plan: Plan) -> list[Step]:
    """The secret as a file: the CSI driver reads the vault with the pod's identity."""
    return [
        step("17", "The driver and its Azure provider", check.succeeded, seconds=180)(
            "podidentity sandbox csi"
        ),
        step("17", "What to read from which vault, and a pod that mounts it", check.created)(
            "podidentity sandbox apply --wait -f - <<EOF\n"
            "apiVersion: secrets-store.csi.x-k8s.io/v1\nkind: SecretProviderClass\n"
            f"metadata: {{name: demo, namespace: {NAMESPACE}}}\n"
            "spec:\n  provider: azure\n  parameters:\n"
            f'    usePodIdentity: "true"\n    keyvaultName: {VAULT}\n'
            "    tenantID: $AZURE_TENANT_ID\n    objects: |\n      array:\n      - |\n"
            f"        objectName: {SECRET}\n        objectType: secret\n"
            "---\n"
            "apiVersion: v1\nkind: Pod\n"
            f"metadata: {{name: with-secret, namespace: {NAMESPACE},"
            f" labels: {{aadpodidbinding: {POD_IDENTITY}}}}}\n"
            f"spec:\n  nodeName: {plan.nodes[0].name}\n"
            "  containers:\n  - name: main\n    image: andriktr/utils:1.0.4\n"
            "    volumeMounts: [{name: store, mountPath: /mnt/secrets-store, readOnly: true}]\n"
            "  volumes:\n  - name: store\n    csi:\n"
            "      driver: secrets-store.csi.k8s.io\n      readOnly: true\n"
            "      volumeAttributes: {secretProviderClass: demo}\nEOF"
        ),
        step("17", "The secret is a file in the pod", check.secret)(
            f"podidentity sandbox exec -n {NAMESPACE} with-secret --"
            f" cat /mnt/secrets-store/{SECRET}"
        ),
    ]


def closed(plan: Plan) -> list[Step]:
    """Refused pods, and how to learn the reason."""
    node = plan.nodes[0].name
    return [
        step("20", "The same label in another namespace", check.created)(
            pod("elsewhere", "default", label=POD_IDENTITY, node=node)
        ),
        step("20", "… is refused", check.refused_elsewhere)(
            f"podidentity sandbox exec elsewhere -- {ASK} -w '\\n%{{http_code}}\\n'"
        ),
        step("20", "… and told why", check.explained)("podidentity explain pod default/elsewhere"),
        step("forged", "A pod that may send raw packets, as any pod may", check.created)(
            pod("mallory", "default", node=node)
        ),
        *[
            step("forged", f"It speaks with its neighbour's address, by {trick}", check.forged)(
                "podidentity sandbox exec mallory -- python3 -m podidentity_sandbox.demo.forger"
                f" --seconds 5 --trick {trick} --claim $(podidentity sandbox get pod identity-demo"
                f" -n {NAMESPACE} -o json | jq -r .status.podIP)"
            )
            for trick in ("arp", "mac")
        ],
    ]


def tenant(plan: Plan) -> list[Step]:
    """A tenant with a namespace of his own asks for what is his neighbour's."""
    return [
        step("tenant", "In his namespace he names his neighbour's client id", check.created)(
            "podidentity sandbox apply --wait -f - <<EOF\n"
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: tenant}\n---\n"
            "apiVersion: aadpodidentity.k8s.io/v1\nkind: AzureIdentity\n"
            "metadata: {name: mine, namespace: tenant}\n"
            "spec: {type: 0, clientID: $IDENTITY_CLIENT_ID, resourceID: $IDENTITY_ID}\n---\n"
            "apiVersion: aadpodidentity.k8s.io/v1\nkind: AzureIdentityBinding\n"
            "metadata: {name: mine, namespace: tenant}\n"
            "spec: {azureIdentity: mine, selector: mine}\nEOF"
        ),
        step("tenant", "… and labels a pod with it", check.created)(
            pod("hopeful", "tenant", label="mine", node=plan.nodes[0].name)
        ),
        step("tenant", "An AzureIdentity is a request, not a permission", check.not_permitted)(
            f"podidentity sandbox exec -n tenant hopeful -- {ASK} -w '\\n%{{http_code}}\\n'"
        ),
        step("tenant", "Who may use which identity", check.only_one_is_permitted)(
            "podidentity list -o json"
        ),
    ]


def stopped() -> list[Step]:
    """NMI goes away, and comes back."""
    ask = f"{ASK} -w '%{{http_code}} from curl %{{exitcode}}'"
    return [
        step("22", "Stop NMI on all nodes", check.succeeded, seconds=180)("podidentity disable"),
        step("22", "No token from anybody: the rules stay", check.fails_closed, in_pod=True)(ask),
        step("22", "Start it again", check.succeeded, seconds=180)("podidentity enable"),
        step("22", "… and the pod has its token", check.token_again, in_pod=True)(
            f"{ASK} | jq -r .token_type"
        ),
    ]


def all_of(plan: Plan) -> list[tuple[str, list[Step]]]:
    """Return the whole story: chapters with their steps."""
    return [
        ("Before: the metadata service is open to every pod", before(plan)),
        ("A deployer gets the rights that podidentity needs, and no others", rights(plan)),
        ("Pod identity is enabled", enable()),
        ("A namespace is given an identity", bind(plan)),
        ("Inside the pod: a token, and the secret", inside()),
        ("The secret as a file", mounted(plan)),
        ("Who gets nothing, and why", closed(plan)),
        ("A tenant asks for what is his neighbour's", tenant(plan)),
        ("NMI goes away, and comes back", stopped()),
    ]
