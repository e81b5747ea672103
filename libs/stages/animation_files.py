"""The names of the files people look at: the clip, its pose preview, its contact sheet. Light: anything may import it.

What does not belong here: making them (``libs.stages.animation``, ``pose_conditioning``, ``review``).
"""

CLIP_FILE = "clip.mp4"
SUMMARY_FILE = "summary.json"
PREVIEW_FILE = "preview.mp4"
CONTACT_SHEET_FILE = "contact_sheet.png"
