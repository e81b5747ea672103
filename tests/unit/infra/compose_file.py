"""``infra/compose.yaml`` as read by the tests of this folder; no checks here."""

from typing import Any

import yaml

from libs.settings import REPOSITORY_ROOT

INFRA = REPOSITORY_ROOT / "infra"
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVERS = {"redis", "postgres", "minio"}
