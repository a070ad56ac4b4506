"""The subresource `scale` of sets of pods: how many there are to be, and nothing else of them.

https://kubernetes.io/docs/reference/kubernetes-api/autoscaling-resources/scale-v1/
"""

from __future__ import annotations

from podidentity_sandbox.cluster import bodies, labelselectors, shapes, status
from podidentity_sandbox.cluster.calls import Answer, Call, json_answer
from podidentity_sandbox.cluster.jsontypes import Json, Obj
from podidentity_sandbox.cluster.patching import patches
from podidentity_sandbox.cluster.resources import Resources
from podidentity_sandbox.cluster.shapes import compiled
from podidentity_sandbox.cluster.storage import Record, encode
from podidentity_sandbox.cluster.writeoptions import write_options

GROUP = "autoscaling"
_SHAPE = compiled({"metadata": {"resourceVersion": str}, "spec": {"replicas": int}})


async def serve(call: Call, resources: Resources) -> Answer:
    """Show or change the number; raise 400, 405, 409 or 422."""
    record = resources.get(call.kind, call.namespace, call.info.name)
    if call.info.verb == "get":
        return _answer(record)
    if call.info.verb == "patch":
        raw = await bodies.raw(call.request)
        patch = patches.read(call.request.content_type, raw, call.kind)
        body, _ = patches.patched(patch, call.kind, scale_of(record))
    elif call.info.verb == "update":
        body = await bodies.read(call.request)
    else:
        raise status.method_not_supported(call.kind.plural, call.kind.group, call.info.verb)
    wanted, revision = _read(record, body)
    new = record.thaw()
    new["spec"]["replicas"] = wanted
    new["metadata"]["resourceVersion"] = revision
    if not revision:
        del new["metadata"]["resourceVersion"]
    agent = call.request.headers.get("User-Agent", "")
    write = write_options(call.query, agent, "UpdateOptions", apply=False)
    return _answer(resources.update(call.kind, record, new, write))


def scale_of(record: Record) -> Obj:
    """Return the Scale of a set."""
    head = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    spec = record.object["spec"]
    return {
        "kind": "Scale",
        "apiVersion": f"{GROUP}/v1",
        "metadata": {field: record.metadata[field] for field in head},
        "spec": {"replicas": spec["replicas"]},
        "status": {
            "replicas": record.object.get("status", {}).get("replicas", 0),
            "selector": labelselectors.text(spec["selector"]),
        },
    }


def _read(record: Record, body: Json) -> tuple[int, str]:
    """Return the number and the resource version that a Scale asks for."""
    clean = shapes.without_nulls(body)
    misfit = shapes.misfit(_SHAPE, clean)
    if misfit or not isinstance(clean, dict):
        why = misfit or "json: cannot unmarshal the body into a Go struct"
        raise status.bad_request(f'Scale in version "v1" cannot be handled as a Scale: {why}')
    wanted = clean.get("spec", {}).get("replicas", 0)
    if wanted < 0:
        detail = "must be greater than or equal to 0"
        fault = status.invalid("spec.replicas", wanted, detail)
        raise status.invalid_object("Scale", GROUP, record.name, [fault])
    return wanted, clean.get("metadata", {}).get("resourceVersion", "")


def _answer(record: Record) -> Answer:
    return json_answer(encode(scale_of(record)))
