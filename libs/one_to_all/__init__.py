"""The engine: from a reference picture, drawn poses and a prompt to the frames of a clip.

It is built in floors, from the ground: ``network`` computes a velocity, ``sampling`` makes chunks of it, ``weights``
loads networks, ``memory`` places them, ``engine`` makes clips, ``parallel`` does so on several devices, and
``engine_cache`` keeps engines loaded.
"""
