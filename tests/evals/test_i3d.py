"""I3D against a PyTorch network of the same published architecture, unit by unit; its weights."""

import jax
import numpy as np
import pytest
import torch

from tests.evals.i3d_reference import ReferenceI3D, random_reference
from tpdiff_jax.evals import convert_i3d
from tpdiff_jax.evals.i3d import i3d_logits, i3d_units, unit_shapes
from tpdiff_jax.evals.i3d_weights import load_i3d, params_from_tensors

WIDTH = 1 / 16


@pytest.fixture(scope="module")
def reference():
    return random_reference(WIDTH)


@pytest.fixture(scope="module")
def tensors(reference):
    return {name: tensor.numpy() for name, tensor in reference.state_dict().items()}


def as_torch(video):
    return torch.from_numpy(np.moveaxis(video, -1, 1))


@pytest.mark.parametrize("size", [(9, 32, 32), (16, 37, 50), (11, 45, 31)])
def test_every_unit_equals_the_reference_at_even_and_odd_sizes(size, reference, tensors):
    video = np.random.default_rng(0).uniform(-1, 1, (2, *size, 3)).astype(np.float32)
    params = params_from_tensors(tensors, WIDTH)
    found = jax.jit(lambda p, v: dict(i3d_units(p, v)))(params, video)
    with torch.no_grad():
        expected = dict(reference.units(as_torch(video)))
    assert found.keys() == expected.keys() and len(found) == 12
    for name, value in expected.items():
        value = np.moveaxis(value.numpy(), 1, -1)
        assert found[name].shape == value.shape, name
        assert np.std(value) > 0.05, name
        np.testing.assert_allclose(found[name], value, atol=2e-4 * np.std(value), err_msg=name)


@pytest.mark.parametrize("num_frames", [9, 17])
def test_logits_equal_the_reference(num_frames, reference, tensors):
    video = np.random.default_rng(1).uniform(-1, 1, (1, num_frames, 224, 224, 3))
    video = video.astype(np.float32)
    found = jax.jit(i3d_logits)(params_from_tensors(tensors, WIDTH), video)
    with torch.no_grad():
        expected = reference(as_torch(video)).numpy()
    assert found.shape == (1, 400)
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.std(expected))


def test_no_convolution_is_rounded_to_what_a_device_prefers(tensors):
    video = np.zeros((1, 9, 224, 224, 3), np.float32)
    traced = jax.make_jaxpr(i3d_logits)(params_from_tensors(tensors, WIDTH), video)
    equations = [one for one in traced.eqns if one.primitive.name == "conv_general_dilated"]
    highest = (jax.lax.Precision.HIGHEST,) * 2
    assert [one.params["precision"] for one in equations] == [highest] * len(unit_shapes())


def test_the_published_network_has_its_size():
    """The port's file: 344 tensors, 12.71 million numbers."""
    shapes = unit_shapes()
    normalised = [shape.outputs for name, shape in shapes.items() if name != "logits"]
    assert 6 * len(normalised) + 2 == 344  # kernel, 4 statistics and a counter each; the head
    kernels = sum(np.prod(shape.kernel) for shape in shapes.values())
    assert round((kernels + 400 + 4 * sum(normalised)) / 1e6, 2) == 12.71
    assert shapes["Mixed_5c/b1b"].kernel == (3, 3, 3, 192, 384)
    assert shapes["logits"].inputs == 1024


def graph_names(tensors):
    """The graph's names: no scale, kernels [t, h, w, in, out], Mixed_5b's doubled letter."""
    roles = {
        "conv3d.weight": "conv_3d/w",
        "conv3d.bias": "conv_3d/b",
        "bn.bias": "batch_norm/beta",
        "bn.running_mean": "batch_norm/moving_mean",
        "bn.running_var": "batch_norm/moving_variance",
    }
    parts = {
        "b0": "Branch_0/Conv3d_0a_1x1",
        "b1a": "Branch_1/Conv3d_0a_1x1",
        "b1b": "Branch_1/Conv3d_0b_3x3",
        "b2a": "Branch_2/Conv3d_0a_1x1",
        "b2b": "Branch_2/Conv3d_0b_3x3",
        "b3b": "Branch_3/Conv3d_0b_1x1",
    }
    out = {}
    for name, tensor in tensors.items():
        *path, kind, leaf = name.split(".")
        role = roles.get(f"{kind}.{leaf}")
        if role is None:
            continue
        unit = path[0] if path[0] != "logits" else "Logits/Conv3d_0c_1x1"
        unit += f"/{parts[path[1]]}" if len(path) == 2 else ""
        unit = unit.replace("Mixed_5b/Branch_2/Conv3d_0b_3x3", "Mixed_5b/Branch_2/Conv3d_0a_3x3")
        if role == "conv_3d/w":
            tensor = tensor.transpose(2, 3, 4, 1, 0)
        elif role.startswith("batch_norm"):
            tensor = tensor.reshape(1, 1, 1, 1, -1)
        out[f"RGB/inception_i3d/{unit}/{role}:0"] = tensor
    return out


