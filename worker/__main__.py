"""`python -m worker` is the command `leadsync`."""

from worker.cli import main

if __name__ == "__main__":
    main()
