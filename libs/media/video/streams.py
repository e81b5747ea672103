"""Which of a file's pictures and sounds are meant: the film, not its thumbnail; the default sound.

See ``video_file`` for opening files.
"""

from collections.abc import Mapping, Sequence

import av

_PICTURES = (
    av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails | av.stream.Disposition.still_image
)
_FOR_FEW = (
    av.stream.Disposition.comment | av.stream.Disposition.hearing_impaired | av.stream.Disposition.visual_impaired
)

_SOUND_RATES = range(4_000, 768_001)
"""Samples per second. Others come from damaged headers; a second of them would become hundreds of megabytes."""


def film_candidates(container: av.container.InputContainer) -> list[av.VideoStream]:
    """Video streams that may be the film: no covers, no thumbnails, and none without decoder if there are others."""
    films = [stream for stream in container.streams.video if not stream.disposition & _PICTURES]
    readable = [stream for stream in films if stream.codec_context is not None and stream.width and stream.height]
    return readable or films[:1]


def choose_film(candidates: Sequence[av.VideoStream], frame_counts: Mapping[int, int]) -> av.VideoStream:
    """The stream a player would show: of those with more than one frame the default one, or the largest, or the first.

    ``frame_counts``: index of a stream -> its frames; only whether there is more than one counts.
    """
    films = [stream for stream in candidates if frame_counts.get(stream.index, 0) > 1] or list(candidates)
    films = [stream for stream in films if stream.disposition & av.stream.Disposition.default] or films
    return max(films, key=lambda stream: (stream.width * stream.height, -stream.index))


def usable_sound(container: av.container.InputContainer) -> av.AudioStream | None:
    """The sound track a player would play: of those that can be decoded the default one or the first, or None.

    Commentaries and descriptions for the blind are left for last. A transport stream may announce a track that only
    begins later, or never: it has neither rate nor channels yet.
    """
    usable = [stream for stream in container.streams.audio if _is_usable(stream)]
    usable = [stream for stream in usable if not stream.disposition & _FOR_FEW] or usable
    usable = [stream for stream in usable if stream.disposition & av.stream.Disposition.default] or usable
    return usable[0] if usable else None


def _is_usable(stream: av.AudioStream) -> bool:
    return stream.codec_context is not None and stream.sample_rate in _SOUND_RATES and stream.channels > 0
