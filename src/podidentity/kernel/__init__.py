"""What needs privilege on a node: the rules that lead IMDS traffic here, and whose socket asks.

It runs in a process of its own, and speaks to the kernel only, through netlink and libnftables.

    interception  redirects pods' IMDS traffic to NMI, and repairs what others change
      rules       what is intercepted and where to, and table `ip podid`, as data
      nftables    libnftables, in process
      routing     the routing rules that close IMDS to pods, and the address on `lo`
      drift       the kernel's notices of changed rules and addresses
    source_guard  ties each source address to its port, on bridges and on routed links
      source_bindings  which port may send with which addresses, as a pure decision
      source_rules     tables `bridge podid_source` and `ip podid_source`, as data
      links       the links of the node, and which namespace each leads to
    attestation   states facts about connections, which `core.attestation` judges
      both_ends   whether two sockets are the two ends of one connection
      podnets     the pods' network namespaces, and who holds which address
      namespaces  their files: a folder watched, one opened, entered
      addresses   the IPv4 addresses of a namespace
      sock_diag   one TCP socket, by the two ends of its connection
      cgroups     from a cgroup id to its pod
    netlink       messages and attributes, as bytes

Capabilities needed: CAP_NET_ADMIN (rules, address, notices of rules), CAP_SYS_ADMIN (to enter the
pods' network namespaces) and, for proofs by cgroup, CAP_DAC_READ_SEARCH (from its id to its path).
"""
