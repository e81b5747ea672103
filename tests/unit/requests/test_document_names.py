"""Names that browsers and file managers give to copies: the id inside counts."""

import subprocess
from pathlib import Path

import pytest

from libs.messages.printable import shell_word
from libs.requests.documents.document_names import is_named_for
from tests.unit.requests.intake_desk import Desk, ids, request_fields


@pytest.mark.parametrize(
    "pattern",
    [
        *("{}", "{} (1)", "{}(1)", "{} (12)", "{} 2", "{} - Copy", "{} - Copy (2)", "{} copy", "{} copy 3"),
        *("Copy of {}", "Kopie von {}", "{} - Kopie", "{} – Kopie (2)", "Copie de {}", "{} - copie", "Copia de {} (1)"),
        *(
            "{} (copy)",
            "{} (another copy)",
            "{} (3rd copy)",
            "{} (Kopie)",
            "{} - 副本",
            "{}のコピー",
            "{} - コピー (2)",
        ),
        *("{} - Copy - Copy", "Copy of Copy of {}", "{} (1) (2)", "{}.yaml"),
    ],
)
@pytest.mark.parametrize("name", ["a", "copy", "dance-2", "kopia"])
def test_copies_are_named_for_what_they_copy(pattern: str, name: str) -> None:
    assert is_named_for(pattern.format(name), name)
    assert is_named_for(pattern.format(name.capitalize()), name)


@pytest.mark.parametrize(
    "stem", ["b", "a-2", "a_2", "a-copy", "ab", "ba", "a1", "x a", "a final", "a (new)", "", "(1)", " "]
)
def test_what_a_person_wrote_is_another_name(stem: str) -> None:
    assert not is_named_for(stem, "a")


@pytest.mark.parametrize("name", ["a (1).json", "a - Copy.json", "Kopie von a.json", "sub/a copy.JSON"])
def test_a_copy_is_accepted_by_the_id_inside(desk: Desk, name: str) -> None:
    desk.put(name, request_fields("a"))
    intake = desk.scan()
    assert (ids(intake), intake.rejected) == (["a"], [])


def test_the_reason_names_the_rename_to_make(desk: Desk) -> None:
    desk.put("b.json", request_fields("a"))
    (rejection,) = desk.scan().rejected
    assert "id: is 'a', but the document is named for 'b'; rename the document to a.json, or write" in rejection.reason


@pytest.mark.parametrize("name", ["a b.json", "it's.json", 'say "x".json', "$(x).json", "ä.json", "-n;.json"])
def test_the_reason_names_files_as_a_shell_takes_them(desk: Desk, name: str) -> None:
    desk.put(name, b"seed: 1")
    assert [rejection.name for rejection in desk.scan().rejected] == [name]
    text = desk.objects.get_bytes(f"inbox/rejected/{name}.error.txt").decode()
    first, _, rest = text.partition(" was not accepted:")
    moved = rest.partition("The document is now ")[2].partition(".\nPut ")[0]
    said = subprocess.run(
        ["bash", "-c", f"printf %s {first}; printf '\\0'; cat -- {moved}"], capture_output=True, check=True
    )
    assert said.stdout == f"{name}\0".encode() + b"seed: 1"


def test_names_that_are_no_text_have_a_form_too(tmp_path: Path) -> None:
    assert shell_word("plain-1.yaml") == "plain-1.yaml"
    path = tmp_path / b"\xff\x1b\n'.yaml".decode("utf-8", "surrogateescape")
    path.write_text("x")
    assert shell_word(str(path)).isprintable()
    assert (
        subprocess.run(["bash", "-c", f"cat {shell_word(str(path))}"], capture_output=True, check=True).stdout == b"x"
    )
    assert shell_word("\ud800")
