"""Sampling: from pictures, prompts and options to the frames of a clip.

``denoise`` makes the latents of one chunk by the passes of ``guidance`` and the noise levels of ``schedule``; ``vae``
and ``prompts`` encode what it is given; ``chunk_plan`` and ``long_video`` make a clip of any length from chunks;
``approximation`` says what the qualities of a request leave out.

Import from the modules: only ``denoise`` and ``vae`` load torch; the others are used in processes without it.
"""
