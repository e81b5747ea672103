"""Model files as assets: the checkpoint, the pose networks and the slimmed Wan resources of each variant.

The weights themselves stay below ``MODELS_DIR``, where workers map them into memory; what is stored is the inventory:
every file with its size and digest. What does not belong here: judging the files (``model_verification``).
"""
