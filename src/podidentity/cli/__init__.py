"""The `podidentity` command.

`main` finds a command's module only when the command is called for, since NMI starts through here
on every node and must not carry what people need. Read `main` and `failures`, then a command.
"""
