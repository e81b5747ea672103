"""The names of files of a clip: its key-points, the clip, what people look at. Light: anything may import it.

What does not belong here: making them (``libs.stages.animation``, ``pose_conditioning``, ``review``).
"""

REFERENCE_TRACK = "reference.npz"
DRIVER_TRACK = "driver.npz"
CLIP_FILE = "clip.mp4"
SUMMARY_FILE = "summary.json"
PREVIEW_FILE = "preview.mp4"
CONTACT_SHEET_FILE = "contact_sheet.png"

# Small pictures for a page; their names, without suffix, are their captions there.
REFERENCE_PICTURE_FILE = "reference_picture.jpg"
DRIVER_PICTURE_FILE = "driving_video.webp"
POSE_PICTURE_FILE = "pose_preview.webp"
CLIP_PICTURE_FILE = "clip_beside_driver.webp"
COMPARISON_PICTURE_FILE = "comparison_preview.webp"
