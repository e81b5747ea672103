"""Which files of which hub repositories make up each part of a model repository.

Patterns are matched against listings by this project (``fnmatch``), so the two hubs' own dialects do not matter. See
``download`` for fetching, ``hub`` for hub addresses.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from libs.errors import InputError
from libs.model_repo.files.repository import CONFIGURATION_NAME, LEFTOVER_TRANSFORMER, Part, pretrained_name
from libs.model_repo.layout import INDEX_NAME, WAN_PARTS
from libs.model_repo.variants import DWPOSE_SOURCE, POSE_NETWORKS_SOURCE, HubRepository, ModelVariant

_POSE_ESTIMATOR = "process_checkpoint/pose2d/vitpose_h_wholebody.onnx"


@dataclass(frozen=True)
class PartSource:
    """Some files of one hub repository, and the folder (as in ``repository_files``) they go to with their paths."""

    repository: HubRepository
    patterns: tuple[str, ...]
    folder: str = ""
    further_patterns: tuple[str, ...] = ()
    """Files that another call may want; the lock watches over their listing as well."""

    def wants(self, path: str) -> bool:
        """True if the file at ``path`` in the hub repository is one of these."""
        return any(fnmatchcase(path, pattern) for pattern in self.patterns)

    def watches(self, path: str) -> bool:
        """True if a change of the file at ``path`` in the hub repository concerns us."""
        return self.wants(path) or any(fnmatchcase(path, pattern) for pattern in self.further_patterns)

    def name_of(self, path: str) -> str:
        """The name in the model repository of the file at ``path`` in the hub repository."""
        return f"{self.folder}/{path}" if self.folder else path


def sources_of(variant: ModelVariant, part: Part, *, with_base_transformer: bool = False) -> tuple[PartSource, ...]:
    """The hub repositories of a part.

    Args:
        variant: the row of the variant.
        part: ``checkpoint``, ``pose_models`` or ``wan_resources``.
        with_base_transformer: also the base ``transformer/`` of Wan, which animating does not need.

    Raises:
        InputError: no hub has these files; the message says what makes them.
    """
    if variant.checkpoint is None or variant.wan is None:
        made = (
            f"`one-to-all models quantize {variant.base}`" if variant.base else "code: `make demo` or the sandbox asset"
        )
        raise InputError(f"variant {variant.name} is not on any hub; it is made by {made}")
    if part == "checkpoint":
        # the star stands for "-00001-of-00004" and the like, not for folders
        return (PartSource(variant.checkpoint, (CONFIGURATION_NAME, INDEX_NAME, "model*.safetensors")),)
    if part == "pose_models":
        return (
            PartSource(DWPOSE_SOURCE, ("DWPose/*.onnx",), pretrained_name()),
            PartSource(
                POSE_NETWORKS_SOURCE,
                ("process_checkpoint/det/yolov10m.onnx", _POSE_ESTIMATOR, f"{_POSE_ESTIMATOR}/*"),
                pretrained_name(),
            ),
        )
    needed = tuple(f"{folder}/*" for folder in WAN_PARTS)
    base = (f"{LEFTOVER_TRANSFORMER}/*",)
    patterns, further = (needed + base, ()) if with_base_transformer else (needed, base)
    return (PartSource(variant.wan, patterns, pretrained_name(variant.wan_folder), further),)
