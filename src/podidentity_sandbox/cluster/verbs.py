"""The verbs over HTTP: from a request on a resource to its answer."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from podidentity_sandbox.cluster import (
    bodies,
    listing,
    podstreams,
    scale,
    status,
    watch,
)
from podidentity_sandbox.cluster.calls import Answer, Call, json_answer
from podidentity_sandbox.cluster.cluster import Cluster
from podidentity_sandbox.cluster.paths import RequestInfo, truth
from podidentity_sandbox.cluster.podstreams import PodStreams
from podidentity_sandbox.cluster.resources import SUBRESOURCES
from podidentity_sandbox.cluster.storage import Record, encode
from podidentity_sandbox.cluster.users import User
from podidentity_sandbox.cluster.writes import Writes

log = logging.getLogger(__name__)


COLLECTIVE = ("create", "list", "watch", "deletecollection")
"""Verbs on a collection; the others want a name."""
Handler = Callable[[Call], Awaitable[Answer]]


class Verbs:
    """Serves the requests on resources."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._streams = PodStreams(cluster.plan)
        writes = Writes(cluster)
        self._handlers: dict[str, Handler] = {
            "get": self._get,
            "list": self._list,
            "watch": self._watch,
            "create": writes.create,
            "update": writes.update,
            "patch": writes.patch,
            "delete": writes.delete,
            "deletecollection": writes.delete_all,
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
        if info.subresource == "scale" and "scale" in kind.subresources:
            return await scale.serve(call, self._cluster.resources)
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

    async def _get(self, call: Call) -> Answer:
        return json_answer(call.presentation.one(call.kind, self._record(call)))

    async def _list(self, call: Call) -> Answer:
        paging = listing.Paging(
            limit=bodies.number(call.query, "limit"),
            token=call.query.get("continue", ""),
            revision=call.query.get("resourceVersion", ""),
            match=call.query.get("resourceVersionMatch", ""),
        )
        page = listing.page(self._cluster.storage, call.kind, call.selection, paging)
        return json_answer(call.presentation.page(call.kind, page))

    async def _watch(self, call: Call) -> Answer:
        wanted = watch.WatchRequest(
            kind=call.kind,
            selection=call.selection,
            revision=call.query.get("resourceVersion", ""),
            bookmarks=truth(call.query.get("allowWatchBookmarks")),
            initial_events=truth(call.query.get("sendInitialEvents")),
            match=call.query.get("resourceVersionMatch", ""),
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
