"""The `podidentity` command.

`main` imports the options of a command (`commands`) only when it is called, and these what it does
only when it runs. The processes of NMI, which stay on every node, load none of it: `nmi` reads
their flags in a process that ends, `plans` makes of the settings what each is told, and `programs`
runs them. Read `main` and `output`, then a command.
"""
