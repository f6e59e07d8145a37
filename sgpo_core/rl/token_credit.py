"""What of its response's advantage each token gets: A_t = A x credit_t, so that masks and entropies need no second path
to the loss.

credit_t is a product, 1 where nothing is said: the mask (`mask_after_error`), and RL-ZVP's entropy share. The clipped
surrogate is homogeneous in A >= 0 and A <= 0 alike, min(rho w A, clip(rho) w A) = w min(rho A, clip(rho) A) for w >= 0,
so that a weight on A is a weight on the token's loss.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sgpo_core.types import FloatArray

Array = npt.NDArray[np.floating[Any]]


def entropy_share(entropies: Array, all_correct: bool) -> FloatArray:
    """RL-ZVP (arXiv 2509.21880) for groups without signal: a correct response is rewarded where the policy was unsure,
    H_t; a wrong one is punished least there, max_k H_k - H_t (maximum over the response). Float32 [tokens], nats."""
    if not len(entropies):
        return entropies.astype(np.float32)
    share = entropies if all_correct else entropies.max() - entropies
    return share.astype(np.float32)
