"""Where a request comes from, as far as the connection tells; what a header says of it counts for nothing here."""

from __future__ import annotations

import ipaddress

from fastapi import Request

__all__ = ["address_of", "network_of"]

_HOST_BITS = 64
"""One subscriber of IPv6 has so many bits to choose addresses from: to count single addresses would count nothing."""


def address_of(request: Request) -> str:
    """The address of the connection; "unknown" where there is none, as on a Unix socket."""
    address = _parsed(request)
    return "unknown" if address is None else str(address)


def network_of(request: Request) -> str:
    """What counts as one place: an IPv4 address, or the /64 network of an IPv6 address."""
    address = _parsed(request)
    if isinstance(address, ipaddress.IPv6Address) and not address.is_loopback:
        return str(ipaddress.ip_network((int(address) >> _HOST_BITS << _HOST_BITS, 128 - _HOST_BITS)))
    return "unknown" if address is None else str(address)


def _parsed(request: Request) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address("" if request.client is None else request.client.host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped
