"""The numbers of a solver's steps: of the grid of times alone, in float64, on the host.

Every step goes to t' on the line that the network sees at t, and corrects it by how the line has
turned since the step before:

    x' = gamma_t' a_i + sigma_t' eps_i + c (m - m_before)

Without the correction this is Euler for flow and DDIM for DDIM. c makes it a two-step method of
second order, which takes the solver's memory m as straight in the path's own clock tau:

    flow:  m = eps_i - a_i,  tau = t             k = t' - t                      (Adams-Bashforth 2)
    DDIM:  m = a_i,          tau = -log(nu_t)    k = gamma_t' - sigma_t' / nu_t  (DPM-Solver++ 2M)

    c = k (tau' - tau) / (2 (tau - tau_before))       k: how far x' moves with m, from the same x_t

On non-uniform grids, too. c is 0 on a stage's first step, so that history never crosses a jump,
and where nu is 0 or infinite. On a grid uniform in t, DDIM's second order lowers the error
several times but not its order: towards the data nu falls like the square root of t, and the
steps in log(nu) do not shrink.

Source: arXiv 2211.01095 for DPM-Solver++.
"""

import math

import numpy as np

from tpdiff_jax.method.paths import FlowPath, Path
from tpdiff_jax.method.stage_line import Line
from tpdiff_jax.types import Array

SOLVERS = ("euler", "second_order")


def solver_memory(path: Path, line: Line) -> Array:
    """m, what the second order of a path extrapolates: flow's velocity, DDIM's data.

    Args:
        path: the noise path.
        line: the line that the network sees now.

    Returns:
        m, [b, f, h, w, c].
    """
    return line.noise - line.data if isinstance(path, FlowPath) else line.data


def solver_coefficients(path: Path, grid: np.ndarray, solver: str) -> np.ndarray:
    """t, gamma_t', sigma_t' and c of each step.

    Args:
        path: the noise path.
        grid: noise times of a stage, falling, float64, [steps + 1].
        solver: "euler" or "second_order".

    Returns:
        float64, [steps, 4].
    """
    scales = [path.host_scales(t) for t in grid]
    gamma, sigma, nu = (np.array(column) for column in zip(*scales, strict=True))
    if isinstance(path, FlowPath):
        clock, k = grid, np.diff(grid)
    else:
        clock = np.array([-math.log(one) if one > 0.0 else math.inf for one in nu])
        k = gamma[1:] - sigma[1:] / nu[:-1]
    c = np.zeros(len(grid) - 1)
    if solver == "second_order":
        for n in range(1, len(c)):
            before, now, after = clock[n - 1 : n + 2]
            if np.all(np.isfinite([before, now, after])) and now != before:
                c[n] = k[n] * (after - now) / (2.0 * (now - before))
    return np.stack([grid[:-1], gamma[1:], sigma[1:], c], axis=1)
