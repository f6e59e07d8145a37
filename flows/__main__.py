"""`python -m flows NAME ...` runs a command of flows/commands.py."""

from flows.cli import main

if __name__ == "__main__":
    main()
