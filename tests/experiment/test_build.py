"""Configs: everything invalid is one ValueError that names the field, before anything compiles."""

import json
from typing import Any

import numpy as np
import pytest

from experiments.grid.grids import VANILLA
from tests.tiny import set_field, tiny_config
from tpdiff_jax.experiment.build import Experiment, build_experiment
from tpdiff_jax.run_folder import run_config
from tpdiff_jax.run_folder.checkpoint_manifest import Identity

INVALID: list[tuple[str, Any]] = [
    ("data.name", "imagenet"),
    ("data.num_frames", 7),
    ("data.num_frames", 0),
    ("data.num_digits", 3),
    ("data.speed_stratum", "warp"),
    ("model.name", "unet"),
    ("model.patch_size", 5),
    ("model.num_heads", 5),
    ("model.attention", "linear"),
    ("model.dtype", "float8"),
    ("model.remat", "some"),
    ("model.activation", "step"),
    ("path.name", "vp"),
    ("pyramid.frame_strides", (4, 3, 1)),
    ("pyramid.frame_strides", (1, 2, 4)),
    ("pyramid.frame_strides", (4, 2)),
    ("pyramid.strides", ()),
    ("pyramid.strides", ((4, 4), (1, 1))),
    ("pyramid.downsample_space", "linear"),
    ("pyramid.upsample_space", "nearest_next"),
    ("pyramid.stage_fractions", (0.5, 0.5)),
    ("pyramid.stage_fractions", (1.0, -1.0, 1.0)),
    ("pyramid.downsample", "max"),
    ("pyramid.upsample", "cubic"),
    ("pyramid.upsample", "dct"),  # the default downsampling takes frames
    ("pyramid.downsample", "dct"),
    ("pyramid.upsample_space", "dct"),
    ("pyramid.frame_positions", "random"),
    ("pyramid.overlap", 0.5),
    ("pyramid.line", "straight"),
    ("pyramid.coarse_noise", -0.1),
    ("pyramid.data_mean", (0.1, 0.2)),  # the digits have one channel
    ("pyramid.data_mean", ("grey",)),
    ("pyramid.data_mean", ()),
    ("pyramid.stage_weighting", "none"),
    ("pyramid.target_unit", "second"),
    ("pyramid.target_unit", "stage"),  # the default predicts data
    ("path.prediction", "eps"),  # ddim only
    ("pyramid.time_conditioning", "none"),
    ("alignment.mode", "closest"),
    ("alignment.level", "finest"),
    ("alignment.group_size", 3),
    ("alignment.group_size", 0),
    ("alignment.num_candidates", 0),
    ("optim.name", "sgd"),
    ("optim.schedule", "linear"),
    ("optim.learning_rate", 0.0),
    ("optim.clip_norm", -1.0),
    ("optim.ema_decay", 1.0),
    ("optim.b1", 1.5),
    ("optim.warmup_steps", -1),
    ("train.num_steps", 0),
    ("train.batch_size", 0),
    ("train.seed", -1),
    ("train.seed", 2**32),
    ("train.num_steps", 2**31),
    ("data.num_threads", -1),
    ("model.mlp_ratio", float("nan")),
    ("model.mlp_ratio", 1e-3),
    ("model.mlp_ratio", 1e308),
    ("pyramid.time_shift", 1e308),
    ("pyramid.time_shift", 1e-308),
    ("optim.learning_rate", float("inf")),
    ("pyramid.frame_strides", (2.5, 1)),
    ("pyramid.stage_fractions", ("a", 1.0, 1.0)),
    ("train.stage_probs", (None, 1.0, 1.0)),
    ("sample.steps_per_stage", (True, 1, 1)),
    ("sample.guidance_per_stage", ((1.0,), 1.0, 1.0)),
    ("adaptation.trained", "no such"),
    ("guard.spike_factor", 0.5),
    ("guard.warmup_steps", 65),
    ("train.batch_per_stage", "frames"),
    ("train.grad_accum_steps", 0),
    ("train.grad_accum_steps", 2),  # 8 clips in groups of 8
    ("train.cond_dropout", 1.0),
    ("train.stage_probs", (1.0,)),
    ("train.time_sampling", "mode"),
    ("train.logit_mean", 21.0),
    ("train.logit_std", 0.0),
    ("train.logit_std", -1.0),
    ("train.logit_std", float("inf")),
    ("train.log_every_steps", 0),
    ("train.checkpoint_every_steps", 0),
    ("train.keep_checkpoints", 0),
    ("sample.num_steps", 2),
    ("sample.steps_per_stage", (1, 1)),
    ("sample.steps_per_stage", (1, 0, 1)),
    ("sample.solver", "heun"),
    ("sample.guidance_per_stage", (1.0, 2.0)),
    ("sample.grid_power", (1.0, 2.0)),
    ("sample.grid_power", (0.0,)),
    ("sample.grid_power", ()),
    ("sample.time_grids", ((1.0, 0.0),)),
    ("sample.time_grids", (1.0, 0.5, 0.0)),
    ("sample.num_videos", 0),
    ("eval.num_videos", 0),
    ("eval.batch_size", 0),
    ("mesh.data", 3),
    ("mesh.fsdp", 0),
    ("mesh.tensor", -1),  # mesh.data is -1 already
]


