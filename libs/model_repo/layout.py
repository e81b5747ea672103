"""The paths of one model repository's files. Nothing here reads a file.

::

    One-to-All-14b/
      configuration.json  model.safetensors.index.json  model-*.safetensors
      loras/*.safetensors                                       put there by people; a request names one
      pretrained_models/
        DWPose/*.onnx
        process_checkpoint/det/yolov10m.onnx
        process_checkpoint/pose2d/vitpose_h_wholebody.onnx     a file, or a folder holding end2end.onnx
        Wan2.1-T2V-14B-Diffusers/{vae,text_encoder,tokenizer,scheduler}/
"""

from dataclasses import dataclass
from pathlib import Path

from libs.model_repo.variants import ModelVariant, get_variant
from libs.settings import Settings

WAN_PARTS = ("vae", "text_encoder", "tokenizer", "scheduler")
INDEX_NAME = "model.safetensors.index.json"
LORA_FOLDER = "loras"
READ_ONLY_MODELS_FOLDER = "read_only_models"
DETECTOR_PATH = Path("process_checkpoint/det/yolov10m.onnx")
POSE_ESTIMATOR_PATH = Path("process_checkpoint/pose2d/vitpose_h_wholebody.onnx")
POSE_ESTIMATOR_IN_FOLDER = "end2end.onnx"


@dataclass(frozen=True)
class RepositoryLayout:
    """The absolute paths of one variant's repository."""

    variant: ModelVariant
    root: Path
    pretrained: Path
    wan: Path
    writable_root: Path | None = None
    """The folder for locks and digests where the repository cannot be written to (``write_access``)."""

    @property
    def index(self) -> Path:
        """``model.safetensors.index.json``: which parameter is in which shard."""
        return self.root / INDEX_NAME

    def lora(self, name: str) -> Path:
        """The LoRA that a request calls ``name``."""
        return self.root / LORA_FOLDER / f"{name}.safetensors"

    def loras(self) -> list[Path]:
        """The LoRA files that are there, by name."""
        return sorted(file for file in (self.root / LORA_FOLDER).glob("*.safetensors") if file.is_file())

    @property
    def detector(self) -> Path:
        """The person detector (YOLOv10m, ONNX)."""
        return self.pretrained / DETECTOR_PATH

    @property
    def pose_estimator(self) -> Path:
        """The whole-body pose network (ViTPose-H, ONNX): the file, or ``end2end.onnx`` in a folder of that name."""
        path = self.pretrained / POSE_ESTIMATOR_PATH
        return path / POSE_ESTIMATOR_IN_FOLDER if path.is_dir() else path

    @property
    def dwpose(self) -> Path:
        """The folder of the DWPose networks; kept for compatibility with the upstream layout."""
        return self.pretrained / "DWPose"

    def wan_part(self, part: str) -> Path:
        """The folder of a Wan part: ``vae``, ``text_encoder``, ``tokenizer`` or ``scheduler``."""
        if part not in WAN_PARTS:
            raise ValueError(f"{part!r} is not one of {WAN_PARTS}")
        return self.wan / part


def layout_of(variant: ModelVariant | str, settings: Settings) -> RepositoryLayout:
    """The layout of ``variant`` under these settings.

    ``ONE_TO_ALL_PRETRAINED_DIR`` and ``WAN_T2V_14B_DIFFUSERS_DIR`` concern the model named by ``ONE_TO_ALL_MODEL_DIR``
    only; every other variant keeps its pretrained files in its own folder.
    """
    row = get_variant(variant) if isinstance(variant, str) else variant
    root = settings.models_dir / row.folder
    if row.folder == settings.one_to_all_model_dir:
        pretrained = settings.one_to_all_pretrained_dir
        configured = settings.wan_t2v_14b_diffusers_dir
        wan = configured if row.wan_folder == configured.name else pretrained / row.wan_folder
    else:
        pretrained = root / "pretrained_models"
        wan = pretrained / row.wan_folder
    return RepositoryLayout(row, root, pretrained, wan, writable_root=settings.data_dir / READ_ONLY_MODELS_FOLDER)
