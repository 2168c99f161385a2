"""`python -P -m pipeline` is `fcn`, also where its script is not on the PATH."""

from pipeline.cli.entry import main

if __name__ == "__main__":
    main()
