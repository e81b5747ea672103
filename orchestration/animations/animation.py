"""The clip: the one step that needs the big network, and so a GPU.

The model stays loaded in the worker's process; finished chunks of a long clip survive a killed run; a device that runs
out of memory gets smaller chunks, once. What does not belong here: sampling (``libs.one_to_all``) and judging the clip
(``orchestration.animations.clip_checks``, ``animation_review``).
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from libs.errors import StorageError
from libs.model_repo.layout import layout_of
from libs.model_repo.verification.lock import read_lock
from libs.one_to_all.memory import memory_options
from libs.one_to_all.parallel import ONE_PROCESS, ParallelPlan
from libs.one_to_all.speed_options import speed_options
from libs.progress import Progress
from libs.requests.documents.animation_request import ResolvedRequest
from libs.requests.lifecycle.accepted import CONTENT_ATTRIBUTE, AcceptedRequests
from libs.stages.animation_files import CLIP_FILE, CLIP_PICTURE_FILE, SUMMARY_FILE
from libs.stages.requested_lora import lora_digest, requested_lora
from libs.storage.artifacts import ArtifactStore, LocalArtifact
from libs.storage.backends.store import ObjectStore
from orchestration.failures import RETRY_POLICY, failures_explained
from orchestration.fleet.working.worker_identity import process_metadata
from orchestration.models.models_in_use import animation_model, observe_replaced_lora, path_of_lora
from orchestration.models.verification import stored_verification
from orchestration.partitions import ANIMATION_REQUESTS
from orchestration.policies import ANIMATIONS_GROUP, CODE_VERSIONS, GPU_OP_TAGS, GPU_POOL, OWNERS
from orchestration.requests.request import REQUEST_FILE
from orchestration.requests.runs import note_content
from orchestration.storage.observed import FileVersion, observe_inputs
from orchestration.storage.outputs import SECONDS_ATTRIBUTE, folder_output
from orchestration.storage.resources import ProgressResource, ScratchResource, SettingsResource, StorageResource

if TYPE_CHECKING:
    from libs.one_to_all.memory.options import ClipSize
    from libs.stages.clip_progress import ClipProgress
    from libs.storage.chunks import StoredChunks as Chunks


@dg.asset(
    partitions_def=ANIMATION_REQUESTS,
    deps=[animation_model],
    group_name=ANIMATIONS_GROUP,
    owners=OWNERS,
    kinds={"pytorch", "video"},
    code_version=CODE_VERSIONS["animation"],
    retry_policy=RETRY_POLICY,
    pool=GPU_POOL,
    op_tags=GPU_OP_TAGS,
)
def animation(
    context: dg.AssetExecutionContext,
    animation_request: LocalArtifact,
    request_media: LocalArtifact,
    pose_conditioning: LocalArtifact,
    settings: SettingsResource,
    storage: StorageResource,
    scratch: ScratchResource,
    progress: ProgressResource,
) -> Iterator[dg.Output]:
    """The character of the reference doing the driver's motion: an mp4 with the driver's length, rate and sound."""
    from libs.one_to_all.device import device_name  # noqa: PLC0415 - loads torch
    from libs.one_to_all.engine_cache import ENGINES, EngineSpec  # noqa: PLC0415
    from libs.pose.conditioning import PoseConditioning  # noqa: PLC0415
    from libs.provenance.clip_tag import clip_tags  # noqa: PLC0415
    from libs.provenance.origin import OriginFacts  # noqa: PLC0415
    from libs.provenance.record import Device  # noqa: PLC0415
    from libs.provenance.run_record import write_provenance  # noqa: PLC0415
    from libs.stages.chunk_prefix import chunk_prefix  # noqa: PLC0415
    from libs.stages.found_poses import require_found_poses  # noqa: PLC0415
    from libs.stages.memory_retry import animate_within_memory, clip_size  # noqa: PLC0415
    from libs.stages.pose_pictures import draw_clip_beside_driver  # noqa: PLC0415
    from libs.stages.request_media import RequestMedia  # noqa: PLC0415
    from libs.storage.chunks import StoredChunks  # noqa: PLC0415

    started = time.monotonic()
    report = progress.of(context)
    loaded = settings.load()
    with failures_explained(), scratch.filled_folder("animation") as folder:
        request = ResolvedRequest.model_validate_json(animation_request.path(REQUEST_FILE).read_text())
        content = animation_request.manifest.attributes.get(CONTENT_ATTRIBUTE)
        note_content(context, content)
        # The check of pose_conditioning asks first; materialized alone, by hand, this asset has nobody before it.
        require_found_poses(request, lambda: _stored_tracks(storage.artifacts(), request.id))
        conditioning = PoseConditioning.load(pose_conditioning.folder)
        layout = layout_of(request.model, loaded)
        lora = requested_lora(request, layout)
        parallel = ParallelPlan.parse(loaded.one_to_all_parallel)
        media = RequestMedia.load(request_media.folder)
        spec = EngineSpec(
            layout,
            loaded.one_to_all_device,
            lora=lora,
            speed=speed_options(loaded),
            parallel=parallel,
            memory=memory_options(loaded),
        )
        size = clip_size(request, media, conditioning)
        engine, load = ENGINES.get_or_load(spec, size)
        if engine.memory_plan:
            context.log.info(f"memory plan, calculated: {engine.memory_plan.describe()}")
        context.log.info(f"{request.model}: {'cold' if load.cold else 'warm'}, {load.seconds:.1f} s")
        verified = stored_verification(storage.artifacts(), request.model)
        lora_sha256 = None if lora is None else lora_digest(lora, layout)
        if lora and lora_sha256 and verified:
            version = FileVersion(lora_sha256, path_of_lora(lora.path, layout))
            replaced = observe_replaced_lora(context.instance, request.id, request.model, verified.versions, version)
            observe_inputs(context, replaced)
        objects = storage.objects()
        prefix = chunk_prefix(
            request,
            conditioning=pose_conditioning.manifest.digest,
            model=verified.versions if verified else None,
            lora_sha256=lora_sha256,
            precision=engine.precision,
            code_version=CODE_VERSIONS["animation"],
        )
        facts = OriginFacts(
            request=request,
            reference_sha256=request_media.manifest.file(media.reference_file).sha256,
            driver_sha256=request_media.manifest.file(media.driver_file).sha256,
            pose_conditioning=pose_conditioning.manifest.digest,
            lock=read_lock(layout),
            code_version=CODE_VERSIONS["animation"],
            device=Device(kind=engine.device.type, name=device_name(engine.device), dtype=engine.precision),
            lora_sha256=lora_sha256,
        )
        summary = animate_within_memory(
            request,
            media,
            conditioning,
            engine,
            folder,
            lambda lengths: StoredChunks(objects, f"{prefix}/{lengths.name}"),
            _progress_of(context, report, request, size, objects, device_name(engine.device)),
            lambda options: clip_tags(facts.origin(options)),
        )
        if summary.out_of_memory:
            context.log.warning(f"made in chunks of {summary.chunk_length} frames, because {summary.out_of_memory}")
        (folder / SUMMARY_FILE).write_text(json.dumps(summary.describe(), indent=2))
        provenance = write_provenance(
            folder / CLIP_FILE,
            run_id=context.run_id,
            device=str(engine.device) if parallel == ONE_PROCESS else f"{engine.device}, {parallel}",
            memory_plan=engine.memory_plan.name if engine.memory_plan else None,
            cold=load.cold,
            chunks=summary.chunks,
            chunks_resumed=summary.chunks_resumed,
            seconds={
                **_stage_seconds(storage.artifacts(), request.id),
                "loading": load.seconds,
                "sampling": summary.sampling_seconds,
            },
        )
        draw_clip_beside_driver(media, conditioning, folder)

    yield folder_output(
        folder,
        {
            **summary.describe(),
            "seconds": time.monotonic() - started,
            "seconds per frame": summary.sampling_seconds / summary.frame_count,
            "start": "cold" if load.cold else "warm",
            "load seconds": load.seconds,
            **({"memory plan": engine.memory_plan.summary()} if engine.memory_plan else {}),
            **process_metadata(),
        },
        # What was made, not how long it took: summary and provenance differ from run to run.
        data_version=provenance.run.stream_digest,
        attributes={CONTENT_ATTRIBUTE: content},
        previews=(CLIP_PICTURE_FILE,),
        main=CLIP_FILE,
    )
    # Dagster comes back here once the clip is stored and its event is written. Whatever dies before leaves the pending
    # marker, and the sensor ``unrecorded_clips`` finishes the rest.
    _close_request(context, objects, request.id, content, StoredChunks(objects, prefix))


def _progress_of(
    context: dg.AssetExecutionContext,
    report: Progress,
    request: ResolvedRequest,
    size: "ClipSize",
    objects: ObjectStore,
    device: str,
) -> "ClipProgress":
    """Tells how far the clip is, and remembers for the next one like it what its parts took."""
    from libs.stages.clip_costs import CostHistory, RelativeCosts, assumed_costs  # noqa: PLC0415 - like a stage
    from libs.stages.clip_progress import ClipProgress  # noqa: PLC0415

    history = CostHistory(objects, request.model, device, size.width, size.height)

    def remember(costs: RelativeCosts) -> None:
        try:
            history.save(costs)
        except StorageError as error:  # only the time left that is shown depends on it
            context.log.warning(f"what the parts of this clip took is not remembered: {error}")

    return ClipProgress(
        lambda done, all_, phrase, left: report("sampling", done, all_, phrase, left),
        request.steps,
        history.load() or assumed_costs(request, size),
        on_measured=remember,
    )


def _close_request(
    context: dg.AssetExecutionContext, objects: ObjectStore, request_id: str, content: str | None, chunks: "Chunks"
) -> None:
    """Remove the pending marker and the chunks of a clip that is stored and recorded."""
    try:
        AcceptedRequests(objects).close(request_id, content)
        chunks.clear()
    except StorageError as error:  # what is left behind only takes room
        context.log.warning(f"tidying up after the clip failed: {error}")


def _stored_tracks(store: ArtifactStore, request_id: str) -> Path | None:
    """The folder of the stored key-points; None where they were removed since the poses were fitted."""
    if store.manifest("pose_tracks", request_id) is None:
        return None
    return store.fetch("pose_tracks", request_id).folder


def _stage_seconds(store: ArtifactStore, request_id: str) -> dict[str, float]:
    """How long the stages before this one took, as far as they noted it."""
    manifests = {stage: store.manifest(stage, request_id) for stage in ("pose_tracks", "pose_conditioning")}
    noted = {stage: found.attributes.get(SECONDS_ATTRIBUTE) for stage, found in manifests.items() if found}
    return {stage: float(seconds) for stage, seconds in noted.items() if seconds is not None}
