"""From a table to a pack: data, splits, loop, calibration, evaluation."""
