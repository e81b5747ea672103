"""``make demo``: the whole graph on the sandbox models, with progress in the terminal.

Puts a sample request into the inbox, materializes what is missing or stale, and says where the results are. The state
is the one ``make ui`` shows.
"""

import argparse
import logging
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
from rich.console import Console

from libs.command_line.console.terminal import styled
from libs.errors import OneToAllError
from libs.requests.inbox.inbox import Inbox
from libs.requests.lifecycle.accepted import AcceptedRequests
from libs.settings import load_settings
from libs.stages.animation_files import CLIP_FILE
from libs.storage.backends.store import ObjectStore
from orchestration.definitions import build_defs
from orchestration.jobs import ANIMATE, PREPARE_MODELS
from orchestration.laptop.instance import prepare_dagster_home, require_checkout
from orchestration.laptop.local_runs import execute_here
from orchestration.laptop.own_media import submit_own_media
from orchestration.laptop.terminal_progress import TerminalProgress, terminal_progress
from orchestration.partitions import ANIMATION_REQUESTS
from orchestration.staleness import unfinished_assets
from orchestration.storage.resources import SettingsResource, StorageResource

VARIANT = "sandbox"

# The run's log is in the UI; a person at a terminal looks at the bars.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def main() -> int:
    """Run the demo; the exit status is 0 when every asset is there and every check passed."""
    parser = argparse.ArgumentParser(prog="make demo", description="Animate a puppet with the sandbox models.")
    parser.add_argument("--again", action="store_true", help="redo finished work")
    parser.add_argument("--driver", type=Path, metavar="VIDEO", help="a dance of your own")
    parser.add_argument("--reference", type=Path, metavar="PICTURE", help="a character of your own")
    arguments = parser.parse_args()
    console = Console()
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    started = time.monotonic()
    try:
        require_checkout()
        prepare_dagster_home(load_settings())
        storage = StorageResource(settings=SettingsResource())
        if arguments.driver or arguments.reference:
            request_id = submit_own_media(storage.objects(), arguments.driver, arguments.reference, print)
        else:
            request_id = _submit_sample_request(storage.objects())
        with dg.DagsterInstance.get() as instance:
            done = _materialize_all(console, instance, request_id, again=arguments.again)
        if done:
            _show_results(console, storage, request_id, time.monotonic() - started)
        return 0 if done else 1
    except OSError as error:  # a disk that is full or read-only
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror or error}", file=sys.stderr)
        return 1
    except OneToAllError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _submit_sample_request(objects: ObjectStore) -> str:
    """Put the sample request and its media into the inbox, unless they are there already."""
    from libs.sandbox.request import SAMPLE_REQUEST_ID, write_sample_request  # noqa: PLC0415 - draws with OpenCV

    requests = AcceptedRequests(objects)
    inbox = Inbox(objects)
    if requests.find(SAMPLE_REQUEST_ID) is None and inbox.waiting_document(SAMPLE_REQUEST_ID) is None:
        with TemporaryDirectory() as folder:
            write_sample_request(Path(folder))
            inbox.put_folder(Path(folder))
    return SAMPLE_REQUEST_ID


def _materialize_all(console: Console, instance: dg.DagsterInstance, request_id: str, *, again: bool) -> bool:
    """Model files first, then the animation; False when a run failed (its error was printed)."""
    definitions = build_defs(progress=TerminalProgress())
    instance.add_dynamic_partitions(str(ANIMATION_REQUESTS.name), [request_id])
    for job_name, partition, title in (
        (PREPARE_MODELS.name, VARIANT, "model files of the sandbox"),
        (ANIMATE.name, request_id, f"request {request_id}"),
    ):
        job = definitions.resolve_job_def(job_name)
        keys = sorted(job.asset_layer.executable_asset_keys)
        wanted = keys if again else unfinished_assets(definitions, instance, keys, partition)
        if not wanted:
            console.print(f"[bold]{title}[/]: everything is up to date")
            continue
        console.print(f"[bold]{title}[/]: {', '.join(key.to_user_string() for key in wanted)}")
        with terminal_progress(console):
            result = execute_here(
                definitions, job_name, instance=instance, partition=partition, selection=wanted, run_config=_QUIET
            )
        if not explain_failures(console, result):
            return False
    return True


def explain_failures(console: Console, result: dg.ExecuteInProcessResult | dg.JobExecutionResult) -> bool:
    """Print failed checks and errors; True if there are only warnings.

    The sandbox's networks are random numbers, so its clips fall short of most quality checks, which only warn.
    """
    checks = result.get_asset_check_evaluations()
    failed = [check for check in checks if not check.passed]
    wrong = [check for check in failed if check.severity is dg.AssetCheckSeverity.ERROR]
    for check in failed:
        colour, kind = ("red", "check") if check in wrong else ("yellow", "warning of check")
        name = f"{check.check_name} of {check.asset_key.to_user_string()}"
        console.print(styled("  ", (f"{kind} {name}", colour), f": {check.description}"))
    for event in result.all_events:
        if event.is_step_failure:
            reason = event.step_failure_data.user_failure_data or event.step_failure_data.error
            console.print(
                styled("  ", (str(event.step_key), "red"), f": {getattr(reason, 'description', None) or reason}")
            )
    count = len(failed) - len(wrong)
    warnings = f", {count} warn, as is to be expected of the sandbox's random networks" if count else ""
    console.print(f"  {len(checks) - len(failed)} of {len(checks)} checks passed{warnings}")
    return result.success and not wrong


def _show_results(console: Console, storage: StorageResource, request_id: str, seconds: float) -> None:
    from libs.stages.animation_files import COMPARISON_FILE, CONTACT_SHEET_FILE, PREVIEW_FILE  # noqa: PLC0415

    store, objects = storage.artifacts(), storage.objects()
    console.print(f"[bold]finished in {seconds:.0f} s[/]")
    for title, asset, file in (
        ("clip", "animation", CLIP_FILE),
        ("pose preview", "pose_conditioning", PREVIEW_FILE),
        ("contact sheet", "animation_review", CONTACT_SHEET_FILE),
        ("comparison", "animation_review", COMPARISON_FILE),
    ):
        manifest = store.manifest(asset, request_id)
        assert manifest is not None, f"{asset} was materialized"
        # plain print: a terminal must be able to open the address as one piece
        print(f"  {title:<14} {objects.uri(manifest.file(file).key)}")
    console.print("`make ui` shows the same in the Dagster UI.")


if __name__ == "__main__":
    raise SystemExit(main())
