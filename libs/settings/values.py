"""What the value of one setting may be: types that check it, and say what was expected.

Each message names the variable and shows the value, but never one that may hold a secret. See ``settings`` for which
settings there are, and how they depend on each other.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, SecretStr, ValidationInfo

AttentionName = Literal["auto", "flash_3", "cudnn", "flash", "native_flash", "native"]
PoseNetworksName = Literal["auto", "vitpose", "mediapipe", "sandbox"]
HubName = Literal["modelscope", "huggingface"]
MemoryPlanName = Literal["resident", "drop-text-encoder", "text-encoder-on-host", "offload", "offload-all", "tiles"]

LONGEST_AGE_DAYS = 36_500
"""A century: longer than anything is kept, and no date before the first."""

MEMORY_LIMIT_PATTERN = r"(\d+(?:\.\d+)?) ?GB"


def _require(holds: bool, value: str, info: ValidationInfo, expected: str) -> str:
    if not holds:
        shown = re.sub(r"[^/\s]+@", "***@", value)  # a user and password, wherever somebody put an address
        raise ValueError(f"{str(info.field_name).upper()}={shown!r} {expected}")
    return value


def _folder(value: Path) -> Path:
    existing = next((path for path in (value, *value.parents) if os.path.lexists(path)), value)
    if not existing.is_dir():
        raise ValueError(f"{value} cannot be a folder: {existing} is not a folder")
    return value


def _folder_name(value: str, info: ValidationInfo) -> str:
    plain = value not in {".", ".."} and "/" not in value and "\\" not in value
    return _require(plain, value, info, "must name a folder below MODELS_DIR, not a path")


def _device(value: str, info: ValidationInfo) -> str:
    known = re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", value)
    return _require(bool(known), value, info, "must be auto, cpu, cuda or cuda:N")


def _memory(value: str, info: ValidationInfo) -> str:
    names = get_args(MemoryPlanName)
    known = value == "auto" or value in names or re.fullmatch(MEMORY_LIMIT_PATTERN, value)
    return _require(bool(known), value, info, f"must be auto, a limit such as 24GB, or one of {', '.join(names)}")


def _parallel_plan(value: str, info: ValidationInfo) -> str:
    part = "(guidance|context):[1-9][0-9]?"
    known = re.fullmatch(rf"{part}( *, *(?!\1){part})?", value)
    return _require(bool(known), value, info, "must be guidance:N, context:N, or both with a comma between them")


def _header_word(value: SecretStr) -> SecretStr:
    """What cannot be sent in a header would be shown in the client's complaint about it."""
    if not re.fullmatch(r"[!-~]*", value.get_secret_value()):
        raise ValueError("must be one word of ASCII letters, digits and punctuation, without blanks")
    return value


def _hub_address(value: str, info: ValidationInfo) -> str:
    _require_no_secret(value, info, "use MODEL_HUB_TOKEN")
    return _require(_is_http_address(value), value, info, "must be an address such as https://hub.example.org").rstrip(
        "/"
    )


def _server_address(value: str, info: ValidationInfo) -> str:
    _require_no_secret(value, info, "use S3_ACCESS_KEY and S3_SECRET_KEY")
    return _require(_is_http_address(value), value, info, "is not an address; expected http://host:port")


def _require_no_secret(address: str, info: ValidationInfo, way_out: str) -> None:
    """Refuse a user, password or query in an address, which messages show; this message does not show it."""
    if set(address) & set("@?#"):
        name = str(info.field_name).upper()
        raise ValueError(f"{name} must be scheme, host and port, without user, password or '?': {way_out}")


def _is_http_address(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # the port is no number, or too large
        return False


def _redis_address(value: SecretStr, info: ValidationInfo) -> SecretStr:
    if not value.get_secret_value().startswith(("redis://", "rediss://")):
        name = str(info.field_name).upper()
        raise ValueError(f"{name} must start with redis:// or rediss://, e.g. redis://127.0.0.1:6379/0")
    return value


def _region(value: str, info: ValidationInfo) -> str:
    known = re.fullmatch(r"(?!-)[a-zA-Z\d-]{1,63}(?<!-)", value)
    return _require(bool(known), value, info, "must be letters, digits and hyphens, e.g. us-east-1")


def _object_prefix(value: str, info: ValidationInfo) -> str:
    plain = not set(value) & set("*?$")
    value = _require(plain, value, info, "must not hold *, ? or $: bucket policies take them for patterns").strip("/")
    whole = not value or not any(part in {"", ".", ".."} for part in value.split("/"))
    return _require(whole, value, info, "must be names joined by single slashes, without '.' and '..'")


def _cron_line(value: str, info: ValidationInfo) -> str:
    known = re.fullmatch(r"\S+( +\S+){4}", value)
    return _require(bool(known), value, info, "must be minute, hour, day, month and weekday, e.g. '0 1 * * *'")


def _time_zone(value: str, info: ValidationInfo) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return _require(False, value, info, "must be an IANA time zone, e.g. Europe/Berlin")
    return value


Folder = Annotated[Path, AfterValidator(_folder)]
"""It, or the first of its parents that exists, is a folder."""
FolderName = Annotated[str, AfterValidator(_folder_name)]
Device = Annotated[str, AfterValidator(_device)]
MemoryChoice = Annotated[str, AfterValidator(_memory)]
ParallelPlanText = Annotated[str, AfterValidator(_parallel_plan)]
HeaderWord = Annotated[SecretStr, AfterValidator(_header_word)]
HubAddress = Annotated[str, AfterValidator(_hub_address)]
"""Without a slash at its end."""
ServerAddress = Annotated[str, AfterValidator(_server_address)]
RedisAddress = Annotated[SecretStr, AfterValidator(_redis_address)]
Region = Annotated[str, AfterValidator(_region)]
ObjectPrefix = Annotated[str, AfterValidator(_object_prefix)]
"""Without slashes at its ends."""
CronLine = Annotated[str, AfterValidator(_cron_line)]
TimeZoneName = Annotated[str, AfterValidator(_time_zone)]
