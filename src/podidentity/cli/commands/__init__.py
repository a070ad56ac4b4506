"""The command lines of `podidentity`: options, help, and what completes them.

A person waits for `--help` and for completion, so a module here loads click and what checks the
values, and nothing that speaks with a server (`tests/cli/test_startup.py`). What a command does is
in the module of its name beside this package, which is imported when it runs.
"""
