"""The only room that touches a disk or a bucket: durable files, JSON, locks, media, objects."""
