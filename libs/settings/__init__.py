"""Settings of this installation: environment and ``.env`` as one typed, frozen object."""

from libs.settings.settings import (
    REPOSITORY_ROOT,
    Settings,
    get_settings,
    is_checkout,
    load_settings,
    settings_error,
)

__all__ = ["REPOSITORY_ROOT", "Settings", "get_settings", "is_checkout", "load_settings", "settings_error"]