@pytest.mark.parametrize(("field", "value"), INVALID)
def test_invalid_value_is_refused_naming_the_field(field: str, value: Any) -> None:
    config = tiny_config()
    set_field(config, field, value)
    # A length or batch that does not fit names the field or the one it must fit.
    with pytest.raises(ValueError, match=r"[a-z]+\.[a-z_]+") as refusal:
        build_experiment(config)
    assert field in str(refusal.value)
    assert str(value) in str(refusal.value) or repr(value) in str(refusal.value)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"prediction": "eps", "zero_terminal_snr": True}, "path.prediction"),
        ({"prediction": "x_0"}, "path.prediction"),
        ({"betas": "cosine"}, "path.betas"),
        ({"final_alpha": "last"}, "path.final_alpha"),
    ],
)
def test_invalid_ddim_choices_are_refused(fields: dict[str, Any], named: str) -> None:
    config = tiny_config("ddim")
    config.path.update(fields)
    with pytest.raises(ValueError, match=named.replace(".", r"\.")):
        build_experiment(config)


def test_a_stride_over_space_that_does_not_divide_the_frames_is_refused() -> None:
    config = tiny_config(pyramid__strides=((2, 3, 3), (1, 1, 1)))
    with pytest.raises(ValueError, match=r"data\.frame_size.* is 32; .*3 of pyramid\.strides"):
        build_experiment(config)


def test_a_coarse_stage_that_the_network_cannot_take_is_refused() -> None:
    config = tiny_config(pyramid__strides=((1, 8, 8), (1, 1, 1)))  # 4x4 pixels, patches of 8
    with pytest.raises(ValueError, match=r"model\.patch_size"):
        build_experiment(config)


def test_stage_window_that_cannot_exist_names_stage_fractions() -> None:
    config = tiny_config(
        "ddim", path__zero_terminal_snr=False, pyramid__stage_fractions=(1.0, 30.0, 30.0)
    )
    with pytest.raises(ValueError, match=r"pyramid\.stage_fractions"):
        build_experiment(config)


def test_unknown_field_is_refused_with_the_nearest_known_one() -> None:
    config = tiny_config()
    with config.unlocked():
        config.train.num_stepz = 3
    with pytest.raises(ValueError, match=r"train\.num_stepz; did you mean train\.num_steps"):
        build_experiment(config)


@pytest.mark.parametrize("group", ["model", "data"])
def test_field_that_the_chosen_network_or_data_set_lacks_is_refused(group: str) -> None:
    config = tiny_config()
    with config.unlocked():
        config[group].colour = "red"
    with pytest.raises(ValueError, match=r"model\.colour is no field|data\.name=.*colour"):
        build_experiment(config)


def test_missing_field_is_refused() -> None:
    config = tiny_config()
    with config.unlocked():
        del config.alignment.mode
    with pytest.raises(ValueError, match=r"alignment\.mode"):
        build_experiment(config)


def test_overriding_the_strides_alone_gives_the_vanilla_twin() -> None:
    experiment = build_experiment(tiny_config(pyramid__frame_strides=(1,)))
    (stage,) = experiment.pyramid.stages
    assert (stage.num_frames, stage.t_start, stage.t_end) == (8, 1.0, 0.0)
    assert experiment.sampler.steps_per_stage == (3,)
    assert experiment.train.stage_probs == (1.0,)


def test_a_config_without_the_fields_of_grids_has_even_ones() -> None:
    """As runs of earlier versions have them."""
    config = tiny_config()
    with config.unlocked():
        del config.sample.grid_power, config.sample.time_grids
    sampler = build_experiment(config).sampler
    assert sampler == build_experiment(tiny_config()).sampler
    assert (sampler.grid_power, sampler.time_grids) == ((1.0,), ())


