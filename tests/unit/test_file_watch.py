"""Which files changed since the last look, from listings alone."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from libs.files.seen_files import SeenFiles
from libs.storage.backends.store import ObjectInfo

_TIME = datetime(2026, 1, 1, tzinfo=UTC)

listings = st.dictionaries(
    st.text(min_size=1, max_size=20),
    st.builds(
        lambda size, seconds: ObjectInfo("inbox/x", size, _TIME + timedelta(seconds=seconds)),
        st.integers(0, 3),
        st.integers(-3, 3),
    ),
    max_size=8,
)


@given(listings, listings)
def test_what_is_new_or_changed_is_seen_once_and_what_went_is_forgotten(
    first: dict[str, ObjectInfo], second: dict[str, ObjectInfo]
) -> None:
    seen = SeenFiles()
    assert seen.unseen(first.items()) == first
    for path, info in first.items():
        seen.add(path, info)
    seen = SeenFiles.load(seen.dump())
    assert seen.unseen(first.items()) == {}
    changed = {path: info for path, info in second.items() if first.get(path) != info}
    assert seen.unseen(second.items()) == changed
    gone = {path: info for path, info in first.items() if second.get(path) != info}
    assert seen.unseen(first.items()) == gone


def test_ten_thousand_files_fit_into_a_cursor() -> None:
    seen = SeenFiles()
    for index in range(10_000):
        seen.add(f"batch/{index}.mp4", ObjectInfo("x", index, _TIME))
    assert len(seen.dump()) <= 80_000
    assert SeenFiles.load(seen.dump()) == seen


def test_a_cursor_of_another_version_means_nothing_was_seen() -> None:
    for stored in (None, "", "{}", "QUJD"):
        assert SeenFiles.load(stored) == SeenFiles()
