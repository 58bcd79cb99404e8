"""Attacks on models of nodes in a graph, beside those on classifiers."""
