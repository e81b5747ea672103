"""``python -m libs.sandbox.training COMMAND``: makes the training data and trains the sandbox's networks.

Everything has a fixed seed and goes on from its last checkpoint when it is called again. The order: data, autoencoder,
latents, transformer, decoder; detector and pose stand alone. ``keep``
writes what is to be committed; where there is no checkpoint, training goes on from that.
"""

import argparse
from pathlib import Path

from libs.sandbox.trained import WEIGHTS

_DEFAULT_FOLDER = Path("build/sandbox_training")
_CURVES = Path("assets/sandbox_training.png")
_NETWORKS = ("autoencoder", "decoder", "transformer", "detector", "pose")


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m libs.sandbox.training", description=__doc__)
    parser.add_argument("--folder", type=Path, default=_DEFAULT_FOLDER, help="for data, checkpoints and curves")
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data", help="render the clips: 0.1 core seconds each, a minute for 6 shards")
    data.add_argument(
        "--shards", type=int, default=24, help="of 100 upright clips; others of other shapes and lengths besides"
    )
    for name, steps, seconds in (
        ("autoencoder", 3000, "0.6"),
        ("transformer", 4000, "1.3"),
        ("decoder", 1000, "0.9"),
        ("detector", 1200, "0.35"),
        ("pose", 6000, "0.6"),
    ):
        command = commands.add_parser(name, help=f"train it: about {seconds} core seconds a step")
        command.add_argument("--steps", type=int, default=steps, help="of the whole run, with those made before")
        command.add_argument("--anew", action="store_true", help="do not go on from the weights that are kept")
    commands.add_parser("latents", help="encode the clips and draw their poses: 0.3 core seconds each")
    sheet = commands.add_parser("sheet", help="sample held-back clips, measure them, and write a contact sheet")
    sheet.add_argument("--output", type=Path, default=None, help="a PNG; sheet.png in the folder when left out")
    keep = commands.add_parser("keep", help="write a network's averaged weights to libs/sandbox/weights")
    keep.add_argument("network", choices=_NETWORKS)
    keep.add_argument("--finished", action="store_true", help="it will not be trained on")
    curves = commands.add_parser("curves", help="draw the curves of what is kept")
    curves.add_argument("--output", type=Path, default=_CURVES, help="a PNG; the documentation's when left out")
    _run(parser.parse_args())


def _run(arguments: argparse.Namespace) -> None:
    folder: Path = arguments.folder
    steps: int = getattr(arguments, "steps", 0)
    data = folder / "data"
    kept = None if getattr(arguments, "anew", False) else WEIGHTS
    match arguments.command:
        case "data":
            _data(data, arguments.shards)
        case "autoencoder":
            from libs.sandbox.training.autoencoder import AutoencoderTraining, train_autoencoder  # noqa: PLC0415

            train_autoencoder(data, folder, AutoencoderTraining(steps=steps), kept)
        case "latents":
            _latents(data, folder)
        case "transformer":
            from libs.sandbox.training.store import trained_autoencoder  # noqa: PLC0415
            from libs.sandbox.training.transformer import TransformerTraining, train_transformer  # noqa: PLC0415

            train_transformer(folder, trained_autoencoder(folder, kept), TransformerTraining(steps=steps), kept)
        case "decoder":
            from libs.sandbox.training.decoder import DecoderTraining, train_decoder  # noqa: PLC0415
            from libs.sandbox.training.store import trained_autoencoder  # noqa: PLC0415

            train_decoder(data, folder, trained_autoencoder(folder, kept), DecoderTraining(steps=steps), kept)
        case "detector" | "pose":
            from libs.sandbox.training.pose import PoseTraining, train_detector, train_pose_network  # noqa: PLC0415

            if arguments.command == "pose":
                train_pose_network(folder, PoseTraining(pose_steps=steps), kept)
            else:
                train_detector(folder, PoseTraining(detector_steps=steps), kept)
        case "sheet":
            from libs.sandbox.training.sheet import write_sheet  # noqa: PLC0415
            from libs.sandbox.training.store import trained_autoencoder  # noqa: PLC0415

            output = arguments.output or folder / "sheet.png"
            for name, value in write_sheet(data, folder, trained_autoencoder(folder, kept), output).items():
                print(f"{name:<28} {value:.3f}")
        case "keep":
            from libs.sandbox.training.store import keep_weights  # noqa: PLC0415

            command = f"python -m libs.sandbox.training {arguments.network}"
            keep_weights(folder, WEIGHTS, arguments.network, command, arguments.finished)
        case "curves":
            from libs.sandbox.training.curves import write_curves  # noqa: PLC0415

            write_curves(WEIGHTS, arguments.output)


def _data(folder: Path, shards: int) -> None:
    from libs.sandbox.training.data import LONG, LYING, SQUARE, UPRIGHT, WHOLE, make_shards  # noqa: PLC0415

    fewer = max(1, shards // 8)
    for split, shape, count in (
        ("held_back", UPRIGHT, 1),
        ("held_back", SQUARE, 1),
        ("held_back", LONG, 1),
        ("training", UPRIGHT, shards),
        ("training", SQUARE, fewer),
        ("training", LYING, fewer),
        ("training", LONG, 2 * fewer),
        ("training", WHOLE, 2 * fewer),
    ):
        for path in make_shards(folder, split, shape, count):  # type: ignore[arg-type]
            print(path, flush=True)


def _latents(data: Path, folder: Path) -> None:
    from libs.sandbox.training.latents import encode_shards  # noqa: PLC0415
    from libs.sandbox.training.store import trained_autoencoder  # noqa: PLC0415
    from libs.sandbox.training.transformer_start import starting_transformer  # noqa: PLC0415

    for path in encode_shards(data, folder / "latents", trained_autoencoder(folder, WEIGHTS), starting_transformer()):
        print(path, flush=True)


if __name__ == "__main__":
    main()
