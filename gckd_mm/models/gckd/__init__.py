"""GCKD: the model, its memories, their graph, and the pseudo-labels."""
