"""The verbs over HTTP: from a request on a resource to its answer."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from podidentity_sandbox.cluster import (
    bodies,
    listing,
    patch,
    podstreams,
    presentation,
    selectors,
    status,
    watch,
)
from podidentity_sandbox.cluster.cluster import Cluster, clock
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.paths import RequestInfo, truth
from podidentity_sandbox.cluster.podstreams import PodStreams
from podidentity_sandbox.cluster.presentation import Presentation
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.resources import SUBRESOURCES, Write
from podidentity_sandbox.cluster.storage import Record, encode
from podidentity_sandbox.cluster.users import User

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """One authorised request on a resource type that is served."""

    request: web.Request
    info: RequestInfo
    kind: ResourceType
    user: User

    @property
    def query(self) -> Mapping[str, str]:
        """The query's parameters."""
        return self.request.query

    @property
    def presentation(self) -> Presentation:
        """How the client wants to see objects."""
        return presentation.choose(self.request.headers.get("Accept", ""), self.query, clock)

    @property
    def namespace(self) -> str:
        """The namespace of the objects asked for; "" where there is none, or all are meant."""
        return self.info.namespace if self.kind.namespaced else ""


COLLECTIVE = ("create", "list", "watch", "deletecollection")
"""Verbs on a collection; the others want a name."""
Answer = web.StreamResponse
Handler = Callable[[Call], Awaitable[Answer]]


def json_answer(raw: bytes, code: int = 200, warnings: list[str] | None = None) -> web.Response:
    """Return JSON, with what the client is to be warned of in Warning headers."""
    answer = web.Response(body=raw, status=code, content_type="application/json")
    for text in warnings or ():
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        answer.headers.add("Warning", f'299 - "{quoted}"')
    return answer


class Verbs:
    """Serves the requests on resources."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._streams = PodStreams(cluster.plan)
        self._handlers: dict[str, Handler] = {
            "get": self._get,
            "list": self._list,
            "watch": self._watch,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_all,
        }

    async def serve(self, request: web.Request, info: RequestInfo, user: User) -> Answer:
        """Answer an authorised request; raise the StatusError that refuses it."""
        kind = self._cluster.registry.find(info.group, info.version, info.resource)
        if kind is None:
            raise status.no_such_resource()
        call = Call(request, info, kind, user)
        action = self._cluster.action(info)
        if action is not None:
            body = bodies.question(await bodies.read(request))
            return json_answer(encode(action(user, info, body)), 201)
        if kind.key == "pods" and info.subresource in podstreams.SUBRESOURCES:
            return await self._streams.serve(request, info, self._record(call))
        self._check(call)
        return await self._handlers[info.verb](call)

    def _check(self, call: Call) -> None:
        """Refuse a verb that the type, the path or the subresource does not know."""
        info, kind = call.info, call.kind
        if info.subresource and info.subresource not in kind.subresources:
            raise status.no_such_resource()
        known = info.verb in kind.verbs and info.verb in self._handlers
        if info.subresource:
            known = info.subresource in SUBRESOURCES and info.verb in ("get", "update", "patch")
        homeless = kind.namespaced and not info.namespace and info.verb not in ("list", "watch")
        misplaced = (info.verb in COLLECTIVE) == bool(info.name)
        if not known or homeless or misplaced:
            raise status.method_not_supported(kind.plural, kind.group, info.verb)

    def _record(self, call: Call) -> Record:
        return self._cluster.resources.get(call.kind, call.namespace, call.info.name)

    def _selection(self, call: Call) -> selectors.Selection:
        info = call.info
        return selectors.select(call.kind, call.namespace, info.label_selector, info.field_selector)

    async def _get(self, call: Call) -> Answer:
        return json_answer(call.presentation.one(call.kind, self._record(call)))

    async def _list(self, call: Call) -> Answer:
        paging = listing.Paging(
            limit=bodies.number(call.query, "limit"),
            token=call.query.get("continue", ""),
            revision=call.query.get("resourceVersion", ""),
            match=call.query.get("resourceVersionMatch", ""),
        )
        page = listing.page(self._cluster.storage, call.kind, self._selection(call), paging)
        return json_answer(call.presentation.page(call.kind, page))

    async def _watch(self, call: Call) -> Answer:
        wanted = watch.WatchRequest(
            kind=call.kind,
            selection=self._selection(call),
            revision=call.query.get("resourceVersion", ""),
            bookmarks=truth(call.query.get("allowWatchBookmarks")),
            initial_events=truth(call.query.get("sendInitialEvents")),
            seconds=bodies.number(call.query, "timeoutSeconds", watch.DEFAULT_SECONDS),
            shown=call.presentation.events(call.kind),
        )
        watch.check(self._cluster.storage, wanted)
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(call.request)
        try:
            async for lines in watch.stream(self._cluster.storage, wanted):
                if lines:
                    await answer.write(lines)
            await answer.write_eof()
        except ConnectionError:
            log.debug("a watch of %s ended by its client", call.kind.key)
        return answer

    async def _create(self, call: Call) -> Answer:
        body = await bodies.read(call.request)
        write = bodies.write_options(call.query)
        record = self._cluster.resources.create(call.kind, call.namespace, body, write)
        shown = call.presentation.one(call.kind, record)
        return json_answer(shown, 201, write.warnings)

    async def _update(self, call: Call) -> Answer:
        body = await bodies.read(call.request)
        return self._replace(call, self._record(call), body)

    async def _patch(self, call: Call) -> Answer:
        body = await bodies.read_patch(call.request)
        record = self._record(call)
        return self._replace(
            call, record, patch.apply(call.request.content_type, record.thaw(), body)
        )

    def _replace(self, call: Call, record: Record, body: object) -> Answer:
        write: Write = bodies.write_options(call.query)
        changed = self._cluster.resources.update(
            call.kind, record, body, write, subresource=call.info.subresource
        )
        return json_answer(call.presentation.one(call.kind, changed), 200, write.warnings)

    async def _delete(self, call: Call) -> Answer:
        deletion = await bodies.deletion(call.request)
        record, gone = self._cluster.resources.delete(call.kind, self._record(call), deletion)
        if not gone:
            return json_answer(call.presentation.one(call.kind, record))
        kind = call.kind
        done: Obj = status.success(record.name, kind.group, kind.plural, record.uid)
        return json_answer(encode(done))

    async def _delete_all(self, call: Call) -> Answer:
        deletion = await bodies.deletion(call.request)
        storage, kind = self._cluster.storage, call.kind
        page = listing.page(storage, kind, self._selection(call), listing.Paging())
        deleted = [self._cluster.resources.delete(kind, r, deletion)[0] for r in page.records]
        return json_answer(listing.Page(records=deleted, revision=storage.revision).raw(kind))
