"""The patches that change an object: JSON patch, JSON merge patch and strategic merge patch."""
