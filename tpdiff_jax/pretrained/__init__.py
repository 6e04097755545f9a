"""Published weights: safetensors in a local folder to this project's parameters, and back.

    key_table          rows "tensor -> parameter, transform, share" and what follows of them
    tensor_files       folders of safetensors files, sharded or not
    flux               the table of the Flux transformer, in two published layouts
    causal_video_vae   the table of the causal video autoencoder
    animatediff        Stable Diffusion's U-Net with motion modules, in three published layouts
    image_vae          the table of Stable Diffusion's autoencoder
    published          networks with published weights, by name

Nothing is fetched and nothing is unpickled. A tensor that is missing, left over or of another shape
is a `ValueError` before any of them is read.
"""
