"""The `podidentity` command.

`main` imports the module of a command only when the command runs, because NMI starts through it on
every node and must not load the libraries of the other commands. Read `main` and `output`, then a
command.
"""
