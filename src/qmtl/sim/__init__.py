"""The proving ground: worlds from a seed, placebo strategies, injected faults."""
