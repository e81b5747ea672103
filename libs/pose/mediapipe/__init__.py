"""Whole-body landmarks of real people by MediaPipe's networks, on one CPU core.

The steps, their order and every threshold are those of the library's own holistic graph (model complexity 1, no
smoothing), so its published behaviour holds here; the library itself is not needed. Read ``holistic`` first: it names
the steps in order. ``wholebody`` makes COCO-WholeBody key-points of the landmarks, ``estimator`` runs clips.
"""
