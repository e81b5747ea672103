"""How the work on one clip is divided among ranks: processes with a device each. Light: no torch.

``guidance`` ranks divide the guidance passes of a step; ``context`` ranks split the tokens of each of these passes.
Their product is the number of ranks. See ``guidance_parallel`` and ``context_parallel`` for doing it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from libs.errors import InputError, SettingsError

SETTING = "ONE_TO_ALL_PARALLEL"
_PART = re.compile(r"(guidance|context):([1-9][0-9]?)")


@dataclass(frozen=True)
class ParallelPlan:
    """Degrees of guidance and context parallelism; 1 means not divided.

    Rank ``r`` is row ``r // context`` among those that divide passes, column ``r % context`` among those that split
    tokens: ranks that exchange the most are neighbours, and so are their devices.
    """

    guidance: int = 1
    context: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Read the plan from the setting, e.g. ``guidance:3,context:2``; one process if it is empty.

        Raises:
            SettingsError: it is written in another way.
        """
        degrees: dict[str, int] = {}
        for part in (text or "").replace(" ", "").split(",") if text else []:
            match = _PART.fullmatch(part)
            if match is None or match[1] in degrees:
                raise SettingsError(
                    f"{SETTING}={text!r} must be guidance:N, context:N, or both with a comma between them, "
                    "e.g. guidance:3,context:2"
                )
            degrees[match[1]] = int(match[2])
        return cls(**degrees)

    @property
    def ranks(self) -> int:
        """Number of ranks, and of devices."""
        return self.guidance * self.context

    def place(self, rank: int) -> tuple[int, int]:
        """Return (row, column) of a rank."""
        return divmod(rank, self.context)

    def check_block_cache(self) -> None:
        """Raise if tokens are split: each rank would decide for itself which blocks to leave out.

        Raises:
            InputError: says what to ask for instead.
        """
        if self.context > 1:
            raise InputError(
                f"a block cache does not work where ranks split the tokens ({SETTING}={self}): ask for quality: "
                "exact, or divide the guidance passes only"
            )

    def check_heads(self, heads: int, variant: str) -> None:
        """Raise unless ``heads`` attention heads can be shared by the context ranks.

        Each rank computes some of the heads; where the division leaves a rest, diffusers pads with empty ones, but no
        rank may be left without a head of its own.

        Raises:
            SettingsError: names a degree that is possible.
        """
        if _every_rank_has_a_head(heads, self.context):
            return
        possible = max(degree for degree in range(1, self.context) if _every_rank_has_a_head(heads, degree))
        raise SettingsError(
            f"{SETTING}={self}: {self.context} ranks cannot share the {heads} attention heads of {variant}; "
            f"at most context:{possible} can"
        )

    def __str__(self) -> str:
        """Write it as the setting is written."""
        parts = {"guidance": self.guidance, "context": self.context}
        return ",".join(f"{name}:{degree}" for name, degree in parts.items() if degree > 1) or "none"


ONE_PROCESS = ParallelPlan()

Item = TypeVar("Item")


def passes_of_rank(position: int, size: int, passes: Sequence[Item]) -> Sequence[Item]:
    """Return the passes that one of ``size`` ranks computes: neighbours in call order, as even as possible.

    The larger parts come last, since the conditional pass comes first and costs most (it has pose and picture of its
    own). So two ranks divide three passes into the conditional one, and the two others, which by default see the same
    black picture and share what is made of it.
    """
    return passes[position * len(passes) // size : (position + 1) * len(passes) // size]


def _every_rank_has_a_head(heads: int, degree: int) -> bool:
    per_rank = -(-heads // degree)
    return per_rank * degree - heads < per_rank
