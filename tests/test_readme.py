"""The README's library example runs, and its commands name files and flags that exist."""

import re

import jax
import jax.numpy as jnp

from tests.tiny import REPO

TEXT = (REPO / "README.md").read_text()


def test_the_library_example_trains_and_samples() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    names: dict = {}
    exec(code.replace("# videos =", "videos = lambda predict, key, c, cond:"), names)
    pyramid, alignment = names["pyramid"], names["alignment"]
    video = jax.random.normal(jax.random.key(0), (alignment.group_size, *pyramid.shape, 1))

    def predict(x_t, t, positions, strides, cond):  # type: ignore[no-untyped-def]
        assert positions.frames.shape == x_t.shape[1:2] == (16 // strides[0],)
        assert (len(positions.rows), len(positions.columns)) == x_t.shape[2:4]
        return jnp.zeros_like(x_t)

    for stage_index in range(pyramid.num_stages):
        loss = names["loss"](predict, video, None, jax.random.key(1), stage_index)
        # A prediction of zero leaves the target's mean square. White videos: an even frame's detail
        # is (gamma_e - gamma_s) x, an odd one's gamma_e x - gamma_s x', in stage 0 all of x.
        stage = pyramid.stages[stage_index]
        gamma_e, gamma_s, length = stage.gamma_end, stage.gamma_start, stage.t_start - stage.t_end
        even, odd = (gamma_e - gamma_s) ** 2, gamma_e**2 + gamma_s**2
        expected = 2.0 if stage_index == 0 else 1.0 + 0.5 * (even + odd) / length**2
        assert abs(float(loss) / expected - 1.0) < 0.2
    samples = names["videos"](predict, jax.random.key(2), 1, None)
    assert samples.shape == (4, 16, 32, 32, 1)


def test_files_that_the_readme_names_exist() -> None:
    for path in re.findall(r"\]\(([\w./]+)\)", TEXT):
        assert (REPO / path).exists(), path
    for path in re.findall(r"`((?:method|tests)/[\w/]+\.py)`", TEXT):
        assert (REPO / path).exists() or (REPO / "tpdiff_jax" / path).exists(), path
    for path in re.findall(r"--config=(\S+\.py)", TEXT):
        assert (REPO / path).exists(), path
