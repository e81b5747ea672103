"""``python -m orchestration.fleet.preflight``: is a production process's environment complete, without known passwords?

The first container of ``infra/compose.yaml``; all others wait for it. It looks at variables only and reaches no server.
See ``libs.settings`` for the rules of single settings.
"""

import os
import sys
from urllib.parse import urlsplit

from libs.errors import SettingsError
from libs.settings import load_settings
from libs.settings.default_passwords import password_in, why_refused
from orchestration.fleet.launching.celery_app import require_redis_url

DATABASE_VARIABLE = "DAGSTER_POSTGRES_URL"
DATABASE_SCHEME = "postgresql+psycopg2"
"""With the driver: SQLAlchemy 2.1 takes psycopg otherwise, which dagster-postgres does not install."""


def check_environment() -> None:
    """See that settings, broker, bucket and database are given, and no password is one that everybody knows.

    Raises:
        SettingsError: names each variable that is wrong; never shows a password.
    """
    settings = load_settings()
    require_redis_url(settings)
    problems = []
    if not settings.uses_s3:
        problems.append("S3_ENDPOINT is not set: a fleet keeps clips and the output of runs in a bucket")
    problems += _database_problems(os.environ.get(DATABASE_VARIABLE, ""))
    if problems:
        raise SettingsError("; ".join(problems))


def _database_problems(address: str) -> list[str]:
    expected = f"expected {DATABASE_SCHEME}://user:password@host:5432/database"
    if not address:
        return [f"{DATABASE_VARIABLE} is not set: {expected}"]
    scheme = _scheme_of(address)
    if scheme is None:
        return [f"{DATABASE_VARIABLE} is not an address: {expected}, with %XX for what is neither letter nor digit"]
    problems = []
    if scheme != DATABASE_SCHEME:
        problems.append(f"{DATABASE_VARIABLE} begins with {scheme}://: {expected}")
    if reason := why_refused(password_in(address), address):
        problems.append(f"the password in {DATABASE_VARIABLE} {reason}")
    return problems


def _scheme_of(address: str) -> str | None:
    """The scheme of an address with host and path; None for anything else. Python's own errors would show it."""
    try:
        parts = urlsplit(address)
        port_is_a_number = parts.port is None or parts.port > 0
    except ValueError:
        return None
    return parts.scheme if port_is_a_number and parts.hostname and parts.path.strip("/") else None


def main() -> int:
    """The exit status: 0 if all is well, 1 if not."""
    try:
        check_environment()
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("The environment is complete, and holds no known password.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
