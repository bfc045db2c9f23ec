"""The batches of the loop bench, read where the model is."""

import os

from safetensors.torch import load_file


def batches():
    return load_file(os.environ["LOOP_BATCHES"])["input_ids"].unbind()