GRIDS_OF_STAGES: Any = ((1.0, 0.8, 2 / 3), (2**0.5 / (2**0.5 + 1 / 2), 1 / 3), (2**0.5 - 1, 0.0))


def test_grids_of_the_config_reach_the_sampler_with_their_steps() -> None:
    """Starts are nu_s = sqrt(2) nu_e: nu_e = 2 gives t = 2 sqrt(2) / (1 + 2 sqrt(2))."""

    def build(**fields: Any) -> Experiment:
        return build_experiment(tiny_config(pyramid__upsample="nearest", **fields))

    sampler = build(sample__time_grids=GRIDS_OF_STAGES).sampler
    assert (sampler.time_grids, sampler.steps_per_stage) == (GRIDS_OF_STAGES, (2, 1, 1))
    bent = build(sample__grid_power=(1.0, 1.5, 2.0)).sampler
    assert bent.stage_powers == (1.0, 1.5, 2.0)
    one = build(sample__grid_power=(1.5,)).sampler
    assert one.stage_powers == (1.5,) * 3
    others = ((1.0, 0.5), (0.6, 0.3), (0.4, 0.0))
    with pytest.raises(ValueError, match=r"sample\.time_grids of stage 0 runs from 1.0 to 0.5"):
        build(sample__time_grids=others)
    with pytest.raises(ValueError, match=r"sample\.steps_per_stage \(3, 1, 1\)"):
        build(sample__time_grids=GRIDS_OF_STAGES, sample__steps_per_stage=(3, 1, 1))


@pytest.mark.parametrize(
    "fields",
    [
        {"sample.grid_power": (1.0, 1.5, 2.0)},
        {"sample.time_grids": GRIDS_OF_STAGES},
        {"sample.guidance_per_stage": (4.0, 2.0, 1.0)},
        {"train.stage_probs": (0.5, 0.25, 0.25)},
        {"pyramid.stage_fractions": (0.5, 0.25, 0.25)},
    ],
)
def test_what_fits_three_stages_is_named_and_the_twin_of_grids_clears_it(
    fields: dict[str, Any],
) -> None:
    config = tiny_config(pyramid__frame_strides=(1,))
    for field, value in fields.items():
        set_field(config, field, value)
    with pytest.raises(ValueError, match=next(iter(fields)).replace(".", r"\.")):
        build_experiment(config)
    for field, value in VANILLA.items():
        set_field(config, field, value)
    assert build_experiment(config).pyramid.num_stages == 1


def test_batches_of_equal_tokens_take_a_multiple_of_clips_where_frames_are_few() -> None:
    experiment = build_experiment(tiny_config(train__batch_per_stage="tokens"))
    assert experiment.batch_sizes == (32, 16, 8)
    frames = [stage.num_frames for stage in experiment.pyramid.stages]
    assert len({n * f for n, f in zip(experiment.batch_sizes, frames, strict=True)}) == 1
    equal = build_experiment(tiny_config())
    assert equal.batch_sizes == (8, 8, 8)
    assert experiment.programs[0].train_flops == 4 * equal.programs[0].train_flops


SPACE = ((1, 4, 4), (1, 2, 2), (1, 1, 1))
SPACE_AND_TIME = ((4, 4, 4), (2, 2, 2), (1, 1, 1))


@pytest.mark.parametrize(("strides", "times"), [(SPACE, (16, 4, 1)), (SPACE_AND_TIME, (64, 8, 1))])
def test_batches_of_equal_tokens_take_the_product_of_all_strides(
    strides: Any, times: tuple[int, ...]
) -> None:
    experiment = build_experiment(
        tiny_config(train__batch_per_stage="tokens", pyramid__strides=strides, model__patch_size=4)
    )
    assert experiment.batch_sizes == tuple(8 * more for more in times)
    tokens = [
        program.batch_size * experiment.network.num_tokens(program.stage_shape)
        for program in experiment.programs
    ]
    assert tokens == [8 * 8 * 8 * 8] * 3, "8 clips of 8 frames of 8x8 patches"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"strides": (2, 1)}, ((2, 1, 1), (1, 1, 1))),
        ({"strides": SPACE}, SPACE),
        ({"strides": SPACE, "frame_strides": (2, 1)}, ((2, 1, 1), (1, 1, 1))),
        ({"frame_strides": (1,)}, ((1, 1, 1),)),
        ({"frame_strides": SPACE_AND_TIME}, SPACE_AND_TIME),
        ({"strides": "unread", "frame_strides": (2, 1)}, ((2, 1, 1), (1, 1, 1))),
    ],
)
def test_frame_strides_stand_in_place_of_strides_where_they_are_given(
    fields: dict[str, Any], expected: Any
) -> None:
    config = tiny_config(model__patch_size=4)
    with config.unlocked():
        for name, value in fields.items():
            del config.pyramid[name]
            config.pyramid[name] = value
    experiment = build_experiment(config)
    assert tuple(stage.strides for stage in experiment.pyramid.stages) == expected


