"""The stored form of clips: records, their manifest, buckets, the empty prompt, bad clips."""
