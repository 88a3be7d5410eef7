"""One module for each group of commands; every command imports what it runs only when it is called."""
