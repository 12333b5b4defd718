"""Libraries of millions: shards, processes, ranking, report."""
