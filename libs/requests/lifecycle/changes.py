"""What a request asks for now and its stored clip was not made of, in a few words.

See ``orchestration.staleness`` for inputs that were replaced without the request being submitted again.
"""

from libs.provenance.record import ClipOrigin
from libs.requests.lifecycle.accepted import AcceptedRequest

_FIELDS_NAMED = 3


def changes_since(origin: ClipOrigin, accepted: AcceptedRequest) -> list[str]:
    """Why a clip of this ``origin`` is not what ``accepted`` asks for: ``another seed``."""
    then, now = origin.request, accepted.request.clip_fields()
    named = {"reference": "picture", "driver": "video"}
    changed = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    changes = []
    for field, recorded in (("reference", origin.reference), ("driver", origin.driver)):
        path = getattr(accepted.request, field)
        medium = accepted.media.get(path)
        if field not in changed and medium and medium.sha256 and medium.sha256 != recorded.sha256:
            changes.append(f"{named[field]} {path} replaced")
    words = [named.get(name, name.replace("_", " ")) for name in changed]
    if words:
        more = f" and {len(words) - _FIELDS_NAMED} more" if len(words) > _FIELDS_NAMED else ""
        changes.append(f"another {', '.join(words[:_FIELDS_NAMED])}{more}")
    return changes
