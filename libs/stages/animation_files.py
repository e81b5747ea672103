"""The names of the files a finished animation consists of. Light: anything may import it.

What does not belong here: making them (``libs.stages.animation``).
"""

CLIP_FILE = "clip.mp4"
SUMMARY_FILE = "summary.json"
