"""Is it true? Pictures and documents in, evidence, an answer, and a verdict on each of its claims out."""
