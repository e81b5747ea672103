"""Environment and ``.env`` -> one typed, frozen object.

Relative paths resolve against the repository root, never against the working directory. Secrets are ``SecretStr``: they
never appear in ``repr``, logs or Dagster configuration. See ``values`` for what a single value may be.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from libs.errors import SettingsError
from libs.messages.printable import printable
from libs.messages.validation import shown, what_was_expected
from libs.settings.default_passwords import password_in, why_refused
from libs.settings.dotenv import require_readable
from libs.settings.values import (
    LONGEST_AGE_DAYS,
    AttentionName,
    CronLine,
    Device,
    Folder,
    FolderName,
    HeaderWord,
    HubAddress,
    HubName,
    MemoryChoice,
    ObjectPrefix,
    ParallelPlanText,
    PoseNetworksName,
    RedisAddress,
    Region,
    ServerAddress,
    TimeZoneName,
)

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]
"""The checkout. For a package installed without one it is the folder of Python's packages: see :func:`is_checkout`."""

_FP8_SUFFIX = "-FP8"


class Settings(BaseSettings):
    """All settings; each field's environment variable is its name in capitals."""

    model_config = SettingsConfigDict(
        env_file=REPOSITORY_ROOT / ".env", env_ignore_empty=True, extra="ignore", frozen=True, validate_default=True
    )

    models_dir: Folder = Field(Path("models"), description="weights, one folder per variant")
    data_dir: Folder = Field(Path("data"), description="everything written at run time")
    log_dir: Path | None = Field(None, description="log files of make ui and make fleet")

    one_to_all_model_dir: FolderName = Field("One-to-All-14b", description="folder below MODELS_DIR used by default")
    one_to_all_pretrained_dir: Path = Field(Path(), description="pretrained files of that model")
    wan_t2v_14b_diffusers_dir: Path = Field(Path(), description="Wan resources of that model")
    one_to_all_runtime_dir: Path = Field(Path(), description="scratch of running animations")
    pose_networks: PoseNetworksName | None = Field(
        None, description="what finds key-points: auto, vitpose, mediapipe or sandbox; the model's own when empty"
    )
    one_to_all_device: Device = Field("auto", description="auto, cpu, cuda or cuda:N")
    one_to_all_parallel: ParallelPlanText | None = Field(
        None, description="devices for one clip: guidance:N, context:N, or both, e.g. guidance:3,context:2"
    )
    one_to_all_attention: AttentionName = Field("auto", description="auto takes the fastest that works")
    one_to_all_compile: bool = Field(False, description="compile the network's blocks when they first run")
    one_to_all_fp8_compute: bool = Field(False, description="products of FP8 weights in FP8, where the GPU can")
    one_to_all_memory: MemoryChoice = Field(
        "auto", description="auto, a limit such as 24GB, or the name of a memory plan"
    )
    one_to_all_allow_fp8: bool = Field(False, description="take FP8 weights where bfloat16 ones do not fit")

    model_hub: HubName = Field("modelscope", description="where weights come from: modelscope or huggingface")
    model_hub_endpoint: HubAddress | None = Field(None, description="address of a mirror; the hub's own by default")
    model_hub_token: HeaderWord | None = Field(None, description="for gated or private repositories")
    model_hub_revision: str | None = Field(None, description="branch, tag or commit; that of the lock file by default")

    s3_endpoint: ServerAddress | None = Field(
        None, description="address of MinIO or S3; a folder below DATA_DIR without it"
    )
    s3_access_key: HeaderWord | None = None
    s3_secret_key: SecretStr | None = None
    s3_bucket_name: str | None = None
    s3_region: Region = "us-east-1"
    s3_prefix: ObjectPrefix = ""
    s3_checksums: bool = Field(True, description="false for a server that refuses S3's checksum headers")
    s3_public_endpoint: ServerAddress | None = Field(
        None, description="where browsers reach S3_ENDPOINT; turns previews on"
    )

    minio_root_user: str | None = Field(None, description="MinIO's administrator, who prepares bucket and user")
    minio_root_password: SecretStr | None = None

    nightly_cron: CronLine = Field("0 1 * * *", description="when the nightly batch starts: a cron line of five fields")
    nightly_timezone: TimeZoneName = Field("UTC", description="IANA time zone of that line, e.g. Europe/Berlin")

    archive_after_days: float = Field(
        90, ge=0, le=LONGEST_AGE_DAYS, description="finished requests older than this leave the UI's list"
    )
    prune_runs_after_days: float = Field(
        90, ge=0, le=LONGEST_AGE_DAYS, description="runs older than this that nothing needs are deleted"
    )
    prune_artifacts_after_days: float = Field(
        90,
        ge=2,
        le=LONGEST_AGE_DAYS,
        description="older contents of artifacts go when they were replaced this long ago",
    )
    chunk_max_age_days: float = Field(
        7, ge=1, le=LONGEST_AGE_DAYS, description="how long a killed run's chunks and scratch are kept"
    )
    min_free_disk_gb: float = Field(
        2, ge=0, le=10**9, description="a worker with less free disk than this takes no clips; 0: never mind"
    )
    artifact_cache_max_gb: float = Field(
        100, ge=0, le=10**9, description="size of DATA_DIR/artifact_cache after housekeeping"
    )

    redis_url: RedisAddress | None = Field(
        None, description="broker of the fleet: redis://[:password@]host:port/database"
    )

    @model_validator(mode="before")
    @classmethod
    def _derive_defaults(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Defaults that follow from other settings, and all relative paths made absolute."""
        values = {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}
        values = {name: value for name, value in values.items() if value != ""}  # nothing but blanks: not set
        _require_absolute_folders_without_a_checkout(values)
        models = _absolute(values.get("models_dir") or "models")
        data = _absolute(values.get("data_dir") or "data")
        model_folder = str(values.get("one_to_all_model_dir") or "One-to-All-14b")
        pretrained = _absolute(
            values.get("one_to_all_pretrained_dir")
            or models / model_folder.removesuffix(_FP8_SUFFIX) / "pretrained_models"
        )
        values["models_dir"], values["data_dir"] = models, data
        values["one_to_all_pretrained_dir"] = pretrained
        values["wan_t2v_14b_diffusers_dir"] = _absolute(
            values.get("wan_t2v_14b_diffusers_dir") or pretrained / "Wan2.1-T2V-14B-Diffusers"
        )
        values["one_to_all_runtime_dir"] = _absolute(
            values.get("one_to_all_runtime_dir") or data / "one_to_all_animation_runtime"
        )
        if values.get("log_dir"):
            values["log_dir"] = _absolute(values["log_dir"])
        return values

    @model_validator(mode="after")
    def _s3_is_whole(self) -> Self:
        if self.s3_endpoint is None:
            return self
        needed = {
            "S3_ACCESS_KEY": self.s3_access_key,
            "S3_SECRET_KEY": self.s3_secret_key,
            "S3_BUCKET_NAME": self.s3_bucket_name,
        }
        missing = [name for name, value in needed.items() if not value]
        if missing:
            raise ValueError(
                f"S3_ENDPOINT is set but not {' and '.join(missing)}: set what is missing, or unset S3_ENDPOINT to "
                "store artifacts in a folder below DATA_DIR"
            )
        return self

    @model_validator(mode="after")
    def _passwords_are_not_known_to_everybody(self) -> Self:
        """A password such as minioadmin protects nothing that others can reach."""
        servers = (self.s3_endpoint, self.s3_public_endpoint)
        held: list[tuple[str, SecretStr | None, tuple[str | None, ...]]] = []
        if self.uses_s3:
            held.append(("S3_SECRET_KEY", self.s3_secret_key, servers))
        if self.minio_root_user or self.minio_root_password:
            held.append(("MINIO_ROOT_PASSWORD", self.minio_root_password, servers))
        refused = [
            f"{name} {reason}"
            for name, password, addresses in held
            if (reason := why_refused(password.get_secret_value() if password else None, *addresses))
        ]
        if self.redis_url:
            address = self.redis_url.get_secret_value()
            if reason := why_refused(password_in(address), address):
                refused.append(f"the password in REDIS_URL {reason}")
        if refused:
            raise ValueError("; ".join(refused))
        return self

    def changed(self, **values: str | None) -> "Settings":
        """These settings with other values in place, checked like the environment's; None leaves a value as it is.

        Raises:
            SettingsError: a value is wrong.
        """
        given = {name: value for name, value in values.items() if value is not None}
        try:
            return Settings.model_validate({**dict(self), **given})
        except ValidationError as error:
            raise settings_error(error) from None

    @property
    def uses_s3(self) -> bool:
        """True when artifacts go to S3 or MinIO rather than to a folder."""
        return self.s3_endpoint is not None

    @property
    def artifacts_dir(self) -> Path:
        """The folder of the store when no S3 is configured."""
        return self.data_dir / "artifacts"

    @property
    def artifact_cache_dir(self) -> Path:
        """Local, digest-verified copies of stored artifacts; may be deleted at any time."""
        return self.data_dir / "artifact_cache"


def is_checkout() -> bool:
    """True where this code lies in a checkout of the repository, False for an installed package."""
    return (REPOSITORY_ROOT / "workspace.yaml").is_file()


def _require_absolute_folders_without_a_checkout(values: dict[str, Any]) -> None:
    """An installed package must not write into the folder of Python's packages."""
    names = ("models_dir", "data_dir")
    relative = [name.upper() for name in names if not Path(values.get(name) or "").expanduser().is_absolute()]
    if relative and not is_checkout():
        raise ValueError(
            f"{' and '.join(relative)} must be set to a folder by its absolute path: this is an installed package, "
            "without the repository's models/ and data/; or work in a checkout"
        )


def _absolute(path: str | Path) -> Path:
    """``path`` with ``~`` expanded, below the repository root if it is relative."""
    return REPOSITORY_ROOT / Path(path).expanduser()


def load_settings() -> Settings:
    """Read environment and ``.env`` now.

    Raises:
        SettingsError: names each wrong variable and what is expected, or the line of ``.env``; never shows a secret.
    """
    dotenv = Settings.model_config.get("env_file")
    if isinstance(dotenv, str | Path):
        require_readable(Path(dotenv))
    try:
        return Settings()  # type: ignore[call-arg]  # the values come from the environment
    except ValidationError as error:
        raise settings_error(error) from None


def settings_error(error: ValidationError) -> SettingsError:
    """What is wrong with which variable; shows the value of numbers and choices only, which are no secrets."""
    problems = [_problem(entry) for entry in error.errors(include_url=False)]
    return SettingsError("; ".join(problems))


def _problem(entry: Any) -> str:
    field = ".".join(str(part) for part in entry["loc"]).upper()
    message = what_was_expected(entry)
    if entry["type"].startswith(("int_", "float_", "bool_", "literal_", "greater_", "less_")):
        message += f" (found {printable(shown(entry['input']))})"
    return f"{field}: {message}" if field and not message.startswith(field) else message


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return load_settings()
