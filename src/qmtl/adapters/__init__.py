"""The outside: stores, clocks, the wire, and the codec between JSON and the core."""
