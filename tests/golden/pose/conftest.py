"""Makes ``pose_vectors`` importable by the test modules of this folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
