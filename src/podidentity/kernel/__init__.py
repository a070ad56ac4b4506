"""What needs privilege on a node: the rules that lead IMDS traffic here, and whose socket asks.

It stands behind two small ports of `core.ports` (Interception, Attestor), because a later version
runs it in a process of its own. It speaks to the kernel only, through netlink and libnftables.

    interception  installs, watches and repairs the rules
      rules       the rules, as data
      nftables    libnftables, in process
      drift       the kernel's notices of changed rules
      sysctl      route_localnet
    attestation   proves whose socket is at the other end of a connection
      verdicts    from evidence to verdict
      podnets     the pods' network namespaces, and who holds which address
      namespaces  entering one and coming back
      diag        questions about a socket and about addresses
      cgroups     from a cgroup id to its pod
    netlink       messages and attributes, as bytes

Capabilities needed: CAP_NET_ADMIN (rules, sysctl, notices of rules), CAP_SYS_ADMIN (to enter the
pods' network namespaces) and CAP_DAC_READ_SEARCH (to turn a cgroup id into its path).
"""
