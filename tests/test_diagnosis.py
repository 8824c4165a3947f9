"""What the curves of a run are said to show: every fault by its name and nothing else, and of a healthy run nothing."""
import json
import shutil

import numpy as np
import pytest
import tiny_voice
from torch.utils.tensorboard import SummaryWriter

from vaani_lib import training
from vaani_lib.cli import main
from vaani_lib.diagnosis import Watch, diagnose
from vaani_lib.watching import ProgressBar

LENGTHS = [(24, 7), (60, 40), (150, 9)]  # epochs, steps an epoch


def losses_of(falling):
    """A healthy run: {loss: (training, validation)} of the time from 0 to 1. The rest as measured from scratch: KL rises
    once the latents mean something, and the GAN swings about its middle."""
    return {
        "reconstruction": (lambda t: 0.5 + falling(t), lambda t: 0.51 + falling(t)),
        "kl_divergence": (lambda t: 1.2 + 15 * np.exp(-90 * t) + 0.4 * t, lambda t: 0.4 + 4 * np.exp(-90 * t) + 0.8 * t),
        "duration": (lambda t: 0.45 + 0.4 * np.exp(-30 * t), lambda t: 0.45 + 0.03 * np.exp(-30 * t)),
        "discriminator": (lambda t: 2.3 + 0.7 * np.sin(60 * t),) * 2,
        "generator": (lambda t: 2.6 - 0.7 * np.sin(60 * t),) * 2,
        "feature_matching": (lambda t: 0.4 + 4.5 * (1 - np.exp(-20 * t)) * (1 - 0.3 * np.sin(60 * t)),) * 2,
    }


def curves_of(losses, epochs, steps, noise=0.06, seed=0, scale=1.0):
    """As a run logs them: training noisy from step to step, validation wandering a little from epoch to epoch."""
    random, when = np.random.default_rng(seed), np.arange(1, epochs * steps + 1)
    ends, curves = steps * np.arange(1, epochs + 1), {}
    for name, (train, valid) in losses.items():
        wander = np.convolve(random.normal(0, noise / 10, epochs + 3), np.full(4, 0.5), "valid")
        own = scale if name == "reconstruction" else 1.0
        curves[f"Loss/{name}"] = (when, own * train(when / when[-1]) * np.exp(random.normal(0, noise, len(when))))
        curves[f"Valid/{name}"] = (ends, own * valid(ends / when[-1]) * np.exp(wander))
    for kind, at in (("Loss", when), ("Valid", ends)):
        total = sum((45 if n == "reconstruction" else 1) * curves[f"{kind}/{n}"][1] for n in losses if n != "discriminator")
        curves[f"{kind}/total"] = (at, total)
    curves["Training/skipped"] = (when, np.zeros(len(when)))
    return curves


def slowly(t):
    return 0.3 * np.exp(-2 * t)


def soon(t):
    return 0.3 * np.exp(-15 * t)


def late(t):
    return np.clip((t - 0.4) / 0.05, 0, 1)


def changed(falling=slowly, **losses):
    return losses_of(falling) | losses


def both(function):
    return (function,) * 2


FAULTS = {
    "overfitting": changed(reconstruction=(lambda t: 0.35 + 0.4 * np.exp(-2 * t), lambda t: 0.5 + soon(t) + 0.2 * t)),
    "plateau": changed(soon),
    "explosion": changed(kl_divergence=both(lambda t: 1.5 * 10 ** np.clip(30 * (t - 0.8), 0, 5))),
    "discriminator": changed(
        discriminator=both(lambda t: 2.4 - 2.3 * late(t)),
        generator=both(lambda t: 2.6 + 3.1 * late(t)),
        feature_matching=both(lambda t: 5 + 8 * late(t) + t),
    ),
    "durations": changed(duration=both(lambda t: 0.6 - 0.58 * late(t))),
}


