"""The verbs over HTTP that write: create, update, patch, apply, delete."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from podidentity_sandbox.cluster import bodies, deletions, listing, status
from podidentity_sandbox.cluster.calls import Answer, Call, json_answer
from podidentity_sandbox.cluster.cluster import Cluster
from podidentity_sandbox.cluster.decoding import Write
from podidentity_sandbox.cluster.escalation import Escalation
from podidentity_sandbox.cluster.jsontypes import Json, Obj
from podidentity_sandbox.cluster.patching import patches
from podidentity_sandbox.cluster.paths import truth
from podidentity_sandbox.cluster.storage import Record, encode
from podidentity_sandbox.cluster.users import refusal
from podidentity_sandbox.cluster.writeoptions import write_options


class Writes:
    """Serves the requests that change something."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._resources = cluster.resources
        self._escalation = Escalation(cluster.storage, cluster.authorizer)

    async def create(self, call: Call) -> Answer:
        """Store a new object."""
        body, write = await self._body(call, "CreateOptions")
        record = self._resources.create(call.kind, call.namespace, body, write)
        return _answer(call, record, write, 201)

    async def update(self, call: Call) -> Answer:
        """Replace an object, or what a subresource stands for."""
        body, write = await self._body(call, "UpdateOptions")
        return self._replace(call, self._record(call), body, write)

    async def patch(self, call: Call) -> Answer:
        """Change an object by a patch, or apply a configuration."""
        content_type = call.request.content_type
        patch = patches.read(content_type, await bodies.raw(call.request), call.kind)
        applies = content_type == patches.APPLY
        write = self._options(call, "PatchOptions", apply=applies)
        write.strict = list(patch.doubled)
        if applies:
            return self._apply(call, patch.document, write)
        record = self._record(call)
        body, shown = patches.patched(patch, call.kind, record.thaw())
        write.undecodable = lambda why: patches.undecodable(shown, why)
        return self._replace(call, record, body, write)

    def _replace(self, call: Call, record: Record, body: Json, write: Write) -> Answer:
        changed = self._resources.update(
            call.kind, record, body, write, subresource=call.info.subresource
        )
        return _answer(call, changed, write, 200)

    def _apply(self, call: Call, config: Obj, write: Write) -> Answer:
        if write.strict and write.validation == "Strict":
            text = "; ".join(write.strict)
            raise status.bad_request(f"error strict decoding YAML: error unmarshaling JSON: {text}")
        live = self._cluster.storage.get(call.kind.key, call.namespace, call.info.name)
        if live is None:
            self._may_create(call)
        record = self._resources.apply(
            call.kind,
            (call.namespace, call.info.name),
            config,
            write,
            subresource=call.info.subresource,
            force=truth(call.query.get("force")),
        )
        return _answer(call, record, write, 201 if live is None else 200)

    def _may_create(self, call: Call) -> None:
        """Refuse who may patch, but not create, what is not there."""
        info = replace(call.info, verb="create")
        decision = self._cluster.authorizer.decide(call.user, info)
        if not decision.allowed:
            cause = refusal(call.user, info, decision.reason)
            raise call.kind.error(status.forbidden, info.name, cause)

    async def delete(self, call: Call) -> Answer:
        """Delete an object, or begin to."""
        deletion = await deletions.read(call.request)
        record, gone = self._resources.delete(call.kind, self._record(call), deletion)
        if not gone:
            return json_answer(call.presentation.one(call.kind, record))
        kind = call.kind
        done: Obj = status.success(record.name, kind.group, kind.plural, record.uid)
        return json_answer(encode(done))

    async def delete_all(self, call: Call) -> Answer:
        """Delete all that a selection matches."""
        deletion = await deletions.read(call.request)
        storage, kind = self._cluster.storage, call.kind
        page = listing.page(storage, kind, call.selection, listing.Paging())
        deleted = [self._resources.delete(kind, r, deletion)[0] for r in page.records]
        return json_answer(listing.Page(records=deleted, revision=storage.revision).raw(kind))

    def _record(self, call: Call) -> Record:
        return self._resources.get(call.kind, call.namespace, call.info.name)

    async def _body(self, call: Call, options: str) -> tuple[Json, Write]:
        """Return the body of a create or update, and how the write is meant."""
        request = call.request
        write = self._options(call, options)
        body = await bodies.read(request)
        if write.validation != "Ignore":
            write.strict = bodies.doubled(bodies.content_type(request), await bodies.raw(request))
        return body, write

    def _options(self, call: Call, options: str, *, apply: bool = False) -> Write:
        agent = call.request.headers.get("User-Agent", "")
        write = write_options(call.query, agent, options, apply=apply)
        write.judge = partial(self._escalation.check, call.user, call.info)
        return write


def _answer(call: Call, record: Record, write: Write, code: int) -> Answer:
    return json_answer(call.presentation.one(call.kind, record), code, write.warnings)
