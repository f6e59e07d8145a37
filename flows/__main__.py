"""`python -m flows NAME ...`, which `sgpo NAME ...` calls."""

from flows.cli import main

if __name__ == "__main__":
    main()
