"""What runs a plan: packed weights, buffers, graphs, and the checks that the result is right."""
