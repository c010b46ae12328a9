import pytest


@pytest.fixture(autouse=True)
def config_home(tmp_path_factory, monkeypatch):
    """No test sees the presets of whoever runs it."""
    home = tmp_path_factory.mktemp("config")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    return home
