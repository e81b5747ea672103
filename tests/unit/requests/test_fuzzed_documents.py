"""Hostile documents and names: no exception but the project's own, no time and no memory over its bound.

Documents are grown from fragments that hurt parsers, and from real documents with bytes changed. The default tests try
the same ones each time; `make explore` looks for new ones.
"""

import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from libs.errors import InputError
from libs.messages.printable import printable, shell_word
from libs.requests.documents.batch import Submission, parse_submission
from libs.requests.documents.document import MAX_DOCUMENT_BYTES, load_document
from libs.requests.documents.document_names import is_named_for
from tests.fuzz_bounds import call_within

EXAMPLES = settings.default.max_examples  # type: ignore[union-attr]
"""Of the profile: many for `make explore`."""

SECONDS, MEGABYTES = 60, 300
"""For a document of 1 MB; ten times what 10,000 good requests take on a quiet machine."""

WORDS_OF_PYTHON = re.compile(
    r"Input should|valid (string|dictionary|integer)|NoneType|<class|<unicode|instance of|0x7f"
)

FIELDS = ["id", "reference", "driver", "model", "mode", "align", "anchor", "face", "prompt", "steps", "image_guidance"]
FIELDS += ["lora", "lora_strength", "seed", "size", "keep_audio", "priority", "when", "batch", "references", "drivers"]
FIELDS += ["start", "duration"]
FIELDS += ["settings", "common", "<<", "height", "width", "a", "", "~", "1", "{}"]

SCALARS = [
    "",
    "~",
    "null",
    "yes",
    "No",
    "true",
    "1",
    "-1",
    "0777",
    "0x1f",
    "0o17",
    "0b1",
    "1_0",
    "1e400",
    ".nan",
    "-.inf",
]
SCALARS += [
    "1:30:00",
    "2026-11-23",
    "=",
    "!!bool foo",
    '!!int ""',
    "!!timestamp x",
    "!x y",
    "! 1",
    "&a 1",
    "*a",
    "*b",
    "@x",
]
SCALARS += ["'it''s'", '"\\ud800"', '"\\0"', "|\n  x", ">\n  x", "[a, b]", "{a: b}", "{a: b, a: c}", "- x", "? x", "%x"]
SCALARS += [
    "a: b",
    "# x",
    "---",
    "...",
    "\t",
    "\x00",
    "\x1b[31m",
    "\u202e",
    "\ufeff",
    "\ud800",
    "９",
    "٣",
    "NaN",
    "Infinity",
]
SCALARS += [
    "9" * 5000,
    "0x" + "f" * 5000,
    "1:00" * 1500 + ".0",
    "1" + "0" * 400 + ".0",
    "a.png",
    "../a",
    "/a",
    "a" * 600,
]

scalars = st.sampled_from(SCALARS) | st.text(max_size=20) | st.integers().map(str) | st.floats().map(repr)
lines = st.builds(
    "{}{}{} {}{}".format,
    st.sampled_from(["", "- ", "  ", "\t", "? "]),
    st.sampled_from(FIELDS),
    st.sampled_from([":", "", " :"]),
    scalars,
    st.sampled_from(["\n", "\r\n", "\r", "\u2028"]),
)
texts = st.lists(lines, max_size=12).map("".join)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(int("9" * 400)),
    lambda values: (
        st.lists(values, max_size=4)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), values, max_size=6)
    ),
    max_leaves=20,
)
encodings = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"])
REAL = b"""batch: spring
references: [anna.png, ben.png]
drivers: [walk.mp4]
settings:
  plain:
  strict: {seed: 2, size: {height: 64, width: 64}}
common: &c {model: 14b, prompt: "a: b"}
"""


@st.composite
def changed_documents(draw: st.DrawFn) -> bytes:
    """A good document with a few bytes changed, removed or repeated."""
    document = bytearray(REAL)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(document)))
        document[at : at + draw(st.integers(0, 5))] = draw(
            st.binary(max_size=5)
            | st.sampled_from(SCALARS).map(lambda text: text[:50].encode("utf-8", "surrogatepass"))
        )
    return bytes(document)


