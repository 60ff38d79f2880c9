"""The SQL store: a journal, tables of current state, and one writer."""
