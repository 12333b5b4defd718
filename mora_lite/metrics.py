"""Error metrics of predictions against measured values."""

from __future__ import annotations

import numpy as np


def value_metrics(predicted: np.ndarray, true: np.ndarray) -> dict[str, float | int | None]:
    """n, MAE, RMSE and R2 of two float arrays `[N]` in one unit; pairs with a NaN are left out.

    R2 is None when there are fewer than two values or all true values are the same.
    """
    known = ~(np.isnan(predicted) | np.isnan(true))
    n = int(known.sum())
    if n == 0:
        return {"n": 0, "mae": None, "rmse": None, "r2": None}
    error = predicted[known].astype(np.float64) - true[known].astype(np.float64)
    spread = float(np.square(true[known] - true[known].mean(dtype=np.float64)).sum())
    r2 = 1 - float(np.square(error).sum()) / spread if n > 1 and spread > 0 else None
    return {
        "n": n,
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt(np.square(error).mean())),
        "r2": r2,
    }
