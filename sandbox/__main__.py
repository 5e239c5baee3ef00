"""`python -m sandbox [setting=value ...]`: serve until Ctrl-C. The settings are those of SandboxConfig."""

import sys

from sandbox.app import run
from sandbox.config import ConfigRefused, from_words
from worker import logs

if __name__ == "__main__":
    try:
        config = from_words(sys.argv[1:])
    except ConfigRefused as refused:
        sys.exit(f"sandbox: {refused}")
    logs.configure("console", "info")
    run(config)
