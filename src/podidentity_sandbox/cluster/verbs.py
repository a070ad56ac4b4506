"""The verbs over HTTP: from a request on a resource to its answer."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from aiohttp import web

from podidentity_sandbox.cluster import (
    Json,
    Obj,
    bodies,
    list_watch,
    podstreams,
    presentation,
    selectors,
    status,
)
from podidentity_sandbox.cluster.authentication import User
from podidentity_sandbox.cluster.cluster import Cluster, clock
from podidentity_sandbox.cluster.escalation import Escalation
from podidentity_sandbox.cluster.objects import Write
from podidentity_sandbox.cluster.patch import patches
from podidentity_sandbox.cluster.paths import RequestInfo, truth
from podidentity_sandbox.cluster.podstreams import PodStreams
from podidentity_sandbox.cluster.presentation import Presentation
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.resources import SUBRESOURCES
from podidentity_sandbox.cluster.storage import Record, encode

# ---- One request on a resource, authorized, and the answers to it

Answer = web.StreamResponse


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """One authorised request on a resource type that is served."""

    request: web.Request
    info: RequestInfo
    kind: ResourceType
    user: User

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query

    @property
    def presentation(self) -> Presentation:
        accept = self.request.headers.get("Accept", "")
        return presentation.choose(self.kind, accept, self.query, clock)

    @property
    def namespace(self) -> str:
        """The namespace of the objects asked for; "" where there is none, or all are meant."""
        return self.info.namespace if self.kind.namespaced else ""

    @property
    def selection(self) -> selectors.Selection:
        """The objects asked for; raises 400 for selectors that cannot be read."""
        info = self.info
        return selectors.select(self.kind, self.namespace, info.label_selector, info.field_selector)


def json_answer(raw: bytes, code: int = 200, warnings: Sequence[str] = ()) -> web.Response:
    """Return JSON, with the warnings for the client in Warning headers.

    One with control characters, such as the end of a line, is not said.
    """
    answer = web.Response(body=raw, status=code, content_type="application/json")
    for text in warnings:
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        if text.isprintable():
            answer.headers.add("Warning", f'299 - "{quoted}"')
    return answer


# ---- All verbs

log = logging.getLogger(__name__)

LEFT_OUT = ("attach", "ephemeralcontainers", "eviction", "portforward", "scale")
"""Subresources that a real API server has."""
COLLECTIVE = ("create", "list", "watch", "deletecollection")
"""Verbs on a collection; the others want a name."""
Handler = Callable[[ResourceRequest], Awaitable[Answer]]


@contextmanager
def fitting(kind: str) -> Iterator[None]:
    """Refuse a body in which a field is of another type than its own, wherever that shows: 400."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        log.exception("a body is no %s", kind)
        why = f"a field is of the wrong type, or missing: {error}"
        raise status.undecodable(kind, "v1", why) from error


