"""`python -m podidentity` is the `podidentity` command."""

from podidentity.cli.main import main

if __name__ == "__main__":
    main()