@pytest.mark.parametrize("epochs, steps", LENGTHS)
@pytest.mark.parametrize("scale", [0.1, 1, 30])
@pytest.mark.parametrize("noise", [0.02, 0.06])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_nothing_else(fault, noise, scale, epochs, steps):
    found = diagnose(curves_of(FAULTS[fault], epochs, steps, noise, scale=scale), {"learning_rate": 2e-5})
    assert [finding.kind for finding in found] == [fault]


@pytest.mark.parametrize("epochs, steps", [(24, 20), (40, 20), (60, 20), (60, 40)])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_learned_by_heart_is_named_where_training_has_come_to_its_floor(seed, epochs, steps):
    """It falls no more by the time validation has risen for long enough to be sure."""
    low = lambda t: np.exp(-20 * t)
    losses = changed(reconstruction=(lambda t: 0.2 + 0.35 * low(t), lambda t: 0.45 + 0.1 * low(t) + 0.2 * t))
    assert [finding.kind for finding in diagnose(curves_of(losses, epochs, steps, seed=seed))] == ["overfitting"]


@pytest.mark.parametrize("epochs, steps", LENGTHS)
@pytest.mark.parametrize("fault", ["overfitting", "plateau", "durations"])
def test_an_epoch_whose_validation_is_missing_or_no_number_hides_nothing(fault, epochs, steps):
    curves = curves_of(FAULTS[fault], epochs, steps)
    for lost in (4, epochs - 4):
        ends = {tag: values for tag, values in curves.items() if tag.startswith("Valid/")}
        nan = {tag: (at, np.where(at == lost * steps, np.nan, values)) for tag, (at, values) in ends.items()}
        without = {tag: (np.delete(at, lost - 1), np.delete(values, lost - 1)) for tag, (at, values) in ends.items()}
        one = {"Valid/reconstruction": without["Valid/reconstruction"]}
        for broken in (nan, without, one):
            found = diagnose(curves | broken)
            assert [finding.kind for finding in found] == [fault]
            assert "nan" not in str(found[0])


@pytest.mark.parametrize("epochs, steps", LENGTHS)
@pytest.mark.parametrize("loss, before, after, words", [
    ("kl_divergence", 1.5, 30, "The KL loss has risen from 1."), ("reconstruction", 0.5, 0.9, "The mel loss has risen from 0.4")])
def test_a_loss_that_has_become_much_worse_for_good_is_an_explosion(loss, before, after, words, epochs, steps):
    losses = changed(**{loss: both(lambda t: before + (after - before) * np.clip((t - 0.5) / 0.1, 0, 1))})
    (found,) = diagnose(curves_of(losses, epochs, steps), {"learning_rate": 2e-5})
    assert found.kind == "explosion" and words in found.sentence


@pytest.mark.parametrize("epochs, steps", [(60, 2), (30, 4), (20, 7)])
def test_steps_that_are_no_numbers_are_seen_where_an_epoch_has_few(epochs, steps):
    curves = curves_of(losses_of(slowly), epochs, steps)
    when, values = curves["Loss/total"]
    late = (when > len(when) / 2) & (when % 2 == 0)
    for broken in ({"Loss/total": (when, np.where(late, np.nan, values))}, {"Training/skipped": (when, np.cumsum(late))}):
        assert [finding.kind for finding in diagnose(curves | broken)] == ["explosion"]


def test_weights_that_do_not_move_are_named_however_long_they_stand_still():
    start = {"reconstruction": 3.55, "kl_divergence": 68.4, "duration": 1.2, "discriminator": 6.24, "generator": 6.24,
             "feature_matching": 0.41}
    still = {name: both(lambda t, level=level: level + 0 * t) for name, level in start.items()}
    for epochs, steps in [(6, 9), *LENGTHS]:
        curves = curves_of(still, epochs, steps)
        curves |= {f"Valid/{name}": (curves[f"Valid/{name}"][0], np.linspace(1, 0.9999, epochs) * level)
                   for name, level in start.items()}
        (found,) = diagnose(curves, {"learning_rate": 1e-9})
        assert found.kind == "standstill" and "1e-09" in found.sentence and "without --lr" in found.remedy


