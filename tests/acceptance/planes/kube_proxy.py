"""Rules of kube-proxy's shape, in both of its modes, written by the programs that it uses.

It hangs its chains where kube-proxy does, at the priorities that it has, with a chain for each
service and each endpoint, marks and masquerades as it does, and sets `route_localnet`. Beside it
stands a masquerade for all that leaves the cluster, as AKS's ip-masq-agent makes it.

Sources: kubernetes/kubernetes, pkg/proxy/iptables/proxier_test.go (TestOverallIPTablesRules) and
pkg/proxy/nftables/proxier_test.go (baseRules, TestOverallNFTablesRules); `route_localnet`:
pkg/proxy/iptables/proxier.go. The modes on AKS: https://learn.microsoft.com/azure/aks/configure-kube-proxy
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

PODS = "10.244.0.0/16"
SERVICES = "10.0.0.0/16"

LOCALNET = "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet"


@dataclass(frozen=True, slots=True)
class Service:
    """A service of one TCP port."""

    name: str
    address: str
    port: int
    endpoints: Sequence[str]
    """Each `ADDRESS:PORT`."""

    @property
    def digest(self) -> str:
        return _digest(self.name)


def crowd(count: int, endpoint: str) -> list[Service]:
    """Return services that nobody asks: what makes a set of rules as large as a cluster's is."""
    return [
        Service(f"crowd/service-{number}", f"10.0.9.{number + 1}", 80, [endpoint] * 2)
        for number in range(count)
    ]


# ---- iptables

IPTABLES_JUMPS: Mapping[str, Sequence[str]] = {
    "filter": (
        "INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL",
        "INPUT -j KUBE-NODEPORTS",
        "INPUT -j KUBE-FIREWALL",
        "FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL",
        "FORWARD -j KUBE-FORWARD",
        "FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES",
        "OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES",
    ),
    "nat": (
        "PREROUTING -j KUBE-SERVICES",
        "OUTPUT -j KUBE-SERVICES",
        "POSTROUTING -j IP-MASQ-AGENT",
        "POSTROUTING -j KUBE-POSTROUTING",
    ),
}
"""In the order in which each is put first."""


def iptables_jumps() -> str:
    """Return the shell script that leads from the kernel's chains to kube-proxy's."""
    return "\n".join(
        f"iptables-nft -w -t {table} -I {rule.replace(' ', ' 1 ', 1)}"
        for table, rules in IPTABLES_JUMPS.items()
        for rule in rules
    )


def iptables_restore(services: Sequence[Service]) -> str:
    """Return what `iptables-restore --noflush` is given at each change of a service."""
    return "\n".join([*_filter(), *_nat(services), ""])


def _filter() -> Iterator[str]:
    yield "*filter"
    for chain in ("SERVICES", "NODEPORTS", "FORWARD", "FIREWALL", "PROXY-FIREWALL"):
        yield f":KUBE-{chain} - [0:0]"
    yield (
        "-A KUBE-FIREWALL -d 127.0.0.0/8 ! -s 127.0.0.0/8"
        " -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
    )
    yield "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP"
    yield "-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT"
    yield "-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    yield "COMMIT"


def _nat(services: Sequence[Service]) -> Iterator[str]:
    yield "*nat"
    for chain in ("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"):
        yield f":{chain} - [0:0]"
    yield ":IP-MASQ-AGENT - [0:0]"
    yield f"-A IP-MASQ-AGENT -d {PODS} -j RETURN"
    yield f"-A IP-MASQ-AGENT -s {PODS} -m addrtype ! --dst-type LOCAL -j MASQUERADE"
    yield "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000"
    yield "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN"
    yield "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000"
    yield "-A KUBE-POSTROUTING -j MASQUERADE --random-fully"
    for service in services:
        yield from _service_chains(service)
    yield "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
    yield "COMMIT"


def _service_chains(service: Service) -> Iterator[str]:
    chain, to = f"KUBE-SVC-{service.digest}", f"-d {service.address}/32 -p tcp -m tcp"
    at = f"{to} --dport {service.port}"
    yield f":{chain} - [0:0]"
    yield f"-A KUBE-SERVICES {at} -j {chain}"
    yield f"-A {chain} ! -s {PODS} {at} -j KUBE-MARK-MASQ"
    for number, endpoint in enumerate(service.endpoints):
        end = f"KUBE-SEP-{_digest(f'{service.name}{number}')}"
        left = len(service.endpoints) - number
        chance = f" -m statistic --mode random --probability {1 / left:.10f}" if left > 1 else ""
        yield f":{end} - [0:0]"
        yield f"-A {chain}{chance} -j {end}"
        yield f"-A {end} -s {endpoint.partition(':')[0]}/32 -j KUBE-MARK-MASQ"
        yield f"-A {end} -p tcp -m tcp -j DNAT --to-destination {endpoint}"


IPTABLES_GONE = (
    "for table in filter nat; do iptables-nft -t $table -F; iptables-nft -t $table -X; done"
)


# ---- nftables