def other_port_names(tensors):
    """The names of the port that counts within branches."""
    places = {"b0": "0", "b1a": "1.0", "b1b": "1.1", "b2a": "2.0", "b2b": "2.1", "b3b": "3.1"}
    out = {}
    for name, tensor in tensors.items():
        parts = name.replace("logits", "conv3d_0c_1x1").replace(".bn.", ".batch3d.").split(".")
        if parts[1] in places:
            parts[1] = f"branch_{places[parts[1]]}"
        out[".".join([parts[0].lower(), *parts[1:]])] = tensor
    return out


class Unrun(ReferenceI3D):
    """The weights as a TorchScript module, without tracing the network."""

    def forward(self, x):
        return x


def test_all_published_names_give_the_same_network(tensors):
    plain = params_from_tensors(tensors, WIDTH)
    for name, unit in params_from_tensors(other_port_names(tensors), WIDTH).items():
        for role, array in unit.items():
            np.testing.assert_array_equal(array, plain[name][role], err_msg=f"{name} {role}")
    for name, unit in params_from_tensors(graph_names(tensors), WIDTH).items():
        assert "scale" not in unit
        for role, array in unit.items():
            np.testing.assert_array_equal(array, plain[name][role], err_msg=f"{name} {role}")


def test_weights_without_a_scale_act_as_a_scale_of_one(tensors):
    video = np.random.default_rng(2).uniform(-1, 1, (1, 9, 32, 32, 3)).astype(np.float32)
    ones = {n: np.ones_like(t) if n.endswith("bn.weight") else t for n, t in tensors.items()}
    run = jax.jit(lambda params: dict(i3d_units(params, video))["Mixed_3b"])
    found = run(params_from_tensors(graph_names(tensors), WIDTH))
    np.testing.assert_allclose(found, run(params_from_tensors(ones, WIDTH)), atol=1e-5)


def test_missing_foreign_and_misshaped_tensors_are_named(tensors):
    lacking = {n: t for n, t in tensors.items() if n != "Mixed_4d.b2b.bn.running_mean"}
    with pytest.raises(ValueError, match=r"missing: Mixed_4d/b2b \(mean\)"):
        params_from_tensors(lacking, WIDTH)
    with pytest.raises(ValueError, match="no part of an I3D: fc.weight"):
        params_from_tensors({**tensors, "fc.weight": np.zeros(3)}, WIDTH)
    wrong = {**tensors, "logits.conv3d.bias": np.zeros(10)}
    with pytest.raises(ValueError, match=r"logits \(bias\) has shape \(10,\); I3D needs \(400,\)"):
        params_from_tensors(wrong, WIDTH)


@pytest.mark.parametrize("kind", ["torchscript", "state_dict", "wrapped", "npz"])
def test_files_are_converted_once_and_hashed(kind, reference, tensors, tmp_path, capsys):
    source, target = tmp_path / f"weights.{'npz' if kind == 'npz' else 'pt'}", tmp_path / "i3d.st"
    if kind == "torchscript":
        module = Unrun(WIDTH).eval()
        module.load_state_dict(reference.state_dict())
        torch.jit.trace(module, torch.zeros(1)).save(str(source))
    elif kind == "npz":
        np.savez(source, **graph_names(tensors))
    else:
        state = reference.state_dict()
        torch.save({"state_dict": state} if kind == "wrapped" else state, source)
    convert_i3d.convert(source, target, WIDTH)
    weights = load_i3d(target, WIDTH)
    assert weights.source["source"] == source.name
    assert weights.sha256 in capsys.readouterr().out
    expected = params_from_tensors(tensors, WIDTH)
    np.testing.assert_array_equal(
        weights.params["Mixed_3b/b1b"]["kernel"], expected["Mixed_3b/b1b"]["kernel"]
    )
    with pytest.raises(ValueError, match="exists already"):
        convert_i3d.convert(source, target, WIDTH)


def test_bad_files_are_one_line(tmp_path, capsys):
    (tmp_path / "a.pt").write_bytes(b"nothing")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    (tmp_path / "a.npz").write_bytes(b"nothing")
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    for arguments, told in (
        ([tmp_path / "a.pt", tmp_path / "b"], "neither TorchScript nor a PyTorch file of tensors"),
        ([tmp_path / "module.pt", tmp_path / "b"], "a whole pickled module, are not read"),
        ([tmp_path / "a.npz", tmp_path / "b"], "is no NumPy file of plain arrays"),
        ([tmp_path / "objects.npz", tmp_path / "b"], "is no NumPy file of plain arrays"),
        ([tmp_path / "missing.pt", tmp_path / "b"], "is not a file"),
        ([tmp_path / "a.pt"], "convert_i3d i3d_torchscript.pt"),
    ):
        assert convert_i3d.main([str(argument) for argument in arguments]) == 2
        shown = capsys.readouterr().err
        assert told in shown and (len(shown.splitlines()) == 1 or len(arguments) < 2)
        assert "trust" not in shown and "allow_pickle" not in shown, "no way to run it is shown"
    with pytest.raises(ValueError, match="convert_i3d makes one"):
        load_i3d(tmp_path / "none")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_i3d(tmp_path / "a.pt")


@pytest.mark.parametrize("shape", [(1, 8, 224, 224, 3), (1, 9, 112, 224, 3), (9, 224, 224, 3)])
def test_other_sizes_are_refused(shape, tensors):
    with pytest.raises(ValueError, match="allowed"):
        i3d_logits(params_from_tensors(tensors, WIDTH), np.zeros(shape, np.float32))
