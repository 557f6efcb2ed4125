"""The search over rho: a plan, its preparation, the descent from each start, the refit."""
