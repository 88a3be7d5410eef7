import pytest
import torch

from aevorium.diffusion.device import CPU, find_device
from aevorium.errors import ConfigError, ExitStatus


def test_cpu_is_always_there():
    assert find_device("cpu") == CPU


@pytest.mark.parametrize("has_cuda", [False, True])
def test_auto_takes_a_cuda_device_where_there_is_one(has_cuda, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    assert find_device("auto").type == ("cuda" if has_cuda else "cpu")
    assert find_device("cpu").type == "cpu"


def test_a_cuda_device_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="finds no CUDA device") as caught:
        find_device("cuda")
    assert caught.value.code == "DEVICE_NOT_FOUND"
    assert caught.value.exit_status == ExitStatus.USAGE
