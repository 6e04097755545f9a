"""The only room that touches a disk: durable files, JSON, locks, media."""
