"""What GPU ops ask a Kubernetes cluster for, from environment and ``.env``.

Apart from ``libs.settings``, because these are read when ``orchestration.policies`` is imported, which every process of
Dagster does: a mistake in any other setting must not keep them from starting.
"""

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from libs.settings import REPOSITORY_ROOT, settings_error


class KubernetesSettings(BaseSettings):
    """Each field's environment variable is its name in capitals."""

    model_config = SettingsConfigDict(
        env_file=REPOSITORY_ROOT / ".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    k8s_gpu_resource: str = Field(
        "nvidia.com/gpu",
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$",
        description="the resource that stands for a GPU: nvidia.com/gpu, or a part such as nvidia.com/mig-3g.40gb",
    )
    k8s_gpu_count: int = Field(1, ge=1, description="how many of it one op gets")


def load_kubernetes_settings() -> KubernetesSettings:
    """Read environment and ``.env`` now.

    Raises:
        SettingsError: names each wrong variable.
    """
    try:
        return KubernetesSettings()  # type: ignore[call-arg]  # the values come from the environment
    except ValidationError as error:
        raise settings_error(error) from None
