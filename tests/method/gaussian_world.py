"""A world in which the optimal network is known in closed form: small Gaussian videos.

Let x_0 ~ N(m, S) over all N = F H W pixels of a video with c = 1, in one column, and let
w = (x_0, eps) with eps ~ N(0, I) of stage i's shape and cov(x_0, eps) = G, 0 unless noise is
coupled to data:

    mean(w) = (m, 0),    cov(w) = W = [[S, G], [G^T, I]]

With D_r, U the down- and upsampling matrices (Kronecker products of one an axis), x_i = D_{r_i} x_0
and c_i = U D_{r_{i-1}} x_0 (c_0 = x_0 at stride r_0), everything on a stage's training path is a
matrix times w:

    flow:  xs = gamma_s c_i + sigma_s eps,    xe = gamma_e x_i + sigma_e eps
           x_t = (1-u) xe + u xs,  u = (t-e)/(s-e),     target = (xs - xe)/(s - e)
    DDIM:  a_i = (nu_s x_i - nu_e c_i)/(nu_s - nu_e),   eps_i = eps - (x_i - c_i)/(nu_s - nu_e)
           (a_0 = x_i, eps_0 = eps)
           x_t = gamma_t a_i + sigma_t eps_i,     target = eps_i or gamma_t eps_i - sigma_t a_i

so with x_t = A w and target = B w the least-squares predictor, which is what training converges
to, is a Gaussian conditional mean:

    E[target | x_t] = B mean(w) + B W A^T (A W A^T)^{-1} (x_t - A mean(w))

It is affine in x_t, and so is the whole sampler: its output is M_0 n_0 + sum_i M_i z_i + k in the
start noise and the jumps' noises. Pushing 0 and all basis vectors through the real sampler gives
k and every M, hence the exact mean and covariance of what it samples, with no Monte-Carlo error.

Nothing here comes from the package under test but the stage windows (s_i, e_i): scales, matrices
and formulas are written out again, in float64.
"""

import contextlib
import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft

from tpdiff_jax.method.paths import FlowPath
from tpdiff_jax.method.samplers import sample_from_noise
from tpdiff_jax.method.stages import Pyramid


def path_scales(path, t):
    """gamma_t and sigma_t, from the paths' definitions; t a number."""
    if isinstance(path, FlowPath):
        return 1.0 - t, t * 1.0
    gamma = np.interp(t, np.linspace(0.0, 1.0, 1001), ddim_gammas(path))
    return gamma, np.sqrt(1.0 - gamma**2)


@functools.cache
def ddim_gammas(path):
    """gamma_t at 1,001 even times."""
    betas = np.linspace(path.beta_start**0.5, path.beta_end**0.5, 1000) ** 2
    gammas = np.sqrt(np.cumprod(1.0 - betas))
    if path.zero_terminal_snr:
        gammas = (gammas - gammas[-1]) * gammas[0] / (gammas[0] - gammas[-1])
    return np.concatenate([[1.0], gammas])


def downsampling(num_frames, stride, mode):
    """D_r as a matrix, [f, F]: one frame in r, or block means (the last block may be short).

    "dct": the lowest f of F coefficients, as f frames.
    """
    kept = range(0, num_frames, stride)
    if mode == "dct":
        return resized_dct(num_frames, len(kept))
    matrix = np.zeros((len(kept), num_frames))
    for row, first in enumerate(kept):
        if mode == "stride":
            matrix[row, first] = 1.0
        else:
            last = min(first + stride, num_frames)
            matrix[row, first:last] = 1.0 / (last - first)
    return matrix


