"""A filled scratch folder becomes an asset's output, with the digest of its content as data version.

See ``orchestration.storage.io_manager`` for how it is stored.
"""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.animations.pictures import caption
from orchestration.recovery.lineage import DATA_VERSION_ATTRIBUTE
from orchestration.storage.metadata import to_metadata

# In beta in the pinned version of Dagster; what it promises (staleness by content) is tested.
warnings.filterwarnings("ignore", message="Parameter `data_version` of initializer `Output.__init__`")


def folder_output(
    folder: Path,
    metadata: Mapping[str, Any] | None = None,
    *,
    output_name: str = "result",
    data_version: str | None = None,
    attributes: Mapping[str, Any] | None = None,
    previews: Iterable[str] = (),
    main: str | None = None,
) -> dg.Output:
    """The output for the files in ``folder``.

    Args:
        folder: holds exactly the files to store.
        metadata: shown in the UI, numbers rounded, what is None left out.
        output_name: for assets with several outputs.
        data_version: the digest of all names and contents but the previews when left out; staleness follows it.
        attributes: stored in the manifest beside the files, e.g. what they were made from.
        previews: names of small pictures, shown in the UI under their names (docs/storage.md).
        main: name of the file a person wants, linked in the UI.
    """
    from libs.storage.artifacts import ArtifactFiles  # noqa: PLC0415 - loading the code location stays light

    previews = tuple(previews)
    # The IO manager puts pictures and link in these places: first, where a person looks.
    first = {caption(name): dg.MetadataValue.text("not shown, see the run's log") for name in previews}
    if main is not None:
        first[caption(main)] = dg.MetadataValue.text(main)
    files = ArtifactFiles(folder, attributes=attributes, previews=previews, main=main)
    version = data_version or files.data_digest
    files.attributes[DATA_VERSION_ATTRIBUTE] = version
    return dg.Output(
        files,
        output_name=output_name,
        data_version=dg.DataVersion(version),
        metadata={**first, **to_metadata(metadata or {})},
    )
