"""Stage: the clip. The one that needs the big network, and so a GPU.

The engine stays loaded in this process; finished chunks survive a killed run; a device that runs out of memory gets
smaller chunks, once. See ``libs.one_to_all`` for how frames are made.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from libs.errors import StorageError
from libs.media.video.reader import read_frames
from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.verification.lock import RepositoryLock, read_lock
from libs.one_to_all.device import device_name
from libs.one_to_all.engine import Engine
from libs.one_to_all.engine_cache import ENGINES, EngineSpec
from libs.one_to_all.events import EngineLoad
from libs.one_to_all.memory import memory_options
from libs.one_to_all.memory.plan import MemoryPlan
from libs.one_to_all.parallel import ONE_PROCESS, ParallelPlan
from libs.one_to_all.speed_options import speed_options
from libs.one_to_all.weights.lora_file import LoraFile
from libs.pose.conditioning import PoseConditioning
from libs.provenance.clip_tag import clip_tags
from libs.provenance.origin import OriginFacts
from libs.provenance.record import Device, Provenance
from libs.provenance.run_record import ClipRun, write_provenance
from libs.requests.documents.animation_request import ResolvedRequest
from libs.settings import Settings
from libs.stages.animation_files import (
    CLIP_FILE,
    CLIP_PICTURE_FILE,
    REQUEST_FILE,
    SECONDS_ATTRIBUTE,
    SUMMARY_FILE,
)
from libs.stages.clip.chunk_prefix import chunk_prefix
from libs.stages.clip.clip_costs import CostHistory, RelativeCosts, assumed_costs
from libs.stages.clip.clip_progress import ClipProgress
from libs.stages.clip.memory_retry import animate_within_memory, clip_size
from libs.stages.clip.sampling import ClipInputs, ClipSummary
from libs.stages.model_verification import verified_versions
from libs.stages.pictures import draw_columns
from libs.stages.poses.found_poses import require_found_poses
from libs.stages.poses.pose_conditioning import framed_driver
from libs.stages.request.request_media import RequestMedia
from libs.stages.request.requested_lora import RequestedLora, lora_of_engine, requested_loras
from libs.stages.run import StageRun
from libs.stages.titles import titled
from libs.storage.artifacts import ArtifactStore, LocalArtifact
from libs.storage.chunks import StoredChunks


@dataclass(frozen=True)
class ClipJob:
    """Everything that determines a clip.

    Attributes:
        inputs: request, media and conditioning, loaded.
        engine: which networks, how they compute, on which devices.
        loras: those that the request names.
        media_digests: name of a media file -> SHA-256.
        conditioning_digest: of the stored conditioning.
        model_versions: what the verified model files are, None if they never were verified.
        lock: of the model repository, None if it has none.
        code_version: of this stage.
    """

    inputs: ClipInputs
    engine: EngineSpec
    loras: tuple[RequestedLora, ...]
    media_digests: Mapping[str, str]
    conditioning_digest: str
    model_versions: Mapping[str, str] | None
    lock: RepositoryLock | None
    code_version: str

    @classmethod
    def of(
        cls,
        request: LocalArtifact,
        media: LocalArtifact,
        conditioning: LocalArtifact,
        store: ArtifactStore,
        settings: Settings,
        code_version: str,
    ) -> Self:
        """Read the artifacts that the clip is made from.

        Args:
            request, media, conditioning: outputs of the assets before this one.
            store: holds the pose tracks and the verification of the model.
            settings: where models lie, and how the engine computes.
            code_version: of this stage.

        Raises:
            PoseError: too little of a person was found. The check of the conditioning asks first; a clip that is
                materialized alone, by hand, has no earlier stage in its run.
            ModelFilesError: the LoRA is missing or does not fit, or the stored verification cannot be read.
        """
        resolved = ResolvedRequest.model_validate_json(request.path(REQUEST_FILE).read_text())
        require_found_poses(resolved, lambda: _stored_tracks(store, resolved.id))
        layout = layout_of(resolved.model, settings)
        inputs = ClipInputs(resolved, RequestMedia.load(media.folder), PoseConditioning.load(conditioning.folder))
        loras = requested_loras(resolved, layout)
        return cls(
            inputs=inputs,
            engine=_engine_spec(layout, lora_of_engine(loras), settings),
            loras=loras,
            media_digests={file.name: file.sha256 for file in media.manifest.files},
            conditioning_digest=conditioning.manifest.digest,
            model_versions=verified_versions(store, resolved.model),
            lock=read_lock(layout),
            code_version=code_version,
        )

    def chunk_prefix(self, precision: str) -> str:
        """The key prefix of the clip's chunks; ``precision`` is that of the engine."""
        return chunk_prefix(
            self.inputs.request,
            conditioning=self.conditioning_digest,
            model=self.model_versions,
            lora_sha256s=[lora.sha256 for lora in self.loras],
            precision=precision,
            code_version=self.code_version,
        )

    def origin(self, engine: Engine) -> OriginFacts:
        """What the clip says of its origin."""
        media = self.inputs.media
        return OriginFacts(
            request=self.inputs.request,
            reference_sha256=self.media_digests[media.reference_file],
            driver_sha256=self.media_digests[media.driver_file],
            pose_conditioning=self.conditioning_digest,
            lock=self.lock,
            code_version=self.code_version,
            device=Device(kind=engine.device.type, name=device_name(engine.device), dtype=engine.precision),
            lora_sha256s=tuple(lora.sha256 for lora in self.loras),
        )


