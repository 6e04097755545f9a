"""What of videos is measured: Moving Digits by their physics, clips against held-out ones."""
