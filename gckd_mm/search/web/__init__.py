"""The web page and the JSON interface: ``gckd-search serve``."""
