"""Settings of the studio, the web page and HTTP interface, from environment and ``.env``.

Apart from ``libs.settings``, because only the studio reads them: a mistake here must not keep a run from starting.
"""

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from libs.errors import SettingsError
from libs.settings import REPOSITORY_ROOT, settings_error
from libs.settings.default_passwords import why_refused

_SHORTEST_TOKEN = 20
"""Characters of an API token: what `openssl rand -hex 16` prints has 32."""

_TOKEN = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,40}):(?P<token>[!-+\--~]+)")


class StudioSettings(BaseSettings):
    """Each field's environment variable is its name in capitals."""

    model_config = SettingsConfigDict(
        env_file=REPOSITORY_ROOT / ".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    studio_host: str = Field(
        "127.0.0.1", description="address the studio listens at; others than localhost need a login"
    )
    studio_port: int = Field(3100, ge=0, le=65535, description="port of the studio; with 0 `make ui` starts none")
    studio_password: SecretStr | None = Field(None, description="password of everybody who may use the studio")
    studio_user_header: str | None = Field(
        None, pattern=r"^[A-Za-z0-9-]{1,60}$", description="header in which a proxy names the user it has logged in"
    )
    studio_proxies: str = Field("", description="addresses of such proxies: 10.0.0.5, 10.1.0.0/16")
    studio_tokens: SecretStr | None = Field(None, description="tokens for programs: name:token, with commas between")
    studio_upload_max_gb: float = Field(4, gt=0, le=1000, description="largest picture or video that may be uploaded")
    studio_dagster_url: str | None = Field(
        None, pattern=r"^https?://[^\s\"'<>?#@]+$", description="where people reach Dagster's UI, for links"
    )

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if self.studio_user_header and not self.proxies:
            raise ValueError(
                "STUDIO_USER_HEADER is set but not STUDIO_PROXIES: name the addresses of the proxies that set this "
                "header; anybody else could write any name into it"
            )
        if self.is_local or self.studio_user_header:
            return self
        address = f"http://{self.studio_host}"
        password = self.studio_password.get_secret_value() if self.studio_password else None
        if password is None:
            raise ValueError(
                f"STUDIO_HOST={self.studio_host} is reached by others, and nothing asks who they are: set "
                "STUDIO_PASSWORD, or STUDIO_USER_HEADER and STUDIO_PROXIES where a proxy logs them in, or "
                "STUDIO_HOST=127.0.0.1"
            )
        if reason := why_refused(password, address):
            raise ValueError(f"STUDIO_PASSWORD {reason}")
        return self

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine reach the studio."""
        if self.studio_host == "localhost":
            return True
        try:
            return ip_address(self.studio_host).is_loopback
        except ValueError:
            return False

    @property
    def address(self) -> str:
        """Where a browser on this machine finds the studio."""
        return self.on_port(self.studio_port)

    def on_port(self, port: int) -> str:
        """The same, where the system chose the port."""
        host = "127.0.0.1" if self.studio_host in {"0.0.0.0", "::"} else self.studio_host
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks of the proxies that may name a user.

        Raises:
            ValueError: one of them is no address.
        """
        try:
            return tuple(ip_network(part.strip()) for part in self.studio_proxies.split(",") if part.strip())
        except ValueError as error:
            raise ValueError(f"STUDIO_PROXIES: {error}; expected addresses such as 10.0.0.5 or 10.1.0.0/16") from None

    @property
    def tokens(self) -> dict[str, str]:
        """Name -> token.

        Raises:
            SettingsError: a token is too short, or is not written as ``name:token``; never shows one.
        """
        given = self.studio_tokens.get_secret_value() if self.studio_tokens else ""
        found: dict[str, str] = {}
        for number, part in enumerate((text.strip() for text in given.split(",") if text.strip()), start=1):
            match = _TOKEN.fullmatch(part)
            if match is None or len(match["token"]) < _SHORTEST_TOKEN:
                raise SettingsError(
                    f"STUDIO_TOKENS: entry {number} must be name:token with at least {_SHORTEST_TOKEN} characters in "
                    "the token; make one with `openssl rand -hex 24`"
                )
            found[match["name"]] = match["token"]
        return found


def load_studio_settings() -> StudioSettings:
    """Read environment and ``.env`` now.

    Raises:
        SettingsError: names each wrong variable; never shows a secret.
    """
    try:
        settings = StudioSettings()  # type: ignore[call-arg]  # the values come from the environment
    except ValidationError as error:
        raise settings_error(error) from None
    _ = settings.tokens
    return settings
