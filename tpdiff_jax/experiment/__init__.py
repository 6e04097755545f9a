"""A config as typed objects: fields, specs, shapes of clips, what they cost."""
