"""Which runs are compared: grids, their plans, and running them."""