def upsampling(num_frames, coarse_stride, fine_stride, down, up):
    """U as a matrix, [f_fine, f_coarse]: repetition, or interpolation held at both ends.

    "dct": zeros for the coefficients that are missing. "insert": nothing in new frames, for which
    the world has its `data_mean`.
    """
    if up == "insert":
        coarse, fine = (range(0, num_frames, r) for r in (coarse_stride, fine_stride))
        return np.array([[float(new == kept) for kept in coarse] for new in fine])
    if up == "dct":
        counts = (len(range(0, num_frames, r)) for r in (coarse_stride, fine_stride))
        return resized_dct(*counts)
    coarse = downsampling(num_frames, coarse_stride, down) @ np.arange(num_frames)
    fine = downsampling(num_frames, fine_stride, down) @ np.arange(num_frames)
    matrix = np.zeros((len(fine), len(coarse)))
    for row, position in enumerate(fine):
        if up == "nearest_next":
            kept = -(-row * fine_stride // coarse_stride)  # fine frames in ((k-1) n, k n] copy k
            matrix[row, min(kept, len(coarse) - 1)] = 1.0
            continue
        if up == "nearest" or len(coarse) == 1:
            matrix[row, min(row * fine_stride // coarse_stride, len(coarse) - 1)] = 1.0
            continue
        right = int(np.clip(np.searchsorted(coarse, position), 1, len(coarse) - 1))
        share = (position - coarse[right - 1]) / (coarse[right] - coarse[right - 1])
        share = np.clip(share, 0.0, 1.0)
        matrix[row, right - 1], matrix[row, right] = 1.0 - share, share
    return matrix


def resized_dct(length, resized):
    """Cut or padded DCT-II coefficients, as a matrix [resized, length], by scipy's transform."""
    coefficients = scipy.fft.dct(np.eye(length), norm="ortho", axis=0)[:resized]
    padding = np.zeros((max(resized - length, 0), length))
    frames = scipy.fft.idct(np.vstack([coefficients, padding]), norm="ortho", axis=0)
    return frames * math.sqrt(resized / length)


def kron3(matrices):
    """The matrix on all pixels of a video in one column, from one matrix an axis."""
    time, height, width = matrices
    return np.kron(time, np.kron(height, width))


def three(mode):
    """One word for all axes, or three."""
    return (mode,) * 3 if isinstance(mode, str) else mode


def video_downsampling(shape, strides, down):
    """D as one matrix, [f h w, F H W]."""
    return kron3([downsampling(*axis) for axis in zip(shape, strides, three(down), strict=True)])


def video_upsampling(shape, coarse, fine, down, up):
    """U as one matrix, [fine f h w, coarse f h w]."""
    axes = zip(shape, coarse, fine, three(down), three(up), strict=True)
    return kron3([upsampling(*axis) for axis in axes])


def symmetric_root(matrix):
    """The symmetric positive square root."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


@dataclasses.dataclass(frozen=True)
class GaussianWorld:
    """Gaussian videos, seen through one pyramid.

    Args:
        pyramid: the pyramid under test (only its path, strides and windows are read).
        down: D, "stride", "mean" or "dct", or one for each axis.
        up: U, "nearest", "nearest_next", "linear", "dct" or "insert", or one for each axis.
        mean: m, [N].
        cov: S, [N, N].
        couplings: G of each stage, [N, n_i], or () for noise independent of data.
        data_mean: mu, a constant of c_i in places that U makes nothing for.
        coarse_noise: tau, of white noise on the coarse video of c_i in what the network learned.
    """

    pyramid: Pyramid
    down: str | tuple
    up: str | tuple
    mean: np.ndarray
    cov: np.ndarray
    couplings: tuple[np.ndarray, ...] = ()
    data_mean: float = 0.0
    coarse_noise: float = 0.0

    @functools.cached_property
    def videos(self):
        """x_i and c_i of each stage as matrices on x_0, both [n_i, N]."""
        shape, stages = self.pyramid.shape, self.pyramid.stages
        own = [video_downsampling(shape, stage.strides, self.down) for stage in stages]
        if self.pyramid.line == "marginal":
            return list(zip(own, own, strict=True))
        known = [up @ before for up, before in zip(self.upsamplings, own[:-1], strict=True)]
        return list(zip(own, [own[0], *known], strict=True))

    def point_and_target(self, i, t):
        """A and B: x_t and target as matrices on w = (x_0, eps), both [n_i, N + n_i]."""
        own, known = self.videos[i]
        f = len(own)
        x, c = (np.hstack([video, np.zeros((f, f))]) for video in (own, known))
        eps = np.hstack([np.zeros_like(own), np.eye(f)])
        return self.on_the_line(i, t, x, c, eps)

    def constants(self, i, t):
        """What x_t and target have beside A w and B w, both [n_i]: c_i's constant in both."""
        nothing = np.zeros(math.prod(self.pyramid.stages[i].shape))
        if i == 0 or self.pyramid.line == "marginal":
            return self.on_the_line(i, t, nothing, nothing, nothing)
        offset = (1.0 - self.upsamplings[i - 1].sum(1)) * self.data_mean
        return self.on_the_line(i, t, nothing, offset, nothing)

    @functools.cached_property
    def upsamplings(self):
        """U into each stage but the first, as one matrix."""
        strides = [stage.strides for stage in self.pyramid.stages]
        return [
            video_upsampling(self.pyramid.shape, coarse, fine, self.down, self.up)
            for coarse, fine in itertools.pairwise(strides)
        ]

    def on_the_line(self, i, t, x, c, eps):
        """x_t and target of a stage's video, what is known of it, and noise."""
        path, stage = self.pyramid.path, self.pyramid.stages[i]
        gamma_s, sigma_s = path_scales(path, stage.t_start)
        gamma_e, sigma_e = path_scales(path, stage.t_end)
        if isinstance(path, FlowPath):
            length = stage.t_start - stage.t_end
            start, end = gamma_s * c + sigma_s * eps, gamma_e * x + sigma_e * eps
            u = (t - stage.t_end) / length
            x_t = (1.0 - u) * end + u * start
            if path.prediction == "data":  # where the straight line would meet t = 0
                return x_t, end - stage.t_end * (start - end) / length
            target = start - end if self.pyramid.target_unit == "stage" else (start - end) / length
            return x_t, target
        a_i, eps_i = x, eps
        if i > 0:
            nu_s, nu_e = sigma_s / gamma_s, sigma_e / gamma_e
            a_i = (nu_s * x - nu_e * c) / (nu_s - nu_e)
            eps_i = eps - (x - c) / (nu_s - nu_e)
        gamma_t, sigma_t = path_scales(path, t)
        x_t = gamma_t * a_i + sigma_t * eps_i
        targets = {"eps": eps_i, "data": a_i, "v": gamma_t * eps_i - sigma_t * a_i}
        return x_t, targets[path.prediction]

    def joint(self, i):
        """mean(w) and cov(w) of stage i, [N + n_i] and [N + n_i, N + n_i]."""
        f = math.prod(self.pyramid.stages[i].shape)
        coupling = self.couplings[i] if self.couplings else np.zeros((len(self.mean), f))
        mean = np.concatenate([self.mean, np.zeros(f)])
        return mean, np.block([[self.cov, coupling], [coupling.T, np.eye(f)]])

    def conditional(self, i, t):
        """mean(x_t), cov(x_t), mean(target) and the gain cov(target, x_t) cov(x_t)^{-1}."""
        point, target = self.point_and_target(i, t)
        constant_point, constant_target = self.constants(i, t)
        mean, cov = self.joint(i)
        cov_point, cov_both = point @ cov @ point.T, point @ cov @ target.T
        if self.coarse_noise and i > 0:
            up = self.coarse_noise * self.upsamplings[i - 1]
            nothing = np.zeros_like(up)
            more_point, more_target = self.on_the_line(i, t, nothing, up, nothing)
            cov_point += more_point @ more_point.T
            cov_both += more_point @ more_target.T
        gain = np.linalg.solve(cov_point, cov_both).T
        return point @ mean + constant_point, cov_point, target @ mean + constant_target, gain

    def stage_of(self, x_t):
        """The stage whose shape the network input has."""
        shapes = [stage.shape for stage in self.pyramid.stages]
        return shapes.index(x_t.shape[1:4])

    def time_of(self, network_time):
        """Noise time from the network's (above the path's first grid point)."""
        offset = 0.0 if isinstance(self.pyramid.path, FlowPath) else 1.0
        return (network_time.astype(np.float64) + offset) / 1000.0

    def predict(self, x_t, t, positions, strides, cond):
        """The optimal network: E[target | x_t]; all samples of a batch share their time."""
        i, time = self.stage_of(x_t), self.time_of(t[0])
        mean_point, _, mean_target, gain = self.conditional(i, time)
        centred = x_t.reshape(len(x_t), -1) - mean_point  # [b, n]
        return (mean_target + centred @ gain.T).reshape(x_t.shape)

    def start_law(self):
        """Mean and covariance of xs_0: not N(0, I) where the path ends with signal left."""
        start, _ = self.point_and_target(0, self.pyramid.stages[0].t_start)
        mean, cov = self.joint(0)
        return np.asarray(start @ mean), np.asarray(start @ cov @ start.T)


def sampled_law(world, spec, *, start_law=None):
    """Exact mean and covariance of what the real sampler returns, by affine propagation.

    Args:
        world: supplies pyramid and predictor.
        spec: the sampler's.
        start_law: mean and covariance of the start; N(0, I) by default.

    Returns:
        mean [N] and covariance [N, N], float64.
    """
    shapes = [stage.shape for stage in world.pyramid.stages]
    counts = [math.prod(shape) for shape in shapes]
    basis = np.concatenate([np.zeros((1, sum(counts))), np.eye(sum(counts))])
    noises = tuple(
        jnp.asarray(part).reshape(-1, *shape, 1)
        for part, shape in zip(np.split(basis, np.cumsum(counts)[:-1], axis=1), shapes, strict=True)
    )
    out = sampled(world.predict, world.pyramid, spec, noises).reshape(len(basis), -1)
    offset, columns = out[0], (out[1:] - out[0]).T  # [N], [N, sum n_i]
    start, jumps = columns[:, : counts[0]], columns[:, counts[0] :]
    start_mean, start_cov = start_law or (np.zeros(counts[0]), np.eye(counts[0]))
    return offset + start @ start_mean, start @ start_cov @ start.T + jumps @ jumps.T


def sampled(predict, pyramid, spec, noises):
    """What the real sampler, compiled, makes of each stage's noise; the network is not compiled.

    Args:
        predict: the network, on numpy's arrays.
        pyramid: the sampler's.
        spec: the sampler's.
        noises: of each stage, float64.

    Returns:
        Videos, float64.
    """

    def asked(x_t, t, positions, strides, cond):
        def answer(*arrays):
            return predict(*map(np.asarray, arrays), positions, strides, cond)

        return jax.pure_callback(answer, jax.ShapeDtypeStruct(x_t.shape, x_t.dtype), x_t, t)

    # Compiling is all the cost: the program runs for milliseconds, so it need not be optimised.
    run = jax.jit(
        lambda *ns: sample_from_noise(asked, pyramid, spec, ns),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    with float64_on_all_threads():
        return np.asarray(run(*noises))


@contextlib.contextmanager
def float64_on_all_threads():
    """jax.enable_x64 also for JAX's own threads, which may be those that ask the network.

    On a thread without it what the network answers would be cut to float32, which JAX refuses.
    """
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)  # what it was cannot be asked: see this thread's


def law_error(world, law):
    """Relative errors of mean and covariance against the data's (Euclidean, Frobenius)."""
    mean, cov = law
    return (
        np.linalg.norm(mean - world.mean) / np.linalg.norm(world.mean),
        np.linalg.norm(cov - world.cov) / np.linalg.norm(world.cov),
    )


def moving_video_law(num_frames, seed=0):
    """A mean that changes over frames, and a covariance that decays with frame distance."""
    frames = np.arange(num_frames)
    mean = 1.0 + 0.8 * np.sin(0.9 * frames) + 0.05 * frames
    distance = np.abs(frames[:, None] - frames)
    spread = 0.7 + 0.3 * np.random.default_rng(seed).random(num_frames)
    return mean, spread[:, None] * spread * (0.85**distance * np.cos(0.3 * distance))


def shaped_video_law(shape, seed=0):
    """The same over frames, rows and columns: neighbours along each axis belong together."""
    mean, cov = np.ones(1), np.ones((1, 1))
    for axis, length in enumerate(shape):
        one_mean, one_cov = moving_video_law(length, seed + axis)
        mean, cov = np.kron(mean, one_mean), np.kron(cov, one_cov)
    return mean, cov


def gaussian_coupling(world, level, correlation):
    """cov(x_0, eps_i) of each stage for noise tied to whitened data.

        eps = correlation V^{-1/2} (y - mean(y)) + sqrt(1 - correlation^2) xi,   V = cov(y)

    with y = D_{r_i} x_0 in every stage ("stage"), or with y = D_{r_0} x_0 in stage 0 only, and
    eps_i = U eps_{i-1} / sqrt(L) + (fresh noise) after it ("coarsest").
    """
    couplings, shape = [], world.pyramid.shape
    strides = [stage.strides for stage in world.pyramid.stages]
    for i, stride in enumerate(strides):
        if i == 0 or level == "stage":
            own = video_downsampling(shape, stride, world.down)
            whitening = np.linalg.inv(symmetric_root(own @ world.cov @ own.T))
            couplings.append(correlation * world.cov @ own.T @ whitening)
        else:
            up = video_upsampling(shape, strides[i - 1], stride, world.down, world.up)
            largest = np.linalg.eigvalsh(up @ up.T)[-1]
            couplings.append(couplings[-1] @ up.T / np.sqrt(largest))
    return tuple(couplings)
