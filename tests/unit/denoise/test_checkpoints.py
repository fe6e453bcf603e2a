"""State dictionaries as others saved them: wrapped, prefixed, in any precision, on any device."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from smoothapi.denoise.checkpoints import load_state, read_checkpoint, state_in
from smoothapi.denoise.networks import DnCNN
from smoothapi.denoise.storage import load_network, read_header, write_weights
from smoothapi.errors import DenoiserError
from smoothapi_adapters.torch.model import load_weights


class Net(nn.Module):
    """With a part that is called as wrappers call theirs."""

    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.fc = nn.Linear(4, 2)


@pytest.fixture
def net():
    torch.manual_seed(5)
    return Net()


def loads_as(net, path):
    fresh = Net()
    load_weights(fresh, Path(path))
    there = net.state_dict()
    return all(torch.equal(there[name], value) for name, value in fresh.state_dict().items())


def prefixed(net, prefix):
    return {f"{prefix}{name}": value for name, value in net.state_dict().items()}


PREFIXES = ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.",
            "model.module.", "module.model.", "module.module.", "net.", "ema_model.module."]  # fmt: skip
HOLDERS = [None, "state_dict", "model", "model_state_dict", "ema", "state_dict_ema", "model_ema"]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("holder", HOLDERS)
def test_prefixes_and_holders(net, prefix, holder, tmp_path):
    state = prefixed(net, prefix)
    beside = {"epoch": 3, "optimizer": {"lr": 0.1}, "step": torch.tensor(7)}
    torch.save(state if holder is None else {**beside, holder: state}, tmp_path / "a.pt")
    assert loads_as(net, tmp_path / "a.pt")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_in_safetensors(net, prefix, tmp_path):
    safetensors.torch.save_file(prefixed(net, prefix), tmp_path / "a.safetensors")
    assert loads_as(net, tmp_path / "a.safetensors")


def test_holders_in_holders_and_beside_each_other(net, tmp_path):
    other = Net().state_dict()
    torch.save({"model": {"state_dict": net.state_dict()}, "ema": other}, tmp_path / "a.pt")
    assert loads_as(net, tmp_path / "a.pt")
    torch.save({"model": {"name": "x"}, "ema": {"module": net.state_dict()}}, tmp_path / "b.pt")
    assert loads_as(net, tmp_path / "b.pt")


def test_what_torchs_own_wrappers_save(net, tmp_path):
    averaged = torch.optim.swa_utils.AveragedModel(net)
    for number, wrapper in enumerate((averaged, nn.DataParallel(net))):
        torch.save(wrapper.state_dict(), tmp_path / f"{number}.pt")
        assert loads_as(net, tmp_path / f"{number}.pt")


def test_a_wrapped_network_takes_plain_names(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "a.pt")
    wrapped = nn.DataParallel(Net())
    load_weights(wrapped, tmp_path / "a.pt")
    assert torch.equal(wrapped.module.fc.weight, net.fc.weight)


@pytest.mark.parametrize("own", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("saved", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tensors_take_the_networks_own_type(net, saved, own, tmp_path):
    torch.save(copy.deepcopy(net).to(saved).state_dict(), tmp_path / "a.pt")
    fresh = Net().to(own)
    load_weights(fresh, tmp_path / "a.pt")
    assert fresh.fc.weight.dtype is own
    assert torch.equal(fresh.fc.weight, net.fc.weight.to(saved).to(own))


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_of_another_device_are_read_on_this_one(net, zipped, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.serialization.location_tag", lambda _: "cuda:3")
    torch.save(net.state_dict(), tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert loads_as(net, tmp_path / "a.pt")


def test_two_networks_in_one_file_are_not_mixed(net, tmp_path):
    torch.save(prefixed(net, "module.") | prefixed(Net(), "ema."), tmp_path / "a.pt")
    with pytest.raises(ValueError, match="more than one"):
        load_weights(Net(), tmp_path / "a.pt")


class Ambiguous(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.model = nn.Module()
        self.model.fc = nn.Linear(2, 2)


def test_names_that_only_differ_in_a_wrapper_are_taken_as_they_are(tmp_path):
    one, other = Ambiguous(), Ambiguous()
    torch.save(one.state_dict(), tmp_path / "a.pt")
    load_weights(other, tmp_path / "a.pt")
    assert torch.equal(one.fc.weight, other.fc.weight)
    assert torch.equal(one.model.fc.weight, other.model.fc.weight)
    torch.save(prefixed(one, "module."), tmp_path / "a.pt")
    with pytest.raises(ValueError, match="more than one"):
        load_weights(Ambiguous(), tmp_path / "a.pt")


def said_of(state, tmp_path, network=None):
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="cannot be loaded") as caught:
        load_weights(network or Net(), tmp_path / "a.pt")
    assert len(str(caught.value)) < 900
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_does_not_fit_is_said_by_its_name(net, tmp_path):
    state = net.state_dict()
    missing = {name: value for name, value in state.items() if name != "fc.bias"}
    assert "1 of 8 are missing (fc.bias)" in said_of(missing, tmp_path)
    assert "1 are not the network's (head.x)" in said_of(
        {**state, "head.x": torch.ones(1)}, tmp_path
    )
    larger = {**state, "fc.weight": torch.ones(1000, 4)}
    assert "fc.weight is (1000, 4) and not (2, 4)" in said_of(larger, tmp_path)
    many = {f"layer{n}.weight": torch.ones(1) for n in range(500)}
    told = said_of(many, tmp_path)
    assert "500 are not the network's (layer0.weight, layer1.weight, layer10.weight, ...)" in told
    assert "8 of 8 are missing" in told
    assert "no state dictionary" in said_of({"epoch": 1}, tmp_path)
    assert "no state dictionary" in said_of([torch.ones(1)], tmp_path)
    assert "torch.nn" in said_of(net, tmp_path) or "Net" in said_of(net, tmp_path)
    with pytest.raises(ValueError, match="is for a torch module"):
        load_weights(len, Path("x"))


def test_batch_norms_without_a_count_load(net, tmp_path):
    state = {k: v for k, v in net.state_dict().items() if "num_batches" not in k}
    torch.save(prefixed(net, "module."), tmp_path / "a.pt")
    assert loads_as(net, tmp_path / "a.pt")
    torch.save(state, tmp_path / "a.pt")
    load_weights(Net(), tmp_path / "a.pt")


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_in_weights_is_not_run(net, tmp_path):
    said = said_of({"state_dict": net.state_dict(), "x": Touch(tmp_path / "ran")}, tmp_path)
    assert "never run" in said
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"\x80", b"PK\x03\x04", b"{" * 100, b"\xff" * 100])
@pytest.mark.parametrize("suffix", ["pt", "safetensors", "bin"])
def test_damaged_files_are_refused_in_words(content, suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    with pytest.raises(DenoiserError):
        state_in(path, read_checkpoint(path))
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_weights(Net(), path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_a_denoisers_weights_likewise(dtype, prefix, tmp_path):
    torch.manual_seed(0)
    network = DnCNN(3, 4)
    state = {f"{prefix}{k}": v.to(dtype) if v.is_floating_point() else v
             for k, v in network.state_dict().items()}  # fmt: skip
    config = {"layers": 3, "channels": 4, "in_channels": 3}
    path = tmp_path / "a.safetensors"
    write_weights(path, state, architecture="dncnn", config=config)
    loaded = load_network(read_header(path))
    assert loaded.dncnn[0].weight.dtype is torch.float32
    assert torch.equal(loaded.dncnn[0].weight, network.dncnn[0].weight.to(dtype).float())


def test_a_denoisers_misfit_is_said_by_its_name(tmp_path):
    path = tmp_path / "a.safetensors"
    config = {"layers": 3, "channels": 5, "in_channels": 3}
    write_weights(path, DnCNN(3, 4).state_dict(), architecture="dncnn", config=config)
    with pytest.raises(DenoiserError, match=r"dncnn\.0\.weight is \(4, 3, 3, 3\) and not \(5"):
        load_network(read_header(path))
    with pytest.raises(DenoiserError, match="missing"):
        load_state(DnCNN(3, 4), {}, path)
