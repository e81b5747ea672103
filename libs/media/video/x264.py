"""Options of the H.264 encoder with which the same frames give the same bytes, run after run and machine after machine.

See ``writer`` for sizes, rates and colour tags.
"""

from functools import lru_cache
from pathlib import Path

_CPU_INFORMATION = Path("/proc/cpuinfo")


def x264_options(constant_rate_factor: int, preset: str) -> dict[str, str]:
    """FFmpeg's options of ``libx264`` for a quality (0 to 51, less is better) and a speed (``fast``, ``medium``, ...).

    The AVX-512 code of x264 is left out. Its macroblock tree reads uninitialised memory: with many sizes (64 x 96,
    272 x 480) every run gives other bytes, and with all sizes other ones than AVX2 gives.
    """
    options = {"crf": str(constant_rate_factor), "preset": preset}
    if _has_avx512():
        options["x264-params"] = "asm=avx2"  # and all before it; every processor with AVX-512 has them
    return options


@lru_cache(maxsize=1)
def _has_avx512() -> bool:
    try:
        return "avx512" in _CPU_INFORMATION.read_text()
    except OSError:  # not Linux
        return False
