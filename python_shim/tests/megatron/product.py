"""`product.py megatron ...`: the shim's own command line, after what lets Megatron-Core run on a CPU."""

import logging
import os
import sys

from cpu import on_cpu

if __name__ == "__main__":
    on_cpu()
    from prunebridge_shim.__main__ import main

    status = main(sys.argv[1:])
    logging.shutdown()
    os._exit(status)
