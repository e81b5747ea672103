"""The pose stage as a stream (decode, detect, estimate, draw overlapped) against one frame after the other, batch 1.

    python benchmarks/pose.py                       a clip of 96 frames of 720 x 1280 pixels, about two minutes
    python benchmarks/pose.py --frames 48 --rounds 1
    python benchmarks/pose.py --mediapipe VIDEO     MediaPipe's networks on one thread, on a video of a person

Both ways are run in turn in one process, with the two small synthetic networks, and again with these networks'
recorded answers instead of the networks ("without networks"). Both give the same key-points and, pixel for pixel, the
same drawings; that is checked. Memory is that of a process of its own, for N and 3N frames. What does not belong here:
pass or fail (tests decide that).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
from plain import pose as plain_pose

from libs.media.video.reader import read_frames
from libs.model_repo.hubs.wheel import MEDIAPIPE, require_wheel_files
from libs.pose.conditioning import PoseConditioning
from libs.pose.draw import DrawingStyle
from libs.pose.fitting.framing import resize_crop, resize_crop_frames, target_size
from libs.pose.mediapipe.holistic import BodyFollower, PersonFollower
from libs.pose.mediapipe.networks import Networks
from libs.pose.networks.estimator import OnnxPoseEstimator
from libs.pose.record import record_of
from libs.pose.track import PoseTrack
from libs.sandbox.media import write_puppet_clip
from libs.sandbox.pose_graphs import detection_network, pose_network
from libs.settings import load_settings

WIDTH, HEIGHT = 720, 1280
_REFERENCE = (1360, 768)
"""Height and width of the reference picture, to which driver frames are brought."""
_GOAL = 4.0
_DRAWN_AT_ONCE = 16


class RecordedNetwork:
    """Gives the answers a network gave before, in order, whatever the batch."""

    def __init__(self, answers: np.ndarray, path: Path) -> None:
        self.answers, self.path, self.next = answers, path, 0

    def run(self, images: np.ndarray) -> np.ndarray:
        """The answers to the next ``len(images)`` frames."""
        start, self.next = self.next, (self.next + len(images)) % len(self.answers)
        return self.answers[start : start + len(images)]


class Recorder:
    """A network that keeps its answers."""

    def __init__(self, network) -> None:
        self.network, self.path, self.answers = network, network.path, []

    def run(self, images: np.ndarray) -> np.ndarray:
        """As the network."""
        answer = self.network.run(images)
        self.answers.extend(answer)
        return answer


def streamed(clip: Path, estimator: OnnxPoseEstimator, keep: Callable[[np.ndarray], None]) -> PoseTrack:
    """As the stages do it: the track, then all drawings, handed to ``keep`` a few at a time."""
    track = estimator.estimate(resize_crop_frames(read_frames(clip), *_REFERENCE))
    conditioning = _conditioning(track)
    for start in range(0, len(conditioning), _DRAWN_AT_ONCE):
        keep(conditioning.draw(start, min(start + _DRAWN_AT_ONCE, len(conditioning))))
    return track


def _conditioning(track: PoseTrack) -> PoseConditioning:
    size = target_size(*_REFERENCE, 576)
    blank = np.zeros((size.height, size.width, 3), dtype=np.uint8)
    return PoseConditioning(blank, blank, blank[..., 0], record_of(track), _REFERENCE, DrawingStyle())


def frame_by_frame(clip: Path, estimator: OnnxPoseEstimator, keep: Callable[[np.ndarray], None]) -> PoseTrack:
    """The plain way: each frame is decoded, sized, detected and estimated before the next; then each is drawn."""
    boxes, points = [], []
    for frame in plain_pose.frames_of(clip):
        sized = resize_crop(frame, *_REFERENCE)
        box, keypoints = plain_pose.keypoints_of(sized, estimator.detector.run, estimator.pose_network.run)
        boxes.append(box)
        points.append(keypoints)
    height, width = _REFERENCE
    track = PoseTrack.from_wholebody(np.array(points, dtype=np.float32), width, height, boxes=np.array(boxes))
    record, size = record_of(track), target_size(*_REFERENCE, 576)
    for index in range(len(track)):
        keep(plain_pose.draw(record, index, _REFERENCE, (size.height, size.width))[None])
    return track


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mediapipe", type=Path, metavar="VIDEO", help="only MediaPipe's networks, on this video")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _measure_memory(Path(arguments.child))
        return
    if arguments.mediapipe:
        _measure_mediapipe(arguments.mediapipe, arguments.frames)
        return
    with tempfile.TemporaryDirectory(prefix="pose-benchmark-") as folder:
        clips = {count: Path(folder, f"{count}.mp4") for count in (arguments.frames, 3 * arguments.frames)}
        for count, path in clips.items():
            write_puppet_clip(path, frame_count=count, width=WIDTH, height=HEIGHT, audio=False)
        Path(folder, "detector.onnx").write_bytes(detection_network())
        Path(folder, "pose.onnx").write_bytes(pose_network())
        print(f"{arguments.frames} frames of {WIDTH}x{HEIGHT}, {os.cpu_count()} processors", flush=True)
        _compare(clips[arguments.frames], Path(folder), arguments.rounds)
        peaks = {count: _child(path) for count, path in clips.items()}
        print("memory, frames kept nowhere")
        for count, (before, peak) in peaks.items():
            print(f"  {count:4d} frames: peak {peak / 2**20:7.0f} MiB, {(peak - before) / 2**20:.0f} above the start")
        (_, less), (_, more) = peaks.values()
        print(f"  growth per frame {(more - less) / (2 * arguments.frames) / 2**10:.0f} KiB (a frame has 2700 KiB)")


def _measure_mediapipe(video: Path, most: int) -> None:
    """Milliseconds per frame of the whole body and of the body alone, frames decoded before."""
    networks = Networks.open(require_wheel_files(MEDIAPIPE, load_settings().models_dir))
    frames = list(islice(read_frames(video), most))
    for name, kind in (("whole body", PersonFollower), ("body alone", BodyFollower)):
        follower = kind(networks)
        follower.follow(frames[0])
        wall, processor = time.perf_counter(), time.process_time()
        found = sum(follower.follow(frame) is not None for frame in frames)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        each = 1000 / len(frames)
        print(
            f"{name}: {wall * each:.1f} ms wall, {processor * each:.1f} ms processor; {found} of {len(frames)} frames"
        )


def _load(folder: Path) -> OnnxPoseEstimator:
    return OnnxPoseEstimator(folder / "detector.onnx", folder / "pose.onnx")


def _compare(clip: Path, folder: Path, rounds: int) -> None:
    estimator = _load(folder)
    recorders = Recorder(estimator.detector), Recorder(estimator.pose_network)
    estimator.detector, estimator.pose_network = recorders  # type: ignore[assignment]
    drawings: dict[str, list[np.ndarray]] = {"ours": [], "plain": []}
    ours = streamed(clip, estimator, drawings["ours"].extend)
    recorded = [RecordedNetwork(np.stack(recorder.answers), recorder.path) for recorder in recorders]
    estimator.detector, estimator.pose_network = recorded  # type: ignore[assignment]
    plain = frame_by_frame(clip, estimator, drawings["plain"].extend)
    difference = np.abs(ours.body - plain.body)[..., :2].max()
    drawn = np.mean([(a != b).any() for a, b in zip(*drawings.values(), strict=True)])
    print(f"largest difference of a body point {difference:.1e} of the picture; drawings that differ {drawn:.0%}")
    drawings.clear()

    def nothing(_: np.ndarray) -> None:
        pass

    for label, networks in (("without networks", recorded), ("with networks", [one.network for one in recorders])):
        estimator.detector, estimator.pose_network = networks  # type: ignore[assignment]
        times: dict[str, list[float]] = {"ours": [], "plain": []}
        work: dict[str, list[float]] = {"ours": [], "plain": []}  # of all threads; hardly disturbed by other processes
        for _ in range(rounds):
            for name, way in (("plain", frame_by_frame), ("ours", streamed)):
                started, worked = time.perf_counter(), time.process_time()
                track = way(clip, estimator, nothing)
                times[name].append((time.perf_counter() - started) / len(track) * 1000)
                work[name].append((time.process_time() - worked) / len(track) * 1000)
        goal = f" (goal: {_GOAL:.0f})" if label == "without networks" else ""
        ratios = [plain / ours for plain, ours in zip(times["plain"], times["ours"], strict=True)]
        print(f"{label}, milliseconds per frame (of processor time)")
        print(f"  frame by frame  {median(times['plain']):7.1f} ({median(work['plain']):.1f})")
        print(f"  ours            {median(times['ours']):7.1f} ({median(work['ours']):.1f})")
        print(f"  ratio           {median(ratios):7.2f}, {min(ratios):.2f} to {max(ratios):.2f}{goal}", flush=True)


def _child(clip: Path) -> tuple[int, int]:
    command = [sys.executable, __file__, "--child", str(clip)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    before, peak = json.loads(done.stdout.splitlines()[-1])
    return before, peak


def _measure_memory(clip: Path) -> None:
    estimator = _load(clip.parent)
    before = _status("VmRSS")
    streamed(clip, estimator, lambda _: None)
    print(json.dumps([before, _status("VmHWM")]))


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
