"""Texts nested deeper than Python's stack, while garbage waits whose finalizers need some of that stack."""

import contextlib
import gc
import json
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from libs.errors import OneToAllError
from libs.files.garbage_collection import garbage_collection_paused
from libs.files.json_file import parse_json
from libs.model_repo.hubs.huggingface import HuggingFaceHub
from libs.model_repo.hubs.modelscope import ModelScopeHub
from libs.requests.documents.document import load_document
from libs.storage.admin.minio_user import refusal
from libs.storage.chunks import StoredChunks
from libs.storage.previews import current_policy

DEEP = '{"siblings":' * 5_000


class Garbage:
    """In a cycle, with a finalizer that needs a few frames of stack."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        json.dumps({"a": [[[1]]]})


@pytest.fixture
def failed_finalizers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException | None]]:
    failed: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: failed.append(unraisable.exc_value))
    before = gc.get_threshold()
    yield failed
    gc.set_threshold(*before)


def listing_of(hub: HuggingFaceHub | ModelScopeHub) -> object:
    """What the hub's client makes of an answer that is nested too deeply, which it parses by itself."""
    parse = lambda *_, **__: json.loads(DEEP)  # noqa: E731
    stand_in: Any = SimpleNamespace(list_repo_files=parse, model_info=parse)
    hub._api = stand_in
    if isinstance(hub, ModelScopeHub):
        hub._listings = stand_in
    return hub.list_files("a/b", None)


OBJECTS = SimpleNamespace(
    bucket="b",
    endpoint="e",
    uri=str,
    get_bytes=lambda key: DEEP.encode(),
    client=SimpleNamespace(get_bucket_policy=lambda Bucket: {"Policy": DEEP}),  # noqa: N803
)

PARSERS: dict[str, Callable[[], object]] = {
    "model file": lambda: parse_json(DEEP, "index.json"),
    "document": lambda: load_document(DEEP, source="deep.json"),
    "Hugging Face": lambda: listing_of(HuggingFaceHub()),
    "ModelScope": lambda: listing_of(ModelScopeHub()),
    "chunk": lambda: StoredChunks(OBJECTS, "chunks/p/x").load(0),  # type: ignore[arg-type]
    "policy": lambda: current_policy(OBJECTS),  # type: ignore[arg-type]
    "MinIO's answer": lambda: refusal(SimpleNamespace(_body=DEEP, _code=400)),
}


@pytest.mark.parametrize("parser", PARSERS)
def test_no_finalizer_runs_where_the_stack_is_nearly_full(
    parser: str, failed_finalizers: list[BaseException | None]
) -> None:
    for threshold in range(700, 1000, 2):  # one of these begins a search for garbage at the very end of the stack
        Garbage()
        gc.set_threshold(threshold)
        with contextlib.suppress(OneToAllError):
            PARSERS[parser]()
    assert failed_finalizers == []
    assert gc.isenabled()


def test_a_pause_inside_a_pause_ends_with_the_outer_one() -> None:
    with garbage_collection_paused():
        with garbage_collection_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
