"""Attacks on diffusion models."""