def without_judges(losses):
    """As a run logs it that begins without discriminators (--loss-weights generator=0,feature_matching=0)."""
    return {name: curves for name, curves in losses.items() if name not in ("discriminator", "generator", "feature_matching")}


def test_weights_that_do_not_move_are_named_where_nothing_judges():
    still = {"reconstruction": 3.55, "kl_divergence": 68.4, "duration": 1.2}
    curves = curves_of({name: both(lambda t, level=level: level + 0 * t) for name, level in still.items()}, 6, 9)
    curves |= {f"Valid/{name}": (curves[f"Valid/{name}"][0], np.linspace(1, 0.9999, 6) * level) for name, level in still.items()}
    assert [finding.kind for finding in diagnose(curves)] == ["standstill"]


@pytest.mark.parametrize("epochs, steps", LENGTHS)
@pytest.mark.parametrize("losses", [losses_of(slowly), changed(reconstruction=both(lambda t: 0.45 - 0.004 * t))])
def test_of_a_healthy_run_without_judges_nothing_is_said(losses, epochs, steps):
    """The second is good from the start: its mel hardly moves, but what it says and when does."""
    assert diagnose(curves_of(without_judges(losses), epochs, steps)) == []


@pytest.mark.parametrize("epochs, steps", LENGTHS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "losses, noise",
    [
        (losses_of(slowly), 0.06),
        (losses_of(slowly), 0.3),  # clips one at a time
        (changed(lambda t: 3 * np.exp(-20 * t) + slowly(t)), 0.02),  # from scratch: a great fall first
        (changed(lambda t: 0.13 * slowly(t)), 0.002),  # little by little
        (changed(reconstruction=both(lambda t: 0.45 - 0.004 * t)), 0.06),  # good from the start
        (changed(lambda t: 0.015 * np.exp(-20 * t)), 0.01),  # good from the start, and a little better at once
        (changed(discriminator=both(lambda t: 2.5 + 0.03 * t), generator=both(lambda t: 2.4 + 0.03 * t),
                 feature_matching=both(lambda t: 3 + 0.04 * t)), 0.02),
        (changed(discriminator=both(lambda t: 1.3 + 0.3 * np.sin(60 * t)), generator=both(lambda t: 4.4 + 0.5 * t)), 0.06),
        (changed(discriminator=both(lambda t: 2.5 + 1.8 * np.sin(40 * t)),
                 generator=both(lambda t: 3 - 1.8 * np.sin(40 * t))), 0.06),
    ],
    ids=["falling", "noisy", "from scratch", "little by little", "good start", "soon better", "quiet", "strong judges", "swinging"],
)  # fmt: skip
def test_of_a_healthy_run_nothing_is_said(losses, noise, seed, epochs, steps):
    assert diagnose(curves_of(losses, epochs, steps, noise, seed)) == []


@pytest.mark.parametrize("epochs, steps", LENGTHS)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("noise", [0.01, 0.06, 0.3])
@pytest.mark.parametrize(
    "train, valid",
    [
        (lambda t: 0.35 + slowly(t), lambda t: 0.5 + soon(t)),
        (lambda t: 0.35 + slowly(t), lambda t: 0.5 + soon(t) + 0.01 * t),
        (lambda t: 0.4 + soon(t) + 0.1 * t, lambda t: 0.5 + soon(t) + 0.1 * t),
    ],
    ids=["stands", "rises by a hair", "rises as training does"],
)
def test_validation_above_training_alone_is_no_overfitting(train, valid, noise, seed, epochs, steps):
    losses = changed(reconstruction=(train, valid))
    for part in (1, 0.8, 0.6):  # as it was when less had been trained
        curves = curves_of(losses, epochs, steps, noise, seed)
        last = int(part * epochs) * steps
        begun = {tag: (when[when <= last], values[when <= last]) for tag, (when, values) in curves.items()}
        assert {finding.kind for finding in diagnose(begun)} <= {"plateau"}