@dataclass(frozen=True)
class ClipResult:
    """A clip that is finished, and how it was made.

    Attributes:
        summary: pixels, frames, chunks.
        load: whether the engine was loaded for it.
        memory_plan: where the networks lay; None for wherever they were loaded to.
        provenance: what is recorded beside the clip.
        chunks: its finished chunks; of no use once the clip is stored.
    """

    summary: ClipSummary
    load: EngineLoad
    memory_plan: MemoryPlan | None
    provenance: Provenance
    chunks: StoredChunks

    @property
    def version(self) -> str:
        """What was made, not how long it took: summary and provenance differ from run to run."""
        return self.provenance.run.stream_digest

    def metadata(self) -> dict[str, Any]:
        """The numbers that people are shown."""
        return {
            **titled(self.summary.describe()),
            "seconds per frame": self.summary.sampling_seconds / self.summary.frame_count,
            "start": _start(self.load),
            "load seconds": self.load.seconds,
            **({"memory plan": self.memory_plan.summary()} if self.memory_plan else {}),
        }


def make_clip(job: ClipJob, run: StageRun) -> ClipResult:
    """Write the clip, its summary, its provenance and a small picture; go on with chunks that are stored.

    Raises:
        ModelFilesError, DeviceError: the engine cannot be loaded.
        DeviceOutOfMemoryError: the clip does not fit, nor in smaller chunks.
    """
    request = job.inputs.request
    engine, load = _loaded_engine(job, run)
    prefix = job.chunk_prefix(engine.precision)
    objects, origin = run.store.objects, job.origin(engine)
    summary = animate_within_memory(
        job.inputs,
        engine,
        run.folder,
        lambda lengths: StoredChunks(objects, f"{prefix}/{lengths.name}"),
        _progress(job, run, device_name(engine.device)),
        lambda options: clip_tags(origin.origin(options)),
    )
    if summary.out_of_memory:
        run.log.warning(f"made in chunks of {summary.chunk_length} frames, because {summary.out_of_memory}")
    (run.folder / SUMMARY_FILE).write_text(json.dumps(summary.describe(), indent=2))
    parallel = job.engine.parallel
    facts = ClipRun(
        run_id=run.run_id,
        device=str(engine.device) if parallel == ONE_PROCESS else f"{engine.device}, {parallel}",
        memory_plan=engine.memory_plan.name if engine.memory_plan else None,
        start=_start(load),
        chunks=summary.chunks,
        chunks_resumed=summary.chunks_resumed,
        seconds={
            **_seconds_of_stages_before(run.store, request.id),
            "loading": load.seconds,
            "sampling": summary.sampling_seconds,
        },
    )
    provenance = write_provenance(run.folder / CLIP_FILE, facts)
    _draw_clip_beside_driver(job.inputs, run.folder)
    return ClipResult(summary, load, engine.memory_plan, provenance, StoredChunks(objects, prefix))


def _engine_spec(layout: RepositoryLayout, lora: LoraFile | None, settings: Settings) -> EngineSpec:
    return EngineSpec(
        layout,
        settings.one_to_all_device,
        lora=lora,
        speed=speed_options(settings),
        parallel=ParallelPlan.parse(settings.one_to_all_parallel),
        memory=memory_options(settings),
    )


def _loaded_engine(job: ClipJob, run: StageRun) -> tuple[Engine, EngineLoad]:
    engine, load = ENGINES.get_or_load(job.engine, clip_size(job.inputs))
    if engine.memory_plan:
        run.log.info(f"memory plan, calculated: {engine.memory_plan.describe()}")
    run.log.info(f"{job.inputs.request.model}: {_start(load)}, {load.seconds:.1f} s")
    return engine, load


def _progress(job: ClipJob, run: StageRun, device: str) -> ClipProgress:
    """Tells how far the clip is, and remembers for the next one like it what its parts took."""
    request, size = job.inputs.request, clip_size(job.inputs)
    history = CostHistory(run.store.objects, request.model, device, size.width, size.height)

    def remember(costs: RelativeCosts) -> None:
        try:
            history.save(costs)
        except StorageError as error:  # only the time left that is shown depends on it
            run.log.warning(f"what the parts of this clip took is not remembered: {error}")

    return ClipProgress(
        lambda done, total, phrase, left: run.report("sampling", done, total, phrase, left),
        request.steps,
        history.load() or assumed_costs(request, size),
        on_measured=remember,
    )


def _start(load: EngineLoad) -> Literal["cold", "warm"]:
    return "cold" if load.cold else "warm"


def _stored_tracks(store: ArtifactStore, request_id: str) -> Path | None:
    """The folder of the stored key-points; None where they were removed since the poses were fitted."""
    if store.manifest("pose_tracks", request_id) is None:
        return None
    return store.fetch("pose_tracks", request_id).folder


def _seconds_of_stages_before(store: ArtifactStore, request_id: str) -> dict[str, float]:
    """How long they took, as far as they noted it."""
    manifests = {stage: store.manifest(stage, request_id) for stage in ("pose_tracks", "pose_conditioning")}
    noted = {stage: found.attributes.get(SECONDS_ATTRIBUTE) for stage, found in manifests.items() if found}
    return {stage: float(seconds) for stage, seconds in noted.items() if seconds is not None}


def _draw_clip_beside_driver(inputs: ClipInputs, folder: Path) -> None:
    columns = {"driver": framed_driver(inputs.media, inputs.conditioning), "clip": read_frames(folder / CLIP_FILE)}
    draw_columns(columns, inputs.media.output_frame_rate, folder / CLIP_PICTURE_FILE)
