"""What people put into the bucket, as observed external assets: the roots of every clip's lineage.

Each request has a partition in all of them. A run observes what it is made from; the sensors look on afterwards
(``inbox.sensor`` for documents, ``inbox.input_watch`` for media), so that a picture replaced under its old name makes
exactly the clips stale that were made with it, in Dagster's answers. See ``validate_request`` for fetching them.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from libs.requests.documents.animation_request import POSE_OPTION_FIELDS, ResolvedRequest
from libs.requests.inbox.inbox import Inbox
from libs.requests.lifecycle.accepted import AcceptedRequest
from orchestration.partitions import ANIMATION_REQUESTS
from orchestration.policies import ANIMATIONS_GROUP, OWNERS
from orchestration.storage.observed import FileVersion, observation, observed_versions


def _spec(name: str, description: str, kind: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        name,
        description=description,
        partitions_def=ANIMATION_REQUESTS,
        group_name=ANIMATIONS_GROUP,
        owners=OWNERS,
        kinds={kind},
    )


request_document = _spec("request_document", "The request as a person wrote it, in the inbox.", "yaml")
requested_poses = _spec("requested_poses", "The fields of the request that determine the drawn poses.", "yaml")
reference_picture = _spec("reference_picture", "The picture of the character, in the inbox.", "image")
driving_video = _spec("driving_video", "The video with the motion, in the inbox.", "video")

REQUEST_INPUTS = [request_document, requested_poses, reference_picture, driving_video]

MEDIA_FIELDS = {"reference_picture": "reference", "driving_video": "driver"}
"""Asset name -> the field of a request that names the file."""


def document_versions(request: ResolvedRequest) -> dict[str, str]:
    """Asset name -> version of what the document says; priority and time of day do not count."""
    return {
        "request_document": _digest(request.clip_fields()),
        "requested_poses": _digest(request.model_dump(mode="json", include=POSE_OPTION_FIELDS)),
    }


def observe_document(request: ResolvedRequest, document: str) -> Iterator[dg.AssetObservation]:
    """What ``request``, written in ``document``, asks for now."""
    for asset, version in document_versions(request).items():
        yield observation(asset, request.id, version, {"document": dg.MetadataValue.text(document)})


def observe_changed_documents(
    instance: dg.DagsterInstance, accepted: Sequence[AcceptedRequest]
) -> Iterator[dg.AssetObservation]:
    """Those of ``accepted`` that ask for something else than what was made: what was never made is not out of date."""
    if not accepted:
        return
    ids = [entry.request.id for entry in accepted]
    observed = {name: observed_versions(instance, name, ids) for name in ("request_document", "requested_poses")}
    for entry in accepted:
        for event in observe_document(entry.request, entry.document):
            before = observed[event.asset_key.to_user_string()].get(entry.request.id)
            if before not in {None, event.data_version}:
                yield event


def observe_media(request: ResolvedRequest, digests: Mapping[str, str], inbox: Inbox) -> Iterator[dg.AssetObservation]:
    """The picture and the video of ``request``; ``digests``: field of the request -> SHA-256 of the file."""
    for asset, field in MEDIA_FIELDS.items():
        yield observe_media_file(asset, request.id, FileVersion(digests[field], getattr(request, field)), inbox)


def observe_media_file(asset: str, request_id: str, version: FileVersion, inbox: Inbox) -> dg.AssetObservation:
    """One media file that ``request_id`` names."""
    metadata: dict[str, dg.MetadataValue] = {
        "file": dg.MetadataValue.text(version.path),
        "sha256": dg.MetadataValue.text(version.sha256),
        "stored at": dg.MetadataValue.text(inbox.media_uri(version.path)),
    }
    return observation(asset, request_id, str(version), metadata)


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
