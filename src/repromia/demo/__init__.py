"""Real audits that need nothing but pip packages: small, offline, minutes on two cores."""