_TABLE = "ip kube-proxy"
_BY_PORT = "ipv4_addr . inet_proto . inet_service : verdict"
_MAPS = {
    "firewall-ips": _BY_PORT,
    "no-endpoint-services": _BY_PORT,
    "no-endpoint-nodeports": "inet_proto . inet_service : verdict",
    "service-ips": _BY_PORT,
    "service-nodeports": "inet_proto . inet_service : verdict",
}
_BASE = {
    "filter-prerouting-pre-dnat": ("filter", "prerouting", -110),
    "filter-output-pre-dnat": ("filter", "output", -110),
    "filter-input": ("filter", "input", 0),
    "filter-forward": ("filter", "forward", 0),
    "filter-output": ("filter", "output", 0),
    "nat-prerouting": ("nat", "prerouting", -100),
    "nat-output": ("nat", "output", -100),
    "nat-postrouting": ("nat", "postrouting", 100),
}
_CHAINS = (
    "services",
    "masquerading",
    "mark-for-masquerade",
    "reject-chain",
    "firewall-check",
    "cluster-ips-check",
    "service-endpoints-check",
    "nodeport-endpoints-check",
)
_RULES = (
    "cluster-ips-check ip daddr @cluster-ips reject",
    f"cluster-ips-check ip daddr {{ {SERVICES} }} drop",
    "firewall-check ip daddr . meta l4proto . th dport vmap @firewall-ips",
    "service-endpoints-check ip daddr . meta l4proto . th dport vmap @no-endpoint-services",
    "nodeport-endpoints-check ip daddr @nodeport-ips meta l4proto . th dport"
    " vmap @no-endpoint-nodeports",
    "reject-chain reject",
    "mark-for-masquerade mark set mark or 0x4000",
    "masquerading mark and 0x4000 == 0 return",
    "masquerading mark set mark xor 0x4000",
    "masquerading masquerade fully-random",
    "services ip daddr . meta l4proto . th dport vmap @service-ips",
    "services ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports",
    "filter-prerouting-pre-dnat ct state new jump firewall-check",
    "filter-output-pre-dnat ct state new jump firewall-check",
    "filter-input ct state new jump nodeport-endpoints-check",
    "filter-input ct state new jump service-endpoints-check",
    "filter-forward ct state new jump service-endpoints-check",
    "filter-forward ct state new jump cluster-ips-check",
    "filter-output ct state new jump service-endpoints-check",
    "filter-output ct state new jump cluster-ips-check",
    "nat-prerouting jump services",
    "nat-output jump services",
    "nat-postrouting jump masquerading",
    f"nat-postrouting ip saddr {PODS} ip daddr != {PODS} fib daddr type != local masquerade",
)


def nftables_transaction(services: Sequence[Service], node: str) -> str:
    """Return what `nft -f` is given when kube-proxy begins: all of it, in place of what there was.

    `node`: the address at which it opens ports of the node.
    """
    return "\n".join([*_nftables(services, node), ""])


def _nftables(services: Sequence[Service], node: str) -> Iterator[str]:
    yield f"add table {_TABLE}"
    yield f"delete table {_TABLE}"
    yield f"add table {_TABLE}"
    for name in ("cluster-ips", "nodeport-ips"):
        yield f"add set {_TABLE} {name} {{ type ipv4_addr; }}"
    for name, kind in _MAPS.items():
        yield f"add map {_TABLE} {name} {{ type {kind}; }}"
    for name, (kind, hook, priority) in _BASE.items():
        yield (f"add chain {_TABLE} {name} {{ type {kind} hook {hook} priority {priority}; }}")
    for name in _CHAINS:
        yield f"add chain {_TABLE} {name}"
    for rule in _RULES:
        yield f"add rule {_TABLE} {rule}"
    yield f"add element {_TABLE} nodeport-ips {{ {node} }}"
    for service in services:
        yield from _nftables_service(service)


def _nftables_service(service: Service) -> Iterator[str]:
    chain = f"service-{service.digest}-{service.name}/tcp/p{service.port}"
    yield f"add chain {_TABLE} {chain}"
    yield (
        f"add rule {_TABLE} {chain} ip daddr {service.address} ip saddr != {PODS}"
        " jump mark-for-masquerade"
    )
    ends = []
    for number, endpoint in enumerate(service.endpoints):
        address, _, port = endpoint.partition(":")
        end = f"endpoint-{_digest(f'{service.name}{number}')}-{service.name}/tcp__{address}/{port}"
        ends.append(f"{number} : goto {end}")
        yield f"add chain {_TABLE} {end}"
        yield f"add rule {_TABLE} {end} ip saddr {address} jump mark-for-masquerade"
        yield f"add rule {_TABLE} {end} meta l4proto tcp dnat to {endpoint}"
    picked = f"numgen random mod {len(ends)} vmap {{ {', '.join(ends)} }}"
    yield f"add rule {_TABLE} {chain} {picked}"
    yield f"add element {_TABLE} cluster-ips {{ {service.address} }}"
    yield (
        f"add element {_TABLE} service-ips"
        f" {{ {service.address} . tcp . {service.port} : goto {chain} }}"
    )


NFTABLES_GONE = f"nft delete table {_TABLE}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16].upper()
