"""Whatever a person gets wrong: exit status 2, one plain sentence on standard error, and nothing half-written."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from safetensors.torch import load_file
from transformers import VitsModel
from transformers.utils.logging import disable_progress_bar

from vaani_lib.base import compact_tokenizer, save_voice
from vaani_lib.cli import main
from vaani_lib.demo import demo_sentences, make_corpus
from vaani_lib.vits import compact_config

QUICK = ("--batch-size", 2, "--grad-accum", 1, "--max-steps", 2, "--device", "cpu")
HEADER = "filename|text|speaker_id\n"


# ---- what the tests share


class Vaani:
    """`vaani` as a user calls it, in this process: the exit status, and what it wrote."""

    def __init__(self, capsys):
        self.capsys, self.out, self.err = capsys, "", ""

    def __call__(self, *arguments) -> int:
        self.capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit_:  # argparse leaves this way
            code = exit_.code
        self.out, self.err = self.capsys.readouterr()
        return code

    def train(self, data, out, *more, base="scratch") -> int:
        return self("train", "--data-dir", data, "--output-dir", out, "--run", "a", "--base", base, *QUICK, *more)

    def refuses(self, *arguments) -> str:
        assert self(*arguments) == 2, self.out
        return one_sentence(self.err)

    def refuses_training(self, data, out, *more, base="scratch") -> str:
        assert self.train(data, out, *more, base=base) == 2, self.out
        return one_sentence(self.err)


def one_sentence(err: str) -> str:
    """Standard error, if it is a line that a person can read and nothing else."""
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("vaani: "), err
    assert lines[0].rstrip().endswith((".", "?", "!")), err
    assert "Errno" not in err and "Traceback" not in err, err
    return lines[0].removeprefix("vaani: ")


def child(*arguments) -> subprocess.CompletedProcess:
    """`vaani` in a process of its own, without the Hub."""
    code = "import sys; from vaani_lib.cli import main; sys.exit(main())"
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, timeout=120)


def hashes(folder: Path) -> dict[str, str]:
    """Every file below `folder` and the SHA-256 of its bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def nothing_begun(out: Path) -> bool:
    """Whether `out` holds no file; an empty folder for the run may stay."""
    return not [path for path in out.rglob("*") if path.is_file()]


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.fixture
def vaani(capsys):
    disable_progress_bar()  # another test may have imported transformers before `vaani` could quiet it
    return Vaani(capsys)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder that goes when the tests are done: checkpoints are large."""
    folder = tmp_path_factory.mktemp("bad")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def corpus(place) -> Path:
    return make_corpus(place / "corpus", sorted(demo_sentences(), key=len)[:10])


@pytest.fixture(scope="module")
def run(place, corpus) -> Path:
    """A finished run of two steps, with a checkpoint after each of them."""
    command = ["train", "--data-dir", corpus, "--output-dir", place / "runs", "--run", "a", "--base", "scratch"]
    assert main(list(map(str, [*command, *QUICK, "--checkpoint-minutes", 0]))) == 0
    return place / "runs" / "a"


@pytest.fixture
def file(tmp_path) -> Path:
    """A regular file: below it nothing can be written, whoever asks."""
    path = tmp_path / "file"
    path.write_text("x")
    return path


# ---- the data folder


@pytest.mark.parametrize("command", ["check", "prepare", "train"])
def test_folder_without_metadata(vaani, tmp_path, command):
    (tmp_path / "data" / "audio").mkdir(parents=True)
    arguments = {"check": ("check", tmp_path / "data"), "prepare": ("prepare", tmp_path / "data", tmp_path / "out"),
                 "train": ("train", "--data-dir", tmp_path / "data", "--output-dir", tmp_path / "out", "--base", "scratch")}
    said = vaani.refuses(*arguments[command])
    assert str(tmp_path / "data") in said and "metadata.csv" in said and "audio/" in said and "Expected" in said
    assert nothing_begun(tmp_path / "out")


@pytest.mark.parametrize("content, named", [
    (b"", "holds no rows"), (HEADER.encode(), "holds no rows"), (b"one\ntwo\n", "no separator"),
    ("a.wav|caf\u00e9\n".encode("latin-1"), "not UTF-8"), (b"PK\x03\x04", "Excel")])
def test_metadata_that_is_no_table(vaani, tmp_path, content, named):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "metadata.csv").write_bytes(content)
    assert named in vaani.refuses_training(tmp_path / "data", tmp_path / "out")
    assert nothing_begun(tmp_path / "out")


def test_no_folder_at_all(vaani, tmp_path, file):
    for data in (tmp_path / "absent", file):
        assert f"There is no folder {data}" in vaani.refuses_training(data, tmp_path / "out")
    assert nothing_begun(tmp_path / "out")


# ---- rows and recordings: kind -> (row, what the report says, what left_out.csv says or None where it is used)

FAULTS = {
    "missing": ("audio/f_missing.wav|ચાલો જઈએ.|asha", "missing-file", "is not there"),
    "notext": ("audio/f_notext.wav||asha", "empty-text", "has no text"),
    "few": ("audio/f_few.wav", "empty-text", "1 of the 3 columns"),
    "truncated": ("audio/f_truncated.wav|ચાલો જઈએ.|asha", "truncated", "bytes"),
    "empty": ("audio/f_empty.wav|ચાલો જઈએ.|asha", "empty-file", "no bytes"),
    "silent": ("audio/f_silent.wav|ચાલો જઈએ.|asha", "silent", "nothing is louder"),
    "nan": ("audio/f_nan.wav|ચાલો જઈએ.|asha", "nan", "NaN"),
    "unknown": ("audio/f_unknown.wav|漢字 한글|asha", "unknown-characters", "knows no letter"),
    "stereo": ("audio/f_stereo.wav|ચાલો જઈએ.|asha", "stereo", None),
    "44100": ("audio/f_44100.wav|ચાલો જઈએ.|asha", "sample-rate", None),
    "8000": ("audio/f_8000.wav|ચાલો જઈએ.|asha", "sample-rate", None),
    "short": ("audio/f_short.wav|હા.|asha", "too-short", None),
}


def write_faulty(folder: Path, wav: np.ndarray, rate: int) -> None:
    """The recordings of FAULTS, made of the good one `wav` (T,)."""
    holed = np.where(np.arange(len(wav)) == 100, np.nan, wav)
    sounds = {"stereo": (np.stack([wav, wav], 1), rate), "short": (wav[4000:4000 + 3 * rate // 10], rate),
              "silent": (0 * wav, rate), "nan": (holed, rate)}
    sounds |= {str(new): (soxr.resample(wav, rate, new), new) for new in (44100, 8000)}
    for kind in FAULTS.keys() - {"missing"}:
        subtype = "FLOAT" if kind == "nan" else "PCM_16"
        soundfile.write(folder / f"f_{kind}.wav", *sounds.get(kind, (wav, rate)), subtype=subtype)
    cut(folder / "f_truncated.wav", (folder / "f_truncated.wav").stat().st_size // 3)
    cut(folder / "f_empty.wav", 0)


@pytest.fixture(scope="module")
def faulty(place, corpus) -> Path:
    folder = shutil.copytree(corpus, place / "faulty")
    with open(folder / "train" / "metadata.csv", "a", encoding="utf-8") as table:
        table.writelines(f"{row}\n" for row, _, _ in FAULTS.values())
    audio = folder / "train" / "audio"
    write_faulty(audio, *soundfile.read(sorted(audio.glob("*.wav"))[0]))
    return folder


def prepared_beside(run: Path) -> Path:
    "The one prepared set that training made beside its runs."
    (folder,) = (run.parent / ".prepared").iterdir()
    return folder


@pytest.fixture(scope="module")
def faulty_run(place, faulty) -> tuple[subprocess.CompletedProcess, Path]:
    out = place / "faulty_runs"
    return child("train", "--data-dir", faulty, "--output-dir", out, "--base", "scratch", *QUICK), out / "faulty"


def test_training_goes_on_with_the_rest(faulty_run):
    done, folder = faulty_run
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    used = sum(reason is None for _, _, reason in FAULTS.values())
    assert f"{9 + used} clips" in done.stdout and f"{len(FAULTS) - used} cannot be trained on" in done.stdout
    assert (folder / "last" / "model.safetensors").is_file()


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_is_said_and_the_usable_are_used(faulty_run, kind):
    done, folder = faulty_run
    _, code, reason = FAULTS[kind]
    prepared_set = prepared_beside(folder)
    prepared = json.loads((prepared_set / "prepared.json").read_text(encoding="utf-8"))
    left_out = (prepared_set / "left_out.csv").read_text(encoding="utf-8").splitlines()
    line = [line for line in left_out if f"f_{kind}.wav" in line]
    is_used = any(row["file"].endswith(f"f_{kind}.wav") for row in prepared["rows"])
    assert any(line.split()[1:2] == [code] for line in done.stdout.splitlines())
    assert is_used == (reason is None) and len(line) == (reason is not None), left_out
    assert reason is None or reason in line[0]


def test_left_out_names_files_in_one_way(faulty_run):
    "A row that could not be read is called as the others are: its place below the data folder."
    left_out = (prepared_beside(faulty_run[1]) / "left_out.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert [line for line in left_out if not line.startswith("train/audio/f_")] == []


@pytest.mark.parametrize("kind, reason", [
    ("missing", "is not there"), ("unknown", "knows no letter"), ("empty", "no bytes")])
def test_nothing_is_left(vaani, tmp_path, kind, reason):
    data, audio = tmp_path / "data", tmp_path / "data" / "audio"
    audio.mkdir(parents=True)
    text = "漢字" if kind == "unknown" else "કેમ છો"
    rows = [f"audio/{n}.wav|{text}{'.' * n}|asha\n" for n in range(1, 5)]
    (data / "metadata.csv").write_text(HEADER + "".join(rows), encoding="utf-8")
    for n in range(1, 5) if kind != "missing" else ():
        soundfile.write(audio / f"{n}.wav", 0.3 * np.sin(0.05 * n * np.arange(20000)), 16000)
        if kind == "empty":
            cut(audio / f"{n}.wav", 0)
    said = vaani.refuses_training(data, tmp_path / "out")
    assert "no recording that can be trained on" in said and reason in said
    assert nothing_begun(tmp_path / "out")
    assert vaani("check", data) == 1 and reason in vaani.out
    assert reason in vaani.refuses("prepare", data, tmp_path / "prepared") and not (tmp_path / "prepared").exists()


def test_nothing_to_validate_on_takes_no_run_name(vaani, tmp_path, corpus):
    data = shutil.copytree(corpus, tmp_path / "data")
    for wav in (data / "valid" / "audio").iterdir():
        cut(wav, 0)
    assert "valid" in vaani.refuses_training(data, tmp_path / "out")
    assert not (tmp_path / "out" / "a" / "run.json").exists()
    assert vaani.train(corpus, tmp_path / "out") == 0, vaani.err  # the data repaired, the same name goes


def test_prepared_at_another_rate(vaani, tmp_path, corpus):
    assert vaani("prepare", corpus, tmp_path / "set", "--sample-rate", 8000) == 0
    said = vaani.refuses_training(tmp_path / "set", tmp_path / "out")
    assert "8000 Hz" in said and "--sample-rate 16000" in said and nothing_begun(tmp_path / "out")
    cut(next((tmp_path / "set").glob("*.npy")), 100)
    assert "has 100 bytes" in vaani.refuses_training(tmp_path / "set", tmp_path / "out")


@pytest.mark.parametrize("rate", [0, -5])
def test_prepare_at_no_rate(vaani, tmp_path, corpus, rate):
    said = vaani.refuses("prepare", corpus, tmp_path / "set", "--sample-rate", rate)
    assert f"rate is {rate}" in said and not (tmp_path / "set").exists()


# ---- places that cannot be written


def test_output_that_cannot_be_written(vaani, file, corpus):
    assert f"{file / 'out'}" in (said := vaani.refuses_training(corpus, file / "out"))
    assert "cannot be written" in said and "--output-dir" in said
    assert str(file / "set") in vaani.refuses("prepare", corpus, file / "set")
    assert "holds other things" in vaani.refuses("prepare", corpus, file)
    assert "never touched" in vaani.refuses("prepare", corpus, corpus / "set")
    assert file.read_text() == "x"


@pytest.mark.parametrize("command", ["check --json", "check --html", "demo", "say"])
def test_file_that_cannot_be_written(vaani, file, corpus, run, command):
    arguments = {"check --json": ("check", corpus, "--json", file / "x.json"), "demo": ("demo", file / "demo"),
                 "check --html": ("check", corpus, "--html", file / "x.html"),
                 "say": ("say", "કેમ છો?", "--model", run, "--out", file / "x.wav")}
    said = vaani.refuses(*arguments[command])
    assert str(file) in said and "cannot be written" in said


@pytest.mark.parametrize("below", [True, False])
def test_drive_folder_that_cannot_be_written(vaani, file, tmp_path, corpus, monkeypatch, below):
    said = vaani.refuses_training(corpus, tmp_path / "out", "--drive-dir", file / "drive" if below else file)
    assert str(file) in said and "cannot be written" in said and "--drive-dir" in said
    assert nothing_begun(tmp_path / "out")


# ---- a run that exists


def test_run_with_other_settings_is_left_alone(vaani, run, corpus):
    before = hashes(run)
    said = vaani.refuses_training(corpus, run.parent, "--seed", 3, "--lr", 1e-3)
    assert "seed was 0 and is now 3" in said and "--lr was 0.0005 and is now 0.001" in said
    assert "--run" in said and "start anew" in said
    assert "batch" in vaani.refuses_training(corpus, run.parent, "--grad-accum", 4)
    assert hashes(run) == before


def test_run_with_other_data_is_left_alone(vaani, run, tmp_path):
    data = make_corpus(tmp_path / "data", demo_sentences()[-6:])
    before = hashes(run)
    said = vaani.refuses_training(data, run.parent)
    assert "data" in said and "10 clips" in said and "6 clips" in said and "--run" in said
    assert hashes(run) == before


def test_broken_checkpoint_gives_way_to_the_one_before(vaani, run, place, corpus):
    copy = shutil.copytree(run, place / "broken" / "a")
    newest = sorted((copy / "checkpoints").iterdir())[-1]
    cut(newest / "state.safetensors", 5000)
    assert vaani.train(corpus, copy.parent) == 0, vaani.err
    assert f"{newest.name} was skipped" in vaani.out and "epoch 0, step 1 in the run folder" in vaani.out
    shutil.rmtree(copy.parent)


@pytest.mark.parametrize("content", ["{", '{"run": "a"}', "[]"])
def test_broken_record(vaani, tmp_path, corpus, content):
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "run.json").write_text(content)
    assert "run.json" in vaani.refuses_training(corpus, tmp_path / "out")
    assert (tmp_path / "out" / "a" / "run.json").read_text() == content


@pytest.mark.parametrize("name", ["../beside", ".", ".."])
def test_run_name_that_leaves_the_output_folder(vaani, tmp_path, corpus, name):
    said = vaani.refuses_training(corpus, tmp_path / "out", "--run", name)
    assert name in said and "--run" in said and nothing_begun(tmp_path)


# ---- the base voice


def test_base_of_another_architecture(vaani, tmp_path, corpus):
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    for said in (vaani.refuses_training(corpus, tmp_path / "out", base=tmp_path / "bert"),
                 vaani.refuses("say", "કેમ છો?", "--model", tmp_path / "bert", "--out", tmp_path / "out" / "x.wav")):
        assert "'bert'" in said and "vits" in said and str(tmp_path / "bert") in said
    assert nothing_begun(tmp_path / "out")


def test_base_with_other_frames(vaani, tmp_path, corpus):
    tokenizer = compact_tokenizer()
    config = compact_config(len(tokenizer))
    config.upsample_rates, config.upsample_kernel_sizes = [8, 8, 2], [16, 16, 4]
    save_voice(VitsModel(config), tokenizer, ("asha",), tmp_path / "voice")
    said = vaani.refuses_training(corpus, tmp_path / "out", base=tmp_path / "voice")
    assert "128" in said and "256" in said and not (tmp_path / "out" / "a" / "run.json").exists()


def test_base_that_is_no_voice(vaani, tmp_path, corpus):
    said = vaani.refuses_training(corpus, tmp_path / "out", base=corpus)
    assert str(corpus) in said and "no voice" in said
    absent = tmp_path / "absent"
    assert f"no folder {absent}" in vaani.refuses_training(corpus, tmp_path / "out", base=absent)
    assert nothing_begun(tmp_path / "out")


@pytest.mark.parametrize("fault", ["weights cut", "weights gone", "config cut", "config a list", "no vocabulary",
                                   "other shape"])
def test_base_that_is_broken(vaani, tmp_path, run, corpus, fault):
    voice = shutil.copytree(run / "last", tmp_path / "voice")
    config = (voice / "config.json").read_text(encoding="utf-8")
    if fault == "weights cut":
        cut(voice / "model.safetensors", 1000)
    elif fault in ("weights gone", "no vocabulary"):
        (voice / ("vocab.json" if "vocabulary" in fault else "model.safetensors")).unlink()
    else:
        other = config.replace('"flow_size": 96', '"flow_size": 48')
        (voice / "config.json").write_text({"config cut": config[:40], "config a list": "[]"}.get(fault, other))
    assert str(voice) in vaani.refuses("say", "કેમ છો?", "--model", voice, "--out", tmp_path / "out" / "x.wav")
    assert str(voice) in vaani.refuses_training(corpus, tmp_path / "out", base=voice)
    assert nothing_begun(tmp_path / "out")


# ---- options


@pytest.mark.parametrize("option, value, named", [
    ("--precision", "fp8", "fp32, fp16, bf16"), ("--profile", "h100", "colab-t4"),
    ("--device", "tpu", "auto, cpu, cuda"), ("--freeze", "flow,text", "text_encoder"),
    ("--epochs", 0, "at least 1"), ("--max-steps", 0, "at least 1"),
    ("--batch-size", 0, "at least 1"), ("--batch-size", -2, "at least 1"), ("--grad-accum", 0, "at least 1"),
    ("--lr", 0, "above 0"), ("--lr", "nan", "above 0"), ("--lr", "inf", "learning_rate"), ("--seed", -1, "seed")])
def test_option_out_of_range(vaani, tmp_path, corpus, option, value, named):
    quick = [o for o in ("--device", "cpu", "--max-steps", 1) if option not in ("--device", "--max-steps")]
    said = vaani.refuses("train", "--data-dir", corpus, "--output-dir", tmp_path / "out", "--base", "scratch", *quick,
                         option, value)
    assert named in said and nothing_begun(tmp_path / "out")


def test_learning_rate_that_breaks_the_weights(vaani, tmp_path, corpus):
    "The bar writes to standard error here; the sentence stands on a line of its own, and nothing that is kept holds NaN."
    arguments = ("--base", "scratch", "--batch-size", 4, "--grad-accum", 1, "--device", "cpu", "--lr", 1e6)
    assert vaani("train", "--data-dir", corpus, "--output-dir", tmp_path, "--run", "a", *arguments) == 2
    said = one_sentence("\n".join(part for part in vaani.err.splitlines() if part.startswith("vaani: ")))
    assert "not finite" in said and "--lr" in said
    kept = [tensor for file in (tmp_path / "a").rglob("*.safetensors") for tensor in load_file(file).values()]
    assert all(tensor.isfinite().all() for tensor in kept)
    assert "checkpoint is good" not in said or list((tmp_path / "a" / "checkpoints").glob("ckpt-*"))


@pytest.mark.parametrize("arguments", [
    (), ("sing",), ("train",), ("say", "a", "--model", "b", "--out", "c.wav", "--seed", "x")])
def test_command_line_that_is_none(vaani, arguments):
    assert vaani(*arguments) == 2
    assert vaani.err.startswith("usage: vaani") and "error: " in vaani.err.splitlines()[-1]


@pytest.mark.parametrize("command", ["demo", "check", "prepare", "train", "say"])
def test_help_has_an_example(vaani, command):
    assert vaani(command, "--help") == 0
    assert f"example: vaani {command}" in vaani.out and not vaani.err


def test_check_answers_with_0_or_1(vaani, corpus, faulty):
    assert vaani("check", corpus) == 0 and not vaani.err
    assert vaani("check", faulty) == 1 and not vaani.err


# ---- speaking


def test_say_refuses(vaani, run, tmp_path):
    out = tmp_path / "x.wav"
    out.write_bytes(b"before")
    say = lambda text, *more, to=out: vaani.refuses("say", text, "--model", run, "--out", to, *more)
    assert "'nobody'" in (said := say("કેમ છો?", "--speaker", "nobody")) and "asha" in said and "dev" in said
    for text in ("", "   ", "☕ ☕", "漢字"):
        assert f"nothing in {text!r}" in say(text)
    for option, value in (("--speaking-rate", 0), ("--speaking-rate", "nan"), ("--noise-scale", -1)):
        assert option[2:].replace("-", "_") in say("કેમ છો?", option, value)
    for name in ("x.txt", "x"):
        assert ".wav" in say("કેમ છો?", to=tmp_path / name)
    assert hashes(tmp_path) == {"x.wav": hashlib.sha256(b"before").hexdigest()}


def test_say_without_a_voice(vaani, tmp_path, corpus):
    say = lambda model: vaani.refuses("say", "કેમ છો?", "--model", model, "--out", tmp_path / "x.wav")
    assert "vaani train --base scratch" in say("scratch")
    assert "no voice" in say(corpus) and "no folder" in say(tmp_path / "absent")
    assert nothing_begun(tmp_path)


# ---- the same in a process of its own: nothing else may reach standard error


def test_child_without_metadata(tmp_path):
    (tmp_path / "data").mkdir()
    done = child("train", "--data-dir", tmp_path / "data", "--output-dir", tmp_path / "out", "--base", "scratch")
    assert done.returncode == 2 and "metadata.csv" in one_sentence(done.stderr) and nothing_begun(tmp_path / "out")


def test_child_without_the_hub(tmp_path, corpus):
    done = child("train", "--data-dir", corpus, "--output-dir", tmp_path / "out", "--base", "nobody/nothing", *QUICK)
    said = one_sentence(done.stderr)
    assert done.returncode == 2 and "nobody/nothing" in said and "comes with Vaani: compact" in said
    assert nothing_begun(tmp_path / "out")


def test_child_says_what_it_does_not_read(tmp_path, run):
    done = child("say", "કેમ છો ☕?", "--model", run, "--out", tmp_path / "x.wav")
    said = one_sentence(done.stderr)
    assert done.returncode == 0 and "'☕'" in said and "does not know" in said
    assert soundfile.info(tmp_path / "x.wav").frames > 1000 and "x.wav" in done.stdout
