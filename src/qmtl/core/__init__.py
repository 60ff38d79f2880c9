"""What the system decides, as plain functions: no clock, no I/O, no logging, no async."""
