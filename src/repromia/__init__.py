"""Measure how much a machine-learning model gives away about its training data."""

from repromia._version import __version__

__all__ = ["__version__"]
