"""Decides which web pages may call the API, by their origin.

CORS alone is not enough: it prevents a page from another origin from reading responses, but not
from sending recordings, which are billed to the owner of the server.
"""

import re
from ipaddress import ip_address

from fastapi import Request

from handler.settings import Settings

_ANY_PORT = ":*"


def any_port_pattern(origins: tuple[str, ...]) -> str | None:
    """Return a regular expression for the origins that end with `:*`, or None if there are none.

    The origin `http://localhost:*` allows pages on any port of this host.
    """
    hosts = [origin.removesuffix(_ANY_PORT) for origin in origins if origin.endswith(_ANY_PORT)]
    return f"({'|'.join(map(re.escape, hosts))})(:[0-9]+)?" if hosts else None


def is_allowed(origin: str, request: Request, settings: Settings) -> bool:
    """Return whether pages from this origin may send requests."""
    allowed, host = settings.allowed_origins, request.headers.get("host", "")
    if origin in allowed or "*" in allowed:
        return True
    pattern = any_port_pattern(allowed)
    if pattern and re.fullmatch(pattern, origin):
        return True
    # On Lambda, the Host header can be trusted: API Gateway accepts only its own host names.
    is_own_host = settings.aws_lambda_function_name is not None or _is_local_host(host)
    return is_own_host and origin in (f"http://{host}", f"https://{host}")


def _is_local_host(host: str) -> bool:
    """Return whether the host is an IP address or `localhost`.

    Other host names are not trusted. After a browser has loaded a page from a domain, the owner of
    the domain can change its DNS record to the address of this server (DNS rebinding).
    """
    match = re.fullmatch(r"\[?([^\[\]@]+?)\]?(:[0-9]+)?", host)
    name = match[1] if match else ""
    try:
        return name == "localhost" or bool(ip_address(name))
    except ValueError:
        return False