documents = (
    st.binary(max_size=200)
    | changed_documents()
    | st.builds(lambda text, encoding: text.encode(encoding, "replace"), texts, encodings)
    | json_values.map(lambda value: json.dumps(value).encode())
)
FRAGMENTS = [
    "[",
    "]",
    "{",
    "}",
    "- ",
    "? ",
    ": ",
    ", ",
    "&a ",
    "*a ",
    "!t ",
    "a",
    "a: ",
    "1",
    ":59",
    "'",
    '"',
    "\\",
    "#",
    "\n",
    " ",
    "<<: ",
    "|\n",
    "%",
    "0",
    ".",
    "e",
    "_",
    "-",
    "\t",
    "k: v\n",
    '"a":1,',
]


def submission_or_reason(document: bytes) -> str | int:
    """The number of requests, or why there are none; anything else escapes."""
    try:
        submission: Submission = parse_submission(document, source="a.yaml")
    except InputError as error:
        return str(error)
    return len(submission.requests)


def require_good_answer(answer: str | int) -> None:
    if isinstance(answer, str):
        assert answer.startswith("a.yaml: ")
        assert answer == printable(answer, 20_000), "a message may steer no terminal"
        assert not WORDS_OF_PYTHON.search(re.sub(r'\(found .*?\)|"[^"]*"', "", answer)), answer
        assert len(answer) < 15_000


@settings(max_examples=4 * EXAMPLES)
@example(b'"\\u007f"')
@example(b"prompt: !!bool foo")
@example(b'seed: !!int ""')
@example(b"prompt: !!timestamp x")
@example(b"? 0x" + b"f" * 5000 + b"\n: 1")
@example(b"seed: 1" + b":00" * 400 + b".0")
@given(documents)
def test_any_document_is_read_or_explained(document: bytes) -> None:
    require_good_answer(submission_or_reason(document))
    try:
        load_document(document, source="a.yaml")
    except InputError as error:
        assert str(error).startswith("a.yaml: ")


@settings(max_examples=EXAMPLES // 5)
@example("1:59", ":59")
@example("seed: 1:59", ":59")
@example("", "a: &a [*a]\n")
@example("a: &a {b: 1}\n", "- {<<: *a}\n")
@given(st.sampled_from(FRAGMENTS), st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=4).map("".join))
def test_a_megabyte_of_anything_is_bounded_in_time_and_memory(start: str, repeated: str) -> None:
    document = (start + repeated * (MAX_DOCUMENT_BYTES // len(repeated) + 1))[:MAX_DOCUMENT_BYTES].encode()
    require_good_answer(call_within(SECONDS, MEGABYTES, submission_or_reason, document))


@settings(max_examples=EXAMPLES // 5)
@given(documents)
def test_a_megabyte_of_copies_of_a_document_is_bounded(document: bytes) -> None:
    large = (document * (MAX_DOCUMENT_BYTES // max(1, len(document))))[:MAX_DOCUMENT_BYTES]
    require_good_answer(call_within(SECONDS, MEGABYTES, submission_or_reason, large))


@settings(max_examples=2 * EXAMPLES)
@given(st.text(max_size=250), st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True))
def test_any_name_is_a_copy_or_not(stem: str, name: str) -> None:
    assert is_named_for(stem, name) in {True, False}
    assert is_named_for(f"{name} (3)", name)
    assert shell_word(stem)


@pytest.mark.parametrize("repeated", ["a (1)", " (1)", "copy of ", " - copy", ".yaml", " ", "a"])
def test_long_names_are_looked_at_quickly(repeated: str) -> None:
    stem = (repeated * 10_000)[:10_000]
    assert call_within(SECONDS, MEGABYTES, is_named_for, stem, "a") in {True, False}
