"""What the sentences about the Kubernetes client share."""

import json
import sys

from kubernetes import client, watch
from kubernetes.client import ApiException

CRDS = json.load(sys.stdin)
GROUP = ("aadpodidentity.k8s.io", "v1")
CORE = client.CoreV1Api


def failure(call, *arguments, **options):
    """Return the error of a call."""
    try:
        call(*arguments, **options)
    except ApiException as error:
        return error
    raise AssertionError("it is not refused")


def refused(code, reason, call, *arguments, **options):
    """Return the Status with which a call is refused."""
    error = failure(call, *arguments, **options)
    told = json.loads(error.body)
    assert (error.status, told["code"], told["reason"]) == (code, code, reason), told
    return told


def pod(name, *command):
    spec = {"containers": [{"name": "main", "image": "any", "command": list(command) or None}]}
    return {"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0, **spec}}


def until(call, holds, **options):
    """Return the first object of a watch that is as `holds` says."""
    for event in watch.Watch().stream(call, timeout_seconds=100, **options):
        if event["type"] != "DELETED" and holds(event["object"]):
            return event["object"]
    raise AssertionError("it never came")


def running(ns, name, *command):
    """Start a pod and return when it is ready."""
    CORE().create_namespaced_pod(ns, pod(name, *command))

    def ready(found):
        return any(one.type == "Ready" and one.status == "True" for one in found.status.conditions)

    selector = f"metadata.name={name}"
    return until(CORE().list_namespaced_pod, ready, namespace=ns, field_selector=selector)


def established(crd):
    """Return whether a definition is served."""
    conditions = crd.status.conditions or []
    return any(one.type == "Established" and one.status == "True" for one in conditions)


def defined():
    """Make our definitions where they are missing."""
    api = client.ApiextensionsV1Api()
    there = {one.metadata.name for one in api.list_custom_resource_definition().items}
    for crd in CRDS:
        name = crd["metadata"]["name"]
        if name not in there:
            api.create_custom_resource_definition(crd)
        until(
            api.list_custom_resource_definition, established, field_selector=f"metadata.name={name}"
        )


def gone(call, **options):
    """Return when a list is empty."""
    listed = call(**options)
    if listed.items:
        version = listed.metadata.resource_version
        events = watch.Watch().stream(
            call, resource_version=version, timeout_seconds=100, **options
        )
        assert any(event["type"] == "DELETED" for event in events)
