"""Moving Digits, the embedded benchmark: its physics, tracking, classifier and figures."""
