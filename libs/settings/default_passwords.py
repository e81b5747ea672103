"""Passwords that everybody knows, and the machines where they do no harm.

See ``libs.settings`` and ``orchestration.fleet.preflight`` for which setting holds a password.
"""

from ipaddress import ip_address
from urllib.parse import SplitResult, unquote, urlsplit

KNOWN_PASSWORDS = frozenset({
    "12345678", "123456789", "admin", "changeit", "changeme", "dagster", "default", "example", "guest", "letmein",
    "minio", "minio123", "minioadmin", "one-to-all", "pass", "passw0rd", "password", "postgres", "redis", "root",
    "secret", "test", "xxx",
})  # fmt: skip
"""What installers ship, what examples show, and the names of our own parts."""

SHORTEST = 8
"""Characters; MinIO takes no shorter secret."""


def why_refused(password: str | None, *addresses: str | None) -> str | None:
    """Why ``password`` must not protect a server at ``addresses``; None if it may.

    On this machine (localhost, a loopback address, a socket) every password will do, also none. The answer never shows
    the password.

    Args:
        password: None or empty if there is none.
        addresses: all addresses the server is reached at, as ``scheme://host:port/...``; None is skipped.
    """
    if all(address is None or is_on_this_machine(address) for address in addresses):
        return None
    way_out = "generate one, e.g. with `openssl rand -hex 24`"
    if not password:
        return f"is empty, and the server is not on this machine: {way_out}"
    if password.casefold() in KNOWN_PASSWORDS:
        return f"is a password that everybody knows, and the server is not on this machine: {way_out}"
    if len(password) < SHORTEST:
        return f"has fewer than {SHORTEST} characters, and the server is not on this machine: {way_out}"
    return None


def password_in(address: str) -> str | None:
    """The password in ``scheme://user:password@host...``; None where there is none or ``address`` cannot be read."""
    parts = _split(address)
    return unquote(parts.password) if parts and parts.password else None


def is_on_this_machine(address: str) -> bool:
    """True if the host of ``scheme://host...`` is this one; an address without a host is a socket of this machine."""
    parts = _split(address)
    if parts is None:
        return False
    host = parts.hostname
    if not host or host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _split(address: str) -> SplitResult | None:
    """The parts of an address. Python's own error would show it, password included."""
    try:
        return urlsplit(address)
    except ValueError:
        return None
