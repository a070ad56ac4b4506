"""A client of CRI: requests and answers as plain values, by the service's own description.

No code is generated: the description (`cri.pb`, made by scripts/setup-runtime of the published
api.proto) says which messages a call takes and returns, and protobuf's JSON mapping does the rest.
https://github.com/kubernetes/cri-api/blob/master/pkg/apis/runtime/v1/api.proto
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.json_format import MessageToDict, ParseDict

Message = dict[str, Any]
"""Fields by their names in api.proto; 64-bit numbers and bytes are text, as in protobuf's JSON."""

_SERVICE = "runtime.v1.RuntimeService"
_SECONDS = 60.0
_PAUSE = 0.1


class CriRefusal(Exception):
    """The container runtime said no; the text is its own. `code` is gRPC's, such as NOT_FOUND."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Cri:
    """The container runtime of this node."""

    def __init__(self, socket: Path, description: Path) -> None:
        """`description` is the file of descriptors of api.proto."""
        files = descriptor_pb2.FileDescriptorSet.FromString(description.read_bytes())
        pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            pool.Add(file)
        self._methods = {m.name: m for m in pool.FindServiceByName(_SERVICE).methods}
        self._channel = grpc.aio.insecure_channel(
            f"unix://{socket}", options=[("grpc.max_reconnect_backoff_ms", 500)]
        )

    async def call(
        self, method: str, request: Mapping[str, Any] | None = None, *, seconds: float = _SECONDS
    ) -> Message:
        """Call a method of RuntimeService; raise CriRefusal.

        While the runtime is away it is waited for, for `seconds`.
        """
        known = self._methods[method]
        taken = message_factory.GetMessageClass(known.input_type)
        given = message_factory.GetMessageClass(known.output_type)
        ask = self._channel.unary_unary(
            f"/{_SERVICE}/{method}",
            request_serializer=taken.SerializeToString,
            response_deserializer=given.FromString,
        )
        message = ParseDict(request or {}, taken())
        end = time.monotonic() + seconds
        while True:
            try:
                answer = await ask(message, timeout=end - time.monotonic(), wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                away = error.code() is grpc.StatusCode.UNAVAILABLE
                if not away or time.monotonic() + _PAUSE > end:
                    raise CriRefusal(error.code().name, error.details() or "") from error
                await asyncio.sleep(_PAUSE)
            else:
                said: Message = MessageToDict(
                    answer,
                    preserving_proto_field_name=True,
                    always_print_fields_with_no_presence=True,
                )
                return said

    async def close(self) -> None:
        """Hang up."""
        await self._channel.close()
