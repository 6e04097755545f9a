#!/usr/bin/env bash
# transformers 5.24.0 (torch 2.13.0).
#
# Good guess: `get_input_embeddings()` of a CLIPModel gives its table of token embeddings: the model has one
#   and takes `input_ids`, and CLIPTextModel, the part that holds the table, gives it.
# What happens: a NotImplementedError, and so does `resize_token_embeddings`, so that code which looks
#   there for the size of a vocabulary fails on the whole model alone. SiglipModel, which is built of the
#   same two towers, does give its table.
# Seen: as said. Controls: CLIPTextModel, and the text tower inside the same CLIPModel, give a table of 20
#   entries and are resized to 24; SiglipModel gives its own.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile transformers==5.24.0 torch==2.13.0
HF_HUB_OFFLINE=1 "$dir/venv/bin/python" -W ignore - <<'PY'
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, SiglipConfig, SiglipModel
from transformers.utils import logging

logging.set_verbosity_error()
layers = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
text = {"vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
towers = {"text_config": {**layers, **text}, "vision_config": {**layers, "image_size": 8, "patch_size": 4}}
config = CLIPConfig(**towers, projection_dim=8)
whole = CLIPModel(config)
assert whole.text_model.embeddings.token_embedding.num_embeddings == 20


def tried(method):
    try:
        return method().num_embeddings
    except NotImplementedError as error:
        return type(error).__name__


for name, model, right in (
    ("CLIPModel", whole, False),
    ("CLIPModel's text_model", whole.text_model, True),
    ("CLIPTextModel", CLIPTextModel(config.text_config), True),
    ("SiglipModel", SiglipModel(SiglipConfig(**towers)), True),
):
    got = tried(model.get_input_embeddings)
    print(f"{name}: input embeddings {got}", end="")
    assert got == (20 if right else "NotImplementedError")
    if name.startswith("CLIP"):
        got = tried(lambda: model.resize_token_embeddings(24, mean_resizing=False))
        print(f", resized to 24: {got}", end="")
        assert got == (24 if right else "NotImplementedError")
    print()
PY
