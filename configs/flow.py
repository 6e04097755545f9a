"""Temporal-pyramid flow matching on the embedded Moving Digits (32x32, one digit, 16 frames).

Paper:    TPDiff, arXiv 2503.09566, flow-matching form (Eq. 4, 12, 13).
Command:  python -m tpdiff_jax.main --config=flow --workdir=runs/flow
Twin:     the same with --config.pyramid.frame_strides="(1,)" is ordinary flow matching.
Hardware: two CPU cores; measured on part of one busy core: 51 minutes, 2.7 steps/s.
Result:   one seed: label accuracy 0.844 (real clips 0.969), identity over frames 0.649 (0.992),
          speed histogram 0.127 px/frame from real (0.010; frozen clips 0.341). With speed_stratum
          "all" and nearest upsampling: 1.000, 0.823, 0.468 (0.067; 1.643).

Chosen in short trials on one core each: data prediction gave moving spots where velocity
prediction of the same cost still gave noise, Muon learned faster than AdamW, width 128 faster than
192, and batches of 8 faster than of 16 at equal time (label accuracy 0.65 against 0.31 after five
minutes). Guidance 4 on two trained networks: identity 0.82 and 0.77, against 0.66 and 0.62 at 2.
One seed each; not a study.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Return the locked default config; every field can be overridden on the command line."""
    config = ConfigDict()

    config.data = ConfigDict()
    config.data.name = "moving_digits"
    config.data.num_frames = 16
    config.data.frame_size = 32
    config.data.num_digits = 1
    config.data.speed_stratum = "natural"  # natural | all | slow | fast | held_out
    config.data.num_threads = 1

    config.model = ConfigDict()
    config.model.name = "video_dit"
    config.model.weights = ""  # folder of published weights to start from; "" draws them
    config.model.patch_size = 8
    # Channels of convolutional levels between pixels and patches, the finest first; each halves
    # the sides of the next. (): a patch is one linear layer's.
    config.model.level_channels = ()
    config.model.hidden_size = 128
    config.model.depth = 4
    config.model.num_heads = 2
    config.model.mlp_ratio = 4.0
    config.model.attention = "factorised"  # factorised | joint
    config.model.attention_kernel = "auto"  # auto | xla | blocks | splash | cudnn
    config.model.activation = "gelu"
    config.model.qk_norm = False
    # True scans over the blocks: one is compiled for all, and a training step on a CPU takes 1.1 to
    # 1.2 times as long, since what its backward pass needs is copied into stacks.
    config.model.scan_layers = False
    config.model.remat = "none"  # none | dots | offload (dots, in host memory) | full | auto
    config.model.dtype = "float32"  # compute type: float32 | bfloat16; parameters stay float32

    config.path = ConfigDict()
    config.path.name = "flow"  # flow | ddim
    config.path.prediction = "data"  # flow: velocity | data; ddim: v | eps | data
    config.path.betas = "scaled_linear"  # ddim only: scaled_linear | linear
    config.path.zero_terminal_snr = False  # ddim only
    config.path.final_alpha = "one"  # ddim only: one | first

    config.pyramid = ConfigDict()
    # Of each stage, coarsest first: over time, or over (time, height, width), such as
    # ((4, 4, 4), (2, 2, 2), (1, 1, 1)).
    config.pyramid.strides = (4, 2, 1)
    config.pyramid.frame_strides = ()  # where given, in place of strides; (1,) is vanilla diffusion
    config.pyramid.stage_fractions = ()  # () is an equal split of [0, 1]; auto: from the clips
    # dct, the lowest frequencies alone, goes both ways: downsampling and upsampling.
    config.pyramid.downsample = "stride"  # over time: stride | mean | dct
    config.pyramid.downsample_space = "mean"  # over height and width: stride | mean | dct
    config.pyramid.upsample = "linear"  # time: nearest | nearest_next | linear | dct | insert
    config.pyramid.upsample_space = "nearest"  # over height and width: nearest | linear | dct
    # stagewise: each line starts from what the stage before knew; marginal: each stage trains as a
    # vanilla network does on its frames, and sampling is exact only where noise hides the detail.
    config.pyramid.line = "stagewise"  # stagewise | marginal
    config.pyramid.coarse_noise = 0.0  # on what training lets a stage know of the one before it
    config.pyramid.frame_positions = "consistent"  # consistent | naive
    config.pyramid.target_unit = "time"  # flow only: time (dx/dt) | stage (dx/du)
    config.pyramid.time_conditioning = "noise_time"  # noise_time | stage_slices
    config.pyramid.stage_weighting = "raw"  # data prediction: raw | equal, every stage's mean is 1
    config.pyramid.data_mean = (0.0,)  # insert: new frames start from it; one, or one a channel
    config.pyramid.overlap = 1.0  # L'/L: stages start sqrt(overlap) times as noisy as they must
    config.pyramid.time_shift = 1.0  # s: times are even in u with t = s u / (1 + (s - 1) u)

    config.alignment = ConfigDict()
    config.alignment.mode = "nearest"  # nearest | hungarian | candidates | none
    config.alignment.level = "coarsest"  # coarsest | stage
    config.alignment.group_size = 8
    config.alignment.num_candidates = 4  # candidates only

    config.optim = ConfigDict()
    config.optim.name = "muon"  # adamw | muon
    config.optim.learning_rate = 4.5e-3
    config.optim.schedule = "cosine"  # constant | cosine
    config.optim.schedule_steps = 0  # its length; 0 is train.num_steps. A longer run may keep it
    config.optim.warmup_steps = 100
    # muon: of the learning rate, for what it leaves to Adam (vectors, embeddings, patches). Muon
    # moves a parameter by 0.2 of its rate an update; Adam at the full rate let stages throw each
    # other off.
    config.optim.adam_ratio = 0.2
    config.optim.weight_decay = 0.01
    config.optim.b1 = 0.9
    config.optim.b2 = 0.99
    config.optim.clip_norm = 1.0
    config.optim.ema_decay = 0.998

    config.adaptation = ConfigDict()
    config.adaptation.trained = ""  # pattern of the paths of what is trained; "" is all
    config.adaptation.rank = 0  # of low-rank changes to its matrices; 0 trains what matches itself
    config.adaptation.alpha = 1.0  # low-rank changes are scaled by alpha / rank
    config.adaptation.weights = ""  # an adapter (LoRA) that they start from; "" is nothing

    config.train = ConfigDict()
    config.train.num_steps = 7000
    config.train.batch_size = 8
    config.train.batch_per_stage = "clips"  # clips | tokens: batch_size * strides clips in a stage
    config.train.grad_accum_steps = 1  # parts of a batch, one after another, to save memory
    config.train.seed = 0
    config.train.stage_probs = ()  # () is uniform
    # Where in a stage's window times are drawn: uniform | logit_normal, whose logit has this mean
    # (above 0: more of the noisier half) and standard deviation.
    config.train.time_sampling = "uniform"
    config.train.logit_mean = 0.0
    config.train.logit_std = 1.0
    config.train.cond_dropout = 0.1  # share of samples trained without their label
    config.train.log_every_steps = 100
    config.train.checkpoint_every_steps = 2000
    config.train.sample_every_steps = 2000
    config.train.eval_every_steps = 3500  # of 128 videos: each costs 3 % of the training
    config.train.keep_checkpoints = 3

    config.log = ConfigDict()
    # Where metrics go: jsonl (read by reports) | tensorboard | wandb (pip install wandb).
    config.log.sinks = ("jsonl", "tensorboard")

    config.guard = ConfigDict()
    # Meant for faults, not for hard batches, which stay below 5 times the median.
    config.guard.spike_factor = 100.0  # skip a step this many times above the median; 0 is never
    config.guard.window = 64  # accepted steps of a stage that the median is taken over
    config.guard.warmup_steps = 16  # of a stage, before spikes are looked for
    config.guard.max_bad_steps = 10  # in a row: stop

    config.sample = ConfigDict()
    config.sample.num_steps = 30  # network calls in all
    config.sample.steps_per_stage = ()  # () is an equal split of num_steps
    # One number or one a stage: its steps start at shares (1 - k / n)^grid_power of its window, so
    # that above 1 the last ones are the shortest. 1 is even.
    config.sample.grid_power = (1.0,)
    # In place of both: noise times of each stage, from its start down to its end, one more than
    # its steps, as in ((1.0, 0.9, 0.7), (0.74, 0.5, 0.3), (0.41, 0.2, 0.0)).
    config.sample.time_grids = ()
    config.sample.solver = "euler"  # euler | second_order
    config.sample.guidance_scale = 4.0
    config.sample.guidance_per_stage = ()  # () uses guidance_scale in every stage
    config.sample.renoise = True
    config.sample.num_videos = 16
    config.sample.batch_size = 8  # at once; rounded up to what the mesh divides
    config.sample.seed = 0
    config.sample.video_weights = ""  # autoencoder that decodes latents; "" stores latents
    config.sample.prompts = ""  # file of prompts, one a line, to show while training
    config.sample.text_weights = ""  # text encoder of the clips, for these prompts

    config.eval = ConfigDict()
    config.eval.num_videos = 128
    config.eval.batch_size = 8  # at once; rounded up to what the mesh divides
    config.eval.seed = 1

    config.mesh = ConfigDict()
    config.mesh.data = -1  # devices along the batch; -1 is all that the others leave
    config.mesh.fsdp = 1  # devices along the batch that also share the parameters
    config.mesh.context = 1  # devices along the tokens of a clip
    config.mesh.tensor = 1  # devices along heads and hidden units

    config.lock()
    return config


def sweep() -> list[dict[str, float]]:
    """Return the points that `python -m launch.sweep` compares: step size, and guidance."""
    return [
        {"optim.learning_rate": learning_rate, "sample.guidance_scale": guidance_scale}
        for learning_rate in (3e-3, 6e-3, 1.2e-2)
        for guidance_scale in (2.0, 4.0)
    ]
