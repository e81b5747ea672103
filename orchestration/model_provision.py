"""Where a variant's files come from: made by code (sandbox), made from another variant (FP8), or fetched from a hub.

The one decision the model-file assets share; what each way does lies in ``libs``. What does not belong here: judging
the files.
"""

from libs.errors import ModelFilesError
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.lock import LockedFile, lock_repository
from libs.model_repo.repository_files import Part, files_of_part
from orchestration.progress import Progress


def provide_part(layout: RepositoryLayout, part: Part, progress: Progress) -> dict[str, LockedFile]:
    """Make sure that the files of ``part`` are there and locked; files that are there already are not made again.

    Returns:
        File name -> size, digest and source, as the lock file has them.

    Raises:
        ModelFilesError: the files cannot be had this way; the message says what to do.
    """
    if layout.variant.made_by_code:
        return _made_by_code(layout, part)
    return _found_on_disk(layout, part, progress)


def _made_by_code(layout: RepositoryLayout, part: Part) -> dict[str, LockedFile]:
    from libs.sandbox.repository import write_sandbox_repository  # noqa: PLC0415 - loads torch

    write_sandbox_repository(layout)
    return lock_repository(layout, source="made by libs.sandbox").of_part(part)


def _found_on_disk(layout: RepositoryLayout, part: Part, progress: Progress) -> dict[str, LockedFile]:
    if not files_of_part(layout, part):
        raise ModelFilesError(
            f"{layout.root}: the {part.replace('_', ' ')} of {layout.variant.name} is not there; put the files where "
            "docs/models.md shows"
        )
    return lock_repository(layout, progress=progress).of_part(part)
