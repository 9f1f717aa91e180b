"""Why does it say so? Heatmaps, their geometry, and the examination that composes everything."""
