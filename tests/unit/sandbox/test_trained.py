"""Kept weights: training goes on from them, and a repository is assembled of them."""

import json
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from diffusers import AutoencoderKLWan
from PIL import Image
from safetensors.torch import load_file, save_file

from libs.errors import InputError, ModelFilesError
from libs.model_repo.verification.verify import verify_repository
from libs.sandbox.networks import TrainedNetworks
from libs.sandbox.repository import write_sandbox_repository
from libs.sandbox.sizes import NETWORK
from libs.sandbox.trained import LOCK_NAME, WEIGHTS, kept_networks, kept_weights, trained_autoencoder
from libs.sandbox.training.autoencoder_start import starting_autoencoder
from libs.sandbox.training.curves import write_curves
from libs.sandbox.training.muon import Muon
from libs.sandbox.training.pose import measure_norms
from libs.sandbox.training.pose_networks import Detector, PoseNetwork
from libs.sandbox.training.runs import Run
from libs.sandbox.training.store import POSE_NETWORKS, keep_weights
from libs.sandbox.training.transformer_start import starting_transformer


def run_of(folder, name, network, kept=None):
    return Run(folder, name, network, Muon(network.named_parameters()), kept=kept)


def saved(run, step=7):
    run.step, run.seconds = step, 70.0
    run.save(loss=0.5)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Weights of all networks, as far as their starts are trained."""
    folder, kept = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("weights")
    (folder / "latents").mkdir()
    noise = torch.randn(2, 16, 3, 20, 16, generator=torch.Generator().manual_seed(0))
    torch.save(
        {"clip": 1.5 * noise + 0.25, **dict.fromkeys(("reference", "poses", "reference_pose", "light"), noise)},
        folder / "latents" / "training-160x128x9-000.pt",
    )
    torch.manual_seed(0)
    networks = {
        "autoencoder": starting_autoencoder(),
        "transformer": starting_transformer(),
        "detector": Detector(),
        "pose": PoseNetwork(),
    }
    for name, network in networks.items():
        for parameter in [*network.parameters(), *network.buffers()] if name in POSE_NETWORKS else ():
            if parameter.dim() == 1:
                parameter.data.uniform_(0.5, 1.5)  # an export joins what is equal, as no trained norms are
        saved(run_of(folder, name, network))
        keep_weights(folder, kept, name, f"python -m libs.sandbox.training {name}", finished=False)
    return kept


@pytest.fixture(scope="module")
def trained_layout(sandbox_layout, kept, tmp_path_factory):
    root = tmp_path_factory.mktemp("models") / "sandbox"
    layout = replace(
        sandbox_layout,
        variant=replace(sandbox_layout.variant, network=NETWORK),
        root=root,
        pretrained=root / "pretrained_models",
        wan=root / "pretrained_models" / sandbox_layout.variant.wan_folder,
    )
    write_sandbox_repository(layout, networks=TrainedNetworks(kept))
    return layout


@pytest.mark.parametrize(("name", "network"), [("pose", PoseNetwork), ("autoencoder", starting_autoencoder)])
def test_training_goes_on_from_kept_weights_where_there_is_no_checkpoint(kept, tmp_path, name, network):
    run = run_of(tmp_path, name, network(), kept)
    wanted = kept_weights(kept, name)
    assert (run.step, run.seconds) == (7, 70.0)
    for one in (run.network, run.average):
        assert all(torch.equal(one.state_dict()[key], value) for key, value in wanted.items())
    saved(run, step=9)
    assert run_of(tmp_path, name, network(), kept).step == 9  # a checkpoint goes first
    assert run_of(tmp_path / "else", name, network()).step == 0


def test_a_repository_is_assembled_from_trained_weights(trained_layout, kept):
    assert [part.state for part in verify_repository(trained_layout, "fast").parts] == ["complete"] * 3
    shards = sorted(trained_layout.root.glob("model-*.safetensors"))
    state = {name: value for shard in shards for name, value in load_file(shard).items()}
    wanted = load_file(kept / "transformer.safetensors")
    assert state.keys() == wanted.keys() and all(torch.equal(state[name], value) for name, value in wanted.items())
    vae = AutoencoderKLWan.from_pretrained(trained_layout.wan_part("vae"))
    assert np.allclose(vae.config.latents_std, 1.5, atol=0.2) and np.allclose(vae.config.latents_mean, 0.25, atol=0.2)
    assert trained_layout.detector.read_bytes() == (kept / "detector.onnx").read_bytes()
    pose = onnxruntime.InferenceSession(trained_layout.pose_estimator)
    assert pose.run(None, {"input": np.zeros((2, 3, 256, 192), np.float32)})[0].shape == (2, 133, 64, 48)


def test_a_repository_of_other_weights_is_rewritten(trained_layout, kept, tmp_path):
    marker = trained_layout.root / ".sandbox.json"
    before = json.loads(marker.read_text())
    write_sandbox_repository(trained_layout, networks=TrainedNetworks(kept))
    assert json.loads(marker.read_text()) == before
    for path in kept.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    lock = kept_networks(tmp_path)
    lock["pose"]["steps"] += 1
    (tmp_path / LOCK_NAME).write_text(json.dumps(lock))
    write_sandbox_repository(trained_layout, networks=TrainedNetworks(tmp_path))
    after = json.loads(marker.read_text())
    assert after["code"] != before["code"] and after["files"] == before["files"]


def test_damaged_trained_weights_are_reported(sandbox_layout, empty_layout, kept, tmp_path):
    with pytest.raises(InputError, match="is not the size of the trained network"):
        write_sandbox_repository(empty_layout, networks=TrainedNetworks(kept))
    with pytest.raises(ModelFilesError, match="training pose"):
        TrainedNetworks(tmp_path).pose_network()
    (tmp_path / LOCK_NAME).write_bytes((kept / LOCK_NAME).read_bytes())
    with pytest.raises(ModelFilesError, match="differs from what"):
        TrainedNetworks(tmp_path).detector()
    save_file({"else": torch.zeros(1)}, tmp_path / "transformer.safetensors")
    with pytest.raises(ModelFilesError, match=r"transformer\.safetensors: differs"):
        kept_weights(tmp_path, "transformer")


def test_norms_of_an_averaged_network_are_measured_again():
    torch.manual_seed(0)
    network = Detector((8, 8, 8, 8))
    pictures = torch.rand(8, 3, 128, 128)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    norms[0].running_mean.fill_(1e3)
    measure_norms(network, lambda: network.grid(pictures))
    assert not network.training
    with torch.no_grad():
        judged = network.grid(pictures)
        network.train()
        wanted = network.grid(pictures)
    assert torch.allclose(judged, wanted, atol=0.05)


def test_the_lock_holds_a_thinned_curve_and_it_is_drawn(tmp_path):
    network = Detector()
    run = run_of(tmp_path, "detector", network)
    for step in range(1, 71):
        run.step = step
        with run.curve_path.open("a") as curve:
            curve.write(json.dumps({"step": step, "seconds": step, "found": step / 70}) + "\n")
    saved(run, step=71)
    keep_weights(tmp_path, tmp_path / "kept", "detector", "command", finished=True)
    points = kept_networks(tmp_path / "kept")["detector"]["curve"]
    assert len(points) <= 30 and points[-1]["step"] == 71 and points[-2]["found"] < 1
    assert len((tmp_path / "kept" / LOCK_NAME).read_text().splitlines()) < 60
    write_curves(tmp_path / "kept", tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (920, 300) and np.asarray(picture)[:, 460:].min() == 255
        assert len(np.unique(np.asarray(picture)[:, :460].reshape(-1, 3), axis=0)) > 4


def test_the_weights_that_are_committed_are_small_whole_and_of_these_classes():
    lock = kept_networks(WEIGHTS)
    assert {"transformer", "detector", "pose"} < set(lock) and {"decoder", "autoencoder"} & set(lock)
    assert {path.name for path in WEIGHTS.iterdir()} == {LOCK_NAME, *(entry["file"] for entry in lock.values())}
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 12_000_000
    starting_transformer().load_state_dict(kept_weights(WEIGHTS, "transformer"))
    trained_autoencoder()
    for name, network in (("pose", PoseNetwork()), ("detector", Detector())):
        left_out = network.load_state_dict(kept_weights(WEIGHTS, name), strict=False).missing_keys
        assert all(key.endswith("num_batches_tracked") for key in left_out)