@pytest.mark.parametrize("losses", [*FAULTS.values(), losses_of(slowly)])
@pytest.mark.parametrize("epochs, steps", [(1, 7), (2, 7), (2, 300)])
def test_a_run_of_one_or_two_epochs_is_left_in_peace(losses, epochs, steps):
    whole = curves_of({name: loss for name, loss in losses.items() if name != "kl_divergence"}, 40, steps)
    begun = {tag: (when[when <= epochs * steps], values[when <= epochs * steps]) for tag, (when, values) in whole.items()}
    assert diagnose(begun) == []


def test_what_is_not_a_number_is_an_explosion_and_only_that():
    curves = curves_of(FAULTS["overfitting"], 40, 9)
    when, values = curves["Valid/total"]
    (found,) = diagnose(curves | {"Valid/total": (when, np.append(values[:-1], np.nan))}, {"precision": "fp16"})
    assert found.kind == "explosion" and "epoch 40 is not a number" in found.sentence
    assert "--precision fp32" in found.remedy and "vaani check" in found.remedy


def test_half_precision_may_skip_its_first_steps_and_one_now_and_then():
    curves = curves_of(losses_of(slowly), 30, 20)
    when = curves["Training/skipped"][0]
    assert diagnose(curves | {"Training/skipped": (when, np.minimum(when, 12) + when // 200)}) == []
    early = {tag: (at[at <= 20], values[at <= 20]) for tag, (at, values) in curves.items()}
    assert diagnose(early | {"Training/skipped": (when[:20], np.minimum(when[:20], 12))}) == []
    once = np.where(when == 590, np.nan, curves["Loss/total"][1])
    assert diagnose(curves | {"Loss/total": (when, once)}) == []
    half = when // 2 * (when > 580)
    assert [finding.kind for finding in diagnose(curves | {"Training/skipped": (when, half)})] == ["explosion"]


def test_while_a_run_trains_a_fault_is_said_once_and_a_healthy_run_is_left_in_peace():
    for losses, expected in ((FAULTS["overfitting"], ["overfitting"]), (losses_of(slowly), [])):
        curves, said, watch = curves_of(losses, 60, 9), [], Watch({"learning_rate": 2e-5})
        for step in range(1, 541):
            watch.add({tag: float(values[when == step][0]) for tag, (when, values) in curves.items() if step in when}, step)
            said += watch.news() if step % 9 == 0 else []
        assert [finding.kind for finding in said if finding.kind != "plateau"] == expected


def written(train, valid, wrong, epochs, steps, noise=0.1, jitter=0.01, seed=0):
    """A recogniser's run, of the time from 0 to 1: noisy training, a validation without noise of its own, and what it writes
    wrong, which is also counted before the first step."""
    random, when = np.random.default_rng(seed), np.arange(1, epochs * steps + 1)
    ends, at = steps * np.arange(1, epochs + 1), steps * np.arange(epochs + 1)
    loss = train(when / when[-1]) * np.exp(random.normal(0, noise, len(when)))
    held_out = valid(ends / when[-1]) * np.exp(random.normal(0, jitter, epochs))
    rates = {"CER": (at, wrong(at / when[-1]) * np.exp(random.normal(0, 3 * jitter, epochs + 1)))}
    rates |= {"WER": (at, 2 * rates["CER"][1])}
    losses = {f"Loss/{name}": (when, loss) for name in ("cross_entropy", "total")}
    losses |= {f"Valid/{name}": (ends, held_out) for name in ("cross_entropy", "total")}
    return losses | {f"{unit}/normalised": rate for unit, rate in rates.items()} | {"Training/skipped": (when, np.zeros(len(when)))}


def better(t):
    return 0.15 + 0.5 * np.exp(-6 * t)


def by_heart(t):
    return 0.02 + 1.2 * np.exp(-6 * t)


def sure(t):
    return 0.25 + 0.8 * np.exp(-14 * t) + 0.35 * t


def learning(t):
    return 0.1 + 1.2 * np.exp(-2 * t)


def learnt(t):
    return 0.2 + 1.2 * np.exp(-14 * t)


WRITTEN_FAULTS = {
    "overfitting": (by_heart, sure, lambda t: 0.15 + 0.5 * np.exp(-14 * t) + 0.05 * t),
    "plateau": (learnt, learnt, lambda t: learnt(t) / 2),
    "explosion": (lambda t: learning(t) + 7 * late(t - 0.4), lambda t: learning(t) + 7 * late(t - 0.4), better),
    "repetition": (learning, learning, lambda t: better(t) + 0.4 * late(t - 0.2)),
}
RUNS = [(12, 20), (14, 300), (30, 30)]


@pytest.mark.parametrize("epochs, steps", RUNS)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fault", WRITTEN_FAULTS)
def test_a_recogniser_s_fault_is_named_and_nothing_else(fault, seed, epochs, steps):
    found = diagnose(written(*WRITTEN_FAULTS[fault], epochs, steps, jitter=0.002, seed=seed), {"learning_rate": 1e-5})
    assert [finding.kind for finding in found] == [fault]
    assert "voice" not in str(found[0]) and "sound" not in str(found[0])


@pytest.mark.parametrize("epochs, steps", RUNS)
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("noise, jitter", [(0.1, 0.003), (0.5, 0.03)], ids=["quiet", "noisy"])
@pytest.mark.parametrize(
    "train, valid, wrong",
    [
        (learning, learning, better),
        (lambda t: 1e-4 + 1.2 * np.exp(-20 * t), lambda t: 0.2 + 0.5 * np.exp(-3 * t), better),
        (by_heart, sure, lambda t: 0.6 - 0.4 * t),
        (learning, lambda t: 0.1 + learning(t), lambda t: 0.2 + 0 * t),
    ],
    ids=["learning", "by heart, and no worse", "sure of itself, and better", "as many mistakes as before"],
)
def test_of_a_healthy_recogniser_nothing_is_said(train, valid, wrong, noise, jitter, seed, epochs, steps):
    whole = written(train, valid, wrong, epochs, steps, noise, jitter, seed)
    for part in (1, 0.7, 0.4):  # as it was when less had been trained
        last = int(part * epochs) * steps
        assert diagnose({tag: (when[when <= last], values[when <= last]) for tag, (when, values) in whole.items()}) == []


def test_a_recogniser_that_does_not_move_is_named_and_one_that_has_settled_is_not():
    still = written(lambda t: 0.4 + 0 * t, lambda t: 0.4 + 0 * t, lambda t: 0.3 + 0 * t, 6, 20, jitter=0)
    (found,) = diagnose(still, {"learning_rate": 1e-10})
    assert found.kind == "standstill" and "1e-10" in found.sentence
    settled = written(lambda t: 0.4 + 0 * t, lambda t: 0.4 + 0 * t, lambda t: np.where(t > 0, 0.3, 0.31), 6, 20, jitter=0)
    assert diagnose(settled) == [], "its first epoch made it better"


@pytest.mark.parametrize("curves", [{}, {"Loss/total": ([], [])}, {"Loss/total": ([1], [3.0])}, {"Valid/total": ([4], [3.0])}])
def test_a_run_with_hardly_any_curves_gets_no_diagnosis(curves):
    assert diagnose(curves) == []


def test_the_command_reads_a_run_s_folder_and_answers_with_its_exit_status(tmp_path, capsys):
    for name, losses, status in (("heart", FAULTS["overfitting"], 1), ("fine", losses_of(slowly), 0)):
        with SummaryWriter(str(tmp_path / name / "logs" / "tensorboard")) as log:
            for tag, (steps, values) in curves_of(losses, 24, 7).items():
                for step, value in zip(steps.tolist(), values, strict=True):
                    log.add_scalar(tag, value, step)
        (tmp_path / name / "run.json").write_text(json.dumps({"settings": {"learning_rate": 2e-5}}))
        assert main(["diagnose", str(tmp_path / name)]) == status
    heart, fine = capsys.readouterr().out.splitlines()
    assert "learns the recordings by heart" in heart and "--lr 1e-05 (it was 2e-05)" in heart
    assert "nothing that is certainly wrong" in fine
    (tmp_path / "new" / "logs" / "tensorboard").mkdir(parents=True)
    assert main(["diagnose", str(tmp_path / "new")]) == 2
    assert capsys.readouterr().err == "vaani: new has no curves yet: nothing was logged under logs/tensorboard.\n"


class Told(ProgressBar):
    """A progress bar that keeps what it was told of each epoch: {epoch: findings}."""

    def __init__(self):
        self.findings = {}

    def on_epoch(self, epoch):
        super().on_epoch(epoch)
        self.findings[epoch.number] = epoch.findings


@pytest.fixture
def session(tmp_path, monkeypatch):
    """session(learning rate, last epoch, steps an epoch) goes on with the run on a new machine, from Drive, to that epoch.
    Returns ({epoch: findings the watcher was given}, what was said)."""
    tiny_voice.narrow_discriminators(monkeypatch.setattr)
    base, data = tiny_voice.make_voice(tmp_path / "base"), tiny_voice.make_recordings(tmp_path)

    def go_on(rate, epoch, steps=7):
        cut = dict(batch_size=1, grad_accum=1) if steps == 7 else {}
        settings = tiny_voice.settings(base, 8, learning_rate=rate, learning_rate_decay=1.0, max_steps=steps * epoch, **cut)
        told, said = Told(), []
        training.train(settings, data, tmp_path / "runs", "run", tmp_path / "drive", watcher=told, say=said.append)
        shutil.rmtree(tmp_path / "runs")
        return told.findings, said

    return go_on


def test_a_run_that_does_not_move_is_told_so_once_in_each_session(session):
    """30 steps after the first epoch, at the end of the sixth, the rule is certain: it needs the curves of both sessions."""
    nothing, said = session(1e-12, 4)
    assert nothing == dict.fromkeys((1, 2, 3, 4), ()) and not any("learning rate" in words for words in said)
    found, said = session(1e-12, 7)
    assert found.keys() == {5, 6, 7} and found[5] == found[7] == ()
    (sentence,) = found[6]
    assert "In 35 steps no validation loss has moved" in sentence and "1e-12 does nothing. Start a new run" in sentence
    assert said.count(sentence) == 1 and said[said.index(sentence) - 1].startswith("epoch 6/8")
    found, said = session(1e-12, 8)  # who reads only this session's output learns of it, too
    (sentence,) = found[8]
    assert "In 49 steps" in sentence and said.count(sentence) == 1


def test_a_run_that_learns_is_told_nothing(session):
    found, said = session(1e-3, 6)
    assert found == dict.fromkeys(range(1, 7), ()) and not any("Start a new run" in words for words in said)


def test_a_run_that_has_run_away_is_told_so_once(session):
    """The first step makes weights that overflow; what follows is skipped, and no epoch has anything to keep."""
    found, said = session(1e30, 2, tiny_voice.STEPS)
    lost = [words for words in said if "the validation loss is not finite" in words]
    assert not found and [words.split(":")[0] for words in lost] == ["epoch 1", "epoch 2"], said
    assert "Training has run away" in lost[0] and "--lr 1e+29 (it was 1e+30)" in lost[0] and "run away" not in lost[1]
