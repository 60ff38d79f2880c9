"""Messages to the outside: signed webhooks, mail, and the memory of what was told to whom."""
