"""Asset check of the upstream checkout: nothing here needs it, and nothing here may write to it.

See ``libs.model_repo.files.third_party`` for how it is looked at.
"""

import warnings

import dagster as dg

from libs.model_repo.files.third_party import UPSTREAM_COMMIT, checkout_state
from orchestration.partitions import MODEL_VARIANTS

# See orchestration/animations/clip_checks.py.
warnings.filterwarnings("ignore", message="Specifying a partitions_def on an AssetCheckSpec")


@dg.asset_check(asset="model_verification", partitions_def=MODEL_VARIANTS)
def third_party_is_untouched() -> dg.AssetCheckResult:
    """The upstream checkout is absent, or at its pinned commit and unchanged."""
    state = checkout_state()
    return dg.AssetCheckResult(
        passed=state.is_fine,
        severity=dg.AssetCheckSeverity.WARN,
        description=state.message,
        metadata={"state": state.state, "commit": state.commit or "none", "pinned": UPSTREAM_COMMIT},
    )
