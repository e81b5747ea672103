"""What a step costs in the approximate modes, at full size: block cache computed and replayed, guidance left out.

With random weights nobody can say how often a cache replays; these are the times of which a clip's is made. What does
not belong here: how far approximate clips are from exact ones (``benchmarks/approximation.py``).
"""

from collections.abc import Iterator

import torch
from measuring.part_run import PartRun
from measuring.record import Figure
from measuring.subject import Subject, make_subject

from libs.one_to_all.compilation import apply_speed
from libs.one_to_all.network import ActivationCache, use_block_cache
from libs.one_to_all.sampling.approximation import QUALITIES
from libs.one_to_all.sampling.guidance import Guidance
from libs.one_to_all.speed_options import SpeedOptions

ROUNDS = 1


def _step(subject: Subject, activations: ActivationCache, guidance: Guidance) -> torch.Tensor:
    """As the sampler makes it, each pass with a cache of its own."""
    activations.start_step(passes_share_an_image=len(guidance.passes) > 1)
    velocities = {}
    for one in guidance.passes:
        with subject.transformer.cache_context(one.name):
            velocities[one.name] = subject.run_pass(one, activations)
    return guidance.combine(velocities)


def _figures(run: PartRun) -> Iterator[Figure]:
    size = run.sizes[0]
    subject, activations = make_subject(run.network(), run.grid(size), run.device, run.dtype), ActivationCache()
    apply_speed(subject.transformer, SpeedOptions(), run.device, run.dtype)
    guidance, threshold = subject.guidance, QUALITIES["fast"].block_cache_threshold

    def with_empty_cache() -> torch.Tensor:
        use_block_cache(subject.transformer, threshold)
        return _step(subject, activations, guidance)

    exact = run.clock.undisturbed(run.clock.timing(lambda: _step(subject, activations, guidance)))
    yield Figure(f"exact step of three passes, {size[0]}x{size[1]}", exact, "s")
    unguided = run.clock.undisturbed(run.clock.timing(lambda: _step(subject, activations, guidance.unguided())))
    yield Figure("… without guidance, of exact", unguided / exact, "share")
    computed = run.clock.undisturbed(run.clock.timing(with_empty_cache))
    yield Figure("… with a block cache, all blocks computed, of exact", computed / exact, "share")
    # the same inputs again: nothing has changed since the last computed step, so all passes are replayed
    replayed = run.clock.undisturbed(run.clock.timing(lambda: _step(subject, activations, guidance), warm=True))
    yield Figure("… with a block cache, replayed, of exact", replayed / exact, "share")
    use_block_cache(subject.transformer, None)


def take_figures(run: PartRun) -> None:
    """Measure and record."""
    run.record.take("steps", lambda: _figures(run))
