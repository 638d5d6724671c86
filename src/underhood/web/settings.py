"""Settings of the server: its address, its clients, and its limits."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from underhood.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Everything about a server but its models.

    Attributes:
        host, port: where it listens; port 0 takes a free one.
        api_key: what every request must bring; needed wherever others can reach the server.
        allow_hosts: further names under which the server may be addressed.
        allow_origins: web pages of other origins that may use it, e.g. ``https://example.org``.
        max_body: bytes of a request's body.
        max_prompts: texts in one request.
        max_choices: answers to one request, those of `best_of` that are not returned too.
        request_seconds: after which an answer ends as it is.
        retry_after: seconds that clients are told to wait when the queue is full.
        drain_seconds: how long answers may still be finished at shutdown.
        feedback: the file that keeps feedback; None keeps none.
        runs: folder whose runs the page lists.

    Raises:
        UserError: others can reach the server and there is no key, or a value is outside its range.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    max_body: int = 4 << 20
    max_prompts: int = 256
    max_choices: int = 64
    request_seconds: float = 600.0
    retry_after: int = 1
    drain_seconds: float = 30.0
    feedback: Path | None = None
    runs: Path | None = None

    def __post_init__(self):
        if not 0 <= self.port <= 65535:
            raise UserError("--port is out of range", expected="0 to 65535", got=str(self.port))
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable() and self.api_key):
            raise UserError("the API key can't be sent in a header", expected="printable ASCII characters")
        if not self.local and self.api_key is None:
            raise UserError(
                f"others can reach a server on {self.host}",
                fix="Give --api-key or set UNDERHOOD_API_KEY, or leave out --host to serve this machine alone",
            )

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a host's name or address means this machine; names other than localhost could mean anything."""
    if host.lower() == "localhost":
        return True
    address = address_of(host)
    return address is not None and address.is_loopback


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that a host is written as; None for a name."""
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
