"""Reading a document's text is bounded, whatever it holds."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.errors import InputError
from libs.requests.documents import core_yaml
from libs.requests.documents.document import MAX_DOCUMENT_BYTES, load_document
from tests.fuzz_bounds import call_within

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + level)}: &{chr(98 + level)} [{','.join(['*' + chr(97 + level)] * 10)}]\n" for level in range(10)
)
MERGES = "a: &a {k0: 0}\n" + "".join(
    f"{chr(98 + level)}: &{chr(98 + level)} {{<<: [{','.join(['*' + chr(97 + level)] * 10)}]}}\n" for level in range(10)
)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("[" * 100_000, "nested more than"),
        ("- " * 100_000, "nested more than"),
        ("{a: " * 50_000, "nested more than"),
        ('{"a":' * 50_000, "nested more than"),
        ('{"a":' * 21 + "1" + "}" * 21, "nested more than"),
        (LAUGHS, "once its aliases are written out"),
        (MERGES, "once its aliases are written out"),
        ("a: &a [*a]", "an alias refers to a value that contains it"),
        ("!!python/object/apply:os.system ['true']", "the tag !!python/object/apply:os.system has no meaning"),
        ("x" * (MAX_DOCUMENT_BYTES + 1), "at most"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_hostile_documents_are_refused_quickly(document: str | bytes, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        call_within(60, 300, load_document, document, source="a.yaml")


def test_what_just_fits_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_document("x" * MAX_DOCUMENT_BYTES, source="a.yaml") == "x" * MAX_DOCUMENT_BYTES
    assert load_document("- " * 20 + "x", source="a.yaml")
    with pytest.raises(InputError, match="nested more than 20 levels"):
        load_document("- " * 21 + "x", source="a.yaml")
    monkeypatch.setattr(core_yaml, "MAX_VALUES", 9)
    assert len(load_document("{a: &a [b, c], d: *a}", source="a.yaml")) == 2
    with pytest.raises(InputError, match="more than 9 values"):
        load_document("{a: &a [b, c], d: *a, e: f}", source="a.yaml")


def test_aliases_and_merges_work() -> None:
    document = "common: &common {seed: 3}\nfirst: {<<: *common, id: a}\nsecond: *common\n"
    assert load_document(document, source="a.yaml") == {
        "common": {"seed": 3},
        "first": {"seed": 3, "id": "a"},
        "second": {"seed": 3},
    }


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *(("", None), ("~", None), ("null", None), ("true", True), ("False", False), ("TRUE", True)),
        *(("12", 12), ("-12", -12), ("+12", 12), ("0", 0), ("0x1F", 31), ("0o17", 15)),
        *((".5", 0.5), ("1.", 1.0), ("1e3", 1000.0), ("-1.5E-2", -0.015), (".inf", float("inf")), ("2.0", 2.0)),
        *(("yes", "yes"), ("No", "No"), ("on", "on"), ("y", "y"), ("tRUE", "tRUE"), ("nULL", "nULL")),
        *(("1:30:00", "1:30:00"), ("1_000", "1_000"), ("0b11", "0b11"), ("1:30.5", "1:30.5"), ("-0x1F", "-0x1F")),
        *(("2026-11-23", "2026-11-23"), ("2026-11-23 10:00:00", "2026-11-23 10:00:00"), ("=", "="), (".", ".")),
        *(("'12'", "12"), ('"true"', "true"), ("'~'", "~"), ('"\\u00e4"', "ä"), ("0x", "0x"), ("+", "+")),
    ],
)
def test_values_follow_the_core_schema(written: str, meant: object) -> None:
    (value,) = load_document(f"- {written}\n", source="a.yaml")
    assert (value, type(value)) == (meant, type(meant))
    assert (
        load_document(f"{{{written or '~'}: 1}}", source="a.yaml") == {written.strip("'") or "~": 1} or '"' in written
    )


@pytest.mark.parametrize(
    "number", ["0777", "-007", "00", "1" * 101, "0x" + "f" * 5000, "0o" + "7" * 5000, "9" * 900_000, "-" + "9" * 5000]
)
def test_numbers_that_are_unclear_or_enormous_stay_what_was_written(number: str) -> None:
    (value,) = load_document(f"- {number}\n", source="a.yaml")
    assert (type(value), str(value)) == (core_yaml.UnclearNumber, number)
    assert load_document(f"? {number}\n: 1\n", source="a.yaml") == {number: 1}


def test_json_numbers_are_bounded_too() -> None:
    (value,) = load_document(f"[{'9' * 900_000}]", source="a.json")
    assert isinstance(value, core_yaml.UnclearNumber)
    assert load_document("[1e400, -3, 0.5]", source="a.json") == [float("inf"), -3, 0.5]


@pytest.mark.parametrize("tagged", ["!!bool foo", '!!int ""', "!!timestamp x", "!!str 1", "!own 1", "! 1", "!!set {a}"])
def test_tags_are_refused_by_the_name_of_their_field(tagged: str) -> None:
    shown = tagged.split(maxsplit=1)[0]
    for document, place in (
        (f"prompt: {tagged}", "prompt"),
        (f"- id: a\n  prompt: {tagged}", "request 1: prompt"),
        (f"common: {{prompt: {tagged}}}", "common.prompt"),
        (tagged, "line 1"),
    ):
        with pytest.raises(InputError) as caught:
            load_document(document, source="a.yaml")
        assert str(caught.value).startswith(f"a.yaml: {place}: the tag {shown} has no meaning here")
    if "{" not in tagged:
        with pytest.raises(InputError, match="the tag"):
            load_document(f"{tagged}: 1", source="a.yaml")


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("id: a\nseed: 1\nprompt: x\nseed: 2", "seed: stands there twice, in lines 2 and 4; keep one of them"),
        (
            "seed: 1\nprompt: x\n'seed': 2\nprompt: y",
            "seed: stands there twice, in lines 1 and 3; keep one of them; prompt",
        ),
        ("seed: 1\nseed: 1\n\nseed: 1", "seed: stands there 3 times, in lines 1, 2 and 4;"),
        ("{seed: 1, seed: 2}", "seed: stands there twice, in line 1;"),
        ("size: {height: 1,\n width: 1,\n height: 2}", "size.height: stands there twice, in lines 1 and 3;"),
        ("- {id: a}\n- id: b\n  seed: 1\n  seed: 2", "request 2: seed: stands there twice, in lines 3 and 4;"),
        ("settings:\n  one: {}\n  one: {}", "settings.one: stands there twice, in lines 2 and 3;"),
        ("settings: {one: {seed: 1,\n seed: 2}}", "settings.one.seed: stands there twice, in lines 1 and 2;"),
        ("a: [{b: 1, b: 2}]", "a, entry 1.b: stands there twice, in line 1;"),
        ("a: {<<: {b: 1},\n <<: {b: 2}}", "a.<<: stands there twice, in lines 1 and 2;"),
        ("a: &a {b: 1,\n b: 2}\nc: {<<: *a}", "a.b: stands there twice, in lines 1 and 2;"),
        ('{"id": "a",\n"seed": 1,\n"seed": 2}', "seed: stands there twice, in lines 2 and 3;"),
        ('{"id": "a: {}[]\\"",\n"seed": 1,\n"s\\u0065ed": 2}', "seed: stands there twice, in lines 2 and 3;"),
        (
            '[{"id": "a"},\n{"id": "b", "size": {"height": 1,\n"height": 2}}]',
            "request 2: size.height: stands there twice",
        ),
        ('{"a": [1, {"b": 1}, {"c": 1, "c": 2}]}', "a, entry 3.c: stands there twice, in line 1;"),
        ('{"settings": {"one": {}, "two": {}, "one": {}}}', "settings.one: stands there twice, in line 1;"),
    ],
)
def test_a_name_that_stands_twice_is_refused_with_both_lines(document: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        load_document(document, source="a.yaml")
    assert str(caught.value).startswith(f"a.yaml: {expected}")


def test_one_name_in_several_mappings_is_fine() -> None:
    content = load_document("a: {s: 1}\nb: {s: 1}\nc: {<<: {s: 3}, s: 4}\nd: {<<: [{s: 5}, {s: 6}]}", source="a.yaml")
    assert content == {"a": {"s": 1}, "b": {"s": 1}, "c": {"s": 4}, "d": {"s": 5}}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_that_says_its_encoding_is_read(encoding: str) -> None:
    for end in ("\n", "\r\n"):
        document = f"seed: 1{end}prompt: Ritter in Rüstung, 騎士{end}".encode(encoding)
        assert load_document(document, source="a.yaml") == {"seed": 1, "prompt": "Ritter in Rüstung, 騎士"}
    big_endian = b"\xfe\xff" + "[ä]".encode("utf-16-be")
    assert load_document(big_endian, source="a.yaml") == ["ä"]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf-16-be", "utf-32-le", "shift_jis", "cp437"])
def test_other_encodings_are_named_with_the_way_out(encoding: str) -> None:
    text = "id: a\nprompt: 騎士の踊り\n" if encoding == "shift_jis" else "id: a\nprompt: Größe\n"
    with pytest.raises(InputError, match=r"^a\.yaml: it .* save it again with the encoding UTF-8"):
        load_document(text.encode(encoding), source="a.yaml")


def test_the_line_with_the_wrong_bytes_is_named() -> None:
    with pytest.raises(InputError, match=r"not UTF-8 text \(line 2\)"):
        load_document("id: a\nprompt: Größe".encode("latin-1"), source="a.yaml")
    with pytest.raises(InputError, match="not UTF-8 text"):
        load_document(b"\xff\xfe\x00", source="a.yaml")


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("id: a\nprompt: a knight: armoured", "line 2, column 17: .*must be in quotes"),
        ("id: a\nseed:3\nx: 1", "a blank after the colon"),
        ("id: a\n\tseed: 3", "never with a tab"),
        ("id: a\nprompt: @home", "must be in quotes"),
        ("id: a\nprompt: *star", r"line 2: \*star refers to nothing.*must be in quotes"),
        ("id: a\nprompt: 'it's'", "ends with it"),
        ('id: a\nprompt: "open', "a quote or a bracket is not closed"),
        ("id: a\nseed: 3\x01", r"the character U\+0001 is not allowed in it"),
        ("id: a\n---\nid: b", "line 2: a second document begins; several requests are written as one list"),
        ("? [a]\n: b", "line 1: a name before ':' must be text"),
        ("a: &x {b: 1}\n*x : 1", "line 2: a name before ':' must be text"),
        (rb"{\rtf1\ansi id: a\par seed: 3}", r"rich text \(RTF\).*save it again as plain text"),
        ("<<: 3", "<<: takes over the fields of a mapping"),
        ("[*a, &a b]", "refers to nothing"),
    ],
)
def test_faults_of_syntax_say_where_and_the_way_out(document: str | bytes, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        load_document(document, source="a.yaml")
    assert "<unicode" not in str(caught.value)
    assert str(caught.value).isprintable()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda values: st.lists(values, max_size=5) | st.dictionaries(st.text(max_size=8), values, max_size=5),
    max_leaves=30,
)


@given(json_values)
def test_json_is_read_as_it_is(value: object) -> None:
    assert load_document(json.dumps(value), source="a.json") == value
