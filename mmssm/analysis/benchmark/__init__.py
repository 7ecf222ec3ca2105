"""Time and memory of implementations, measured side by side."""
