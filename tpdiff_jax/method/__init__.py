"""The method of TPDiff (arXiv 2503.09566) as a library: needs jax, numpy, optax and chex only.

    symbol            code                        meaning
    t in [0, 1]       t                           noise time: 0 is data, 1 is noise
    gamma_t, sigma_t  path.gamma(t), path.sigma   x_t = gamma_t x_0 + sigma_t eps (Eq. 6)
    nu_t              path.nu(t)                  sigma_t / gamma_t, rising in t
    r_i               stage.frame_stride          stage i keeps one frame in r_i; the last has 1
    s_i > e_i         stage.t_start, stage.t_end  noise times at which sampling enters and leaves
    gamma_s, gamma_e  stage.gamma_start, ._end    the path at s_i and e_i; likewise sigma, nu
    D_{r_i}           stage.downsample(x_0)       full-rate frames to the stage's
    U                 stage.jump.upsample(x)      frames of stage i-1 to those of stage i
    L                 stage.jump.eigenvalue       largest eigenvalue of U U^T
    x_i, c_i          x_i, c_i                    the stage's video; what stage i-1 knew of it
    xs_i, xe_i        x_start, x_end              end points of the stage's training path
    a_i, eps_i        a_i, eps_i                  DDIM: its line is gamma_t a_i + sigma_t eps_i
    v_i               target of prediction "v"    gamma_t eps_i - sigma_t a_i
    m_i               target of "data" for flow   where the stage's line would meet t = 0
    b f h w c         axes of every video         batch, frames, height, width, channels

Stages are listed in the order in which sampling runs them: stage 0 is the coarsest (the paper's
k = K), stage K-1 has every frame (k = 1). sigma is a standard deviation.

Public names, by file:

    paths             FlowPath, DDIMPath, Path, Scales, broadcast_time
    temporal_pyramid  Resampling
    stages            make_pyramid, Pyramid, Stage, Jump
    stage_targets     sample_times, training_point, TrainingPoint, stage_videos, stage_end_points
    network_outputs   output_to_velocity, output_to_data_and_noise, loss_weight
    stage_transition  stage_transition, lift_noise
    noise_alignment   AlignmentSpec, aligned_noise, pair_nearest, pair_hungarian
    samplers          SamplerSpec, sample, sample_from_noise, split_steps
    guidance          guided
    losses            mean_squared_error
    choices           check_choice
"""

from tpdiff_jax.method.choices import check_choice
from tpdiff_jax.method.guidance import guided
from tpdiff_jax.method.losses import mean_squared_error
from tpdiff_jax.method.network_outputs import (
    loss_weight,
    output_to_data_and_noise,
    output_to_velocity,
)
from tpdiff_jax.method.noise_alignment import (
    AlignmentSpec,
    aligned_noise,
    pair_hungarian,
    pair_nearest,
)
from tpdiff_jax.method.paths import DDIMPath, FlowPath, Path, Scales, broadcast_time
from tpdiff_jax.method.samplers import SamplerSpec, sample, sample_from_noise, split_steps
from tpdiff_jax.method.stage_targets import (
    TrainingPoint,
    sample_times,
    stage_end_points,
    stage_videos,
    training_point,
)
from tpdiff_jax.method.stage_transition import lift_noise, stage_transition
from tpdiff_jax.method.stages import Jump, Pyramid, Stage, make_pyramid
from tpdiff_jax.method.temporal_pyramid import Resampling

__all__ = [
    "AlignmentSpec",
    "DDIMPath",
    "FlowPath",
    "Jump",
    "Path",
    "Pyramid",
    "Resampling",
    "SamplerSpec",
    "Scales",
    "Stage",
    "TrainingPoint",
    "aligned_noise",
    "broadcast_time",
    "check_choice",
    "guided",
    "lift_noise",
    "loss_weight",
    "make_pyramid",
    "mean_squared_error",
    "output_to_data_and_noise",
    "output_to_velocity",
    "pair_hungarian",
    "pair_nearest",
    "sample",
    "sample_from_noise",
    "sample_times",
    "split_steps",
    "stage_end_points",
    "stage_transition",
    "stage_videos",
    "training_point",
]
