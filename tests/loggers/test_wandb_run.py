"""Whether a W&B run is uploaded: never asked for, never waited for."""

from pathlib import Path

import pytest
import wandb

from ssl_video.loggers import wandb_run
from ssl_video.loggers.wandb_run import WandbRun, choose_mode, has_account
from ssl_video.utils.errors import InputError
from ssl_video.utils.wandb_file import read_history, run_files


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "netrc"


def test_without_an_account_a_run_stays_here() -> None:
    assert not has_account()
    assert choose_mode("auto") == choose_mode(True) == "offline"


def test_an_account_in_the_environment_or_a_netrc_file_uploads(
    no_account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_account.write_text("machine api.wandb.ai login user password secret\n")
    assert choose_mode("auto") == choose_mode(False) == "online"
    assert choose_mode(True) == "offline"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")  # another server has no entry
    assert choose_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert choose_mode("auto") == "online"


def test_a_broken_netrc_file_is_no_account(no_account: Path) -> None:
    no_account.write_text("machine machine machine")
    assert choose_mode("auto") == "offline"


@pytest.mark.parametrize("mode", ["offline", "disabled", "online"])
def test_the_library_s_own_variable_is_heeded(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    assert choose_mode("auto") == mode


def test_an_upload_that_cannot_be_is_refused_not_asked_for() -> None:
    with pytest.raises(InputError, match=r"logger\.wandb\.offline=false needs an account.*`wandb sync`"):
        choose_mode(False)


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account, and a server on this machine that does not listen."""
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(wandb_run, "CONNECT_SECONDS", 2.0)
    wandb.teardown()  # the library has read its variables already


@pytest.mark.slow
@pytest.mark.usefixtures("no_server")
def test_a_server_that_does_not_answer_leaves_the_run_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = WandbRun(save_dir=str(tmp_path), run_id="abc12345")
    assert logger.mode == "online"
    logger.log_metrics({"train/loss": 2.0}, step=0)
    logger.close(exit_code=0)
    assert "http://127.0.0.1:9 gave no answer within 2 s; this run stays offline." in capsys.readouterr().out
    [file] = run_files(tmp_path, "abc12345")
    assert [row["train/loss"] for row in read_history(file)] == [2.0]


@pytest.mark.slow
@pytest.mark.usefixtures("no_server")
def test_where_uploading_was_demanded_no_answer_is_a_refusal(tmp_path: Path) -> None:
    logger = WandbRun(save_dir=str(tmp_path), run_id="abc12345", offline=False)
    with pytest.raises(InputError, match=r"gave no answer within 2 s, and logger\.wandb\.offline=false"):
        logger.log_metrics({"train/loss": 2.0}, step=0)
