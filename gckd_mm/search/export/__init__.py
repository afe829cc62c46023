"""Trained retrievers as graphs that run without this package's models."""
