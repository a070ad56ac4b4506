"""Everything that needs privilege on a node: the rules, and the proof whose a connection is.

This package runs in a process of its own. It speaks to the kernel only: netlink and libnftables.

    interception  redirects pods' IMDS traffic to NMI, and repairs what others change
      rules       what is intercepted and where to, and table `ip podid`, as data
      nftables    libnftables, in process
      routing     the routing rules that close IMDS to pods, and the address on `lo`
      drift       notifications of the kernel about changed rules and addresses
    connecting    notices programs that lead connections elsewhere before there is a packet
    source_guard  binds each source address to its port, on bridges and on routed links
      source_bindings  decides which port may send with which addresses; pure
      source_rules     tables `bridge podid_source` and `ip podid_source`, as data
      links       the links of the node, and the network namespace at the other end of each
    attestation   finds the facts about a connection, which `core.attestation` judges
      podnets     the pods' network namespaces, and the addresses in each
      namespaces  the files of namespaces: watch a folder, open one, enter it
      addresses   the IPv4 addresses of a namespace
      sock_diag   looks one TCP socket up by both ends of its connection
      cgroups     finds the pod of a cgroup id
    netlink       encodes and decodes messages

Required capabilities: CAP_NET_ADMIN (rules, address, notifications about rules), CAP_SYS_ADMIN (to
enter the pods' network namespaces) and, for the proof by cgroup, CAP_DAC_READ_SEARCH (to find the
path of a cgroup id).
"""
