"""`python -m audit_pipeline` is the command `audit-pipeline`."""

from .cli import main

if __name__ == "__main__":
    main()
