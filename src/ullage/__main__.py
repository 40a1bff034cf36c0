"""`python -m ullage` is `ullage`."""

from ullage.cli.main import run

if __name__ == "__main__":
    run()
