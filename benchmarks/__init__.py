"""artcache side by side with its peers: `python -m benchmarks`. See NOTES.md for the limits."""
