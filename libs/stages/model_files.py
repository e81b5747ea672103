"""Stage: make sure that a part of a variant's repository is there and locked, wherever its files come from.

A repository is made by code (sandbox), made from another variant or imported (FP8), or fetched from a hub.
"""

from dataclasses import dataclass

from libs.model_repo.files.repository import Part
from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.operations.import_file import complete_import, is_imported
from libs.model_repo.verification.lock import LockedFile, lock_repository, read_lock
from libs.progress import Progress
from libs.settings import Settings


@dataclass(frozen=True)
class PartJob:
    """Which files are wanted, and how a hub is asked for them.

    Attributes:
        layout: of the variant's repository.
        part: of the repository.
        settings: which hub at which address and revision.
        update: accept another revision than the locked one.
        workers: files fetched at the same time.
        with_base_transformer: also fetch Wan's transformer, which animating does not need.
    """

    layout: RepositoryLayout
    part: Part
    settings: Settings
    update: bool = False
    workers: int = 4
    with_base_transformer: bool = False


def provide_part(job: PartJob, progress: Progress) -> dict[str, LockedFile]:
    """Make or fetch the files of the part; those that are there already are not made again.

    Returns:
        File name -> size, digest and source, as the lock file has them.

    Raises:
        ModelFilesError: the files cannot be made; the message says what to do.
        HubError, HubUnavailableError: the hub refused, or did not answer.
    """
    layout = job.layout
    if layout.variant.made_by_code:
        from libs.sandbox.repository import write_sandbox_repository  # noqa: PLC0415 - loads torch

        write_sandbox_repository(layout)
        return lock_repository(layout, source="made by libs.sandbox").of_part(job.part)
    if layout.variant.base is not None:
        base = layout_of(layout.variant.base, job.settings)
        if is_imported(layout):
            complete_import(layout, base, progress=progress)
        else:
            from libs.model_repo.operations.quantize import quantize_checkpoint  # noqa: PLC0415

            quantize_checkpoint(base, layout, progress)
    else:
        from libs.model_repo.files.shared_files import sibling_layouts  # noqa: PLC0415
        from libs.model_repo.hubs.download import download_part  # noqa: PLC0415 - hub clients take a second to load
        from libs.model_repo.hubs.hub import open_hub  # noqa: PLC0415

        download_part(
            layout,
            job.part,
            open_hub(job.settings),
            siblings=sibling_layouts(layout, job.settings),
            revision=job.settings.model_hub_revision,
            update=job.update,
            with_base_transformer=job.with_base_transformer,
            workers=job.workers,
            progress=progress,
        )
    written = read_lock(layout)
    assert written is not None, "both ways write the lock"
    return written.of_part(job.part)
