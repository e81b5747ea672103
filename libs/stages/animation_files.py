"""The names of the files that stages write, and of what they note in manifests. Light: anything may import it."""

REFERENCE_TRACK = "reference.npz"
DRIVER_TRACK = "driver.npz"
CLIP_FILE = "clip.mp4"
SUMMARY_FILE = "summary.json"
PREVIEW_FILE = "preview.mp4"
COMPARISON_FILE = "comparison.mp4"
CONTACT_SHEET_FILE = "contact_sheet.png"

# Small pictures for a page; their names, without suffix, are their captions there.
REFERENCE_PICTURE_FILE = "reference_picture.jpg"
DRIVER_PICTURE_FILE = "driving_video.webp"
POSE_PICTURE_FILE = "pose_preview.webp"
CLIP_PICTURE_FILE = "clip_beside_driver.webp"
COMPARISON_PICTURE_FILE = "comparison_preview.webp"

REQUEST_FILE = "request.json"
OPTIONS_FILE = "options.json"

SECONDS_ATTRIBUTE = "seconds"
"""In the manifest of a stage's output: how long the stage took, for the provenance of the clip."""

POSE_TRACKS_CODE = "2"
"""Version of the code that finds key-points; part of a shared track's key, and of what makes tracks stale."""

POSES_SUFFIX = ".poses"
"""Of a file with the key-points of a request's media, which can be handed in with it."""
