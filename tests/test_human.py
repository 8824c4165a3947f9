"""The whole path with a human voice in another language: checked, prepared, trained, resumed, spoken."""
import numpy as np
import soundfile

from vaani_lib.cli import main


def test_ljspeech_from_recordings_to_a_voice(human_recordings, tmp_path, capsys):
    data, prepared, runs = str(human_recordings), str(tmp_path / "prepared"), str(tmp_path / "runs")
    assert main(["check", data]) == 0
    assert "32 recordings" in capsys.readouterr().out
    assert main(["prepare", data, prepared]) == 0
    train = ["train", "--data-dir", prepared, "--output-dir", runs, "--run", "lj", "--base", "scratch", "--device", "cpu",
             "--batch-size", "4", "--grad-accum", "1"]
    assert main([*train, "--max-steps", "3"]) == 0
    assert main([*train, "--max-steps", "5"]) == 0
    out = capsys.readouterr().out
    assert "Going on with lj" in out and "5 steps" in out
    assert main(["say", "in being comparatively modern.", "--model", f"{runs}/lj", "--out", str(tmp_path / "lj.wav")]) == 0
    wav, rate = soundfile.read(tmp_path / "lj.wav")
    assert rate == 16000 and len(wav) > 0.2 * rate and np.isfinite(wav).all() and np.abs(wav).max() > 0
