"""What the loop is made of: first state, batches, compiled steps, cost, bad steps."""
