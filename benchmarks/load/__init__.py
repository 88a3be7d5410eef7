"""How the API answers many people at once, beside an application that does nothing."""
