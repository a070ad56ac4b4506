"""Which bytes of a blob are asked for.

https://learn.microsoft.com/rest/api/storageservices/specifying-the-range-header-for-blob-service-operations
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from podidentity_sandbox.azure.blob.errors import BlobError, invalid_header
from podidentity_sandbox.azure.messages import Request

_RANGE = re.compile(r"bytes=(?P<first>\d+)-(?P<last>\d*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The bytes from `first` to `last`, both included, of `size`."""

    first: int
    last: int
    size: int

    @property
    def content_range(self) -> str:
        """The header that says so."""
        return f"bytes {self.first}-{self.last}/{self.size}"

    def of(self, content: bytes) -> bytes:
        """Return these bytes."""
        return content[self.first : self.last + 1]


def part_of(request: Request, size: int) -> Part | None:
    """Return the part that is asked for, None for all; raise BlobError."""
    name = "x-ms-range" if "x-ms-range" in request.headers else "range"
    sent = request.headers.get(name)
    if sent is None:
        return None
    match = _RANGE.fullmatch(sent.strip())
    if match is None or (match["last"] and int(match["last"]) < int(match["first"])):
        raise invalid_header(name.title() if name == "range" else name, sent)
    first = int(match["first"])
    if first >= size:
        raise BlobError(
            416,
            "InvalidRange",
            "The range specified is invalid for the current size of the resource.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    last = min(int(match["last"] or size - 1), size - 1)
    return Part(first=first, last=last, size=size)
