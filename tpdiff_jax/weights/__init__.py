"""Published weights: safetensors in a local folder to this project's parameters, and back.

    key_table          rows "tensor -> parameter, transform, share" and what follows of them
    frame_rows         rows of tensors that hold one entry a frame
    tensor_files       folders of safetensors files, sharded or not
    config_files       what a config.json beside them says of the network
    language_models    folders of language models, opened by transformers
    weight_hash        the identity of a folder of weights

A model's own table stands in its folder, as in `models/flux/weights.py`. Nothing is fetched and
nothing is unpickled. A tensor that is missing, left over or of another shape is a `ValueError`
before any of them is read.
"""
