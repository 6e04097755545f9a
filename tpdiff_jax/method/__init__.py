"""The method of TPDiff (arXiv 2503.09566) as a library: needs jax, numpy, optax and chex only.

Of this package it imports `types` and nothing else.

    symbol            code                        meaning
    t in [0, 1]       t                           noise time: 0 is data, 1 is noise
    gamma_t, sigma_t  path.gamma(t), path.sigma   x_t = gamma_t x_0 + sigma_t eps (Eq. 6)
    nu_t              path.nu(t)                  sigma_t / gamma_t, rising in t
    r_i               stage.strides               stage i keeps one frame, row and column in so many
    s_i > e_i         stage.t_start, stage.t_end  noise times at which sampling enters and leaves
    gamma_s, gamma_e  stage.gamma_start, ._end    the path at s_i and e_i; likewise sigma, nu
    D_{r_i}           stage.downsample(x_0)       the full video to the stage's
    U                 stage.jump.upsample(x)      the linear map from stage i-1 to stage i
    L                 stage.jump.eigenvalue       largest eigenvalue of U U^T, a product over axes
    x_i, c_i          x_i, c_i                    the stage's video; what i-1 knew (jump.known)
    xs_i, xe_i        x_start, x_end              end points of the stage's training path
    a_i, eps_i        line.data, line.noise       the stage's line is gamma_t a_i + sigma_t eps_i
    v_i               target of prediction "v"    gamma_t eps_i - sigma_t a_i
    F H W, f h w      pyramid.shape, stage.shape  frames, height, width: in full, and of a stage
    b f h w c         axes of every video         batch, frames, height, width, channels

Stages are listed in the order in which sampling runs them: stage 0 is the coarsest (the paper's
k = K), stage K-1 has the full video (k = 1) and strides (1, 1, 1). sigma is a standard deviation.

Public names, by file:

    paths                FlowPath, DDIMPath, Path, Scales, broadcast_time, at_least_float32
    axis_matrices        downsampling_matrix, upsampling_matrix
    resampling           Resampling, NoiseFactor
    strides              stage_strides, check_shape
    pyramid              Pyramid, Stage, Jump
    stages               make_pyramid
    stage_line           Line, stage_line, point_on_line, line_to_target, output_to_line
    stage_targets        sample_times, training_point, TrainingPoint, stage_videos, stage_end_points
    stage_transition     stage_transition, lift_noise
    pairing              pair_nearest, pair_hungarian
    noise_alignment      AlignmentSpec, aligned_noise
    solver_coefficients  solver_coefficients, solver_memory
    sampler_spec         SamplerSpec, split_steps
    samplers             sample, sample_from_noise
    guidance             guided
    losses               mean_squared_error, loss_weight, mean_loss_weight
    tpdiff_jax.checks    check_choice, whole_number
"""

from tpdiff_jax.checks import check_choice, whole_number
from tpdiff_jax.method.axis_matrices import downsampling_matrix, upsampling_matrix
from tpdiff_jax.method.ddim_path import DDIMPath
from tpdiff_jax.method.guidance import guided
from tpdiff_jax.method.losses import loss_weight, mean_loss_weight, mean_squared_error
from tpdiff_jax.method.noise_alignment import AlignmentSpec, aligned_noise
from tpdiff_jax.method.pairing import pair_hungarian, pair_nearest
from tpdiff_jax.method.paths import FlowPath, Path
from tpdiff_jax.method.pyramid import Jump, Pyramid, Stage
from tpdiff_jax.method.resampling import NoiseFactor, Resampling
from tpdiff_jax.method.sampler_spec import SamplerSpec, split_steps
from tpdiff_jax.method.samplers import sample, sample_from_noise
from tpdiff_jax.method.scales import Scales, at_least_float32, broadcast_time
from tpdiff_jax.method.solver_coefficients import solver_coefficients, solver_memory
from tpdiff_jax.method.stage_line import (
    Line,
    line_to_target,
    output_to_line,
    point_on_line,
    stage_line,
)
from tpdiff_jax.method.stage_targets import (
    TrainingPoint,
    sample_times,
    stage_end_points,
    stage_videos,
    training_point,
)
from tpdiff_jax.method.stage_transition import lift_noise, stage_transition
from tpdiff_jax.method.stages import make_pyramid
from tpdiff_jax.method.strides import check_shape, stage_strides

__all__ = [
    "AlignmentSpec",
    "DDIMPath",
    "FlowPath",
    "Jump",
    "Line",
    "NoiseFactor",
    "Path",
    "Pyramid",
    "Resampling",
    "SamplerSpec",
    "Scales",
    "Stage",
    "TrainingPoint",
    "aligned_noise",
    "at_least_float32",
    "broadcast_time",
    "check_choice",
    "check_shape",
    "downsampling_matrix",
    "guided",
    "lift_noise",
    "line_to_target",
    "loss_weight",
    "make_pyramid",
    "mean_loss_weight",
    "mean_squared_error",
    "output_to_line",
    "pair_hungarian",
    "pair_nearest",
    "point_on_line",
    "sample",
    "sample_from_noise",
    "sample_times",
    "solver_coefficients",
    "solver_memory",
    "split_steps",
    "stage_end_points",
    "stage_line",
    "stage_strides",
    "stage_transition",
    "stage_videos",
    "training_point",
    "upsampling_matrix",
    "whole_number",
]
