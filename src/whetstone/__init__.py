"""Whetstone: tune a small language model, judge it against its base, decide, serve."""

__version__ = "0.1.0"

import logging

# PEFT imports it where it is installed, and it then asks everybody to install kernels that are fetched from a hub.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
