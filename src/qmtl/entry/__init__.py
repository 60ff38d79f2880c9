"""The doors: HTTP, the command line, the campaign loop, and the wiring of every adapter."""
