"""Models that can be audited. Only modules in here import a modality's libraries."""
