"""Runs sentences about the Kubernetes project's client for Python against a sandbox.

Run with its KUBECONFIG, by the environment that has the client (scripts/setup-sdks). Reads custom
resource definitions from its input; prints, as JSON, each sentence's traceback, "" for none.
"""

import json
import signal
import sys
import traceback

import beyond
import objects
from hands import CORE
from kubernetes import config

LIMIT = 120
"""Seconds for a sentence; none takes five."""


def outcome_of(sentence, ns):
    """Run a function in a namespace of its own; return what went wrong."""
    signal.alarm(LIMIT)
    try:
        CORE().create_namespace({"metadata": {"name": ns}})
        sentence(ns)
    except Exception:  # noqa: BLE001 - whatever it is, the test shows it
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    return ""


def late(*_):
    """Interrupt a sentence, so that its traceback says where it hangs."""
    raise TimeoutError(f"not done after {LIMIT} s")


signal.signal(signal.SIGALRM, late)
config.load_kube_config()
SENTENCES = {**vars(objects), **vars(beyond)}
found = {name: outcome_of(SENTENCES[name], f"n{n}") for n, name in enumerate(sys.argv[1:])}
sys.stdout.write(json.dumps(found))
