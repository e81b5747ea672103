"""Phrases that the sandbox's tokenizer knows whole, and that its transformer learns: above all colours of the light."""

SUBJECTS = ("a puppet", "a girl", "a robot", "a child", "a person", "someone in a pullover", "a cat", "a boy")
ACTIONS = ("dances", "is dancing", "waves both hands", "moves to the music", "turns around")
PLACES = ("", " in a room", " on a stage", " on a street", " on a beach", " in the park", ", full body")
LIGHTS: dict[str, tuple[str, ...]] = {
    "neutral": ("", "", ", high quality", ", detailed face", ", natural movement"),
    "warm": (", warm light", " in warm light"),
    "cold": (", cold light", " in cold light"),
    "red": (", red light", " in red light"),
    "green": (", green light", " in green light"),
    "purple": (", purple light", " in purple light"),
    "dark": (" at night", ", dark", " in the dark at night"),
}
"""What a prompt says of each light."""

_OTHER_WORDS = """
clown vibrant suit dancing joyfully grey markers bright studio soft woman long dress walks along sunset slow motion
cinematic man plays guitar colours realistic headphones cartoon style cream pullover smiling looking at camera still
background stays same character keeps its clothes and face with who is not from above below very two hair eyes hat
"""
OTHER_WORDS = tuple(_OTHER_WORDS.split())
"""Words that say nothing of the light."""

NEGATIVE = """
black background, aerial view, overexposed, low quality, deformation, a poor composition, bad hands, bad teeth,
bad eyes, bad limbs, distortion
"""

CORPUS = "\n".join(
    [*SUBJECTS, *ACTIONS, *(place.strip(", ") for place in PLACES)]
    + [phrase.strip(", ") for phrases in LIGHTS.values() for phrase in phrases]
    + [" ".join(OTHER_WORDS), NEGATIVE]
)
"""What the tokenizer counts its vocabulary from."""
