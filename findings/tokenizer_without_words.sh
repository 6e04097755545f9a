#!/usr/bin/env bash
# transformers 5.24.0 beside 4.57.3, tokenizers of CLIP and T5, the text encoders of diffusion models.
#
# Good guess: a tokenizer folder that was downloaded in part, with tokenizer_config.json but none of the files of
#   words (vocab.json and merges.txt, tokenizer.json, spiece.model), is an error, as it was in 4.57.3.
# What happens: 5.24.0 opens it, without an error or a warning, as a tokenizer of its special tokens alone. Prompts
#   are then rows of one unknown token an input character (CLIP) or word (T5): those of equal length are the same
#   to the encoder, embeddings of the right shape come out, and a network trains on them. One of CLIP's two files
#   alone is an error in both.
# Seen: CLIP has 2 tokens and gives "cat" and "dog" the same ids; T5 has 104 and does so too. Ask for a file of
#   words first, or compare len(tokenizer) with the rows of the model's embedding.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat > "$dir/open.py" <<'PY'
import json
import pathlib
import sys

import transformers

is_new = transformers.__version__.startswith("5.")
for kind in ("CLIPTokenizer", "T5Tokenizer"):
    folder = pathlib.Path(sys.argv[1]) / kind
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind, "model_max_length": 77}))
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        print(transformers.__version__, kind, type(error).__name__)
        assert not is_new
        continue
    cat, dog = (tokenizer(text)["input_ids"] for text in ("cat", "dog"))
    print(transformers.__version__, kind, len(tokenizer), "tokens", cat, dog)
    assert is_new and cat == dog
PY
for version in 5.24.0 4.57.3; do
  python3 -m venv "$dir/$version"
  "$dir/$version/bin/pip" install --quiet --disable-pip-version-check --no-compile "transformers==$version" 2> /dev/null
  HF_HUB_OFFLINE=1 "$dir/$version/bin/python" "$dir/open.py" "$dir" 2> /dev/null
done
echo "as described"
