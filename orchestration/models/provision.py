"""Where a variant's files come from: made by code (sandbox), made from another variant (FP8), or fetched from a hub.

The one decision the model-file assets share; what each way does lies in ``libs``. What does not belong here: judging
the files.
"""

import dagster as dg

from libs.model_repo.files.repository import Part
from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.verification.lock import LockedFile, lock_repository, read_lock
from libs.progress import Progress
from libs.settings import Settings


class HubConfig(dg.Config):
    """Where and how to fetch; what is left out comes from MODEL_HUB, MODEL_HUB_ENDPOINT and MODEL_HUB_REVISION."""

    hub: str | None = None
    """modelscope or huggingface"""
    endpoint: str | None = None
    """address of a mirror"""
    revision: str | None = None
    """branch, tag or commit; that of the lock file by default"""
    update: bool = False
    """accept another revision than the locked one"""
    workers: int = 4
    """files fetched at the same time"""

    def settings_with(self, settings: Settings) -> Settings:
        """``settings`` with what this configuration says in their place.

        Raises:
            SettingsError: no such hub, or no address.
        """
        return settings.changed(model_hub=self.hub, model_hub_endpoint=self.endpoint, model_hub_revision=self.revision)


def provide_part(
    layout: RepositoryLayout,
    part: Part,
    config: HubConfig,
    settings: Settings,
    progress: Progress,
    *,
    with_base_transformer: bool = False,
) -> dict[str, LockedFile]:
    """Make sure that the files of ``part`` are there and locked; files that are there already are not made again.

    Returns:
        File name -> size, digest and source, as the lock file has them.

    Raises:
        ModelFilesError: the files cannot be made; the message says what to do.
        HubError, HubUnavailableError: the hub refused, or did not answer.
    """
    if layout.variant.made_by_code:
        from libs.sandbox.repository import write_sandbox_repository  # noqa: PLC0415 - loads torch

        write_sandbox_repository(layout)
        lock = lock_repository(layout, source="made by libs.sandbox")
        return lock.of_part(part)
    if layout.variant.base is not None:
        from libs.model_repo.operations.quantize import quantize_checkpoint  # noqa: PLC0415

        quantize_checkpoint(layout_of(layout.variant.base, settings), layout, progress)
    else:
        from libs.model_repo.files.shared_files import sibling_layouts  # noqa: PLC0415
        from libs.model_repo.hubs.download import download_part  # noqa: PLC0415 - hub clients take a second to load
        from libs.model_repo.hubs.hub import open_hub  # noqa: PLC0415

        chosen = config.settings_with(settings)
        download_part(
            layout,
            part,
            open_hub(chosen),
            siblings=sibling_layouts(layout, chosen),
            revision=chosen.model_hub_revision,
            update=config.update,
            with_base_transformer=with_base_transformer,
            workers=config.workers,
            progress=progress,
        )
    written = read_lock(layout)
    assert written is not None, "both ways write the lock"
    return written.of_part(part)
