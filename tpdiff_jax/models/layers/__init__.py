"""Parts that several networks are made of."""
