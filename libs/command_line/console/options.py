"""Arguments and options that commands share, and how help texts show examples.

See ``libs.command_line.models`` for the commands that take them.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from libs.model_repo.hubs.wheel import WHEELS
from libs.model_repo.operations.migrate import STASH_FOLDER
from libs.model_repo.variants import VARIANTS

PARTS_HELP = "checkpoint, pose_models or wan_resources; all three when left out; may be given several times"


def examples(*commands: str) -> str:
    """A help text's epilogue with one command per line."""
    return "Examples:\n\n" + "\n\n".join(f"`{command}`" for command in commands)


class PartChoice(StrEnum):
    """The parts of a repository; typer takes no list of ``Part``, which is a ``Literal``."""

    CHECKPOINT = "checkpoint"
    POSE_MODELS = "pose_models"
    WAN_RESOURCES = "wan_resources"


VariantArgument = Annotated[str, typer.Argument(help=f"One of {', '.join(VARIANTS)}.")]
VariantOrWheelArgument = Annotated[
    str, typer.Argument(help=f"One of {', '.join(VARIANTS)}; or {', '.join(WHEELS)}, the pose networks of a wheel.")
]
ApplyOption = Annotated[
    bool, typer.Option("--apply", help="Do it; without this option, only report what would be done.")
]
StashOption = Annotated[
    Path | None, typer.Option("--stash", help=f"The old pretrained_models folder. [default: MODELS_DIR/{STASH_FOLDER}]")
]
