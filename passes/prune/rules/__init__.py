"""How channels pass through operators, and what of an operator changes when some are gone."""
