"""What is done to a prompt before it is encoded: cleaning, and the number of tokens there is room for.

Needs no tensors, so that a prompt can be looked at where there is no GPU.

Source: docs/specification.md#prompts.
"""

import html

import ftfy
import regex

MAX_SEQUENCE_LENGTH = 512


def clean_prompt(prompt: str) -> str:
    """The prompt with mojibake and HTML entities repaired and white space joined; letters keep their case."""
    repaired = html.unescape(html.unescape(ftfy.fix_text(prompt))).strip()
    return regex.sub(r"\s+", " ", repaired).strip()
