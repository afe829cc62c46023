"""What runs a training or a test: hooks, loops, launching."""