class Verbs:
    """Serves the requests on resources."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._resources = cluster.resources
        self._escalation = Escalation(cluster.storage, cluster.authorizer)
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
        call = ResourceRequest(request, info, kind, user)
        action = self._cluster.action(info)
        if action is not None:
            body = bodies.question(action.kind, await bodies.read(request))
            with fitting(action.kind):
                return json_answer(encode(action.answer(user, info, body)), 201)
        if kind.key == "pods" and info.subresource in podstreams.VERBS:
            return await self._streams.serve(request, info, self._record(call))
        self._check(call)
        if info.verb not in ("create", "update", "patch"):
            return await self._handlers[info.verb](call)
        with fitting(kind.kind):
            return await self._handlers[info.verb](call)

    def _check(self, call: ResourceRequest) -> None:
        """Refuse a verb that the type, the path or the subresource does not know."""
        info, kind = call.info, call.kind
        if info.subresource in LEFT_OUT:
            raise status.left_out(404, "NotFound", f"subresource {info.subresource}")
        if info.subresource and info.subresource not in kind.subresources:
            raise status.no_such_resource()
        known = info.verb in kind.verbs and info.verb in self._handlers
        if info.subresource:
            written = info.subresource in SUBRESOURCES
            known = written and info.verb in ("get", "update", "patch")
        homeless = kind.namespaced and not info.namespace and info.verb not in ("list", "watch")
        misplaced = (info.verb in COLLECTIVE) == bool(info.name)
        if not known or homeless or misplaced:
            raise status.method_not_supported(kind.plural, kind.group, info.verb)

    def _record(self, call: ResourceRequest) -> Record:
        name = call.info.name
        if call.info.subresource == "proxy":
            name = podstreams.name_of(name)
        return self._resources.get(call.kind, call.namespace, name)

    # Reading

    async def _get(self, call: ResourceRequest) -> Answer:
        return json_answer(call.presentation.one(self._record(call)))

    async def _list(self, call: ResourceRequest) -> Answer:
        paging = list_watch.Paging(
            limit=bodies.number(call.query, "limit"),
            token=call.query.get("continue", ""),
            revision=call.query.get("resourceVersion", ""),
            match=call.query.get("resourceVersionMatch", ""),
        )
        page = list_watch.page(self._cluster.storage, call.kind, call.selection, paging)
        return json_answer(call.presentation.page(page))

    async def _watch(self, call: ResourceRequest) -> Answer:
        asked = bodies.number(call.query, "timeoutSeconds", list_watch.DEFAULT_SECONDS)
        wanted = list_watch.WatchRequest(
            kind=call.kind,
            selection=call.selection,
            revision=call.query.get("resourceVersion", ""),
            bookmarks=truth(call.query.get("allowWatchBookmarks")),
            initial_events=truth(call.query.get("sendInitialEvents")),
            seconds=asked,
            shown=call.presentation.events(),
        )
        list_watch.check(self._cluster.storage, wanted)
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(call.request)
        try:
            async for lines in list_watch.stream(self._cluster.storage, wanted):
                if lines:
                    await answer.write(lines)
            await answer.write_eof()
        except ConnectionError:
            log.debug("a watch of %s ended by its client", call.kind.key)
        return answer

    # Writing

    async def _create(self, call: ResourceRequest) -> Answer:
        write, body = self._options(call), await bodies.read(call.request)
        record = self._resources.create(call.kind, call.namespace, body, write)
        return _answer(call, record, write, 201)

    async def _update(self, call: ResourceRequest) -> Answer:
        write, body = self._options(call), await bodies.read(call.request)
        return self._replace(call, self._record(call), body, write)

    async def _patch(self, call: ResourceRequest) -> Answer:
        content_type, raw = call.request.content_type, await bodies.raw(call.request)
        patch = patches.read(content_type, raw, call.kind)
        write = self._options(call)
        record = self._record(call)
        body = patches.patched(content_type, record.thaw(), patch)
        return self._replace(call, record, body, write)

    def _replace(self, call: ResourceRequest, record: Record, body: Json, write: Write) -> Answer:
        changed = self._resources.update(
            call.kind, record, body, write, subresource=call.info.subresource
        )
        return _answer(call, changed, write, 200)

    async def _delete(self, call: ResourceRequest) -> Answer:
        deletion = await bodies.read_delete_options(call.request)
        found = self._record(call)
        self._cluster.policies.check(call.user, call.info, None, found.object)
        record, gone = self._resources.delete(call.kind, found, deletion)
        if not gone:
            return json_answer(call.presentation.one(record))
        done: Obj = status.success(record.name, call.kind.group, call.kind.plural, record.uid)
        return json_answer(encode(done))

    async def _delete_all(self, call: ResourceRequest) -> Answer:
        deletion = await bodies.read_delete_options(call.request)
        storage, kind = self._cluster.storage, call.kind
        page = list_watch.page(storage, kind, call.selection, list_watch.Paging())
        for each in page.records:
            info = replace(call.info, name=each.name)
            self._cluster.policies.check(call.user, info, None, each.object)
        deleted = [self._resources.delete(kind, r, deletion)[0] for r in page.records]
        return json_answer(list_watch.Page(records=deleted, revision=storage.revision).raw(kind))

    def _options(self, call: ResourceRequest) -> Write:
        write = bodies.options_of_query(call.query)
        write.judge = partial(self._judge, call)
        return write

    def _judge(self, call: ResourceRequest, kind: ResourceType, new: Obj, old: Obj | None) -> None:
        self._escalation.check(call.user, call.info, kind, new, old)
        info = replace(call.info, name=call.info.name or new["metadata"].get("name", ""))
        self._cluster.policies.check(call.user, info, new, old)


def _answer(call: ResourceRequest, record: Record, write: Write, code: int) -> Answer:
    return json_answer(call.presentation.one(record), code, write.warnings)