def test_either_field_of_strides_makes_another_run(tmp_path: Any) -> None:
    """Compared as they are written, also where both give the same pyramid."""
    config = tiny_config(pyramid__strides=SPACE)
    run_config.save_config(tmp_path, config)
    saved = run_config.load_config(tmp_path)
    run_config.check_same_run(saved, config)
    deciding = run_config.deciding_fields(config)
    assert deciding == run_config.deciding_fields(saved)
    for field, value in (
        ("strides", SPACE_AND_TIME),
        ("frame_strides", (2, 1)),
        ("frame_strides", SPACE),
    ):
        other = tiny_config(**{"pyramid__strides": SPACE, f"pyramid__{field}": value})
        with pytest.raises(run_config.ConfigMismatchError) as refusal:
            run_config.check_same_run(saved, other)
        before = saved.pyramid[field]
        assert f"pyramid.{field}: saved {before!r}, now {value!r}" in str(refusal.value)
        assert run_config.deciding_fields(other) != deciding


def test_config_survives_json_and_the_same_config_is_the_same_run(tmp_path: Any) -> None:
    config = tiny_config()
    run_config.save_config(tmp_path, config)
    loaded = run_config.load_config(tmp_path)
    assert dict(run_config.flat_fields(loaded)) == dict(run_config.flat_fields(config))
    run_config.check_same_run(loaded, config)
    json.loads((tmp_path / "config.json").read_text())


def test_length_and_periods_may_change_and_nothing_else_may() -> None:
    saved = tiny_config()
    longer = tiny_config(train__num_steps=99, train__log_every_steps=7, log__sinks=("jsonl",))
    run_config.check_same_run(saved, longer)
    other = tiny_config(optim__learning_rate=0.5, alignment__mode="none")
    with pytest.raises(run_config.ConfigMismatchError) as refusal:
        run_config.check_same_run(saved, other)
    text = str(refusal.value)
    assert "optim.learning_rate: saved 0.001, now 0.5" in text
    assert "alignment.mode: saved 'nearest', now 'none'" in text
    assert "train.num_steps:" not in text


LATER = {
    "pyramid.overlap": (1.0, 1.5),
    "pyramid.time_shift": (1.0, 3.0),
    "pyramid.line": ("stagewise", "marginal"),
    "pyramid.data_mean": ((0.0,), (-0.9,)),
    "pyramid.coarse_noise": (0.0, 0.1),
}


def test_a_run_saved_before_a_field_was_there_opens_and_goes_on(tmp_path: Any) -> None:
    """As what it did then: the field's default; another value is another run."""
    config = tiny_config()
    now = run_config.deciding_fields(config)
    before = {name: value for name, value in now.items() if name not in LATER}
    saved = tiny_config()
    with saved.unlocked():
        for name in LATER:
            del saved[name.split(".")[0]][name.split(".")[1]]
    run_config.save_config(tmp_path, saved)
    saved = run_config.load_config(tmp_path)
    assert run_config.deciding_fields(saved) == before and len(before) == len(now) - len(LATER)
    pyramid = build_experiment(saved).pyramid
    assert (pyramid.time_shift, pyramid.line) == (1.0, "stagewise")
    jump = pyramid.stages[1].jump
    assert jump is not None and jump.data_mean == (0.0,)
    least = np.linalg.norm(jump.upsample.matrices[0], ord=2) ** 2
    assert jump.eigenvalue == pytest.approx(least, rel=1e-12)
    run_config.check_same_run(saved, config)
    manifest = Identity(config=before, dataset=None)
    assert manifest.differences(Identity(config=now, dataset=None)) == []
    for name, (default, value) in LATER.items():
        other = tiny_config(**{name.replace(".", "__"): value})
        with pytest.raises(run_config.ConfigMismatchError) as refusal:
            run_config.check_same_run(saved, other)
        assert f"{name}: saved {default!r}, now {value!r}" in str(refusal.value)
        lines = manifest.differences(
            Identity(config=run_config.deciding_fields(other), dataset=None)
        )
        assert len(lines) == 1 and name in lines[0]


@pytest.mark.parametrize("content", [None, "{not json"])
def test_folder_without_a_readable_config_is_refused(tmp_path: Any, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        run_config.load_config(tmp_path)
