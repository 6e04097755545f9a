"""The U-Net of latent diffusion, on every frame of a video: what its widenings in time share.

`animatediff` and `modelscope` each add layers that join the frames. `config` and `layers` are the
same for both; a network names the layers of its own as a `UNetForm` of `steps`.
"""
